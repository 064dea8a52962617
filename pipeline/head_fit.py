"""Train the fusion head, and the same head on the still alone, as the group `fit` says.

Without fit.refit and fit.folds: on train, with the best epoch and settings on val. With them: so for each fold, on the
features of the MV-TSN that did not see the clips held out, then on train and val together.

On a CPU, heads with a hidden layer train at the same time, on one thread each, because their steps are too small to
share between threads. So their weights do not depend on the number of cores. The head `cache` has large products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from threading import Event
from typing import TypeVar

import numpy as np
import pandas as pd
import torch

from moclip.data.fusion_data import FusionData
from moclip.models.device import one_thread_each, pick_device
from moclip.models.fusion import Fusion, FusionConfig, HeadInputs, build_head
from moclip.models.heads.base import HiddenFusion
from moclip.models.heads.registry import head_class
from moclip.models.linear_probe import LinearProbe
from moclip.training.epochs import Log, Row, best_of_folds, mean_rows
from moclip.training.fusion import FusionRecipe, train_fusion_head
from moclip.training.linear_probe import train_linear_probe
from moclip.training.validation_choice import choose_settings
from pipeline import paths
from pipeline.baselines import Heads, without_motion
from pipeline.clip_tables import Fold
from pipeline.compute_logits import compute_logits
from pipeline.console.progress import show_progress
from pipeline.inputs import Inputs
from pipeline.probe_data import labelled_fold
from pipeline.seeding import cloned_generator, seed_everything
from pipeline.training_log import live_log, loss_errors_name_clips
from pipeline.training_recipe import recipe_from

Prepare = Callable[[FusionData], FusionData]
Fitted = TypeVar("Fitted")
OpenLog = Callable[[int], AbstractContextManager[Log]]
"""Opens a log for so many epochs."""


@dataclass(frozen=True)
class FittedHead:
    """A head that is trained and in eval mode, the row of each epoch, and the top-1 with its chosen settings."""

    head: Fusion
    rows: list[Row]
    top1: float | None = None


@dataclass(frozen=True)
class FittedHeads:
    """The trained heads, and what heads that did not see them say of the clips held out.

    rows : the index's rows of the clips held out, with their `fold`, from 1.
    logits : each stream's logits of them, (clips, classes).
    best : the row of the chosen epoch of fusion, the mean over the folds.
    top1 : of fusion on the clips held out, with the chosen settings; None for a head without settings.
    """

    heads: Heads
    rows: pd.DataFrame
    logits: dict[str, np.ndarray]
    best: Row
    top1: float | None


def fit_heads(inputs: Inputs, motion_probe: LinearProbe) -> FittedHeads:
    """Train the heads. Raises LossError if a loss is NaN or infinite."""
    refits, folds = inputs.clips.refits, inputs.clips.folds()
    fused, still, held_out, logits = [], [], [], []
    for number, fold in enumerate(folds, start=1):
        part = f", fold {number} of {len(folds)}" if len(folds) > 1 else ""
        log = _progress_only if part else _log_curves
        pair = _fit_on_fold(inputs, number, fold, log(f"train_fusion{part}"), part)
        fused.append(pair[0])
        still.append(pair[1])
        heads = Heads(
            fused[-1].head, still[-1].head, _fold_probe(inputs, number, fold, motion_probe) if refits else motion_probe
        )
        rows = inputs.fold_rows(fold)[1]
        held_out.append(rows.assign(fold=number))
        logits.append(compute_logits(inputs, heads, list(rows["id"]), inputs.fold_features(number)[0]))
    if len(folds) > 1:
        means = mean_rows([fitted.rows for fitted in fused])
        with live_log(paths.TRAIN_FUSION_LOG, "train_fusion, mean", len(means)) as log_row:
            for row in means:
                log_row(row)
    if refits:
        heads = Heads(*_fit_on_all(inputs, fused, still), motion_probe)
    found = [fitted.top1 for fitted in fused if fitted.top1 is not None]
    return FittedHeads(
        heads,
        pd.concat(held_out, ignore_index=True),
        {name: np.concatenate([part[name] for part in logits]) for name in logits[0]},
        best_of_folds([fitted.rows for fitted in fused]),
        float(np.mean(found)) if found else None,
    )


def _fold_probe(inputs: Inputs, number: int, fold: Fold, final: LinearProbe) -> LinearProbe:
    """Train a probe without the clips that a fold holds out, with the strength of the final one."""
    train, _ = labelled_fold(inputs, number, fold)
    return train_linear_probe(train, len(inputs.clips.classes), final.strength)


def _log_curves(label: str) -> OpenLog:
    return lambda epochs: live_log(paths.TRAIN_FUSION_LOG, label, epochs)


def _progress_only(label: str) -> OpenLog:
    @contextmanager
    def opened(epochs: int) -> Iterator[Log]:
        with show_progress(label, epochs, "epoch") as advance:
            yield lambda row: advance(1)

    return opened


def _fit_on_fold(
    inputs: Inputs, number: int, fold: Fold, open_log: OpenLog, part: str
) -> tuple[FittedHead, FittedHead]:
    """Train fusion, and the head on the still alone, without the clips that a fold holds out."""
    data, clips = inputs.fold_data(number, fold), inputs.fold_rows(fold)[0]
    recipe, device = _recipe(inputs), pick_device()

    def fit(prepare: Prepare, head: Fusion, open_log: OpenLog) -> FittedHead:
        train, held_out = (prepare(part) for part in data)
        rows: list[Row] = []
        if not head.trains:
            choose_settings(head, train, held_out, device)

        with loss_errors_name_clips(clips), open_log(recipe.epochs if head.trains else 1) as log:

            def keep(row: Row) -> None:
                rows.append(row)
                log(row)

            train_fusion_head(head, train, held_out, recipe, device, keep)
        top1 = choose_settings(head, train, held_out, device)
        return FittedHead(head.cpu(), rows, top1)

    return _train_both(inputs, data[0], fit, open_log, part)


def _fit_on_all(inputs: Inputs, fused: Sequence[FittedHead], still: Sequence[FittedHead]) -> tuple[Fusion, Fusion]:
    """Train both on train and val, for the epochs and with the mean of the settings that the folds chose."""
    data, clips = inputs.final_data(), inputs.fused_rows(*inputs.clips.final_splits)

    def fit(prepare: Prepare, head: Fusion, open_log: OpenLog) -> Fusion:
        train, folds = prepare(data), fused if prepare is _unchanged else still
        epochs = int(best_of_folds([fitted.rows for fitted in folds])["epoch"]) + 1
        with loss_errors_name_clips(clips), open_log(epochs) as log:
            train_fusion_head(head, train, train[:0], replace(_recipe(inputs), epochs=epochs), pick_device(), log)
        chosen = [fitted.head.settings for fitted in folds]
        head.settings = {name: float(np.mean([settings[name] for settings in chosen])) for name in chosen[0]}
        return head.cpu()

    return _train_both(inputs, data, fit, _progress_only("train_fusion, all clips"), ", all clips")


def _train_both(
    inputs: Inputs,
    train: FusionData,
    fit: Callable[[Prepare, Fusion, OpenLog], Fitted],
    open_log: OpenLog,
    part: str,
) -> tuple[Fitted, Fitted]:
    """Call `fit` for fusion, whose progress is shown, and for the head on the still alone. Return what it returns.

    `part` names the fold in the progress.
    """
    stopped = Event()

    def made(prepare: Prepare) -> Fusion:
        return _new_head(inputs, prepare(train))

    @contextmanager
    def until_stopped(epochs: int) -> Iterator[Log]:
        def log(row: Row) -> None:
            if stopped.is_set():
                raise CancelledError

        yield log

    if not trains_side_by_side(inputs.params.fusion.head):
        still_log = _progress_only(f"train_fusion, still alone{part}")
        return fit(_unchanged, made(_unchanged), open_log), fit(without_motion, made(without_motion), still_log)
    heads = []
    for prepare in (_unchanged, without_motion):
        heads.append(made(prepare))
        heads[-1].draw_from(cloned_generator())  # as the head would draw if it trained now
    with one_thread_each(), ThreadPoolExecutor(1) as executor:
        still = executor.submit(fit, without_motion, heads[1], until_stopped)
        try:
            return fit(_unchanged, heads[0], open_log), still.result()
        finally:
            stopped.set()  # after an error or an interrupt, the other head ends with its epoch


def trains_side_by_side(kind: str) -> bool:
    """Return whether two heads of this kind train at the same time: see the top of this file."""
    return pick_device().type == "cpu" and issubclass(head_class(kind), HiddenFusion)


def _recipe(inputs: Inputs) -> FusionRecipe:
    params = inputs.params
    return recipe_from(FusionRecipe, params.fusion, seed=params.seed, balance=params.dataset.balance)


def _unchanged(data: FusionData) -> FusionData:
    return data


def _new_head(inputs: Inputs, train: FusionData) -> Fusion:
    """Return a head that is not trained, for features as in `train`. The same seed gives the same weights."""
    seed_everything(inputs.params.seed)
    params, fusion = inputs.params, inputs.params.fusion
    config = FusionConfig(
        motion=train.motion.shape[-1],
        picture=train.stills.shape[-1],
        hidden=fusion.hidden,
        classes=len(inputs.clips.classes),
        dropout=fusion.dropout,
        pooling=fusion.pooling,
        frames=train.stills.shape[1],
    )
    texts = inputs.text_features()
    blend = params.dataset.shots is not False and texts is not None if fusion.blend == "few_shot" else fusion.blend
    options = fusion.model_dump() | {"blend": blend}
    text, scale = (torch.from_numpy(texts.features), texts.scale) if texts else (None, 1.0)
    return build_head(fusion.head, config, HeadInputs(text, scale, train, options))
