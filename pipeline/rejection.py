"""Choose on the validation clips when `moclip predict --reject` answers unknown; used by `evaluate`.

The clips are those of data/validation.parquet, scored by networks that did not see them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from moclip.data.balance import spread_rows
from moclip.errors import StoreError
from moclip.evaluation.open_set import (
    LEAST_CLIPS,
    choose_score,
    coverage_threshold,
    false_alarm_threshold,
    separation_of_errors,
)
from moclip.inference.rejection import Rejection, joined_features
from moclip.models.fusion import Fusion
from moclip.store.features import Features
from pipeline import paths
from pipeline.inputs import Inputs
from pipeline.logits import read_validation
from pipeline.verdict import trusted_stream

NEIGHBOUR = 1
"""Which training clip the score "distance" is to; 1: the nearest."""

MOST_KNOWN = 2048
"""Most training clips whose features are kept for the score "distance"."""


@dataclass(frozen=True)
class ScoredClips:
    """Clips with their labels (n,), the logits of the trusted stream (n, classes), and their features by kind.

    fold : the one that held the clips out, from 1; 0 for clips that no fold has.
    """

    labels: np.ndarray
    logits: np.ndarray
    features: Mapping[str, np.ndarray]
    fold: int = 0


@dataclass(frozen=True)
class ChosenRejection:
    """The rejection with each score, and the one that is used.

    each : score -> rejection.
    validation : the `clips` it was chosen on, whether they are `enough`, how many are `wrong`, the share `answered` of
        those that are not of the background, and for each score the AUROC of right against wrong answers.
    """

    each: dict[str, Rejection]
    rejection: Rejection
    validation: dict[str, Any]


def choose_rejection(inputs: Inputs, head: Fusion) -> ChosenRejection:
    """Choose the score and the thresholds on the validation clips. `head` is the trained fusion head.

    Raises MoclipError if data/validation.parquet is missing or stale, or has only clips of the background.
    """
    stream, background = trusted_stream(), background_label(inputs.clips.classes, inputs.params.dataset.background)
    kinds = _kinds(stream, bool(inputs.artifacts.clip_image))
    known = _known_features(inputs, inputs.artifacts.mv_views, inputs.fused_rows(*inputs.clips.final_splits), kinds)
    probability = Rejection("probability", -np.inf, stream, head.temperature(stream), background)
    distance = replace(probability, score="distance", kinds=kinds, neighbour=NEIGHBOUR, known=known)
    each = {"probability": probability, "energy": replace(probability, score="energy"), "distance": distance}
    folds = _validation_clips(inputs, stream)
    scores = {name: np.concatenate([_scores(inputs, one, fold) for fold in folds]) for name, one in each.items()}
    labels, logits = (np.concatenate([getattr(fold, name) for fold in folds]) for name in ("labels", "logits"))
    actions, settings = labels != background, inputs.params.evaluate
    if not actions.any():
        raise StoreError("all validation clips are of dataset.background", where=paths.VALIDATION)
    wins = probability.is_background(logits)
    for name, values in scores.items():
        if settings.reject_false_alarms == 1:
            threshold = coverage_threshold(values[actions], settings.reject_coverage)
        else:
            alarms, clips = values[~actions & ~wins], int((~actions).sum())
            threshold = false_alarm_threshold(alarms, clips, settings.reject_false_alarms)
            threshold = max(threshold, float(values.min()))  # if no alarm is one too many
        each[name] = replace(each[name], threshold=threshold)
    wanted = settings.reject_score
    chosen = each[choose_score(int(actions.sum())) if wanted == "auto" else wanted]
    answered = (scores[chosen.score] >= chosen.threshold) & ~wins
    right = logits.argmax(axis=1) == labels
    validation = {
        "clips": len(labels),
        "enough": bool(actions.sum() >= LEAST_CLIPS),
        "wrong": int((~right).sum()),
        "answered": float(answered[actions].mean()),
        "auroc_of_right": {name: separation_of_errors(values, right) for name, values in scores.items()},
    }
    return ChosenRejection(each, chosen, validation)


def background_label(classes: Sequence[str], background: str | bool) -> int | None:
    """Return the label of the class `dataset.background`; None if it is false."""
    return None if background is False else list(classes).index(str(background))


def _kinds(stream: str, has_pictures: bool) -> tuple[str, ...]:
    """Return the kinds of features that a stream sees."""
    if stream == "zero_shot":
        return ("picture",)
    return ("motion", "picture") if stream == "fusion" and has_pictures else ("motion",)


def _validation_clips(inputs: Inputs, stream: str) -> list[ScoredClips]:
    """Return the validation clips of each fold, with the features of the network that did not see them."""
    table = read_validation(inputs)
    found = []
    for number in sorted(set(table["fold"])):
        rows = table[table["fold"] == number]
        ids, logits = list(rows["id"]), np.stack(rows[stream].to_list())
        motion = inputs.fold_features(number)[0].rows("features", ids)
        features = {"motion": motion, "picture": inputs.still_features(ids)}
        found.append(ScoredClips(rows["label"].to_numpy(), logits, features, number))
    return found


def _scores(inputs: Inputs, rejection: Rejection, clips: ScoredClips) -> np.ndarray:
    """Return the scores of validation clips, (n,): distances are those to the training clips of the same fold."""
    if rejection.known is not None:
        train = inputs.fold_rows(inputs.clips.folds()[clips.fold - 1])[0]
        known = _known_features(inputs, inputs.fold_features(clips.fold)[1], train, rejection.kinds)
        rejection = replace(rejection, known=known)
    return rejection.scores(clips.logits, clips.features)


def _known_features(inputs: Inputs, views: Features, rows: pd.DataFrame, kinds: Sequence[str]) -> np.ndarray:
    """Return features of training clips, (m, width) float16: the first augmented view of each."""
    ids = list(rows["id"].iloc[spread_rows(rows["label"].to_numpy(), MOST_KNOWN)])
    features = {"motion": views.rows("features", ids)[:, 0], "picture": inputs.still_features(ids)}
    return joined_features(features, kinds).astype(np.float16)
