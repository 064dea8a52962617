"""Take the camera's motion out of motion fields (`tsn.stabilise`)."""

from __future__ import annotations

import torch
from torch import Tensor

METHODS = ("median", "affine")
ITERATIONS = 8
LEAST_SCALE = 0.01
"""The least spread of residuals, in units of the field, that weights are reckoned with: about one stored level."""


def stabilise(fields: Tensor, method: str) -> Tensor:
    """Subtract the camera's motion from fields (n, 2, rows, columns) float32; return the same shape.

    "median" subtracts the median of each component over the cells. "affine" subtracts the motion that is affine in the
    cell's place (pan, tilt, zoom, roll): a robust least-squares fit, by iterative reweighting with Cauchy's weights
    (Holland and Welsch 1977), which begins at the median.
    """
    flat = fields.flatten(2)
    median = flat.median(dim=2, keepdim=True).values
    if method == "median":
        return (flat - median).view_as(fields)
    rows, columns = fields.shape[-2:]
    y = torch.linspace(-1, 1, rows, device=fields.device).repeat_interleave(columns)
    x = torch.linspace(-1, 1, columns, device=fields.device).repeat(rows)
    basis = torch.stack([torch.ones_like(x), x, y], dim=1)  # (cells, 3)
    ridge = 1e-4 * torch.eye(3, device=fields.device)
    motion = median.expand_as(flat)
    for _ in range(ITERATIONS):
        distance = (flat - motion).norm(dim=1)  # (n, cells)
        scale = distance.median(dim=1, keepdim=True).values.clamp(min=LEAST_SCALE)
        weights = 1 / (1 + (distance / scale).square())
        weighted = basis * weights[..., None]  # (n, cells, 3)
        gram = weighted.transpose(1, 2) @ basis + ridge
        motion = (basis @ torch.linalg.solve(gram, weighted.transpose(1, 2) @ flat.transpose(1, 2))).transpose(1, 2)
    return (flat - motion).view_as(fields)
