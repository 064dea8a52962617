"""Convert motion fields from px to int8 and back."""

from __future__ import annotations

import numpy as np

LEVELS = 127  # int8 levels on either side of zero


def quantise(fields: np.ndarray, clip: float = 20.0) -> np.ndarray:
    """Round fields in px to int8: ±127 stands for ±`clip` px and more; -128 never occurs."""
    levels = fields * (LEVELS / clip)
    np.rint(levels, out=levels)
    np.clip(levels, -LEVELS, LEVELS, out=levels)
    return levels.astype(np.int8)


def dequantise(levels: np.ndarray, clip: float = 20.0) -> np.ndarray:
    """Convert int8 fields to px, float32 of the same shape, within clip / 254 of the fields that were rounded."""
    return levels.astype(np.float32) * np.float32(clip / LEVELS)
