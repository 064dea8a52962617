"""Find the clips whose stored features are nearest to a clip's, by cosine.

The features may be larger than memory: they are read a block of rows at a time. The commands that ask the feature
store for similar clips, for labels to check and for clips to annotate use it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from moclip.errors import StoreError
from moclip.files.links import follow_link

BLOCK_BYTES = 32 * 2**20
"""Size of the float32 features that are in memory at once."""
QUERIES = 1024
"""Queries that are compared with a block at once."""


def open_array(path: Path, group: str, name: str) -> Any:
    """Open an array of a feature store without reading it. `path` is the store, or a link to one at a URL."""
    import zarr

    folder, _ = follow_link(path)
    return zarr.open_group((folder / group if group else folder).zarr_store(), mode="r")[name]


class FeatureRows:
    """Rows of an array of features, in memory or on disk. They are read in slices, and scaled to unit length.

    Parameters
    ----------
    array : (n, width), or (n, stills, width), of which the mean over the stills counts. A numpy array, a memory map or
        a Zarr array.
    rows : the numbers of the rows that count; None: all. All rows between the lowest and the highest number of a slice
        are read, so their order should be about that of the array.
    where : the store, named in messages.
    """

    def __init__(self, array: Any, rows: np.ndarray | None = None, where: str | Path = "") -> None:
        self.array, self.where = array, where
        self.rows = np.arange(array.shape[0]) if rows is None else np.asarray(rows, np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row while it is read."""
        return 4 * int(np.prod(self.array.shape[1:]))

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the rows `start` to `stop` (exclusive), (stop - start, width) float32 of unit length.

        Features that are all 0 stay so, and are like nothing. Raises StoreError where the store is damaged.
        """
        rows = self.rows[start:stop]
        if not len(rows):
            return np.zeros((0, self.array.shape[-1]), np.float32)
        try:
            first = int(rows.min())
            values = np.asarray(self.array[first : int(rows.max()) + 1], np.float32)
        except (ValueError, RuntimeError) as problem:
            raise StoreError(f"damaged: {problem}", where=self.where) from None
        if len(values) > len(rows) or (np.diff(rows) != 1).any():
            values = values[rows - first]
        if values.ndim == 3:
            values = values.mean(axis=1)
        lengths = np.linalg.norm(values, axis=1, keepdims=True)
        if not np.isfinite(lengths).all():
            raise StoreError(
                f"no number is stored in row {int(rows[np.argmin(np.isfinite(lengths))])}", where=self.where
            )
        return values / np.where(lengths > 0, lengths, 1)


def nearest(
    parts: Sequence[FeatureRows],
    queries: Sequence[np.ndarray],
    count: int,
    sources: tuple[np.ndarray, np.ndarray] | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the `count` rows with the highest cosine for each query.

    Parameters
    ----------
    parts : one or several kinds of features of the same m clips. With several, the cosine is that of the features of
        unit length side by side, which is the mean of the cosines.
    queries : for each kind (q, width), of unit length.
    sources : the sources of the queries (q,) and of the clips (m,), as integers. Clips of a query's own source are
        left out.
    block_bytes : size of the features that are in memory at once.

    Returns
    -------
    The numbers of the rows (q, count) int64 and the cosines (q, count) float32, the highest first, of equal ones the
    lower number. Where there are fewer clips, the rest is -1 and -inf.
    """
    total, asked = len(parts[0]), len(queries[0])
    best = np.full((asked, count), -1, np.int64)
    highest = np.full((asked, count), -np.inf, np.float32)
    step = max(1, block_bytes // sum(part.row_bytes for part in parts))
    for start in range(0, total, step):
        stop = min(start + step, total)
        blocks = [part.read(start, stop) for part in parts]
        for few in _slices(asked, QUERIES):
            cosines = sum(query[few] @ block.T for query, block in zip(queries, blocks, strict=True)) / len(parts)
            if sources is not None:
                cosines[sources[0][few, None] == sources[1][None, start:stop]] = -np.inf
            best[few], highest[few] = _merge(best[few], highest[few], cosines, start)
    return best, highest


def _merge(best: np.ndarray, highest: np.ndarray, cosines: np.ndarray, start: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the best of the rows so far and of a block's `cosines` (q, rows), whose first row is number `start`."""
    count = best.shape[1]
    if cosines.shape[1] > count:
        columns = np.sort(np.argpartition(-cosines, count - 1, axis=1)[:, :count], axis=1)
    else:
        columns = np.broadcast_to(np.arange(cosines.shape[1]), cosines.shape)
    values = np.take_along_axis(cosines, columns, axis=1)
    rows = np.where(np.isfinite(values), columns + start, -1)
    all_rows, all_values = np.concatenate([best, rows], axis=1), np.concatenate([highest, values], axis=1)
    order = np.argsort(-all_values, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(all_rows, order, axis=1), np.take_along_axis(all_values, order, axis=1)


def _slices(count: int, step: int) -> Iterator[slice]:
    return (slice(start, start + step) for start in range(0, count, step))
