"""The temperature of each stream, and what `evaluate` reports about it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from moclip.evaluation.calibration import fit_temperature
from moclip.evaluation.metrics import calibration_error
from moclip.models.fusion import Fusion
from pipeline.inputs import Inputs
from pipeline.logits import read_validation


def stream_temperatures(inputs: Inputs, model: Fusion) -> dict[str, float]:
    """Return the temperatures that the head holds, and the image baseline's, if there is one.

    `train_fusion` does not know the image baseline, so its temperature is fitted here, on the same validation clips.
    """
    temperatures = dict(model.config.temperatures)
    if inputs.artifacts.image_baseline:
        validation = read_validation(inputs)
        logits = held_out_image_logits(inputs, validation)
        temperatures["mv_image"] = fit_temperature(logits, validation["label"].to_numpy())
    return temperatures


def held_out_image_logits(inputs: Inputs, validation: pd.DataFrame) -> np.ndarray:
    """Return the image baseline's logits of the validation clips, (n, classes), by networks that did not see them."""
    logits = np.empty((len(validation), len(inputs.clips.classes)), np.float32)
    for number in validation["fold"].unique():
        rows = (validation["fold"] == number).to_numpy()
        logits[rows] = inputs.artifacts.image_fold(int(number)).rows("logits", list(validation["id"][rows]))
    return logits


def calibration_scores(logits: np.ndarray, labels: np.ndarray, temperature: float) -> dict[str, float]:
    """Return what the metrics of a stream say: its temperature, and the calibration error with it."""
    return {
        "temperature": temperature,
        "calibration_error_after": calibration_error(logits, labels, temperature=temperature),
    }
