"""Training the fusion head on cached features: seconds, on any machine."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from moclip.data.fusion_data import FusionData
from moclip.models.fusion import Fusion
from moclip.training.common import BestEpoch, Log, LossError, autocast_type, epoch_generator


@dataclass(frozen=True)
class FusionRecipe:
    """The numbers of the head's training, as in params.yaml's group `fusion`."""

    lr: float
    weight_decay: float
    epochs: int
    batch: int
    seed: int
    precision: str = "fp32"


def train_fusion(
    model: Fusion, train: FusionData, val: FusionData, recipe: FusionRecipe, device: torch.device, log: Log
) -> dict[str, float]:
    """Train the head in place with AdamW, one random view of each clip an epoch; leaves the best epoch's weights.

    `val` has one view. Classes without a clip in `train` or `val` are no choice in here, so that nothing teaches the
    head `text` that they never occur. Returns the best epoch's row. Raises LossError where the loss is no longer a
    number.
    """
    model.to(device)
    occur = torch.cat([train.labels, val.labels]).unique()
    choices = torch.full((model.config.classes,), -torch.inf).index_fill_(0, occur, 0.0).to(device)
    train, val = train.to(device), val.to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    dtype = autocast_type(recipe.precision, device, dense=True)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    keeper = BestEpoch(model)
    pooled = None if model.pooling.attends else model.pooling(train.motion, train.stills)  # the same in every step
    for epoch in range(recipe.epochs):
        generator = epoch_generator(recipe.seed, epoch)
        order = torch.from_numpy(generator.permutation(len(train.labels))).to(device)
        view = torch.from_numpy(generator.integers(train.motion.shape[1], size=len(train.labels))).to(device)
        model.train()
        shown = []
        for rows in order.split(recipe.batch):
            with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                motion = train.motion[rows, view[rows]]
                logits = model(motion, train.stills[rows]) if pooled is None else model.score(motion, pooled[rows])
            logits = logits.float() + choices
            shown.append(logits.detach())
            optimiser.zero_grad(set_to_none=True)  # which need not look for the weights, as model.zero_grad does
            scaler.scale(functional.cross_entropy(logits, train.labels[rows])).backward()
            scaler.step(optimiser)
            scaler.update()
        train_loss, train_top1 = _scores(torch.cat(shown), train.labels[order])
        if not math.isfinite(train_loss):
            raise _lost(epoch, shown, order, train.labels, recipe.batch)
        model.eval()
        with torch.inference_mode():
            logits = model(val.motion[:, 0], val.stills) + choices
        val_loss, val_top1 = _scores(logits, val.labels)
        row = {
            "epoch": epoch,
            "train_loss": train_loss,
            "train_top1": train_top1,
            "val_loss": val_loss,
            "val_top1": val_top1,
        }
        keeper.offer(row)
        log(row)
    keeper.restore()
    model.eval()
    return keeper.row


def _lost(epoch: int, shown: list[Tensor], order: Tensor, labels: Tensor, batch: int) -> LossError:
    """Names the first step of an epoch whose loss is no number."""
    losses = [_scores(logits, labels[rows])[0] for logits, rows in zip(shown, order.split(batch), strict=True)]
    step = next((number for number, loss in enumerate(losses) if not math.isfinite(loss)), 0)
    return LossError.at(epoch, step, order.split(batch)[step].tolist(), "lower fusion.lr, or fusion.precision=fp32")


def _scores(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Cross-entropy and top-1."""
    right = logits.argmax(1) == labels
    return functional.cross_entropy(logits, labels).item(), right.float().mean().item()
