"""Score clips with several labels: probabilities, thresholds, F1 and average precision of each class.

Arrays are numpy: logits and probabilities (n, classes) float, positives (n, classes), true where a clip has the label,
sources (n,) of any type, the source that each clip was cut from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from moclip.evaluation.class_scores import ClassScore, macro_f1
from moclip.training.average_precision import average_precisions, mean_average_precision, weighted_average_precision

NO_CHOICE = 0.5
"""The threshold of a class that no clip to choose it on has."""

DRAWS = 1000
"""Resamplings of the sources."""


@dataclass(frozen=True)
class LabelScore(ClassScore):
    """How well one class is recognised, by itself.

    Of `ClassScore`, `predicted` counts the clips whose probability is at least `threshold`. average_precision : None if
    the class has no clip.
    """

    average_precision: float | None
    threshold: float


def label_scores(
    logits: np.ndarray, probabilities: np.ndarray, positives: np.ndarray, thresholds: np.ndarray
) -> list[LabelScore]:
    """Return the score of each class in label order; `thresholds` are (classes,).

    The logits rank the clips, because different logits may have equal probabilities of almost 1.
    """
    has, named = positives.astype(bool), probabilities >= thresholds
    right = (has & named).sum(axis=0).tolist()
    precisions = average_precisions(logits, has)
    return [
        LabelScore.of_counts(
            correct,
            clips,
            predicted,
            average_precision=float(precision) if clips else None,
            threshold=float(threshold),
        )
        for correct, clips, predicted, precision, threshold in zip(
            right, has.sum(axis=0).tolist(), named.sum(axis=0).tolist(), precisions, thresholds, strict=True
        )
    ]


def choose_thresholds(probabilities: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """Return the threshold of each class, (classes,), with the highest F1 on these clips.

    A class is predicted if its probability is at least the threshold, which lies midway between two neighbouring
    probabilities. Of thresholds with the same F1 it is the one nearest to `NO_CHOICE`. That is also the threshold of a
    class without positives.
    """
    return np.array(
        [_best_threshold(probabilities[:, label], positives[:, label] > 0) for label in range(positives.shape[1])]
    )


def _best_threshold(probabilities: np.ndarray, has: np.ndarray) -> float:
    if not has.any():
        return NO_CHOICE
    values = np.unique(probabilities)[::-1]
    candidates = (values + np.append(values[1:], 0.0)) / 2  # below each value
    order = np.argsort(-probabilities, kind="stable")
    named = np.searchsorted(-probabilities[order], -values, side="right")
    right = np.cumsum(has[order])[named - 1]
    f1 = 2 * right / (has.sum() + named)
    best = candidates[f1 >= f1.max() - 1e-12]
    return float(best[np.argmin(np.abs(best - NO_CHOICE))])


# --------------------------------------------------------------------------------------------------- probabilities

BOUNDS = (0.01, 100.0)
"""The lowest and highest temperature."""


def label_probabilities(logits: np.ndarray, temperature: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """Return the probability of each label by itself, sigmoid((logits - shift) / temperature), float64."""
    values = (logits.astype(np.float64) - shift) / temperature
    return np.asarray(np.exp(-np.logaddexp(0, -values)))


def fit_platt(logits: np.ndarray, positives: np.ndarray, steps: int = 100) -> tuple[float, float]:
    """Return the temperature and the shift of `label_probabilities`, one of each for all classes.

    They minimise the binary cross-entropy over all clips and classes. As in Platt's method (Probabilistic outputs for
    support vector machines, 1999), the targets are those that Laplace's rule of succession gives, so they exist even
    where the logits separate all labels. Neither changes an order. Equal logits give a temperature of 1.
    """
    values, has = logits.astype(np.float64).ravel(), positives.ravel() > 0
    count = has.sum()
    wanted = np.where(has, (count + 1) / (count + 2), 1 / (len(has) - count + 2))
    middle, spread = values.mean(), values.std()
    if spread < 1e-9:
        return 1.0, round(float(middle - _logit(wanted.mean())), 6)
    scaled = (values - middle) / spread
    slope, offset = _newton(scaled, wanted, steps)
    slope = float(np.clip(slope, spread / BOUNDS[1], spread / BOUNDS[0]))
    offset = _fit_offset(slope * scaled, wanted, offset)
    temperature = spread / slope
    return round(float(temperature), 6), round(float(middle - offset * temperature), 6)


def _newton(values: np.ndarray, wanted: np.ndarray, steps: int) -> tuple[float, float]:
    """Return slope and offset of the logistic regression of `wanted` (n,) on `values` (n,), which is convex."""
    found = np.zeros(2)
    design = np.stack([values, np.ones_like(values)], axis=1)

    def loss(weights: np.ndarray) -> float:
        scores = design @ weights
        return float((np.logaddexp(0, scores) - wanted * scores).mean())

    for _ in range(steps):
        shares = label_probabilities(design @ found)
        gradient = design.T @ (shares - wanted) / len(values)
        curvature = (design * (shares * (1 - shares))[:, None]).T @ design / len(values) + 1e-12 * np.eye(2)
        step, size = np.linalg.solve(curvature, gradient), 1.0
        while loss(found - size * step) > loss(found) and size > 1e-6:
            size /= 2
        found = found - size * step
        if np.abs(size * step).max() < 1e-9:
            break
    return float(found[0]), float(found[1])


def _fit_offset(values: np.ndarray, wanted: np.ndarray, start: float) -> float:
    """Return the offset at which the mean probability is that of `wanted`."""
    low, high = start - 100, start + 100
    for _ in range(80):
        middle = (low + high) / 2
        if label_probabilities(values + middle).mean() < wanted.mean():
            low = middle
        else:
            high = middle
    return float((low + high) / 2)


def _logit(share: float) -> float:
    return float(np.log(share / (1 - share)))


def label_calibration_error(probabilities: np.ndarray, positives: np.ndarray, bins: int = 15) -> float:
    """Return the expected calibration error of the single answers: the gap between probability and share of positives.

    It is the mean over all clips and classes of the gap in their bin, of equal bins of (0, 1] by the probability.
    """
    shares, has = probabilities.ravel(), positives.ravel() > 0
    numbers = np.clip(np.ceil(shares * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(numbers, weights=shares - has, minlength=bins)
    return float(np.abs(gaps).sum() / len(has))


# -------------------------------------------------------------------------------------------------- whole streams


def resampled_map(
    streams: Mapping[str, np.ndarray], positives: np.ndarray, sources: np.ndarray, seed: int, draws: int = DRAWS
) -> np.ndarray:
    """Return the mean average precision of each stream in each resampling of the sources, (draws, streams).

    All streams get the same resamplings. A class counts in those that have a clip of it.
    """
    _, numbers = np.unique(sources, return_inverse=True)
    count = int(numbers.max()) + 1
    generator = np.random.default_rng(seed)
    batch = max(1, 4_000_000 // max(count, len(numbers)))
    parts = []
    for start in range(0, draws, batch):
        picks = generator.multinomial(count, np.full(count, 1 / count), min(batch, draws - start))
        weights = np.ascontiguousarray(picks.T[numbers], np.float32)  # whole numbers: their sums are exact
        parts.append(np.stack([_weighted_map(logits, positives, weights) for logits in streams.values()], axis=1))
    return np.concatenate(parts)


def _weighted_map(logits: np.ndarray, positives: np.ndarray, weights: np.ndarray) -> np.ndarray:
    total, known = np.zeros(weights.shape[1]), np.zeros(weights.shape[1])
    for label in range(logits.shape[1]):
        found = weighted_average_precision(logits[:, label], positives[:, label], weights)
        there = np.isfinite(found)
        total += np.where(there, found, 0)
        known += there
    return total / np.maximum(known, 1)


def label_set_scores(
    streams: Mapping[str, np.ndarray], positives: np.ndarray, sources: np.ndarray, seed: int
) -> dict[str, dict[str, float]]:
    """Return each stream's mean average precision, `map`, with its 95 % interval, and `top1`.

    `top1` is the share of clips whose highest logit is of one of their labels.
    """
    intervals = np.quantile(resampled_map(streams, positives, sources, seed), [0.025, 0.975], axis=0).T
    return {
        name: {
            "map": mean_average_precision(logits, positives),
            "map_low": float(low),
            "map_high": float(high),
            "top1": float(np.mean(positives[np.arange(len(logits)), logits.argmax(axis=1)] > 0)),
        }
        for (name, logits), (low, high) in zip(streams.items(), intervals, strict=True)
    }


def threshold_scores(
    logits: np.ndarray, probabilities: np.ndarray, positives: np.ndarray, thresholds: np.ndarray, names: Sequence[str]
) -> dict[str, Any]:
    """Return `macro_f1`, the mean over the classes with clips, and `per_class`, their scores by name."""
    found = label_scores(logits, probabilities, positives, thresholds)
    return {
        "macro_f1": macro_f1(found),
        "per_class": {name: asdict(one) for name, one in zip(names, found, strict=True)},
    }
