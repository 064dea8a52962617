"""Choose which clips to annotate next: uncertain ones that differ from each other and from the annotated clips."""

from __future__ import annotations

import numpy as np


def uncertainty(probabilities: np.ndarray) -> np.ndarray:
    """Return the entropy of probabilities (n, classes), as a share of the highest possible one: (n,) in [0, 1]."""
    logs = np.log(np.maximum(probabilities, 1e-12))
    return -(probabilities * logs).sum(axis=1) / np.log(probabilities.shape[1])


def label_uncertainty(probabilities: np.ndarray) -> np.ndarray:
    """Return the mean entropy of labels with a probability each, (n, classes), as a share of the highest: (n,)."""
    yes, no = np.maximum(probabilities, 1e-12), np.maximum(1 - probabilities, 1e-12)
    return np.asarray(-(probabilities * np.log(yes) + (1 - probabilities) * np.log(no)).mean(axis=1) / np.log(2))


def choose_next(
    parts: list[np.ndarray], uncertain: np.ndarray, nearest_labelled: np.ndarray, count: int
) -> tuple[list[int], list[float]]:
    """Choose clips one by one, each with the highest product of its uncertainty and its distance.

    The distance, in [0, 1], is (1 - cosine) / 2 to the nearest clip that is annotated or chosen already. Without the
    uncertainty this is the greedy k-centre method (arXiv 1708.00489).

    Parameters
    ----------
    parts : one or several kinds of features of the n clips, each (n, width) of unit length.
    uncertain : (n,) in [0, 1].
    nearest_labelled : (n,), the cosine with the nearest annotated clip, -1 if there is none.

    Returns
    -------
    The chosen clips in order, and the distance of each when it was chosen.
    """
    cosine = nearest_labelled.astype(np.float64)
    chosen: list[int] = []
    distances: list[float] = []
    left = np.ones(len(uncertain), bool)
    for _ in range(min(count, len(uncertain))):
        distance = np.clip((1 - cosine) / 2, 0, 1)
        best = int(np.argmax(np.where(left, uncertain * distance, -1)))
        chosen.append(best)
        distances.append(float(distance[best]))
        left[best] = False
        cosine = np.maximum(cosine, sum(part @ part[best] for part in parts) / len(parts))
    return chosen, distances
