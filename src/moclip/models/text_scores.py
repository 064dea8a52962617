"""Score pictures by texts, as an encoder of both does."""

from __future__ import annotations

import numpy as np


def text_scores(pictures: np.ndarray, texts: np.ndarray, scale: float, bias: float) -> np.ndarray:
    """Compute `scale` times the cosine plus `bias`, (..., classes); float32 for float32 features.

    `pictures` (..., width) and `texts` (classes, width) are of unit length.
    """
    return np.asarray(scale * pictures @ texts.T + bias)
