"""Pool the stills of a clip, (B, K, picture) of unit length, into one feature of unit length, (B, picture).

Each pooling begins as the mean. `learns` says whether it has weights to train.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from moclip.models.heads.config import FusionConfig

ATTENTION_HEADS = 4


class MeanPooling(nn.Module):
    """Equal weights."""

    learns = False

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()

    def forward(self, motion: Tensor, stills: Tensor) -> Tensor:
        return functional.normalize(stills.sum(1), dim=-1)


class AttentionPooling(nn.Module):
    """Weights softmax_k((q + W motion) . still_k), so the motion chooses the stills. q and W begin at zero."""

    learns = True

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.query = nn.Linear(config.motion, config.picture)
        nn.init.zeros_(self.query.weight)
        nn.init.zeros_(self.query.bias)

    def forward(self, motion: Tensor, stills: Tensor) -> Tensor:
        weights = torch.softmax(torch.einsum("bp,bkp->bk", self.query(motion), stills), dim=1)
        return functional.normalize(torch.einsum("bk,bkp->bp", weights, stills), dim=-1)


class TemporalPooling(nn.Module):
    """The mean, plus what a transformer layer (arXiv 1706.03762, pre-norm as in 2010.11929) makes of the sequence.

    Its tokens are the motion feature, mapped to the width of a still, and the K stills in their order, each with a
    learnt position. The output is read at the motion's token. Its last layer begins at zero.
    """

    learns = True

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        width = config.picture
        self.motion_token = nn.Linear(config.motion, width)
        self.positions = nn.Parameter(torch.randn(config.frames + 1, width) / math.sqrt(width))
        self.layer = TransformerLayer(width)
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, width)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, motion: Tensor, stills: Tensor) -> Tensor:
        token = functional.normalize(self.motion_token(motion), dim=-1)
        tokens = self.layer(torch.cat([token[:, None], stills], dim=1) + self.positions)
        mean = functional.normalize(stills.sum(1), dim=-1)
        return functional.normalize(mean + self.output(self.norm(tokens[:, 0])), dim=-1)


class TransformerLayer(nn.Module):
    """Self-attention and a two-layer network, each added to its input: (B, T, width) -> (B, T, width).

    PyTorch's own layer runs a fused kernel in eval mode, which the counter of multiply-adds does not see.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = math.gcd(ATTENTION_HEADS, width)
        self.attention_norm, self.network_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.projections = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        self.network = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attended(self._attend(self.attention_norm(tokens)))
        return tokens + self.network(self.network_norm(tokens))

    def _attend(self, tokens: Tensor) -> Tensor:
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.projections(tokens).chunk(3, dim=-1)
        )  # each (B, heads, T, width / heads)
        weights = torch.softmax(query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1]), dim=-1)
        return (weights @ value).transpose(1, 2).flatten(2)


POOLINGS: dict[str, type[MeanPooling | AttentionPooling | TemporalPooling]] = {
    "mean": MeanPooling,
    "attention": AttentionPooling,
    "temporal": TemporalPooling,
}
"""The values of `fusion.pooling`."""
