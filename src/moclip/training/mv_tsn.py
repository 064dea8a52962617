"""Training MV-TSN on the store of motion fields, and running the trained one over clips.

Each epoch draws from a generator of its own (seed, epoch): a run that is killed and resumed ends with the same bytes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from moclip.data.clip_batches import SampledFields, SplitClips
from moclip.data.crops import Crops, crop_and_resize, protocol_crops, random_crops
from moclip.data.sampling import segment_frames
from moclip.errors import ModelError
from moclip.models.mv_tsn import MvTsn, parameter_groups
from moclip.models.weights import load_weights, save_weights
from moclip.training.common import Adam, BestEpoch, Log, LossError, autocast_type, epoch_generator
from moclip.training.distributed import ALONE, World
from moclip.training.global_batch import agree, global_batch, own_or_blank, sum_gradients

CHECKPOINT_SECONDS = 20.0
"""Least time between two checkpoints: an epoch of a small run is quicker than writing its checkpoint."""


@dataclass(frozen=True)
class MvTsnRecipe:
    """The numbers of MV-TSN's training, as in params.yaml's group `tsn`."""

    segments: int
    epochs: int
    batch: int
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
    accumulate: int = 1  # parts that a batch goes through in
    compile: bool = False


def optimiser_for(model: MvTsn, recipe: MvTsnRecipe) -> torch.optim.Optimizer:
    """Adam with the recipe's parameter groups."""
    groups = parameter_groups(
        model, recipe.lr, recipe.weight_decay, recipe.lr_mult_head, recipe.lr_mult_stem, recipe.lr_mult_rest
    )
    return Adam(groups, eps=recipe.eps)


def step_schedule(optimiser: torch.optim.Optimizer, recipe: MvTsnRecipe) -> torch.optim.lr_scheduler.LRScheduler:
    """Tenfold down at each of the recipe's epochs."""
    return torch.optim.lr_scheduler.MultiStepLR(optimiser, sorted(recipe.lr_steps), gamma=0.1)


