"""Classes of unequal size: weights for the loss, or clips drawn evenly (`dataset.balance`). Some rows of many."""

from __future__ import annotations

import numpy as np


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return a weight per class, (classes,) float32, inverse to its number of clips; over the clips their mean is 1.

    `labels` is (n,) int. A class without clips has weight 1.
    """
    counts = np.bincount(labels, minlength=classes)
    present = max(1, np.count_nonzero(counts))
    return np.where(counts > 0, len(labels) / (present * np.maximum(counts, 1)), 1).astype(np.float32)


def draw_order(labels: np.ndarray, balance: str, generator: np.random.Generator) -> np.ndarray:
    """Return the rows of a pass over n clips with `labels` (n,), in random order: (n,) int64.

    Each clip is there once. With `balance` "sampler", n clips are drawn with replacement, all classes equally often on
    average.
    """
    count = len(labels)
    if balance != "sampler":
        return generator.permutation(count)
    weights = class_weights(labels, int(labels.max()) + 1)[labels].astype(np.float64)
    return generator.choice(count, size=count, p=weights / weights.sum())


def spread_rows(labels: np.ndarray, most: int) -> np.ndarray:
    """Return the numbers of at most `most` rows, in their order: of each class as many, evenly spaced."""
    if len(labels) <= most:
        return np.arange(len(labels))
    classes = np.unique(labels)
    each = max(1, most // len(classes))
    of_class = (np.flatnonzero(labels == label) for label in classes)
    return np.sort(np.concatenate([rows[spaced_rows(len(rows), each)] for rows in of_class]))


def spaced_rows(count: int, most: int) -> np.ndarray:
    """Return the numbers of at most `most` of `count` rows, evenly spaced from the first to the last."""
    return np.linspace(0, count - 1, min(most, count)).astype(int)
