"""Feature stores: Zarr groups of float arrays with a row per video (or class), found by id.

Written by `clip_text`, `clip_image`, `embed_mv` and `embed_image`. Every chunk has a CRC, and rows that were never
written read as NaN. So a damaged or missing feature is an error, never a row of zeros.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moclip.errors import StoreError
from moclip.files.links import folder_to_fill, follow_link

CHUNK_BYTES = 4 * 2**20

Arrays = Mapping[str, tuple[np.ndarray, tuple[str, ...]]]


def to_unit_length(features: np.ndarray) -> np.ndarray:
    """Scale `features` (..., d) to unit length along the last axis."""
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


@dataclass(frozen=True)
class ArrayLayout:
    """The layout of an array: the `shape` of a row, the dtype, and the names of a row's dimensions."""

    shape: tuple[int, ...]
    dtype: str
    dimensions: tuple[str, ...]

    @property
    def chunk_rows(self) -> int:
        """The number of rows in a chunk of about `CHUNK_BYTES`."""
        return max(1, CHUNK_BYTES // max(1, int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize))


def write_group(path: Path, ids: Sequence[str], arrays: Arrays, attributes: Mapping[str, Any]) -> None:
    """Write a Zarr group.

    Parameters
    ----------
    ids : (n,), of the rows.
    arrays : name -> (values (n, ...), names of the dimensions after the first).
    """
    layouts = {
        name: ArrayLayout(values.shape[1:], values.dtype.str, dimensions)
        for name, (values, dimensions) in arrays.items()
    }
    write_group_in_pieces(path, ids, layouts, [{name: values for name, (values, _) in arrays.items()}], attributes)


def write_group_in_pieces(
    path: Path,
    ids: Sequence[str],
    layouts: Mapping[str, ArrayLayout],
    pieces: Iterable[Mapping[str, np.ndarray]],
    attributes: Mapping[str, Any],
) -> None:
    """Write a Zarr group whose rows arrive in `pieces` (name -> values): the bytes of `write_group`, in little memory.

    Raises ValueError where the pieces of an array do not have one row per id.
    """
    import zarr  # not installed where a bundle only predicts

    group = zarr.open_group(path, mode="w", zarr_format=3, attributes=dict(attributes))
    names = np.array(list(ids), dtype=np.dtypes.StringDType())
    group.create_array("id", data=names, dimension_names=["video"])
    writers = {
        name: _RowWriter(_create_array(group, name, len(names), layout), layout) for name, layout in layouts.items()
    }
    for piece in pieces:
        for name, values in piece.items():
            writers[name].add(values)
    for name, writer in writers.items():
        if (count := writer.finish()) != len(names):
            raise ValueError(f"{name} has {count} rows for {len(names)} ids")


def _create_array(group: Any, name: str, count: int, layout: ArrayLayout) -> Any:
    from zarr.codecs import BloscCodec, Crc32cCodec

    dtype = np.dtype(layout.dtype)
    return group.create_array(
        name,
        shape=(count, *layout.shape),
        dtype=dtype,
        chunks=(max(1, min(count, layout.chunk_rows)), *layout.shape),
        compressors=[BloscCodec(cname="zstd", clevel=3, shuffle="shuffle", typesize=dtype.itemsize), Crc32cCodec()],
        fill_value=np.nan if dtype.kind == "f" else -1,
        dimension_names=["video", *layout.dimensions],
    )


class _RowWriter:
    """Collects rows of an array and writes them in whole chunks."""

    def __init__(self, array: Any, layout: ArrayLayout) -> None:
        self.array, self.chunk_rows = array, layout.chunk_rows
        self.waiting = np.empty((0, *layout.shape), layout.dtype)
        self.written = 0

    def add(self, values: np.ndarray) -> None:
        self.waiting = np.concatenate([self.waiting, values]) if len(self.waiting) else values
        if whole := len(self.waiting) // self.chunk_rows * self.chunk_rows:
            self._write(self.waiting[:whole])
            self.waiting = self.waiting[whole:]

    def finish(self) -> int:
        """Write the remaining rows. Return how many rows were added in all."""
        self._write(self.waiting)
        return self.written

    def _write(self, values: np.ndarray) -> None:
        if len(values) and self.written + len(values) <= self.array.shape[0]:
            self.array[self.written : self.written + len(values)] = values
        self.written += len(values)


def write_features(
    path: Path, ids: Sequence[str], arrays: Arrays, attributes: Mapping[str, Any], storage: str | None = None
) -> None:
    """Write a store of one group (`write_group`) atomically. With a URL `storage`, write it there, and a link here."""
    with folder_to_fill(path, storage) as folder:
        write_group(folder, ids, arrays, attributes)


class Features:
    """A feature store, or a `group` of one. Arrays are read into memory at their first use.

    Parameters
    ----------
    path : the store, or a link to one at a URL.
    stage : the stage that writes it, named in messages.

    Raises
    ------
    StoreError
        There is no store.
    """

    def __init__(self, path: Path, stage: str, group: str = "") -> None:
        import zarr

        self.path, self.stage = path / group, stage
        folder, _ = follow_link(path)
        try:
            self._group = zarr.open_group((folder / group if group else folder).zarr_store(), mode="r")
            self.ids = [str(name) for name in self._group["id"][:]]
        except (FileNotFoundError, KeyError):
            raise StoreError("no feature store here", where=self.path, fix=f"run: moclip {stage}") from None
        self.attributes: dict[str, Any] = dict(self._group.attrs)
        self._row = {name: row for row, name in enumerate(self.ids)}
        self._loaded: dict[str, np.ndarray] = {}

    def array(self, name: str) -> np.ndarray:
        """Return the array `name`, (n, ...), rows in the order of `ids`. Raises StoreError where it is damaged."""
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
        """Return rows of array `name`, (len(ids), ...). Raises StoreError as `array` and for unknown ids."""
        missing = [id_ for id_ in ids if id_ not in self._row]
        if missing:
            raise StoreError(
                f"no feature of {missing[0]}" + (f" and {len(missing) - 1} more" if len(missing) > 1 else ""),
                where=self.path,
                fix=f"run: moclip {self.stage}",
            )
        return self.array(name)[[self._row[id_] for id_ in ids]]

    def _damaged(self, name: str, reason: str) -> StoreError:
        fix = f"remove it and run: moclip {self.stage}"
        return StoreError(f"array {name!r} is damaged: {reason}", where=self.path, fix=fix)
