"""The most similar clip of another split, by features."""

from __future__ import annotations

import numpy as np


def most_similar(features: np.ndarray, others: np.ndarray, block: int = 1024) -> tuple[np.ndarray, np.ndarray]:
    """Find for each row of `features` (n, d) the most similar row of `others` (m, d), both of unit length.

    Returns its number (n,) int64 and the cosine (n,) float32. Only blocks of `block` x `block` cosines are in memory.
    """
    nearest, highest = np.zeros(len(features), np.int64), np.full(len(features), -2, np.float32)
    for start in range(0, len(features), block):
        rows = slice(start, start + block)
        for first in range(0, len(others), block):
            cosines = features[rows] @ others[first : first + block].T
            best = cosines.argmax(axis=1)
            value = cosines[np.arange(len(best)), best]
            better = value > highest[rows]
            nearest[rows] = np.where(better, first + best, nearest[rows])
            highest[rows] = np.where(better, value, highest[rows])
    return nearest, highest