def train_mv_tsn(
    model: MvTsn,
    fields: SampledFields,
    train: SplitClips,
    val: SplitClips,
    recipe: MvTsnRecipe,
    device: torch.device,
    checkpoint: Path,
    fingerprint: str,
    log: Log,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    world: World = ALONE,
) -> dict[str, float]:
    """Train `model` in place and leave it with the weights of its best epoch on `val`.

    `log` gets one mapping an epoch (from the first on, also after a resume): epoch, train_loss, train_top1, val_loss,
    val_top1, lr. Returns the best epoch's. The checkpoint is taken up only if it carries the same `fingerprint`. The
    last epoch's stays: whoever saves the model removes it then, so that a kill in between costs no training.

    The processes of a `world` share every batch and end with the same weights and rows, which are, but for rounding,
    those of one process; the main one writes the checkpoint. Raises LossError where the loss is no longer a number,
    and ModelError where the processes cannot train together.
    """
    if recipe.compile and world.size > 1:
        raise ModelError("torch.compile trains in one process only", fix="tsn.compile=false")
    model.to(device).to(memory_format=torch.channels_last)
    optimiser = optimiser_for(model, recipe)
    scheduler = step_schedule(optimiser, recipe)
    dtype = autocast_type(recipe.precision, device)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    forward = _compiled(model) if recipe.compile else model
    keeper = BestEpoch(model)
    history = _resume(checkpoint, fingerprint, model, optimiser, scheduler, scaler, keeper)
    if not agree(world, f"{fingerprint} {len(history)}", device):
        raise ModelError(
            "the processes read different parameters, clips or checkpoints", fix="run them in one folder that all share"
        )
    for past in history:
        log(past)
    saved = time.monotonic()
    for epoch in range(len(history), recipe.epochs):
        lr = scheduler.get_last_lr()
        loss, top1 = _train_epoch(model, forward, fields, train, recipe, epoch, optimiser, scaler, dtype, device, world)
        scheduler.step()
        val_loss, val_top1 = _validate(model, fields, val, recipe, device, world)
        row: dict[str, float] = {
            "epoch": epoch,
            "lr": float(max(lr)),
            "train_loss": loss,
            "train_top1": top1,
            "val_loss": val_loss,
            "val_top1": val_top1,
        }
        history.append(row)
        keeper.offer(row)
        log(row)
        due = time.monotonic() - saved >= checkpoint_seconds or epoch + 1 == recipe.epochs
        if due and world.main:
            _save_checkpoint(checkpoint, fingerprint, model, optimiser, scheduler, scaler, keeper, history)
            saved = time.monotonic()
    keeper.restore()
    model.eval()
    return keeper.row


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

    The frozen model runs in eval mode; `batch` is about how many pictures go through at once.
    """
    model.to(device).eval()
    boxes = protocol_crops(fields.grid, crop, crops)
    features = []
    for part, read in _read_ahead(fields, clips, max(1, batch // (segments * crops)), segments, None):
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
    features = []
    for part, read in _read_ahead(fields, clips, max(1, batch // segments), segments, generator):
        boxes = random_crops(len(part), fields.grid, scales, flip, generator).repeat(segments)
        shown = crop_and_resize(torch.from_numpy(read).to(device), boxes, model.config.size)
        features.append(model.encode(shown).float().unflatten(0, (len(part), segments)).mean(1))
        advance(len(part))
    return torch.cat(features).cpu().numpy()


def _train_epoch(
    model: MvTsn,
    forward: Callable[[Tensor], Tensor],
    fields: SampledFields,
    clips: SplitClips,
    recipe: MvTsnRecipe,
    epoch: int,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    dtype: torch.dtype,
    device: torch.device,
    world: World,
) -> tuple[float, float]:
    generator = epoch_generator(recipe.seed, epoch)
    torch.manual_seed(int(generator.integers(2**31)))  # dropout
    model.train()
    order = generator.permutation(len(clips))
    shuffled = clips[order]
    sums = np.zeros(2)  # of the loss, and how often it was right
    done = 0

    def own_rows(count: int) -> np.ndarray:
        return _own_rows(world, count, recipe.accumulate)

    for step, (batch, read) in enumerate(
        _read_ahead(fields, shuffled, recipe.batch, recipe.segments, generator, drop_single=True, rows=own_rows)
    ):
        rows = own_rows(len(batch))
        boxes = random_crops(len(batch), fields.grid, recipe.crops, recipe.flip, generator)
        own_boxes = Crops(*(drawn[rows] for drawn in vars(boxes).values())).repeat(recipe.segments)
        labels = torch.from_numpy(batch.labels[rows]).to(device)
        shown = crop_and_resize(torch.from_numpy(read).to(device), own_boxes, model.config.size)
        shown = shown.unflatten(0, (len(rows), recipe.segments))
        optimiser.zero_grad(set_to_none=True)
        for part in _parts(len(batch), recipe.accumulate):
            share = world.share(part)
            own = slice(*np.searchsorted(rows, [share.start, share.stop]).tolist())  # the share's place in `rows`
            with (
                torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32),
                global_batch(world, part.stop - part.start, recipe.segments, device),
            ):
                logits = forward(own_or_blank(shown[own]))[: share.stop - share.start]
            loss = functional.cross_entropy(logits.float(), labels[own], reduction="sum")
            scaler.scale(loss / len(batch)).backward()
            sums += loss.item(), (logits.argmax(1) == labels[own]).sum().item()
        if not np.isfinite(sums).all():
            fix = "lower tsn.lr, or tsn.precision=fp32"
            raise LossError.at(epoch, step, order[done : done + len(batch)].tolist(), fix)
        done += len(batch)
        sum_gradients(world, model.parameters())
        scaler.step(optimiser)
        scaler.update()
    total, right = world.sum_(torch.from_numpy(sums).to(device)).tolist()
    return total / len(clips), right / len(clips)


@torch.inference_mode()
def _validate(
    model: MvTsn, fields: SampledFields, clips: SplitClips, recipe: MvTsnRecipe, device: torch.device, world: World
) -> tuple[float, float]:
    own = world.share(slice(0, len(clips)))
    scores = torch.zeros(len(clips), len(model.config.classes), device=device)
    if own.start < own.stop:
        batch = recipe.batch * recipe.segments
        _, logits = embed_protocol(model, fields, clips[own], recipe.segments, 1, recipe.test_crop, batch, device)
        scores[own] = torch.from_numpy(logits)
    scores, labels = world.sum_(scores).cpu(), torch.from_numpy(clips.labels)
    return functional.cross_entropy(scores, labels).item(), (scores.argmax(1) == labels).float().mean().item()


def _read_ahead(
    fields: SampledFields,
    clips: SplitClips,
    batch: int,
    segments: int,
    generator: np.random.Generator | None,
    drop_single: bool = False,
    rows: Callable[[int], np.ndarray] | None = None,
) -> Iterator[tuple[SplitClips, np.ndarray]]:
    """Batches of clips with their fields; the next batch is read while this one is worked on.

    `drop_single` joins a last batch of one clip to the one before: BatchNorm cannot train on a single value. `rows`
    says which clips of a batch are read, by its size; frames are drawn for all of them.
    """
    starts = list(range(0, len(clips), batch))
    if drop_single and len(starts) > 1 and len(clips) - starts[-1] == 1:
        starts.pop()
    ends = [*starts[1:], len(clips)]
    parts = [clips[start:end] for start, end in zip(starts, ends, strict=True)]

    def begin(part: SplitClips) -> Callable[[], np.ndarray]:
        if rows is None:
            return fields.read_async(part, segments, generator)
        frames = part.offsets[:, None] + segment_frames(part.lengths, segments, generator)
        drawn = frames[rows(len(part))].reshape(-1)
        return fields.read_async(SplitClips(drawn, np.ones_like(drawn), drawn), 1)  # each frame as a clip of one

    waiting = begin(parts[0]) if parts else None
    for number, part in enumerate(parts):
        assert waiting is not None
        read = waiting()
        waiting = begin(parts[number + 1]) if number + 1 < len(parts) else None
        yield part, read


def _parts(count: int, most: int) -> list[slice]:
    """`count` rows in at most `most` parts of nearly equal size, of two rows at least: BatchNorm wants them."""
    edges = np.linspace(0, count, max(1, min(most, count // 2)) + 1).round().astype(int).tolist()
    return [slice(start, end) for start, end in pairwise(edges)]


def _own_rows(world: World, count: int, most: int) -> np.ndarray:
    """The rows of a batch that a rank works on, its share of each part: ascending int64."""
    return np.r_[tuple(world.share(part) for part in _parts(count, most))]


def _compiled(model: MvTsn) -> Callable[[Tensor], Tensor]:
    """`model` through torch.compile. Raises ModelError, at the first batch, where that has no compiler."""
    from torch._inductor.exc import InductorError  # takes two seconds to import

    forward = torch.compile(model)

    def call(fields: Tensor) -> Tensor:
        try:
            return cast(Tensor, forward(fields))
        except InductorError as problem:
            reason = str(problem).strip().splitlines()[0]
            raise ModelError(f"torch.compile cannot: {reason}", fix="tsn.compile=false") from None

    return call


def _save_checkpoint(
    path: Path,
    fingerprint: str,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    scaler: torch.amp.GradScaler,
    keeper: BestEpoch,
    history: list[dict[str, float]],
) -> None:
    state = optimiser.state_dict()
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"best/{name}": tensor for name, tensor in keeper.state.items()}
    tensors |= {
        f"optimiser/{number}/{name}": tensor
        for number, entries in state["state"].items()
        for name, tensor in entries.items()
    }
    plain = {
        "fingerprint": fingerprint,
        "history": history,
        "best": keeper.row,
        "groups": state["param_groups"],
        "scheduler": {key: value for key, value in scheduler.state_dict().items() if key != "milestones"},
        "scaler": scaler.state_dict(),  # empty but in float16
    }
    save_weights(path, tensors, json.loads(json.dumps(plain)))


def _resume(
    path: Path,
    fingerprint: str,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    scaler: torch.amp.GradScaler,
    keeper: BestEpoch,
) -> list[dict[str, float]]:
    """Take up a checkpoint of the same run; returns the rows of the epochs that are done."""
    try:
        tensors, plain = load_weights(path, "train_mv")
    except ModelError:
        return []
    if plain["fingerprint"] != fingerprint:
        return []
    model.load_state_dict(_under(tensors, "model/"))
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _under(tensors, "optimiser/").items():
        number, entry = name.split("/")
        state.setdefault(int(number), {})[entry] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": plain["groups"]})
    scheduler.load_state_dict(plain["scheduler"])
    if plain.get("scaler"):  # empty where there is nothing to scale
        scaler.load_state_dict(plain["scaler"])
    keeper.row, keeper.state = plain["best"], _under(tensors, "best/")
    return list(plain["history"])


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def recipe_fingerprint(recipe: MvTsnRecipe, **inputs: object) -> str:
    """A text that is equal exactly when a checkpoint may be taken up: the recipe and whatever else goes in."""
    return json.dumps({"recipe": asdict(recipe), **inputs}, sort_keys=True, default=str)
