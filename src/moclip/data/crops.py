"""Crop, flip and enlarge whole batches of motion fields on their device.

A field is moved to the device as its int8 grid (2.4 kB) and enlarged there. Crop, flip and resize are separable, so
they are two small matrix products with linear-interpolation weights: picture = Wy @ field @ Wx^T.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from moclip.data.stabilise import stabilise


@dataclass(frozen=True)
class Crops:
    """A box for each of n fields, in cells of the grid; `flip` mirrors the field. Each array is (n,)."""

    top: np.ndarray
    left: np.ndarray
    height: np.ndarray
    width: np.ndarray
    flip: np.ndarray

    def repeat(self, times: int) -> Crops:
        """Repeat each box, because the segments of a clip share their box."""
        return Crops(*(np.repeat(column, times) for column in self._columns()))

    def tile(self, times: int) -> Crops:
        """Repeat the whole sequence of boxes, because a protocol shows each field in all of its boxes."""
        return Crops(*(np.tile(column, times) for column in self._columns()))

    def __getitem__(self, rows: slice) -> Crops:
        return Crops(*(column[rows] for column in self._columns()))

    def _columns(self) -> tuple[np.ndarray, ...]:
        return self.top, self.left, self.height, self.width, self.flip


_POSITIONS = np.array(
    [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2), (0, 2), (4, 2), (2, 0), (2, 4), (1, 1), (1, 3), (3, 1), (3, 3)]
)
"""TSN's 13 positions of a box, in quarters of the free space: corners, centre, edges, quarter points."""


def random_crops(
    count: int, grid: tuple[int, int], scales: tuple[float, ...], flip: bool, generator: np.random.Generator
) -> Crops:
    """Draw a box for each of `count` clips: TSN's multi-scale cropping (arXiv 1608.00859, section 3.2) and mirroring.

    Height and width are drawn from `scales` times the short side, at most one step of scale apart. The position is one
    of 13 (corners, edges, centre, and the quarter points).
    """
    short = min(grid)
    pairs = np.array([(a, b) for i, a in enumerate(scales) for j, b in enumerate(scales) if abs(i - j) <= 1])
    sides = pairs[generator.integers(len(pairs), size=count)] * short
    position = _POSITIONS[generator.integers(len(_POSITIONS), size=count)] / 4
    mirrored = generator.random(count) < 0.5 if flip else np.zeros(count, dtype=bool)
    top, left = position[:, 0] * (grid[0] - sides[:, 0]), position[:, 1] * (grid[1] - sides[:, 1])
    return Crops(top, left, sides[:, 0], sides[:, 1], mirrored)


def protocol_crops(grid: tuple[int, int], share: float, crops: int) -> Crops:
    """Return the boxes of a test protocol: 1 (centre), 5 (corners and centre) or 10 (those five, then mirrored).

    The boxes are squares; their side is `share` of the short side of the grid.
    """
    side = share * min(grid)
    positions = np.array([(0.5, 0.5)] if crops == 1 else [(0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0.5)])
    flip = np.zeros(len(positions), dtype=bool)
    if crops == 10:
        positions, flip = np.tile(positions, (2, 1)), np.repeat([False, True], 5)
    sides = np.full(len(positions), side)
    return Crops(positions[:, 0] * (grid[0] - side), positions[:, 1] * (grid[1] - side), sides, sides, flip)


def crop_and_resize(fields: torch.Tensor, crops: Crops, size: int, stabilised: str | bool = False) -> torch.Tensor:
    """Cut out each field's box (or one box for all) and enlarge it: (n, C, gh, gw) int8 -> (n, C, size, size) float32.

    The channels are dx and dy, of one field or of several neighbouring ones. `stabilised` "median" or "affine" first
    takes the camera's motion out of each field (`moclip.data.stabilise`).

    The result is in [-1, 1]; 1 stands for the displacement at which the store saturates. Interpolation is bilinear with
    half-pixel centres, as `interpolate(align_corners=False)` on the box alone. A mirrored field is read from right to
    left and its dx changes sign.
    """
    gh, gw = fields.shape[-2:]
    device = fields.device
    rows = _interpolation_weights(crops.top, crops.height, gh, size)
    columns = _interpolation_weights(crops.left, crops.width, gw, size)
    columns[crops.flip] = columns[crops.flip, ::-1]
    wy = torch.from_numpy(rows).to(device)
    wx = torch.from_numpy(columns).to(device)
    values = fields.to(torch.float32).div_(127)
    if stabilised:
        values = stabilise(values.unflatten(1, (-1, 2)).flatten(0, 1), str(stabilised)).view_as(values)
    resized = wy[:, None] @ values @ wx.transpose(1, 2)[:, None]
    sign = torch.from_numpy(np.where(crops.flip, -1.0, 1.0).astype(np.float32)).to(device)[:, None, None]
    signs = [sign, torch.ones_like(sign)] * (fields.shape[1] // 2)
    return torch.stack([resized[:, channel] * sign for channel, sign in enumerate(signs)], dim=1)


def _interpolation_weights(start: np.ndarray, extent: np.ndarray, cells: int, size: int) -> np.ndarray:
    """Return rows of linear-interpolation weights: (n,) boxes on an axis of `cells` -> (n, size, cells) float32."""
    centre = start[:, None] + (np.arange(size) + 0.5) * extent[:, None] / size - 0.5
    # clipped so that cells outside the box get no weight
    centre = np.clip(centre, start[:, None], start[:, None] + extent[:, None] - 1)
    distance = np.abs(centre[..., None] - np.arange(cells))
    return np.maximum(0.0, 1.0 - distance).astype(np.float32)
