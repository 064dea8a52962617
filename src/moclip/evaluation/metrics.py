"""Score logits against labels: numpy arrays, logits (n, classes) float and labels (n,) int."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


def top_k(logits: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Return the share of rows whose label is among the k highest logits; with fewer than k classes it is 1.0.

    Of equal logits the lower class index counts as higher, so that ties are decided.
    """
    label_logits = logits[np.arange(len(labels)), labels][:, None]
    classes = np.arange(logits.shape[1])
    higher = (logits > label_logits) | ((logits == label_logits) & (classes < labels[:, None]))
    return float(np.mean(higher.sum(axis=1) < k))


def mean_class_accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean accuracy over the classes that occur in `labels`."""
    return float(np.mean(list(class_accuracy(predicted, labels).values())))


def class_accuracy(predicted: np.ndarray, labels: np.ndarray) -> dict[int, float]:
    """Return the share of rows predicted correctly, for each class that occurs in `labels`."""
    return {int(label): float(np.mean(predicted[labels == label] == label)) for label in np.unique(labels)}


def class_probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the softmax of logits, (n, classes) float64."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True).astype(np.float64))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class SumWeights:
    """How `score_sum` mixes: the weight of the motion, and the temperature that each stream's logits are divided by."""

    motion: float = 0.5
    zero_shot_temperature: float = 1.0
    mv_tsn_temperature: float = 1.0


EQUAL_WEIGHTS = SumWeights()


def score_sum(zero_shot: np.ndarray, mv_tsn: np.ndarray, weights: SumWeights = EQUAL_WEIGHTS) -> np.ndarray:
    """Fuse without a head: the weighted mean of both streams' probabilities, as logits (n, classes) float32."""
    still = class_probabilities(zero_shot / weights.zero_shot_temperature)
    motion = class_probabilities(mv_tsn / weights.mv_tsn_temperature)
    mean = (1 - weights.motion) * still + weights.motion * motion
    return np.log(np.maximum(mean, 1e-30)).astype(np.float32)


def calibration_error(logits: np.ndarray, labels: np.ndarray, bins: int = 15, temperature: float = 1.0) -> float:
    """Return the expected calibration error (arXiv 1706.04599, section 2): the gap between confidence and accuracy.

    Probabilities are softmax(logits / temperature). Rows are put into equal bins of (0, 1] by their highest
    probability. The result is the mean over the rows of the gap, in their bin, between the mean confidence and the
    accuracy.
    """
    confidence = class_probabilities(logits / temperature).max(axis=1)
    correct = logits.argmax(axis=1) == labels
    bin_numbers = np.ceil(confidence * bins).astype(int) - 1
    gaps = np.bincount(bin_numbers, weights=confidence - correct, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def bootstrap_interval(correct: np.ndarray, sources: np.ndarray, seed: int, draws: int = 10_000) -> np.ndarray:
    """Return the 95 % percentile interval of the accuracy, by resampling the clips' sources.

    `correct` is (n, models) bool, `sources` (n,) of any type. Clips cut from one source are alike, so resampling single
    clips would make the interval too narrow. Returns (models, 2): low and high, from the same draws for every model.
    """
    _, source_numbers = np.unique(sources, return_inverse=True)
    hits = np.stack([np.bincount(source_numbers, weights=column) for column in correct.T], axis=1)
    sizes = np.bincount(source_numbers)
    generator = np.random.default_rng(seed)
    batch = max(1, 4_000_000 // len(sizes))
    accuracies: list[np.ndarray] = []
    for start in range(0, draws, batch):
        picks = generator.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), min(batch, draws - start))
        accuracies.append((picks @ hits) / (picks @ sizes)[:, None])
    return np.quantile(np.concatenate(accuracies), [0.025, 0.975], axis=0).T


def complementarity(motion: np.ndarray, picture: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return the shares of rows that both streams, one or neither predict correctly; predictions are (n,) int."""
    motion_correct, picture_correct = motion == labels, picture == labels
    return {
        "both": float(np.mean(motion_correct & picture_correct)),
        "mv_tsn_only": float(np.mean(motion_correct & ~picture_correct)),
        "zero_shot_only": float(np.mean(~motion_correct & picture_correct)),
        "neither": float(np.mean(~motion_correct & ~picture_correct)),
    }


def base_to_new(logits: np.ndarray, labels: np.ndarray, base: int) -> dict[str, float]:
    """Return top-1 in the first `base` classes, in the other classes, and the harmonic mean (arXiv 2203.05557, 4.1).

    A row competes only with the classes of its own half. A half without rows is NaN.
    """
    accuracies = []
    for rows, columns in ((labels < base, slice(base)), (labels >= base, slice(base, None))):
        half_labels = labels[rows] - (columns.start or 0)
        accuracies.append(top_k(logits[rows, columns], half_labels, 1) if rows.any() else np.nan)
    on_base, on_new = accuracies
    total = on_base + on_new
    return {"base": on_base, "new": on_new, "harmonic_mean": 2 * on_base * on_new / total if total else 0.0}


def stream_scores(
    streams: Mapping[str, np.ndarray], labels: np.ndarray, sources: np.ndarray, seed: int
) -> dict[str, dict[str, float]]:
    """Return each stream's top1 with its 95 % interval, top5, mean_class_accuracy and calibration_error."""
    predicted = {name: logits.argmax(axis=1) for name, logits in streams.items()}
    correct = np.stack([classes == labels for classes in predicted.values()], axis=1)
    intervals = bootstrap_interval(correct, sources, seed)
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
