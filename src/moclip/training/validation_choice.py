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
    """Return the number of the choice to take, by the one-standard-error rule (Breiman et al., 1984, section 3.4.3).

    Of the choices whose mean loss is within one standard error of the lowest, it is the one of the lowest level, and
    within a level the one of the lowest loss. The error is that of the clips' differences from the lowest loss. A
    choice with fewer clips right than the first one is left out. So few clips, or equal scores, lead to the first
    level.

    Parameters
    ----------
    levels : (c,), how far each choice is from the first, which is the most cautious.
    losses : (c, n), the loss of each clip.
    right : (c, n) bool, whether each clip is predicted correctly.
    """
    clips = losses.shape[1]
    means = losses.mean(axis=1)
    allowed = right.sum(axis=1) >= right[0].sum()
    lowest = int(np.argmin(np.where(allowed, means, np.inf)))
    if clips < 2:
        return 0
    gaps = losses - losses[lowest]
    errors = gaps.std(axis=1, ddof=1) / np.sqrt(clips)
    near = allowed & (gaps.mean(axis=1) <= errors)
    level = np.min(np.asarray(levels)[near])
    candidates = near & (np.asarray(levels) == level)
    return int(np.argmin(np.where(candidates, means, np.inf)))
