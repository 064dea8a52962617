"""Exact integrals for area-weighted means: from the codec's grid to the cells of the canvas."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

_SUM_TYPE = {"i": np.int64, "f": np.float64}  # by the kind of the summed values' type


class AxisEdges(NamedTuple):
    """Edges of the canvas's cells on one axis of the codec's grid, in whole units of length.

    cell, rest : edge j lies in grid cell `cell[j]`, `rest[j]` units from its start.
    width : units per grid cell.
    lengths : units per canvas cell, of its part inside the canvas.
    """

    cell: np.ndarray
    rest: np.ndarray
    width: int
    lengths: np.ndarray


@functools.lru_cache(maxsize=64)
def axis_edges(side: int, canvas: int, cell: int, pitch: int, mirrored: bool, cropped: int) -> AxisEdges:
    """Return where the edges of the canvas's cells lie on the codec's grid.

    Parameters
    ----------
    side : px of the shown picture on this axis.
    canvas : px of the canvas on this axis.
    cell : px of a canvas cell.
    pitch : px of a grid cell.
    mirrored : whether the picture is shown mirrored on this axis.
    cropped : px of the grid before the shown picture.
    """
    positions = np.minimum(np.arange(-(-canvas // cell) + 1) * cell, canvas) * side
    if mirrored:
        positions = canvas * side - positions[::-1]
    positions = positions + canvas * cropped
    width = pitch * canvas
    unit = np.gcd.reduce([*positions, width])
    grid_cell, rest = np.divmod(positions // unit, width // unit)
    return AxisEdges(grid_cell, rest, int(width // unit), np.diff(positions // unit))


def integrate_between(values: np.ndarray, edges: AxisEdges, axis: int) -> np.ndarray:
    """Integrate `values`, constant in each grid cell, between neighbouring edges along an axis.

    All numbers are whole and below 2**53, so the sums are exact and the stored bytes are the same on any machine.
    (Products with a matrix of overlaps take as long on one thread, and ten times as long on two.)
    """
    whole_cells = _sum_between(values, edges.cell, axis)
    if not edges.rest.any():  # no edge cuts a grid cell, so a grid cell is the unit
        return whole_cells
    cut_cells = np.minimum(edges.cell, values.shape[axis] - 1)  # the last edge may lie behind the last grid cell
    rest = values.take(cut_cells, axis) * edges.rest.reshape(-1, *[1] * (values.ndim - axis - 1)).astype(np.float64)
    return whole_cells * float(edges.width) + np.diff(rest, axis=axis)


def _sum_between(values: np.ndarray, bounds: np.ndarray, axis: int) -> np.ndarray:
    """Sum `values` from each bound to the next one along an axis, for all bounds at once."""
    spans = np.diff(bounds)
    before: tuple[Any, ...] = (slice(None),) * axis
    if (spans == spans[0]).all() and spans[0] > 0:
        parts = [values[(*before, slice(bounds[0] + k, bounds[-1], spans[0]))] for k in range(spans[0])]
        if len(parts) == 1:
            return parts[0]
        total = np.add(parts[0], parts[1], dtype=_SUM_TYPE[values.dtype.kind])
        for part in parts[2:]:
            total += part
        return total
    shape = (*values.shape[:axis], len(spans), *values.shape[axis + 1 :])
    total = np.zeros(shape, _SUM_TYPE[values.dtype.kind])
    for k in range(spans.max()):
        longer = np.flatnonzero(spans > k)
        total[(*before, longer)] += values.take(bounds[longer] + k, axis)
    return total
