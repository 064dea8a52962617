"""Take the camera's motion out of motion fields (`tsn.stabilise`)."""

from __future__ import annotations

import torch
from torch import Tensor

ITERATIONS = 20
LEAST_SCALE = 0.01
"""The least spread of residuals, in units of the field, that weights are reckoned with: about one stored level."""


def stabilise(fields: Tensor, method: str) -> Tensor:
    """Subtract the camera's motion from fields (n, 2, rows, columns) float32; return the same shape.

    "median" subtracts the median of each component over the cells. "affine" subtracts the motion that is affine in the
    cell's place (pan, tilt, zoom, roll): a robust least-squares fit, by iterative reweighting with Cauchy's weights
    (Holland and Welsch 1977), which begins at the median.
    """
    flat = fields.flatten(2)
    median = _median(flat, 2)
    if method == "median":
        return (flat - median).view_as(fields)
    rows, columns = fields.shape[-2:]
    y = torch.linspace(-1, 1, rows, device=fields.device).repeat_interleave(columns)
    x = torch.linspace(-1, 1, columns, device=fields.device).repeat(rows)
    basis = torch.stack([torch.ones_like(x), x, y])  # (3, cells)
    products = (basis[:, None] * basis).flatten(0, 1)  # (9, cells)
    ridge = 1e-4 * torch.eye(3, device=fields.device)
    motion = median.expand_as(flat)
    for _ in range(ITERATIONS):
        distance = (flat - motion).square().sum(1).sqrt()  # (n, cells); norm(dim=1) takes 20 times as long on a CPU
        scale = _median(distance, 1).clamp(min=LEAST_SCALE)
        weights = 1 / (1 + (distance / scale).square())
        gram = (weights @ products.T).unflatten(1, (3, 3)) + ridge
        right = (weights[:, None] * flat) @ basis.T  # (n, 2, 3)
        motion = _solve(gram, right.transpose(1, 2)).transpose(1, 2) @ basis
    return (flat - motion).view_as(fields)


def _median(values: Tensor, dim: int) -> Tensor:
    """Return the median (of an even number the lower one) along `dim`, which stays with length 1."""
    return values.sort(dim).values.narrow(dim, (values.shape[dim] - 1) // 2, 1)


def _solve(matrices: Tensor, right: Tensor) -> Tensor:
    """Solve systems of three equations: (n, 3, 3), (n, 3, m) -> (n, 3, m). ONNX has no operator for it."""
    a, b, c = matrices.unbind(1)
    columns = torch.stack([_cross(b, c), _cross(c, a), _cross(a, b)], dim=2)  # of the inverse, times the determinant
    return columns @ right / (a * columns[..., 0]).sum(1)[:, None, None]


def _cross(a: Tensor, b: Tensor) -> Tensor:
    (a0, a1, a2), (b0, b1, b2) = a.unbind(1), b.unbind(1)
    return torch.stack([a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0], dim=1)
