"""The state of a training of MV-TSN, and its epochs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from timm.utils import ModelEmaV3
from torch import Tensor

from moclip.data.balance import class_weights, draw_order
from moclip.data.clip_weights import mean_one
from moclip.data.crops import Crops, crop_and_resize, random_crops
from moclip.errors import ModelError
from moclip.models.mv_tsn import MvTsn
from moclip.training.common import LossError, autocast_type, epoch_generator
from moclip.training.distributed import World, equal_slices
from moclip.training.embed import embed_protocol
from moclip.training.epochs import BestEpoch
from moclip.training.mirroring import NOT_MIRRORED
from moclip.training.mv_batches import MotionData, read_ahead, slice_batches
from moclip.training.mv_optimiser import epoch_steps, make_optimiser, make_schedules, steps_per_epoch
from moclip.training.mv_recipe import MvTsnRecipe
from moclip.training.objective import hits, scores, summed_loss


class MvTsnTraining:
    """The state of a training run: the network, its optimiser, and the rows of finished epochs (`history`).

    With `recipe.ema`, `average` holds the moving average of the weights and of the batch norms' statistics. `scored` is
    the network that is validated and kept: the average, or else the network itself.
    """

    def __init__(self, model: MvTsn, data: MotionData, recipe: MvTsnRecipe, world: World) -> None:
        self.data, self.recipe, self.world, self.device = data, recipe, world, world.device
        self._check_processes()
        self.model = model.to(self.device).to(memory_format=torch.channels_last)
        self.average = ModelEmaV3(model, recipe.ema, use_warmup=True) if recipe.ema else None
        self.scored: MvTsn = self.average.module if self.average else model
        self.forward = _compiled(model) if recipe.compile else world.distribute(model)
        self.epoch_steps = epoch_steps(recipe, len(data.train))
        self.optimiser = make_optimiser(model, recipe)
        self.schedules = make_schedules(self.optimiser, recipe, self.epoch_steps)
        self.optimiser.zero_grad()
        self.optimiser.step()  # changes nothing; without it PyTorch warns if float16 skips the first real step
        self.dtype = autocast_type(recipe.precision, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.weights: Tensor | None = None  # of the classes, in the loss
        if recipe.balance == "loss":
            weights = class_weights(data.train.labels, len(model.config.classes))
            self.weights = torch.from_numpy(weights).to(self.device)
        self.clip_weights = None if data.train.weights is None else mean_one(data.train.weights)
        self.best = BestEpoch(self.scored)
        self.history: list[dict[str, float]] = []

    def train_epoch(self, number: int) -> dict[str, float]:
        """Train one epoch (from 0), validate, and return the epoch's row."""
        lr = float(max(group["lr"] for group in self.optimiser.param_groups))
        train_loss, train_top1 = self._run_steps(number)
        row: dict[str, float] = {"epoch": number, "lr": lr, "train_loss": train_loss, "train_top1": train_top1}
        if len(self.data.val):
            row |= self._validate()
        self.history.append(row)
        self.best.offer(row)
        return row

    def _run_steps(self, epoch: int) -> tuple[float, float]:
        """Run all steps of an epoch. Return the mean loss and top-1 of the clips in its batches.

        All processes draw the same batches. Each works on its share of a batch.
        """
        clips, recipe, world = self.data.train, self.recipe, self.world
        generator = epoch_generator(recipe.seed, epoch)
        torch.manual_seed(int(generator.integers(2**31)) + world.rank)  # dropout
        batches = self._draw_batches(generator)
        reads = read_ahead(self.data.fields, [clips[rows] for rows in batches], recipe.segments, generator, world.share)
        self.model.train()
        totals = np.zeros(2)  # summed loss, and number of correct answers
        for step, (batch, read) in enumerate(reads):
            own = world.share(len(batch))
            boxes = random_crops(len(batch), self.data.fields.grid, recipe.crops, recipe.flip, generator)[own]
            boxes = _mirrored_where_allowed(boxes, batch.labels[own], recipe)
            grids = torch.from_numpy(read).to(self.device)
            views = crop_and_resize(
                grids, boxes.repeat(recipe.segments), self.model.config.size, self.model.config.stabilise
            )
            labels = torch.from_numpy(_labels_shown(batch.labels[own], boxes.flip, recipe)).to(self.device)
            totals += self._step(
                views.unflatten(0, (len(labels), -1)), labels, len(batch), self._weights_of(batches[step][own])
            )
            if not np.isfinite(totals).all():
                raise LossError.at(epoch, step, batches[step][own].tolist(), "lower tsn.lr, or tsn.precision=fp32")
            self._advance_schedules()
            if self.average:
                self.average.update(self.model, epoch * self.epoch_steps + step + 1)
        self._advance_schedules(self.epoch_steps - len(batches))  # as far as one process would have
        world.average_buffers(self.model)
        if self.average:
            world.average_buffers(self.scored)
        loss, correct = world.sum(torch.from_numpy(totals).to(self.device)).tolist()
        shown = sum(map(len, batches))
        return loss / shown, correct / shown

    def _weights_of(self, rows: np.ndarray) -> Tensor | None:
        """Return the weights of training clips in the loss, (n,); their mean over all is 1."""
        return None if self.clip_weights is None else torch.from_numpy(self.clip_weights[rows]).to(self.device)

    def _draw_batches(self, generator: np.random.Generator) -> list[np.ndarray]:
        """Draw the batches of an epoch: rows of the training clips, a pass over them after another (`draw_order`)."""
        count = len(self.data.train)
        slices = slice_batches(count, self.recipe.batch, 2 * self.world.size)
        steps = steps_per_epoch(self.recipe, len(slices))
        labels, balance = self.data.train.labels, self.recipe.balance
        orders = [draw_order(labels, balance, generator) for _ in range(0, steps, len(slices))]
        return [order[rows] for order in orders for rows in slices][:steps]

    def _advance_schedules(self, steps: int = 1) -> None:
        for _ in range(steps):
            for schedule in self.schedules:
                schedule.step()

    def _step(
        self, views: Tensor, labels: Tensor, batch: int, clip_weights: Tensor | None = None
    ) -> tuple[float, float]:
        """Make one step of the optimiser. Return this process's summed loss and number of correct answers.

        `views` (n, S, C, size, size) float32 and `labels`, (n,) or (n, classes), are this process's share of a batch of
        `batch` clips, `clip_weights` (n,) their weights in the loss.
        """
        parts = max(1, min(self.recipe.accumulate, batch // (2 * self.world.size)))  # BatchNorm needs two clips a part
        clips = batch / self.world.size  # gradients are averaged over the processes
        loss_sum, correct = 0.0, 0.0
        self.optimiser.zero_grad(set_to_none=True)
        for part in equal_slices(len(labels), parts):
            with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
                logits = self.forward(views[part])
            own = None if clip_weights is None else clip_weights[part]
            loss = summed_loss(logits.float(), labels[part], self.weights, self.recipe.label_smoothing, own)
            self.scaler.scale(loss / clips).backward()
            loss_sum += loss.item()
            correct += hits(logits, labels[part]).sum().item()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        return loss_sum, correct

    @torch.inference_mode()
    def _validate(self) -> dict[str, float]:
        """Return the scores of the validation clips (`objective.scores`). Each clip is scored by one process."""
        clips, recipe, model = self.data.val, self.recipe, self.scored
        own = self.world.share(len(clips))
        found = torch.zeros(len(clips), len(model.config.classes), device=self.device)
        if own.start < own.stop:
            batch = recipe.batch * recipe.segments
            _, logits = embed_protocol(
                model, self.data.fields, clips[own], recipe.segments, 1, recipe.test_crop, batch, self.device
            )
            found[own] = torch.from_numpy(logits)
        return scores(self.world.sum(found).cpu(), torch.tensor(clips.labels), "val")

    def _check_processes(self) -> None:
        if self.world.size == 1:
            return
        if self.recipe.compile:
            raise ModelError("torch.compile trains in one process only", fix="tsn.compile=false")
        batch = min(self.recipe.batch, len(self.data.train))
        if batch < 2 * self.world.size:
            raise ModelError(
                f"a batch of {batch} clips is too small for {self.world.size} processes: each needs two",
                fix="start fewer processes, or raise tsn.batch",
            )


def _mirrored_where_allowed(boxes: Crops, labels: np.ndarray, recipe: MvTsnRecipe) -> Crops:
    """Return the boxes (n,) of clips, without mirroring those of classes that must not be mirrored.

    `labels` are (n,), or (n, classes).
    """
    if not recipe.mirror_labels:
        return boxes
    kept = np.array(recipe.mirror_labels) == NOT_MIRRORED
    refused = (labels[:, kept] > 0).any(axis=1) if labels.ndim == 2 else kept[labels]
    return replace(boxes, flip=boxes.flip & ~refused)


def _labels_shown(labels: np.ndarray, mirrored: np.ndarray, recipe: MvTsnRecipe) -> np.ndarray:
    """Return the labels, (n,) or (n, classes), of clips of which some are `mirrored`, (n,)."""
    if not recipe.mirror_labels:
        return labels
    others = np.array(recipe.mirror_labels)  # pairs swap, so it is its own inverse
    others = np.where(others == NOT_MIRRORED, np.arange(len(others)), others)  # mirrored clips do not have these labels
    if labels.ndim == 2:
        return np.where(mirrored[:, None], labels[:, others], labels)
    return np.where(mirrored, others[labels], labels)


def _compiled(model: MvTsn) -> Callable[[Tensor], Tensor]:
    """Return the compiled `model`. It raises ModelError at the first batch if compiling fails."""
    forward = torch.compile(model)

    def call(fields: Tensor) -> Tensor:
        try:
            return cast(Tensor, forward(fields))
        except RuntimeError as problem:  # the base of the compiler's errors, which have no public names
            reason = str(problem).strip().splitlines()[0]
            raise ModelError(f"the compiled network failed: {reason}", fix="tsn.compile=false") from problem

    return call
