"""From the scores of windows to one label each: smoothed by a median over time, or by a Viterbi pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Smooth = Literal["viterbi", "median", "none"]
SWITCH_COST = 1.5
LEAST_PROBABILITY = 1e-6


@dataclass(frozen=True)
class Smoothing:
    """How windows are smoothed.

    kind : "viterbi", "median" or "none".
    overlap : how many windows see each moment; a median is over about as many.
    switch_cost : of a Viterbi pass: what a change of the class costs, in nats, if each moment counts once.
    """

    kind: Smooth = "viterbi"
    overlap: float = 1.0
    switch_cost: float = SWITCH_COST

    @property
    def width(self) -> int:
        """Over how many windows a median is: those that begin within half a window of each other."""
        return 2 * round(self.overlap / 2) + 1


def smoothed_labels(probabilities: np.ndarray, unknown: np.ndarray, smoothing: Smoothing) -> np.ndarray:
    """Return the label of each window: (n,) int64, from probabilities (n, classes).

    Windows that are `unknown` (n,) say nothing about their neighbours; their own label means nothing.
    """
    if smoothing.kind == "viterbi":
        costs = -np.log(np.maximum(probabilities, LEAST_PROBABILITY)) / max(1.0, smoothing.overlap)
        costs[unknown] = 0
        return viterbi_labels(costs, smoothing.switch_cost)
    if smoothing.kind == "median":
        return median_scores(np.where(unknown[:, None], np.nan, probabilities), smoothing.width).argmax(axis=1)
    return probabilities.argmax(axis=1)


def median_scores(scores: np.ndarray, width: int) -> np.ndarray:
    """Return the median of each column over `width` rows around each row, fewer at the ends: (n, classes).

    Rows of NaN are left out. Where all rows around a row are NaN, it is 0.
    """
    half = width // 2
    padding = np.full((half, scores.shape[1]), np.nan)
    padded = np.concatenate([padding, scores, padding])
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1, axis=0)
    empty = np.isnan(around).all(axis=-1)
    return np.where(empty, 0.0, np.nanmedian(np.where(empty[..., None], 0.0, around), axis=-1))


def viterbi_labels(costs: np.ndarray, switch_cost: float) -> np.ndarray:
    """Return the labels (n,) with the least sum of `costs` (n, classes), plus `switch_cost` for each change."""
    total = np.zeros(costs.shape[1])
    from_other = np.zeros(costs.shape, bool)
    best_before = np.zeros(len(costs), np.int64)
    for row, cost in enumerate(costs):
        best_before[row] = total.argmin()
        switched = total[best_before[row]] + switch_cost
        from_other[row] = switched < total
        total = np.minimum(total, switched) + cost
    labels = np.zeros(len(costs), np.int64)
    label = int(total.argmin()) if len(costs) else 0
    for row in range(len(costs) - 1, -1, -1):
        labels[row] = label
        label = int(best_before[row]) if from_other[row, label] else label
    return labels
