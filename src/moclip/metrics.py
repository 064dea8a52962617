"""Scores of logits against labels. All inputs are numpy: logits (n, classes) float, labels (n,) int."""

from __future__ import annotations

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


def scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """top1, top5 and mean_class_accuracy in one mapping."""
    return {
        "top1": top_k(logits, labels, 1),
        "top5": top_k(logits, labels, 5),
        "mean_class_accuracy": mean_class_accuracy(logits.argmax(axis=1), labels),
    }
