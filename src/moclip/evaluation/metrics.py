"""Scores of logits against labels. All inputs are numpy: logits (n, classes) float, labels (n,) int."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def top_k(logits: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Share of rows whose label is among the k highest logits; with fewer than k classes, among all (1.0).

    Of equal logits the lower class index counts as higher, so that a tie has one answer.
    """
    own = logits[np.arange(len(labels)), labels][:, None]
    classes = np.arange(logits.shape[1])
    ahead = (logits > own) | ((logits == own) & (classes < labels[:, None]))
    return float(np.mean(ahead.sum(axis=1) < k))


def mean_class_accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes that occur in `labels` of the share of their rows predicted right."""
    return float(np.mean(list(class_accuracy(predicted, labels).values())))


def class_accuracy(predicted: np.ndarray, labels: np.ndarray) -> dict[int, float]:
    """Share right of each class that occurs in `labels`."""
    return {int(label): float(np.mean(predicted[labels == label] == label)) for label in np.unique(labels)}


def class_shares(logits: np.ndarray) -> np.ndarray:
    """Class probabilities (n, classes) float64 of logits."""
    raised = np.exp(logits - logits.max(axis=1, keepdims=True).astype(np.float64))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def score_sum(*streams: np.ndarray) -> np.ndarray:
    """Fusion without training: the mean of the streams' class probabilities, as logits (n, classes) float32."""
    mean = np.mean([class_shares(logits) for logits in streams], axis=0)
    return np.log(np.maximum(mean, 1e-30)).astype(np.float32)


def calibration_error(logits: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error (arXiv 1706.04599, section 2): how far confidence and accuracy lie apart.

    The rows are sorted by the softmax's highest probability into equal bins of (0, 1]; the mean over the rows of the
    gap, in their bin, between its mean and the share predicted right.
    """
    confidence = class_shares(logits).max(axis=1)
    right = logits.argmax(axis=1) == labels
    number = np.ceil(confidence * bins).astype(int) - 1
    gaps = np.bincount(number, weights=confidence - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def bootstrap_interval(right: np.ndarray, sources: np.ndarray, seed: int, draws: int = 10_000) -> np.ndarray:
    """The 95 % percentile interval of the share of rows predicted right, by resampling the clips' sources.

    `right` (n, models) bool, `sources` (n,) of any type: clips cut from one source are alike, and resampling them one
    by one would make the interval too narrow. Returns (models, 2): low and high, the same draws for every model.
    """
    _, member = np.unique(sources, return_inverse=True)
    hits = np.stack([np.bincount(member, weights=column) for column in right.T], axis=1)
    sizes = np.bincount(member)
    generator = np.random.default_rng(seed)
    at_once = max(1, 4_000_000 // len(sizes))
    shares: list[np.ndarray] = []
    for start in range(0, draws, at_once):
        picks = generator.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), min(at_once, draws - start))
        shares.append((picks @ hits) / (picks @ sizes)[:, None])
    return np.quantile(np.concatenate(shares), [0.025, 0.975], axis=0).T


def complementarity(motion: np.ndarray, picture: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Shares of rows that both streams predict right, only one of them, or neither; predictions are (n,) int."""
    by_motion, by_picture = motion == labels, picture == labels
    return {
        "both": float(np.mean(by_motion & by_picture)),
        "mv_tsn_only": float(np.mean(by_motion & ~by_picture)),
        "zero_shot_only": float(np.mean(~by_motion & by_picture)),
        "neither": float(np.mean(~by_motion & ~by_picture)),
    }


def base_to_new(logits: np.ndarray, labels: np.ndarray, base: int) -> dict[str, float]:
    """Top-1 within the first `base` classes and within the others, and their harmonic mean (arXiv 2203.05557, 4.1).

    A row is told from the classes of its own half only. A half without rows counts as NaN.
    """
    halves = []
    for half, columns in ((labels < base, slice(base)), (labels >= base, slice(base, None))):
        own = labels[half] - (columns.start or 0)
        halves.append(top_k(logits[half, columns], own, 1) if half.any() else np.nan)
    first, second = halves
    both = first + second
    return {"base": first, "new": second, "harmonic_mean": 2 * first * second / both if both else 0.0}


def stream_scores(
    streams: Mapping[str, np.ndarray], labels: np.ndarray, sources: np.ndarray, seed: int
) -> dict[str, dict[str, float]]:
    """Of each stream's logits: top1, its 95 % interval, top5, mean_class_accuracy and calibration_error."""
    predicted = {name: logits.argmax(axis=1) for name, logits in streams.items()}
    right = np.stack([choice == labels for choice in predicted.values()], axis=1)
    intervals = bootstrap_interval(right, sources, seed)
    return {
        name: {
            "top1": top_k(logits, labels, 1),
            "top1_low": float(low),
            "top1_high": float(high),
            "top5": top_k(logits, labels, 5),
            "mean_class_accuracy": mean_class_accuracy(predicted[name], labels),
            "calibration_error": calibration_error(logits, labels),
        }
        for (name, logits), (low, high) in zip(streams.items(), intervals, strict=True)
    }
