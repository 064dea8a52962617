"""Train a network on the motion fields as the group `fit` says: MV-TSN, or the image baseline.

Without fit.refit and fit.folds: on train, with the best epoch on val. With fit.refit: then once more, on train and val
for so many epochs. With fit.folds: the epoch is the best of the mean over the folds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from moclip.data.clip_batches import SampledFields
from moclip.errors import StoreError
from moclip.files.atomic import atomic_folder
from moclip.models.mv_tsn import RGB, MvTsn, MvTsnConfig
from moclip.training.distributed import World
from moclip.training.epochs import Log, Row, best_of_folds, mean_rows
from moclip.training.mirroring import Mirroring, plan_mirroring
from moclip.training.mv_batches import MotionData
from moclip.training.mv_checkpoint import Checkpoint
from moclip.training.mv_recipe import MvTsnRecipe
from moclip.training.mv_tsn import train_mv_tsn
from moclip.wording import counted
from pipeline import paths
from pipeline.clip_tables import Fold
from pipeline.console.output import print_note
from pipeline.console.progress import show_progress
from pipeline.inputs import Inputs
from pipeline.io import write_unused
from pipeline.params import Params
from pipeline.seeding import seed_everything
from pipeline.training_log import live_log, loss_errors_name_clips
from pipeline.training_recipe import CHECKPOINT_SECONDS, run_fingerprint, training_recipe


def mv_tsn_config(params: Params, classes: Sequence[str]) -> MvTsnConfig:
    """Return the network that `train_mv` trains."""
    tsn = params.tsn
    return MvTsnConfig(
        tsn.backbone,
        tuple(classes),
        tsn.size,
        tsn.dropout,
        tsn.stem_stride,
        2 * tsn.stack,
        tsn.stabilise,
        tsn.moments,
    )


def image_config(params: Params, backbone: str, classes: Sequence[str]) -> MvTsnConfig:
    """Return the network that `train_image` trains."""
    tsn = params.tsn
    return MvTsnConfig(backbone, tuple(classes), tsn.size, tsn.dropout, tsn.stem_stride, RGB, tsn.stabilise)


@dataclass(frozen=True)
class FittedNetwork:
    """The trained network, the row of the chosen epoch (the mean over folds), and each fold's network.

    `folds` is empty unless the network was trained again on train and val.
    """

    network: MvTsn
    best: dict[str, float]
    folds: list[MvTsn]


@dataclass(frozen=True)
class NetworkFit:
    """Trains a network on `segments` fields per clip, as the groups `tsn` and `fit` say.

    `stage` names its checkpoints, `curves` is the folder of its curves.
    """

    stage: str
    inputs: Inputs
    config: MvTsnConfig
    pretrained: bool | str
    segments: int
    world: World
    curves: Path
    checkpoint_seconds: float = CHECKPOINT_SECONDS

    @cached_property
    def fields(self) -> SampledFields:
        return self.inputs.sampled_fields(self.config.stack)

    @cached_property
    def mirroring(self) -> Mirroring:
        rows = self.inputs.motion_rows("train")
        flip, left_out = self.inputs.params.tsn.flip, self.inputs.params.dataset.unknown
        clips, groups = self.inputs.split_clips(rows), list(rows["group"])
        return plan_mirroring(flip, self.config.classes, self.fields, clips, groups, left_out)

    @cached_property
    def recipe(self) -> MvTsnRecipe:
        mirroring = self.mirroring
        if mirroring.note:
            print_note(f"{self.stage}: {mirroring.note}")
        return training_recipe(self.inputs.params, self.segments, mirroring)

    def record(self, *keys: str) -> dict[str, Any]:
        """Return what the network records of its training. `keys` are those of params.yaml that it depends on."""
        return self.inputs.artifacts.model_record(*keys) | {"mirrored_views": self.mirroring.views}

    def run(self) -> FittedNetwork:
        """Train. Call `remove_checkpoints` when the network is saved, not before: a kill would cost the training."""
        clips = self.inputs.clips
        folds = clips.folds()
        if len(folds) == 1:
            with live_log(self.curves, self.stage, self.recipe.epochs, self.world.is_main) as log:
                fitted = [self._train("", self.recipe, folds[0], log)]
        else:
            fitted = [self._train_fold(number, fold, len(folds)) for number, fold in enumerate(folds, start=1)]
            with live_log(self.curves, f"{self.stage}, mean", self.recipe.epochs, self.world.is_main) as log:
                for row in mean_rows([rows for _, rows in fitted]):
                    log(row)
        best = best_of_folds([rows for _, rows in fitted])
        networks = [network for network, _ in fitted]
        if (everything := clips.everything()) is None:
            return FittedNetwork(networks[0], best, [])
        recipe = replace(self.recipe, stop_after=int(best["epoch"]) + 1)
        with show_progress(f"{self.stage}, all clips", recipe.stop_after, "epoch") as advance:
            network, _ = self._train("_all", recipe, everything, lambda row: advance(1))
        return FittedNetwork(network, best, networks)

    def remove_checkpoints(self) -> None:
        for path in paths.WORK.glob(f"{self.stage}*.safetensors"):
            path.unlink()

    def _train_fold(self, number: int, fold: Fold, folds: int) -> tuple[MvTsn, list[Row]]:
        with show_progress(f"{self.stage}, fold {number} of {folds}", self.recipe.epochs, "epoch") as advance:
            return self._train(f"_fold{number}", self.recipe, fold, lambda row: advance(1))

    def _train(self, part: str, recipe: MvTsnRecipe, fold: Fold, log: Log) -> tuple[MvTsn, list[Row]]:
        """Train a network. Return it, with the weights of its best epoch, and the row of every epoch."""
        inputs = self.inputs
        history: list[Row] = []

        def keep(row: Row) -> None:
            history.append(row)
            log(row)

        rows = inputs.motion_rows("train", "val")
        train, held_out = rows[rows["id"].isin(fold.train)], rows[rows["id"].isin(fold.held_out)]
        if fold.held_out and held_out.empty:
            raise StoreError("no clip held out to choose the epoch on has motion vectors", where=paths.MV_STORE)
        data = MotionData(self.fields, inputs.split_clips(train), inputs.split_clips(held_out))
        seed_everything(inputs.params.seed)
        network = MvTsn(self.config, self.pretrained)
        fingerprint = run_fingerprint(recipe, self.config, self.pretrained, inputs, self.fields, self.stage, part)
        checkpoint = Checkpoint(paths.WORK / f"{self.stage}{part}.safetensors", fingerprint, self.checkpoint_seconds)
        with loss_errors_name_clips(train):
            train_mv_tsn(network, data, recipe, self.world, checkpoint, keep)
        return network, history


def describe_clips(inputs: Inputs) -> str:
    """Return how many clips are trained on, and what the epoch is chosen on: "480 clips in 5 folds"."""
    if (folds := inputs.params.fit.folds) and inputs.clips.refits:
        return f"{len(inputs.motion_rows('train', 'val'))} clips in {folds} folds, then all"
    train, val = (len(inputs.motion_rows(split)) for split in ("train", "val"))
    return f"{counted(train, 'clip')}, {val:,} to choose the epoch on{', then all' if inputs.clips.refits else ''}"


def save_folds(networks: list[MvTsn], record: Mapping[str, Any]) -> None:
    """Write each fold's network, or unused.txt where the network was not trained again on train and val."""
    if not networks:
        write_unused(paths.MV_FOLDS, "fit.refit and fit.folds are false, or dataset.shots is set")
        return
    with atomic_folder(paths.MV_FOLDS) as folder:
        folder.mkdir()
        for number, network in enumerate(networks, start=1):
            network.save(folder / paths.fold_model(number).name, record)
