"""Small feature stores: Zarr groups of float arrays with a row per video (or class), looked up by id.

Written by `clip_text`, `clip_image` and `embed_mv`. Every chunk carries a CRC, and what was never written reads as NaN,
so a damaged or missing feature is an error and not a row of zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from moclip.errors import StoreError
from moclip.files import folder_aside

CHUNK_BYTES = 4 * 2**20


Arrays = Mapping[str, tuple[np.ndarray, tuple[str, ...]]]


def normalised(features: np.ndarray) -> np.ndarray:
    """`features` (..., d) scaled to unit length."""
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


def write_group(path: Path, ids: Sequence[str], arrays: Arrays, attributes: Mapping[str, Any]) -> None:
    """Write a Zarr group: `arrays` (name -> (values (n, ...), names of the dimensions after the first)), `ids` (n,)."""
    import zarr  # as in Features: who only predicts has none, and needs none
    from zarr.codecs import BloscCodec, Crc32cCodec

    group = zarr.open_group(path, mode="w", zarr_format=3, attributes=dict(attributes))
    names = np.array(list(ids), dtype=np.dtypes.StringDType())
    group.create_array("id", data=names, dimension_names=["video"])
    for name, (values, dimensions) in arrays.items():
        if len(values) != len(names):
            raise ValueError(f"{name} has {len(values)} rows for {len(names)} ids")
        row_bytes = max(1, int(values.nbytes / max(1, len(values))))
        rows = max(1, min(len(values), CHUNK_BYTES // row_bytes))
        group.create_array(
            name,
            data=np.ascontiguousarray(values),
            chunks=(rows, *values.shape[1:]),
            compressors=[
                BloscCodec(cname="zstd", clevel=3, shuffle="shuffle", typesize=values.itemsize),
                Crc32cCodec(),
            ],
            fill_value=np.nan if values.dtype.kind == "f" else -1,
            dimension_names=["video", *dimensions],
        )


def write_features(path: Path, ids: Sequence[str], arrays: Arrays, attributes: Mapping[str, Any]) -> None:
    """Write a store of one group (`write_group`), atomically."""
    with folder_aside(path) as aside:
        write_group(aside, ids, arrays, attributes)


class Features:
    """A feature store read into memory.

    Raises StoreError when it is not there, when it lacks a wanted id, or when a chunk is missing or damaged.
    """

    def __init__(self, path: Path, stage: str) -> None:
        import zarr

        self.path, self.stage = path, stage
        try:
            self._group = zarr.open_group(path, mode="r")
            self.ids = [str(name) for name in self._group["id"][:]]
        except (FileNotFoundError, KeyError):
            raise StoreError("no feature store here", where=path, fix=f"run: python -m stages.{stage}") from None
        self.attributes: dict[str, Any] = dict(self._group.attrs)
        self._row = {name: row for row, name in enumerate(self.ids)}
        self._loaded: dict[str, np.ndarray] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._row

    def array(self, name: str) -> np.ndarray:
        """The whole array `name`, (n, ...), rows in the order of `ids`."""
        if name not in self._loaded:
            try:
                values = np.asarray(self._group[name][:])
            except (KeyError, ValueError, RuntimeError) as problem:
                raise self._damaged(name, str(problem)) from None
            if values.dtype.kind == "f" and np.isnan(values).any():
                rows = np.isnan(values).reshape(len(values), -1).any(axis=1)
                raise self._damaged(name, f"nothing stored for {self.ids[int(rows.argmax())]}")
            self._loaded[name] = values
        return self._loaded[name]

    def rows(self, name: str, ids: Sequence[str]) -> np.ndarray:
        """Rows of array `name` for `ids`, (len(ids), ...)."""
        absent = [one for one in ids if one not in self._row]
        if absent:
            raise StoreError(
                f"no feature of {absent[0]}" + (f" and {len(absent) - 1} more" if len(absent) > 1 else ""),
                where=self.path,
                fix=f"run: python -m stages.{self.stage}",
            )
        return self.array(name)[[self._row[one] for one in ids]]

    def _damaged(self, name: str, why: str) -> StoreError:
        fix = f"remove it and run: python -m stages.{self.stage}"
        return StoreError(f"array {name!r} is damaged: {why}", where=self.path, fix=fix)
