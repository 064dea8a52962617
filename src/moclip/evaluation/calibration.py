"""Calibrate a classifier by one temperature T (arXiv 1706.04599, section 4.2): probabilities = softmax(logits / T).

T is fitted on validation clips. It does not change which class is the most probable.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from moclip.evaluation.metrics import class_probabilities

BOUNDS = (0.01, 100.0)
"""The lowest and highest temperature."""
HALVINGS = 60


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature that minimises the mean negative log-likelihood of the labels, within `BOUNDS`.

    `logits` are (n, classes) float, `labels` (n,) int. The likelihood is convex in 1/T, so its slope is bisected. If no
    clip is misclassified it has no minimum: the lower T the better. So T is also high enough that the mean confidence
    is at most (n + 1) / (n + 2), which is what n correct answers support (Laplace's rule of succession). Logits that
    are the same for all classes give 1.0.
    """
    values = logits.astype(np.float64)
    if not np.ptp(values, axis=1).any():
        return 1.0
    most = (len(values) + 1) / (len(values) + 2)
    own = values[np.arange(len(labels)), labels]
    low, high = np.log(BOUNDS)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        probabilities = class_probabilities(values / np.exp(middle))
        slope = np.mean((probabilities * values).sum(axis=1) - own)  # of the likelihood, over 1/T
        if slope > 0 or probabilities.max(axis=1).mean() > most:
            low = middle
        else:
            high = middle
    return round(float(np.exp(high)), 6)


def fit_temperatures(streams: Mapping[str, np.ndarray], labels: np.ndarray) -> dict[str, float]:
    """Return the temperature of each stream's logits, (n, classes)."""
    return {name: fit_temperature(logits, labels) for name, logits in streams.items()}
