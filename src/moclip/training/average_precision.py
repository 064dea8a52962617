"""Average precision: how well the scores of a class rank the clips that have its label above the others."""

from __future__ import annotations

import numpy as np


def average_precisions(scores: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """Return the average precision of each class, (classes,) float64, NaN for a class without positives.

    `scores` (n, classes) are of any scale, `positives` (n, classes) says which clips have the label. It is the sum,
    over the distinct scores from the highest down, of the precision at a score times the recall that the clips with
    this score add. So clips with equal scores count together, and equal scores for all clips give the share of
    positives, whatever the order of the clips.
    """
    weights = np.ones((len(scores), 1))
    return np.array(
        [
            weighted_average_precision(scores[:, label], positives[:, label], weights)[0]
            for label in range(scores.shape[1])
        ]
    )


def weighted_average_precision(scores: np.ndarray, positives: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the average precision of one class under several weightings of the clips, (draws,) float64.

    `scores` and `positives` are (n,), `weights` (n, draws) float: how often a clip counts. NaN where no positive
    counts.
    """
    order = np.argsort(-scores, kind="stable")
    place = np.searchsorted(-scores[order], -scores[order], side="right") - 1  # of the last clip with the same score
    has = positives[order] > 0
    ends, first = np.unique(place[has], return_index=True)  # only scores of positives add to the recall
    if not len(ends):
        return np.full(weights.shape[1], np.nan)
    named = np.cumsum(weights[order[: ends[-1] + 1]], axis=0)[ends].astype(np.float64)
    added = np.add.reduceat(weights[order[has]], first, axis=0).astype(np.float64)
    right = np.cumsum(added, axis=0)
    with np.errstate(invalid="ignore"):
        return np.asarray((added * right / np.maximum(named, 1e-12)).sum(axis=0) / right[-1])


def mean_average_precision(scores: np.ndarray, positives: np.ndarray) -> float:
    """Return the mean over the classes that have a positive; NaN if none has one."""
    found = average_precisions(scores, positives)
    known = found[np.isfinite(found)]
    return float(known.mean()) if len(known) else float("nan")
