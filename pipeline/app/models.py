"""The models that the page offers: the project's, or bundles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from moclip.errors import MoclipError
from moclip.inference.predictor import Prediction, Predictor
from pipeline import paths
from pipeline.commands.predict import chosen_predictor
from pipeline.commands.timeline import background_class
from pipeline.params import Params

if TYPE_CHECKING:
    from pipeline.app.training_clips import TrainingClips

NOT_IN_BUNDLE = "a bundle holds no clips of the training: start the page in the project that trained these models"
SEVERAL_LABELS = "the models know several labels a clip, but a timeline shows one class at a time"


@dataclass(frozen=True)
class OfferedModel:
    """Trained models with a name.

    background : the class that stands for no action; None without one.
    training_clips : to find the nearest ones; None where there are none, and `no_training_clips` says why.
    """

    name: str
    predictor: Predictor
    background: str | None = None
    training_clips: TrainingClips | None = None
    no_training_clips: str = NOT_IN_BUNDLE

    @property
    def several_labels(self) -> bool:
        return self.predictor.fusion.config.multi_label

    @property
    def can_reject(self) -> bool:
        return self.predictor.rejection is not None

    def answering(self, reject: bool) -> Predictor:
        """Return the models, which say when a clip is unknown only with `reject`."""
        return self.predictor if reject else self._without_rejection

    @cached_property
    def _without_rejection(self) -> Predictor:
        """Made once, because a predictor folds its network at its first clip."""
        return replace(self.predictor, rejection=None)

    def nearest(self, answer: Prediction, count: int) -> list[dict[str, Any]]:
        """Return the rows that `moclip similar` shows for a clip; none without clips of the training."""
        return [] if self.training_clips is None else self.training_clips.nearest(answer, count)


def offered_models(params: Params | None, bundles: Sequence[str]) -> list[OfferedModel]:
    """Load the bundles that are named, else the models of the project. Raises MoclipError."""
    if not bundles:
        return [_project_model(params)]
    models = []
    for bundle in dict.fromkeys(bundles):
        predictor = chosen_predictor(None, bundle)
        models.append(OfferedModel(bundle, predictor, background_class(predictor, None)))
    return models


def _project_model(params: Params | None) -> OfferedModel:
    predictor = chosen_predictor(params, None, reject=paths.REJECTION.exists())
    assert params is not None  # see `chosen_predictor`
    found: dict[str, Any]
    try:
        from pipeline.app.training_clips import TrainingClips

        found = {"training_clips": TrainingClips(params)}
    except MoclipError as problem:
        found = {"no_training_clips": f"{problem.where}: {problem.what}" if problem.where else problem.what}
    return OfferedModel("this project", predictor, background_class(predictor, params), **found)
