"""Training the fusion head on cached features: seconds, on any machine."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from moclip.fusion import Fusion
from moclip.training import BestEpoch, Log, epoch_generator


@dataclass(frozen=True)
class FusionRecipe:
    """The numbers of the head's training, as in params.yaml's group `fusion`."""

    lr: float
    weight_decay: float
    epochs: int
    batch: int
    seed: int


@dataclass(frozen=True)
class FusionData:
    """Cached features: `motion` (n, views, M), `stills` (n, K, P) of unit length, `labels` (n,)."""

    motion: Tensor
    stills: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> FusionData:
        return FusionData(self.motion.to(device), self.stills.to(device), self.labels.to(device))


def train_fusion(
    model: Fusion, train: FusionData, val: FusionData, recipe: FusionRecipe, device: torch.device, log: Log
) -> dict[str, float]:
    """Train the head in place with AdamW, one random view of each clip an epoch; leaves the best epoch's weights.

    `val` has one view. Classes without a clip in `train` or `val` are no choice in here, so that nothing teaches the
    head `text` that they never occur. Returns the best epoch's row.
    """
    model.to(device)
    occur = torch.cat([train.labels, val.labels]).unique()
    choices = torch.full((model.config.classes,), -torch.inf).index_fill_(0, occur, 0.0).to(device)
    train, val = train.to(device), val.to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    keeper = BestEpoch(model)
    for epoch in range(recipe.epochs):
        generator = epoch_generator(recipe.seed, epoch)
        order = torch.from_numpy(generator.permutation(len(train.labels))).to(device)
        view = torch.from_numpy(generator.integers(train.motion.shape[1], size=len(train.labels))).to(device)
        model.train()
        total, right = torch.zeros((), device=device), torch.zeros((), device=device)
        for rows in order.split(recipe.batch):
            logits = model(train.motion[rows, view[rows]], train.stills[rows]) + choices
            loss = functional.cross_entropy(logits, train.labels[rows])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            total += loss.detach() * len(rows)
            right += (logits.detach().argmax(1) == train.labels[rows]).sum()
        model.eval()
        with torch.inference_mode():
            logits = model(val.motion[:, 0], val.stills) + choices
        row = {
            "epoch": epoch,
            "train_loss": total.item() / len(train.labels),
            "train_top1": right.item() / len(train.labels),
            "val_loss": functional.cross_entropy(logits, val.labels).item(),
            "val_top1": (logits.argmax(1) == val.labels).float().mean().item(),
        }
        keeper.offer(row)
        log(row)
    keeper.restore()
    model.eval()
    return keeper.row
