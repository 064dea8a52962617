"""Count what a run does: steps of each training, fields that networks are run on, bytes of features.

The counts come from the functions that the stages call, so they follow params.yaml as the stages do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from moclip.training.mirroring import Mirroring
from moclip.training.mv_optimiser import epoch_steps
from pipeline.clip_tables import ClipTables
from pipeline.params import Params
from pipeline.training_recipe import training_recipe

FLOAT_BYTES = 4
REFIT_SHARE = 0.8
"""Share of the epochs that a training on all clips is counted with: it ends at the epoch that was chosen before."""


@dataclass(frozen=True)
class TrainingCount:
    """A training: its clips, those that are scored after each epoch, and its epochs.

    may_end_early : whether it ends at an epoch that is not known yet, of `epochs` at most.
    """

    clips: int
    held_out: int
    steps_per_epoch: int
    epochs: int
    may_end_early: bool

    @property
    def steps(self) -> int:
        """The steps of the optimiser if all epochs are trained."""
        return self.epochs * self.steps_per_epoch

    @property
    def likely_share(self) -> float:
        return REFIT_SHARE if self.may_end_early else 1.0


def network_trainings(params: Params, tables: ClipTables) -> list[TrainingCount]:
    """Return the trainings of MV-TSN, or of the image baseline, in their order."""
    recipe = training_recipe(params, params.tsn.segments, Mirroring(False))
    everything = tables.everything()
    folds = [*tables.folds(), *([everything] if everything else [])]
    return [
        TrainingCount(
            len(fold.train), len(fold.held_out), epoch_steps(recipe, len(fold.train)), recipe.epochs, fold is everything
        )
        for fold in folds
    ]


def head_trainings(params: Params, tables: ClipTables) -> list[TrainingCount]:
    """Return the trainings of the fusion head and of the same head on the still alone."""
    everything = tables.everything()
    folds = [*tables.folds(), *([everything] if everything else [])]
    return [
        TrainingCount(
            len(fold.train),
            len(fold.held_out),
            math.ceil(len(fold.train) / params.fusion.batch),
            params.fusion.epochs,
            fold is everything,
        )
        for fold in folds
        for _ in ("fusion", "still")
    ]


@dataclass(frozen=True)
class EmbeddingCount:
    """Fields that MV-TSN is run on: views of the test protocol, and augmented views; and the bytes of what it gives."""

    protocol_fields: int
    augmented_fields: int
    bytes: int


def embedding(params: Params, tables: ClipTables, width: int, classes: int) -> EmbeddingCount:
    """Return what `embed_mv` does, with features of `width`."""
    segments, crops = params.evaluate.views
    scored = sum(len(one.scored) for one in tables.embedded())
    augmented = params.embed.views * sum(len(one.augmented) for one in tables.embedded())
    size = FLOAT_BYTES * (scored * (width + classes) + augmented * width)
    return EmbeddingCount(scored * segments * crops, augmented * segments, size)


def networks_kept(tables: ClipTables) -> int:
    """Return how many trained networks `train_mv` writes."""
    return len(tables.embedded())
