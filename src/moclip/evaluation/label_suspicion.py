"""How likely a clip's label is wrong: what its neighbours and a prediction by a network that did not see it say."""

from __future__ import annotations

import numpy as np


def neighbour_disagreement(neighbours: np.ndarray, labels: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the share of neighbours that should have a clip's label and do not, (n,) float, NaN where none could.

    `neighbours` (n, k) are the labels of the nearest clips of other sources, -1 where there are fewer. `labels` (n,)
    are the clips' own. `others` (n,) counts the clips of other sources with a clip's label: a clip whose class has
    only 3 of them is not suspicious because the other neighbours have other labels.
    """
    there = (neighbours >= 0).sum(axis=1)
    expected = np.minimum(there, others)
    agreeing = np.minimum((neighbours == labels[:, None]).sum(axis=1), expected)
    return np.where(expected > 0, 1 - agreeing / np.maximum(expected, 1), np.nan)


def suspicion(neighbours: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Return the score (n,) in [0, 1]: the mean of both disagreements, (n,) each, or the one that is not NaN.

    `predictions` are 1 - the probability of a clip's own label. Where neither is known, the score is NaN.
    """
    both = np.stack([neighbours, predictions])
    known = np.isfinite(both)
    counted = known.sum(axis=0)
    return np.where(counted > 0, np.where(known, both, 0).sum(axis=0) / np.maximum(counted, 1), np.nan)


def commonest_label(neighbours: np.ndarray, classes: int) -> np.ndarray:
    """Return the label that most of the neighbours (n, k) have, (n,) int64; of equally common ones the lowest."""
    votes = np.zeros((len(neighbours), classes), np.int64)
    rows, columns = np.nonzero(neighbours >= 0)
    np.add.at(votes, (rows, neighbours[rows, columns]), 1)
    return votes.argmax(axis=1)
