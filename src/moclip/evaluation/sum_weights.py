"""Choose the weights of the stream `score_sum` on the validation clips."""

from __future__ import annotations

import numpy as np

from moclip.evaluation.calibration import fit_temperature
from moclip.evaluation.metrics import SumWeights, class_probabilities, score_sum
from moclip.training.validation_choice import most_cautious

MOTION_WEIGHTS = tuple(number / 10 for number in range(11))


def choose_sum_weights(zero_shot: np.ndarray, mv_tsn: np.ndarray, labels: np.ndarray) -> SumWeights:
    """Choose the weights from logits (n, classes) of both streams, and labels (n,).

    The temperatures are 1, or those that calibrate each stream: calibrated probabilities do not always make the better
    sum, because the sharper stream then prevails. `most_cautious` chooses; with no weight of the motion, the sum is
    zero-shot CLIP.
    """
    calibrated = fit_temperature(zero_shot, labels), fit_temperature(mv_tsn, labels)
    candidates = [SumWeights(weight, *both) for weight in MOTION_WEIGHTS for both in ((1.0, 1.0), calibrated)]
    sums = [score_sum(zero_shot, mv_tsn, weights) for weights in candidates]
    losses = np.stack([_losses(logits, labels) for logits in sums])
    right = np.stack([logits.argmax(axis=1) == labels for logits in sums])
    return candidates[most_cautious([weights.motion for weights in candidates], losses, right)]


def _losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the cross-entropy of each row, (n,)."""
    return -np.log(np.maximum(class_probabilities(logits)[np.arange(len(labels)), labels], 1e-30))
