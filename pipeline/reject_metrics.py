"""What `evaluate` reports of `moclip predict --reject`: metrics/reject.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from moclip.data.unknown_classes import UNKNOWN
from moclip.evaluation.open_set import auroc, false_positive_rate
from moclip.inference.rejection import Rejection
from pipeline.baselines import Heads
from pipeline.compute_logits import compute_logits
from pipeline.inputs import Inputs
from pipeline.rejection import ChosenRejection, ScoredClips


def scored_clips(inputs: Inputs, rows: pd.DataFrame, logits: np.ndarray) -> ScoredClips:
    """Return clips with the features that a prediction gives. `rows` are the index's rows."""
    ids = list(rows["id"])
    features = {"motion": inputs.artifacts.mv_embed.rows("features", ids), "picture": inputs.still_features(ids)}
    return ScoredClips(rows["label"].to_numpy(), logits, features)


def unknown_clips(inputs: Inputs, heads: Heads, stream: str) -> tuple[pd.DataFrame, ScoredClips] | None:
    """Return the test clips of the classes in dataset.unknown: the index's rows, and the clips; None without any."""
    if not inputs.params.dataset.unknown:
        return None
    rows = inputs.fused_rows(UNKNOWN)
    logits = compute_logits(inputs, heads, list(rows["id"]), inputs.artifacts.mv_embed)[stream]
    return rows, scored_clips(inputs, rows, logits)


def reject_metrics(
    inputs: Inputs, heads: Heads, chosen: ChosenRejection, rows: pd.DataFrame, logits: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Return what metrics/reject.json holds: the choice, and what it does to the test clips and to unknown ones.

    `rows` are the index's rows of the test clips, `logits` those of each stream.
    """
    rejection = chosen.rejection
    test = scored_clips(inputs, rows, logits[rejection.stream])
    answered = ~rejection.unknown(test.logits, test.features)
    found: dict[str, Any] = {
        "stream": rejection.stream,
        "score": rejection.score,
        "threshold": rejection.threshold,
        "validation": chosen.validation,
        "test": _answered(rejection, test, answered),
    }
    if rejection.background is not None:
        found["background"] = _background(inputs, rejection, test, answered)
    if unknown := unknown_clips(inputs, heads, rejection.stream):
        rows, clips = unknown
        found["unknown"] = {
            "classes": list(inputs.params.dataset.unknown),
            "clips": len(rows),
            "skipped": inputs.skipped_counts(UNKNOWN),
            "answered": float(1 - rejection.unknown(clips.logits, clips.features).mean()),
            "scores": {name: _separation(one, test, clips) for name, one in chosen.each.items()},
        }
        found["unknown"] |= {key: found["unknown"]["scores"][rejection.score][key] for key in ("auroc", "fpr95")}
    return found


def _answered(rejection: Rejection, clips: ScoredClips, answered: np.ndarray) -> dict[str, Any]:
    """Return how many clips of other classes than the background there are, and which share is answered and right.

    `answered` (n,) says which clips are not rejected.
    """
    actions = _actions(rejection, clips)
    right = clips.logits.argmax(axis=1) == clips.labels
    answered = actions & answered
    return {
        "clips": int(actions.sum()),
        "answered": _share(answered, actions),
        "right_of_answered": _share(answered & right, answered),
        "right_of_all": _share(actions & right, actions),
    }


def _background(inputs: Inputs, rejection: Rejection, clips: ScoredClips, answered: np.ndarray) -> dict[str, Any]:
    of_it = clips.labels == rejection.background
    return {
        "classes": [inputs.params.dataset.background],
        "clips": int(of_it.sum()),
        "answered": _share(of_it & answered, of_it),
    }


def _separation(rejection: Rejection, test: ScoredClips, unknown: ScoredClips) -> dict[str, Any]:
    """Return how well a score separates the test clips of known classes, without the background, from unknown ones."""
    known_scores = rejection.scores(test.logits, test.features)[_actions(rejection, test)]
    unknown_scores = rejection.scores(unknown.logits, unknown.features)
    return {
        "auroc": auroc(known_scores, unknown_scores),
        "fpr95": false_positive_rate(known_scores, unknown_scores),
        "threshold": rejection.threshold,
        "known_answered": float(np.mean(known_scores >= rejection.threshold)),
        "unknown_answered": float(np.mean(unknown_scores >= rejection.threshold)),
    }


def _actions(rejection: Rejection, clips: ScoredClips) -> np.ndarray:
    return np.asarray(clips.labels != (-1 if rejection.background is None else rejection.background))


def _share(part: np.ndarray, whole: np.ndarray) -> float | None:
    return float(part.sum() / whole.sum()) if whole.any() else None
