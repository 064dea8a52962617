"""Area-weighted means: from the codec's grid to the cells of the canvas."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

_WIDER = {"i": np.int64, "f": np.float64}  # what sums of whole numbers are kept in, by the kind of their type


class _Edges(NamedTuple):
    """Edges of the canvas's cells on one axis of the coded picture's grid, in whole units of length.

    Edge j lies in grid cell `cell[j]`, `rest[j]` units from its start; a grid cell is `width` units wide, and
    `lengths` are the canvas cells' own, of their part inside the canvas.
    """

    cell: np.ndarray
    rest: np.ndarray
    width: int
    lengths: np.ndarray


@functools.lru_cache(maxsize=64)
def axis_edges(side: int, canvas: int, cell: int, pitch: int, mirrored: bool, cropped: int) -> _Edges:
    at = np.minimum(np.arange(-(-canvas // cell) + 1) * cell, canvas) * side
    if mirrored:
        at = canvas * side - at[::-1]
    at = at + canvas * cropped
    width = pitch * canvas
    unit = np.gcd.reduce([*at, width])
    number, rest = np.divmod(at // unit, width // unit)
    return _Edges(number, rest, int(width // unit), np.diff(at // unit))


def integrate_between(values: np.ndarray, edges: _Edges, axis: int) -> np.ndarray:
    """Integrate `values`, constant in each grid cell, between neighbouring edges along an axis.

    Whole numbers below 2**53 throughout: the sums are exact, and the bytes stored the same on any machine. (Products
    with a matrix of overlaps take as long on one thread, and ten times as long on two.)
    """
    whole = _sums(values, edges.cell, axis)
    if not edges.rest.any():  # no edge cuts a grid cell, and that is the unit
        return whole
    last = np.minimum(edges.cell, values.shape[axis] - 1)  # the canvas's far edge may lie behind the last cell
    rest = values.take(last, axis) * edges.rest.reshape(-1, *[1] * (values.ndim - axis - 1)).astype(np.float64)
    return whole * float(edges.width) + np.diff(rest, axis=axis)


def _sums(values: np.ndarray, bounds: np.ndarray, axis: int) -> np.ndarray:
    """Sum `values` from each of the bounds to the next one, along an axis: the first of each, the second of each..."""
    spans = np.diff(bounds)
    before: tuple[Any, ...] = (slice(None),) * axis
    if (spans == spans[0]).all() and spans[0] > 0:
        parts = [values[(*before, slice(bounds[0] + k, bounds[-1], spans[0]))] for k in range(spans[0])]
        if len(parts) == 1:
            return parts[0]
        total = np.add(parts[0], parts[1], dtype=_WIDER[values.dtype.kind])
        for part in parts[2:]:
            total += part
        return total
    shape = (*values.shape[:axis], len(spans), *values.shape[axis + 1 :])
    total = np.zeros(shape, _WIDER[values.dtype.kind])
    for k in range(spans.max()):
        longer = np.flatnonzero(spans > k)
        total[(*before, longer)] += values.take(bounds[longer] + k, axis)
    return total
