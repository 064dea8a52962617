"""Scores that say how well a classifier knows a clip, and how well they separate clips of its classes from others.

In all scores, higher means better known. Arrays are numpy: logits (n, classes) float, features (n, width) float, scores
(n,) float64.
"""

from __future__ import annotations

import math

import numpy as np

from moclip.evaluation.metrics import class_probabilities

BLOCK = 1024
"""Clips whose distances to the known features are in memory at once."""


# ---------------------------------------------------------------------------------------------------------- scores


def highest_probability(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return the probability of the most probable class (arXiv 1610.02136): the highest of softmax(logits / T)."""
    return np.asarray(class_probabilities(logits.astype(np.float64) / temperature).max(axis=1))


def negative_energy(logits: np.ndarray) -> np.ndarray:
    """Return log(sum(exp(logits))) (arXiv 2010.03759, the negative of equation 4 at T = 1)."""
    values = logits.astype(np.float64)
    highest = values.max(axis=1, keepdims=True)
    return np.asarray(highest[:, 0] + np.log(np.exp(values - highest).sum(axis=1)))


def negative_distance(features: np.ndarray, known: np.ndarray, neighbour: int) -> np.ndarray:
    """Return minus the Euclidean distance to a nearest of the `known` features: the `neighbour`-th (arXiv 2204.06507).

    Both should be of unit length. With fewer known features, the distance is that to the farthest.
    """
    place = min(neighbour, len(known)) - 1
    squares, known = np.square(known.astype(np.float64)).sum(axis=1), known.astype(np.float64)
    parts = [np.zeros(0)]
    for start in range(0, len(features), BLOCK):
        some = features[start : start + BLOCK].astype(np.float64)
        distances = np.square(some).sum(axis=1)[:, None] + squares - 2 * some @ known.T
        parts.append(np.sqrt(np.maximum(np.partition(distances, place, axis=1)[:, place], 0)))
    return -np.concatenate(parts)


# -------------------------------------------------------------------------------------------------------- thresholds


def coverage_threshold(scores: np.ndarray, coverage: float) -> float:
    """Return the highest threshold that at least the share `coverage` of the scores reaches."""
    wanted = math.ceil(round(coverage * len(scores), 9))  # rounded, because 0.55 * 100 is more than 55 in floats
    return float(np.sort(scores)[::-1][max(1, wanted) - 1])


def false_alarm_threshold(scores: np.ndarray, clips: int, rate: float) -> float:
    """Return the lowest threshold that at most the share `rate` of the background's `clips` reach.

    `scores` (n,) are those of the background's clips that would be answered without a threshold, n <= `clips`.
    """
    allowed = math.floor(round(rate * clips, 9))
    if len(scores) <= allowed:
        return -math.inf
    return float(np.nextafter(np.sort(scores)[::-1][allowed], math.inf))


def auroc(known: np.ndarray, unknown: np.ndarray) -> float | None:
    """Return the share of pairs of a known and an unknown clip in which the known one has the higher score.

    Equal scores count as half. This is the area under the ROC curve. None if one of the sides has no clip.
    """
    if not len(known) or not len(unknown):
        return None
    ordered = np.sort(unknown)
    lower = np.searchsorted(ordered, known, side="left")
    not_higher = np.searchsorted(ordered, known, side="right")
    return float((lower + not_higher).sum() / 2 / (len(known) * len(unknown)))


def false_positive_rate(known: np.ndarray, unknown: np.ndarray, true_positive_rate: float = 0.95) -> float | None:
    """Return the share of unknown clips that reach the threshold which `true_positive_rate` of the known ones reach.

    None if one of the sides has no clip.
    """
    if not len(known) or not len(unknown):
        return None
    return float(np.mean(unknown >= coverage_threshold(known, true_positive_rate)))


# --------------------------------------------------------------------------------------------------------- the choice

LEAST_CLIPS = 20
"""Fewest validation clips to place a threshold on that all but one in 20 reach."""

LEAST_ANSWERS = 5
"""Fewest right, and fewest wrong, answers whose scores are compared."""


def choose_score(clips: int) -> str:
    """Return the score to reject by, for so many validation clips: "distance", or "probability" with too few.

    No validation clip is of an unknown class, so they cannot say which score finds those, and often hardly any is
    answered wrongly. So the rule is fixed: where classes were left out of training (docs/unknown.md), the threshold of
    the distance kept the wanted share of known test clips best, and it found unknown clips about as well as the energy.
    """
    return "distance" if clips >= LEAST_CLIPS else "probability"


def separation_of_errors(scores: np.ndarray, right: np.ndarray) -> float | None:
    """Return the AUROC of right against wrong answers, `right` (n,) bool; None with too few of either."""
    if min(right.sum(), (~right).sum()) < LEAST_ANSWERS:
        return None
    return auroc(scores[right], scores[~right])
