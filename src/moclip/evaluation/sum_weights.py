"""Choose the weights of the stream `score_sum` on the validation clips."""

from __future__ import annotations

import numpy as np

from moclip.evaluation.calibration import fit_temperature
from moclip.evaluation.metrics import SumWeights, class_probabilities, score_sum
from moclip.training.validation_choice import most_cautious

MOTION_WEIGHTS = tuple(number / 10 for number in range(11))


def choose_sum_weights(zero_shot: np.ndarray, mv_tsn: np.ndarray, labels: np.ndarray) -> SumWeights:
    """Choose the weights from logits (n, classes) of both streams, and labels (n,).

    The temperatures are those that calibrate each stream. The weight of the motion is then chosen by `most_cautious`;
    at 0 the sum is zero-shot CLIP.
    """
    still, motion = (fit_temperature(logits, labels) for logits in (zero_shot, mv_tsn))
    candidates = [SumWeights(weight, still, motion) for weight in MOTION_WEIGHTS]
    sums = [score_sum(zero_shot, mv_tsn, weights) for weights in candidates]
    losses = np.stack([_losses(logits, labels) for logits in sums])
    right = np.stack([logits.argmax(axis=1) == labels for logits in sums])
    return candidates[most_cautious(MOTION_WEIGHTS, losses, right)]


def _losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the cross-entropy of each row, (n,)."""
    return -np.log(np.maximum(class_probabilities(logits)[np.arange(len(labels)), labels], 1e-30))
