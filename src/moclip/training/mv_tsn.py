"""Training MV-TSN on the store of motion fields, and running the trained network over clips.

Each epoch draws from its own random generator (seed, epoch), so a run that is killed and resumed ends with the same
bytes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from moclip.data.clip_batches import SampledFields, SplitClips
from moclip.data.crops import crop_and_resize, protocol_crops, random_crops
from moclip.errors import ModelError
from moclip.models.mv_tsn import MvTsn, parameter_groups
from moclip.models.weights import load_weights, save_weights
from moclip.training.common import BestEpoch, Log, LossError, autocast_type, epoch_generator
from moclip.training.distributed import World, slices


@dataclass(frozen=True)
class MvTsnRecipe:
    """The numbers of MV-TSN's training, as in params.yaml's group `tsn`."""

    segments: int
    epochs: int
    batch: int  # clips, of all processes together
    lr: float
    eps: float
    weight_decay: float
    lr_mult_head: float
    lr_mult_stem: float
    lr_mult_rest: float
    lr_steps: tuple[int, ...]
    crops: tuple[float, ...]
    flip: bool
    precision: str
    test_crop: float
    seed: int
    accumulate: int = 1  # parts of a batch that go through the network one after the other
    compile: bool = False


def recipe_fingerprint(recipe: MvTsnRecipe, **inputs: object) -> str:
    """A text that is equal exactly if a checkpoint may be resumed: the recipe and all other inputs."""
    return json.dumps({"recipe": asdict(recipe), **inputs}, sort_keys=True, default=str)


@dataclass(frozen=True)
class MotionData:
    """The store of motion fields, the clips to train on and those to choose the epoch on."""

    fields: SampledFields
    train: SplitClips
    val: SplitClips


def train_mv_tsn(
    model: MvTsn, data: MotionData, recipe: MvTsnRecipe, world: World, checkpoint: Checkpoint, log: Log
) -> dict[str, float]:
    """Train `model` in place and leave it with the weights of its best epoch on `data.val`. Returns that epoch's row.

    `log` gets one row an epoch (from the first on, also after a resume): epoch, lr, train_loss, train_top1, val_loss,
    val_top1. The checkpoint of the last epoch stays: remove it once the model is saved, so that a kill in between does
    not cost the training.

    The processes of a `world` share every batch and end with the same weights and rows; the main one writes the
    checkpoint. Raises LossError if the loss is no longer a number, and ModelError if the processes cannot train
    together.
    """
    training = MvTsnTraining(model, data, recipe, world)
    checkpoint.resume(training)
    if not world.agrees(f"{checkpoint.fingerprint} {len(training.history)}"):
        raise ModelError(
            "the processes read different parameters, clips or checkpoints", fix="run them in one folder that all share"
        )
    for row in training.history:
        log(row)
    for epoch in range(len(training.history), recipe.epochs):
        log(training.epoch(epoch))
        if world.main and (checkpoint.due() or epoch + 1 == recipe.epochs):
            checkpoint.save(training)
    training.best.restore()
    model.eval()
    return training.best.row


class MvTsnTraining:
    """One training run: the network, its optimiser, and the rows of the epochs that are done (`history`)."""

    def __init__(self, model: MvTsn, data: MotionData, recipe: MvTsnRecipe, world: World) -> None:
        self.data, self.recipe, self.world, self.device = data, recipe, world, world.device
        self._check_processes()
        self.model = model.to(self.device).to(memory_format=torch.channels_last)
        self.forward = _compiled(model) if recipe.compile else world.distribute(model)
        self.optimiser = optimiser_for(model, recipe)
        self.scheduler = step_schedule(self.optimiser, recipe)
        self.dtype = autocast_type(recipe.precision, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.best = BestEpoch(model)
        self.history: list[dict[str, float]] = []

    def epoch(self, number: int) -> dict[str, float]:
        """Train one epoch (from 0), validate, and return the epoch's row."""
        lr = float(max(self.scheduler.get_last_lr()))
        train_loss, train_top1 = self._train(number)
        self.scheduler.step()
        val_loss, val_top1 = self._validate()
        row: dict[str, float] = {
            "epoch": number,
            "lr": lr,
            "train_loss": train_loss,
            "train_top1": train_top1,
            "val_loss": val_loss,
            "val_top1": val_top1,
        }
        self.history.append(row)
        self.best.offer(row)
        return row

    def _train(self, epoch: int) -> tuple[float, float]:
        """Mean loss and top-1 of all clips. Every process draws the same batches and works on its share."""
        clips, recipe, world = self.data.train, self.recipe, self.world
        generator = epoch_generator(recipe.seed, epoch)
        torch.manual_seed(int(generator.integers(2**31)) + world.rank)  # dropout
        order = generator.permutation(len(clips))
        batches = [order[rows] for rows in _batches(len(clips), recipe.batch, 2 * world.size)]
        reads = _read_ahead(
            self.data.fields, [clips[rows] for rows in batches], recipe.segments, generator, world.share
        )
        self.model.train()
        totals = np.zeros(2)  # loss and correct answers
        for step, (batch, read) in enumerate(reads):
            own = world.share(len(batch))
            boxes = random_crops(len(batch), self.data.fields.grid, recipe.crops, recipe.flip, generator)[own]
            grids = torch.from_numpy(read).to(self.device)
            shown = crop_and_resize(grids, boxes.repeat(recipe.segments), self.model.config.size)
            labels = torch.from_numpy(batch.labels[own]).to(self.device)
            totals += self._step(shown.unflatten(0, (len(labels), -1)), labels, len(batch))
            if not np.isfinite(totals).all():
                raise LossError.at(epoch, step, batches[step][own].tolist(), "lower tsn.lr, or tsn.precision=fp32")
        world.average_buffers(self.model)
        loss, right = world.sum(torch.from_numpy(totals).to(self.device)).tolist()
        return loss / len(clips), right / len(clips)

    def _step(self, shown: Tensor, labels: Tensor, batch: int) -> tuple[float, float]:
        """One step of the optimiser; returns the summed loss and the correct answers of this process.

        `shown` (n, S, C, size, size) float32 and `labels` (n,) are this process's share of a batch of `batch` clips.
        """
        parts = max(1, min(self.recipe.accumulate, batch // (2 * self.world.size)))  # BatchNorm needs two clips each
        clips = batch / self.world.size  # gradients are averaged over the processes
        loss_sum, right = 0.0, 0.0
        self.optimiser.zero_grad(set_to_none=True)
        for part in slices(len(labels), parts):
            with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
                logits = self.forward(shown[part])
            loss = functional.cross_entropy(logits.float(), labels[part], reduction="sum")
            self.scaler.scale(loss / clips).backward()
            loss_sum += loss.item()
            right += (logits.argmax(1) == labels[part]).sum().item()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        return loss_sum, right

    @torch.inference_mode()
    def _validate(self) -> tuple[float, float]:
        """Loss and top-1 of the validation clips; each is scored by one process."""
        clips, recipe, model = self.data.val, self.recipe, self.model
        own = self.world.share(len(clips))
        scores = torch.zeros(len(clips), len(model.config.classes), device=self.device)
        if own.start < own.stop:
            batch = recipe.batch * recipe.segments
            _, logits = embed_protocol(
                model, self.data.fields, clips[own], recipe.segments, 1, recipe.test_crop, batch, self.device
            )
            scores[own] = torch.from_numpy(logits)
        scores, labels = self.world.sum(scores).cpu(), torch.from_numpy(clips.labels)
        return functional.cross_entropy(scores, labels).item(), (scores.argmax(1) == labels).float().mean().item()

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


def optimiser_for(model: MvTsn, recipe: MvTsnRecipe) -> torch.optim.Optimizer:
    """Adam with the recipe's parameter groups."""
    groups = parameter_groups(
        model, recipe.lr, recipe.weight_decay, recipe.lr_mult_head, recipe.lr_mult_stem, recipe.lr_mult_rest
    )
    return torch.optim.Adam(groups, eps=recipe.eps)


def step_schedule(optimiser: torch.optim.Optimizer, recipe: MvTsnRecipe) -> torch.optim.lr_scheduler.LRScheduler:
    """Divides the learning rates by ten at each of the recipe's epochs."""
    return torch.optim.lr_scheduler.MultiStepLR(optimiser, sorted(recipe.lr_steps), gamma=0.1)


def _compiled(model: MvTsn) -> Callable[[Tensor], Tensor]:
    """`model` through torch.compile. Raises ModelError at the first batch if compiling fails."""
    forward = torch.compile(model)

    def call(fields: Tensor) -> Tensor:
        try:
            return cast(Tensor, forward(fields))
        except RuntimeError as problem:  # the base of the compiler's errors, which have no public names
            reason = str(problem).strip().splitlines()[0]
            raise ModelError(f"the compiled network failed: {reason}", fix="tsn.compile=false") from problem

    return call


class Checkpoint:
    """The file that a training is resumed from. It is resumed only by a run with the same `fingerprint`.

    `seconds` is the least time between two of them: an epoch of a small run takes less time than its checkpoint.
    """

    def __init__(self, path: Path, fingerprint: str, seconds: float) -> None:
        self.path, self.fingerprint, self.seconds = path, fingerprint, seconds
        self.saved = time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self.saved >= self.seconds

    def save(self, training: MvTsnTraining) -> None:
        optimiser = training.optimiser.state_dict()
        tensors = {f"model/{name}": tensor for name, tensor in training.model.state_dict().items()}
        tensors |= {f"best/{name}": tensor for name, tensor in training.best.state.items()}
        tensors |= {
            f"optimiser/{number}/{name}": tensor
            for number, entries in optimiser["state"].items()
            for name, tensor in entries.items()
        }
        scheduler = training.scheduler.state_dict()
        plain = {
            "fingerprint": self.fingerprint,
            "history": training.history,
            "best": training.best.row,
            "groups": optimiser["param_groups"],
            "scheduler": {key: value for key, value in scheduler.items() if key != "milestones"},
            "scaler": training.scaler.state_dict(),  # empty except in float16
        }
        save_weights(self.path, tensors, json.loads(json.dumps(plain)))
        self.saved = time.monotonic()

    def resume(self, training: MvTsnTraining) -> None:
        """Bring a new `training` to where the file's run was; without a file of the same run it stays as it is."""
        try:
            tensors, plain = load_weights(self.path, "train_mv")
        except ModelError:
            return
        if plain["fingerprint"] != self.fingerprint:
            return
        training.model.load_state_dict(_under(tensors, "model/"))
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under(tensors, "optimiser/").items():
            number, entry = name.split("/")
            state.setdefault(int(number), {})[entry] = tensor
        training.optimiser.load_state_dict({"state": state, "param_groups": plain["groups"]})
        training.scheduler.load_state_dict(plain["scheduler"])
        if plain["scaler"]:
            training.scaler.load_state_dict(plain["scaler"])
        training.best.row, training.best.state = plain["best"], _under(tensors, "best/")
        training.history = plain["history"]


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


@torch.inference_mode()
def embed_protocol(
    model: MvTsn,
    fields: SampledFields,
    clips: SplitClips,
    segments: int,
    crops: int,
    crop: float,
    batch: int,
    device: torch.device,
    advance: Callable[[int], object] = lambda count: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, D) and logits (n, classes) under a test protocol: the mean over `segments` x `crops` pictures.

    The model runs in eval mode; about `batch` pictures go through at once.
    """
    model.to(device).eval()
    boxes = protocol_crops(fields.grid, crop, crops)
    parts = [clips[rows] for rows in _batches(len(clips), max(1, batch // (segments * crops)))]
    features = []
    for part, read in _read_ahead(fields, parts, segments):
        grids = torch.from_numpy(read).to(device).repeat_interleave(crops, dim=0)
        shown = crop_and_resize(grids, boxes.tile(len(part) * segments), model.config.size)
        features.append(model.encode(shown).float().unflatten(0, (len(part), -1)).mean(1))
        advance(len(part))
    pooled = torch.cat(features)
    return pooled.cpu().numpy(), model.head(pooled).cpu().numpy()


@torch.inference_mode()
def embed_view(
    model: MvTsn,
    fields: SampledFields,
    clips: SplitClips,
    segments: int,
    scales: tuple[float, ...],
    flip: bool,
    batch: int,
    device: torch.device,
    generator: np.random.Generator,
    advance: Callable[[int], object] = lambda count: None,
) -> np.ndarray:
    """Features (n, D) of one augmented view: random frames of the segments, one random crop and flip a clip."""
    model.to(device).eval()
    parts = [clips[rows] for rows in _batches(len(clips), max(1, batch // segments))]
    features = []
    for part, read in _read_ahead(fields, parts, segments, generator):
        boxes = random_crops(len(part), fields.grid, scales, flip, generator).repeat(segments)
        shown = crop_and_resize(torch.from_numpy(read).to(device), boxes, model.config.size)
        features.append(model.encode(shown).float().unflatten(0, (len(part), segments)).mean(1))
        advance(len(part))
    return torch.cat(features).cpu().numpy()


def _read_ahead(
    fields: SampledFields,
    batches: Sequence[SplitClips],
    segments: int,
    generator: np.random.Generator | None = None,
    share: Callable[[int], slice] = lambda count: slice(count),
) -> Iterator[tuple[SplitClips, np.ndarray]]:
    """Each batch with the fields of its `share` (n * segments, 2, gh, gw) int8, read while you work on the one before.

    Frames are drawn for the whole batch.
    """

    def begin(batch: SplitClips) -> Callable[[], np.ndarray]:
        return fields.read_async(batch, segments, generator, share(len(batch)))

    waiting = begin(batches[0])
    for number, batch in enumerate(batches):
        read = waiting()
        if number + 1 < len(batches):
            waiting = begin(batches[number + 1])
        yield batch, read


def _batches(count: int, batch: int, least: int = 1) -> list[slice]:
    """`count` rows in slices of `batch`; a last slice of fewer than `least` rows joins the one before."""
    starts = list(range(0, count, batch))
    if len(starts) > 1 and count - starts[-1] < least:
        starts.pop()
    return [slice(start, end) for start, end in pairwise([*starts, count])]
