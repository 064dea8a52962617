"""Crop, flip and enlarge whole batches of motion fields on their device.

A field travels as its int8 grid (2.4 kB) and becomes a picture here. Crop, flip and resize are separable: two
small products with rows of linear-interpolation weights: picture = Wy @ field @ Wx^T.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Crops:
    """A box for each of n fields, in cells of the grid: `top`, `left`, `height`, `width`, `flip`, each (n,)."""

    top: np.ndarray
    left: np.ndarray
    height: np.ndarray
    width: np.ndarray
    flip: np.ndarray

    def repeat(self, times: int) -> Crops:
        """Each box `times` times over, for the segments of a clip share their box."""
        return Crops(*(np.repeat(part, times) for part in self._parts()))

    def tile(self, times: int) -> Crops:
        """The whole sequence of boxes `times` times over: each field is seen in every box of a protocol."""
        return Crops(*(np.tile(part, times) for part in self._parts()))

    def __getitem__(self, rows: slice) -> Crops:
        return Crops(*(part[rows] for part in self._parts()))

    def _parts(self) -> tuple[np.ndarray, ...]:
        return self.top, self.left, self.height, self.width, self.flip


def random_crops(
    count: int, grid: tuple[int, int], scales: tuple[float, ...], flip: bool, generator: np.random.Generator
) -> Crops:
    """TSN's multi-scale cropping (arXiv 1608.00859, section 3.2) with mirroring for `count` clips.

    Height and width are drawn from `scales` times the short side, at most one step of scale apart; the place is one
    of 13 (corners, edges, centre, and the quarter points).
    """
    short = min(grid)
    pairs = np.array([(a, b) for i, a in enumerate(scales) for j, b in enumerate(scales) if abs(i - j) <= 1])
    sides = pairs[generator.integers(len(pairs), size=count)] * short
    steps = np.array(
        [
            (0, 0),
            (0, 4),
            (4, 0),
            (4, 4),
            (2, 2),
            (0, 2),
            (4, 2),
            (2, 0),
            (2, 4),
            (1, 1),
            (1, 3),
            (3, 1),
            (3, 3),
        ]
    )
    place = steps[generator.integers(len(steps), size=count)] / 4
    mirrored = generator.random(count) < 0.5 if flip else np.zeros(count, dtype=bool)
    top, left = place[:, 0] * (grid[0] - sides[:, 0]), place[:, 1] * (grid[1] - sides[:, 1])
    return Crops(top, left, sides[:, 0], sides[:, 1], mirrored)


def protocol_crops(grid: tuple[int, int], share: float, crops: int) -> Crops:
    """The boxes of a test protocol: 1 (centre), 5 (corners and centre) or 10 (those five, then mirrored).

    Square, `share` of the short side.
    """
    side = share * min(grid)
    down, right = grid[0] - side, grid[1] - side
    places = {1: [(0.5, 0.5)], 5: [(0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0.5)]}
    chosen = np.array(places[1 if crops == 1 else 5])
    flip = np.zeros(len(chosen), dtype=bool)
    if crops == 10:
        chosen, flip = np.tile(chosen, (2, 1)), np.repeat([False, True], 5)
    sides = np.full(len(chosen), side)
    return Crops(chosen[:, 0] * down, chosen[:, 1] * right, sides, sides, flip)


def crop_and_resize(fields: torch.Tensor, crops: Crops, size: int) -> torch.Tensor:
    """Cut each field's box, or the only one, out and enlarge it: (n, 2, gh, gw) int8 -> (n, 2, size, size) float32.

    In [-1, 1]; 1 stands for the displacement at which the store saturates. Bilinear with half-pixel centres (as
    `interpolate(align_corners=False)` on the cut-out box). A mirrored field is read from right to left and its dx
    changes sign.
    """
    gh, gw = fields.shape[-2:]
    device = fields.device
    rows = _weights(crops.top, crops.height, gh, size)
    columns = _weights(crops.left, crops.width, gw, size)
    columns[crops.flip] = columns[crops.flip, ::-1]
    wy = torch.from_numpy(rows).to(device)
    wx = torch.from_numpy(columns).to(device)
    shown = wy[:, None] @ fields.to(torch.float32).div_(127) @ wx.transpose(1, 2)[:, None]
    sign = torch.from_numpy(np.where(crops.flip, -1.0, 1.0).astype(np.float32)).to(device)
    return torch.cat([shown[:, :1] * sign[:, None, None, None], shown[:, 1:]], dim=1)


def _weights(start: np.ndarray, extent: np.ndarray, cells: int, size: int) -> np.ndarray:
    """Rows of linear-interpolation weights: (n,) boxes on an axis of `cells` -> (n, size, cells) float32."""
    centre = start[:, None] + (np.arange(size) + 0.5) * extent[:, None] / size - 0.5
    # nothing outside the box is seen, as if it had been cut out first
    centre = np.clip(centre, start[:, None], start[:, None] + extent[:, None] - 1)
    distance = np.abs(centre[..., None] - np.arange(cells))
    return np.maximum(0.0, 1.0 - distance).astype(np.float32)
