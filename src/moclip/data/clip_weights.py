"""Weights of clips: how much each counts in the losses of the trainings (column `weight` of a manifest)."""

from __future__ import annotations

import numpy as np
import pandas as pd

COLUMN = "weight"
"""The column of an index whose manifest gives weights."""


def weights_of(rows: pd.DataFrame) -> np.ndarray | None:
    """Return the weights of rows of an index, (n,) float64; None if the index has none."""
    return rows[COLUMN].to_numpy(np.float64) if COLUMN in rows else None


def mean_one(weights: np.ndarray) -> np.ndarray:
    """Return the weights of training clips, (n,), divided by their mean: float32."""
    return np.asarray(weights / weights.mean(), np.float32)
