"""Small feature stores: Zarr groups of float arrays with a row per video (or class), looked up by id.

Written by `clip_text`, `clip_image`, `embed_mv` and `embed_image`. Every chunk carries a CRC, and what was never
written reads as NaN, so a damaged or missing feature is an error and not a row of zeros.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moclip.errors import StoreError
from moclip.files.links import folder_to_fill, follow_link

if TYPE_CHECKING:
    import torch
    from torch import Tensor


CHUNK_BYTES = 4 * 2**20

Arrays = Mapping[str, tuple[np.ndarray, tuple[str, ...]]]


def to_unit_length(features: np.ndarray) -> np.ndarray:
    """`features` (..., d) scaled to unit length."""
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


@dataclass(frozen=True)
class ArrayLayout:
    """An array whose rows are still to come: a row's `shape`, its type, and the names of its dimensions."""

    shape: tuple[int, ...]
    dtype: str
    dimensions: tuple[str, ...]

    @property
    def chunk(self) -> int:
        """How many rows make a chunk of about `CHUNK_BYTES`."""
        return max(1, CHUNK_BYTES // max(1, int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize))


def write_group(path: Path, ids: Sequence[str], arrays: Arrays, attributes: Mapping[str, Any]) -> None:
    """Write a Zarr group: `arrays` (name -> (values (n, ...), names of the dimensions after the first)), `ids` (n,)."""
    layout = {
        name: ArrayLayout(values.shape[1:], values.dtype.str, dimensions)
        for name, (values, dimensions) in arrays.items()
    }
    write_pieces(path, ids, layout, [{name: values for name, (values, _) in arrays.items()}], attributes)


def write_pieces(
    path: Path,
    ids: Sequence[str],
    layout: Mapping[str, ArrayLayout],
    pieces: Iterable[Mapping[str, np.ndarray]],
    attributes: Mapping[str, Any],
) -> None:
    """Write a Zarr group whose rows come some at a time: the same bytes as of `write_group`, in little memory.

    Raises ValueError where the pieces of an array have not as many rows as there are `ids`.
    """
    import zarr  # as in Features: who only predicts has none, and needs none

    group = zarr.open_group(path, mode="w", zarr_format=3, attributes=dict(attributes))
    names = np.array(list(ids), dtype=np.dtypes.StringDType())
    group.create_array("id", data=names, dimension_names=["video"])
    rows = {name: _Rows(_create(group, name, len(names), about), about) for name, about in layout.items()}
    for piece in pieces:
        for name, values in piece.items():
            rows[name].add(values)
    for name, written in rows.items():
        if (count := written.end()) != len(names):
            raise ValueError(f"{name} has {count} rows for {len(names)} ids")


def _create(group: Any, name: str, count: int, about: ArrayLayout) -> Any:
    from zarr.codecs import BloscCodec, Crc32cCodec

    dtype = np.dtype(about.dtype)
    return group.create_array(
        name,
        shape=(count, *about.shape),
        dtype=dtype,
        chunks=(max(1, min(count, about.chunk)), *about.shape),
        compressors=[BloscCodec(cname="zstd", clevel=3, shuffle="shuffle", typesize=dtype.itemsize), Crc32cCodec()],
        fill_value=np.nan if dtype.kind == "f" else -1,
        dimension_names=["video", *about.dimensions],
    )


class _Rows:
    """Rows on their way into an array: written in whole chunks."""

    def __init__(self, array: Any, about: ArrayLayout) -> None:
        self.array, self.chunk = array, about.chunk
        self.waiting = np.empty((0, *about.shape), about.dtype)
        self.written = 0

    def add(self, values: np.ndarray) -> None:
        self.waiting = np.concatenate([self.waiting, values]) if len(self.waiting) else values
        if whole := len(self.waiting) // self.chunk * self.chunk:
            self._write(self.waiting[:whole])
            self.waiting = self.waiting[whole:]

    def end(self) -> int:
        """Write the rest; how many rows there were."""
        self._write(self.waiting)
        return self.written

    def _write(self, values: np.ndarray) -> None:
        if len(values) and self.written + len(values) <= self.array.shape[0]:
            self.array[self.written : self.written + len(values)] = values
        self.written += len(values)


def write_features(
    path: Path, ids: Sequence[str], arrays: Arrays, attributes: Mapping[str, Any], elsewhere: str | None = None
) -> None:
    """Write a store of one group (`write_group`), atomically; with a URL `elsewhere` there, and a link to it here."""
    with folder_to_fill(path, elsewhere) as folder:
        write_group(folder, ids, arrays, attributes)


class Features:
    """A feature store, or a `group` of one, read into memory; `path` may hold a link to a URL (`storage`).

    Raises StoreError when it is not there, when it lacks a wanted id, or when a chunk is missing or damaged.
    """

    def __init__(self, path: Path, stage: str, group: str = "") -> None:
        import zarr

        self.path, self.stage = path / group, stage
        folder, _ = follow_link(path)
        try:
            self._group = zarr.open_group((folder / group if group else folder).zarr_store(), mode="r")
            self.ids = [str(name) for name in self._group["id"][:]]
        except (FileNotFoundError, KeyError):
            raise StoreError("no feature store here", where=self.path, fix=f"run: python -m stages.{stage}") from None
        self.attributes: dict[str, Any] = dict(self._group.attrs)
        self._row = {name: row for row, name in enumerate(self.ids)}
        self._loaded: dict[str, np.ndarray] = {}

    def array(self, name: str) -> np.ndarray:
        """The whole array `name`, (n, ...), rows in the order of `ids`."""
        if name not in self._loaded:
            try:
                values = np.asarray(self._group[name][:])
            except (KeyError, ValueError, RuntimeError) as problem:
                raise self._damaged(name, str(problem)) from None
            if values.dtype.kind == "f" and not (finite := np.isfinite(values)).all():
                rows = finite.reshape(len(values), -1).all(axis=1)
                raise self._damaged(name, f"no number is stored for {self.ids[int(rows.argmin())]}")
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


@dataclass(frozen=True)
class FusionData:
    """Features of a split's clips: `motion` (n, views, M), `stills` (n, K, P) of unit length, `labels` (n,)."""

    motion: Tensor
    stills: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> FusionData:
        return FusionData(self.motion.to(device), self.stills.to(device), self.labels.to(device))
