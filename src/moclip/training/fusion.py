"""Train the fusion head on cached features."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from moclip.data.balance import class_weights, draw_order
from moclip.data.clip_weights import mean_one
from moclip.data.fusion_data import FusionData
from moclip.models.fusion import Fusion
from moclip.training.common import LossError, autocast_type, epoch_generator
from moclip.training.epochs import BestEpoch, Log
from moclip.training.objective import hits, mean_loss, scores


@dataclass(frozen=True)
class FusionRecipe:
    """The hyperparameters of the head's training, as in the group `fusion` of params.yaml."""

    lr: float
    weight_decay: float
    epochs: int
    batch: int
    seed: int
    precision: str = "fp32"
    balance: str = "none"  # of the classes: "loss", "sampler"


def train_fusion_head(
    model: Fusion, train: FusionData, val: FusionData, recipe: FusionRecipe, device: torch.device, log: Log
) -> dict[str, float]:
    """Train the head in place with AdamW, on one random view per clip and epoch. Return the row of the best epoch.

    `model` ends with the weights of that epoch; with an empty `val`, of the last one. `val` has one view. Classes
    without a clip in `train` or `val` get logits of minus infinity, so that the head `text` does not learn that they
    never occur. A head without weights to train is only scored, once. Raises LossError if the loss is NaN or infinite.
    """
    model.to(device)
    mask = absent_mask(model, train, val).to(device)
    labels, weights = train.labels.numpy(), None
    if recipe.balance == "loss":
        weights = torch.from_numpy(class_weights(labels, model.config.classes)).to(device)
    clip_weights = None if train.weights is None else torch.from_numpy(mean_one(train.weights.numpy())).to(device)
    train, val = train.to(device), val.to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    dtype = autocast_type(recipe.precision, device, dense=True)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    best = BestEpoch(model)
    pooled = None if model.pooling.learns else model.pooling(train.motion, train.stills)  # the same in every step
    for epoch in range(recipe.epochs if model.trains else 1):
        generator = epoch_generator(recipe.seed, epoch)
        order = torch.from_numpy(draw_order(labels, recipe.balance, generator)).to(device)
        view = torch.from_numpy(generator.integers(train.motion.shape[1], size=len(train.labels))).to(device)
        model.train()
        step_logits = []
        for rows in order.split(recipe.batch):
            with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                motion = train.motion[rows, view[rows]]
                logits = model(motion, train.stills[rows]) if pooled is None else model.score(motion, pooled[rows])
            logits = logits.float() + mask
            step_logits.append(logits.detach())
            if model.trains:
                optimiser.zero_grad(set_to_none=True)  # model.zero_grad would search for the weights first
                own = None if clip_weights is None else clip_weights[rows]
                scaler.scale(mean_loss(logits, train.labels[rows], weights, own)).backward()
                scaler.step(optimiser)
                scaler.update()
        train_loss, train_top1 = _loss_and_top1(torch.cat(step_logits), train.labels[order])
        if not math.isfinite(train_loss):
            raise _loss_error(epoch, step_logits, order, train.labels, recipe.batch)
        model.eval()
        row = {"epoch": epoch, "train_loss": train_loss, "train_top1": train_top1}
        if len(val.labels):
            with torch.inference_mode():
                logits = model(val.motion[:, 0], val.stills) + mask
            row |= scores(logits, val.labels, "val")
        best.offer(row)
        log(row)
    best.restore_into(model)
    model.eval()
    return best.row


def absent_mask(model: Fusion, train: FusionData, val: FusionData) -> Tensor:
    """Return what is added to logits (n, classes): minus infinity for classes without a clip in `train` or `val`.

    Zero for clips with several labels, whose classes do not compete.
    """
    if train.labels.ndim == 2:
        return torch.zeros(model.config.classes)
    present = torch.cat([train.labels, val.labels]).unique()
    return torch.full((model.config.classes,), -torch.inf).index_fill_(0, present, 0.0)


def _loss_error(epoch: int, step_logits: list[Tensor], order: Tensor, labels: Tensor, batch: int) -> LossError:
    """Return the error that names the first step of an epoch whose loss is NaN or infinite."""
    steps = zip(step_logits, order.split(batch), strict=True)
    losses = [_loss_and_top1(logits, labels[rows])[0] for logits, rows in steps]
    step = next((number for number, loss in enumerate(losses) if not math.isfinite(loss)), 0)
    return LossError.at(epoch, step, order.split(batch)[step].tolist(), "lower fusion.lr, or fusion.precision=fp32")


def _loss_and_top1(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    return mean_loss(logits, labels).item(), hits(logits, labels).float().mean().item()
