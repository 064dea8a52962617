"""Choose the weights of the stream `score_sum` on the validation clips."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moclip.evaluation.metrics import SumWeights, class_probabilities, score_sum
from moclip.training.validation_choice import most_cautious

OCTAVES = (0.0, -0.5, 0.5, -1.0, 1.0, -1.5, 1.5, -2.0, 2.0, -3.0, 3.0)
"""Temperatures to choose from, as powers of two."""

MOTION_WEIGHTS = tuple(number / 10 for number in range(11))


def choose_sum_weights(zero_shot: np.ndarray, mv_tsn: np.ndarray, labels: np.ndarray) -> SumWeights:
    """Choose each stream's temperature (arXiv 1706.04599, section 4.2), then the weight of the motion.

    Each choice is that of `most_cautious`: a temperature near 1, and a motion weight near 0, which is zero-shot CLIP.
    `zero_shot` and `mv_tsn` are logits (n, classes), `labels` (n,).
    """
    still, motion = (_temperature(logits, labels) for logits in (zero_shot, mv_tsn))
    candidates = [SumWeights(weight, still, motion) for weight in MOTION_WEIGHTS]
    sums = [score_sum(zero_shot, mv_tsn, weights) for weights in candidates]
    return candidates[_choose(MOTION_WEIGHTS, sums, labels)]


def _temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    scaled = [logits / 2.0**octave for octave in OCTAVES]
    return float(2.0 ** OCTAVES[_choose([abs(octave) for octave in OCTAVES], scaled, labels)])


def _choose(levels: Sequence[float], candidates: Sequence[np.ndarray], labels: np.ndarray) -> int:
    rows = np.arange(len(labels))
    losses = [-np.log(np.maximum(class_probabilities(logits)[rows, labels], 1e-30)) for logits in candidates]
    right = [logits.argmax(axis=1) == labels for logits in candidates]
    return most_cautious(levels, np.stack(losses), np.stack(right))
