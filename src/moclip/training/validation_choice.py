"""Choose a head's settings on the validation clips, carefully where they are few."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from moclip.data.fusion_data import FusionData
from moclip.models.fusion import Fusion
from moclip.training.fusion import absent_mask


def choose_settings(model: Fusion, train: FusionData, val: FusionData, device: torch.device) -> float | None:
    """Give a head the settings that `most_cautious` finds among its choices. Return their top-1 on `val`.

    Returns None for a head without choices. `train` only says which classes occur. The head stays in eval mode.
    """
    model.to(device).eval()
    mask, val = absent_mask(model, train, val).to(device), val.to(device)
    levels, settings, losses, right = [], [], [], []
    with torch.inference_mode():
        for choice in model.choices(val.motion[:, 0], val.stills):
            logits = choice.logits.double() + mask
            levels.append(choice.level)
            settings.append(choice.settings)
            losses.append(functional.cross_entropy(logits, val.labels, reduction="none").cpu().numpy())
            right.append((logits.argmax(1) == val.labels).cpu().numpy())
    if not levels:
        return None
    chosen = most_cautious(levels, np.stack(losses), np.stack(right))
    model.settings = settings[chosen]
    return float(right[chosen].mean())


def most_cautious(levels: Sequence[float], losses: np.ndarray, right: np.ndarray) -> int:
    """Return the number of the choice to take. The first choice, zero-shot CLIP, stays unless another is surely better.

    1. Only the choices with the most clips right are considered.
    2. Of these, it is the one of the lowest level whose mean loss is within one standard error of the lowest loss
       (Breiman et al., "Classification and Regression Trees", 1984, section 3.4.3); within a level, the one of the
       lowest loss.
    3. If its share of right clips is not higher than the first choice's by more than one standard error, it is the
       first choice.

    The errors are those of the mean of the clips' differences, so few clips, or equal scores, lead to the first choice.

    Parameters
    ----------
    levels : (c,), how far each choice is from the first, which is the most cautious.
    losses : (c, n), the loss of each clip.
    right : (c, n) bool, whether each clip is predicted correctly.
    """
    best = right.sum(axis=1) == right.sum(axis=1).max()
    means = losses.mean(axis=1)
    lowest = int(np.argmin(np.where(best, means, np.inf)))
    near = best & ~_surely_above_zero(losses - losses[lowest])
    level = np.min(np.asarray(levels)[near])
    chosen = int(np.argmin(np.where(near & (np.asarray(levels) == level), means, np.inf)))
    gain = right[chosen].astype(float) - right[0]
    return chosen if _surely_above_zero(gain[None])[0] else 0


def _surely_above_zero(values: np.ndarray) -> np.ndarray:
    """Return whether the mean of each row (c, n) is more than its standard error above 0; never for a single value."""
    count = values.shape[1]
    if count < 2:
        return np.zeros(len(values), bool)
    return values.mean(axis=1) > values.std(axis=1, ddof=1) / np.sqrt(count)
