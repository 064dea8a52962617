"""The temperature of each stream, and what `evaluate` reports about it."""

from __future__ import annotations

import numpy as np

from moclip.evaluation.calibration import fit_temperature
from moclip.evaluation.metrics import calibration_error
from moclip.models.fusion import Fusion
from pipeline.inputs import Inputs
from pipeline.logits import read_validation


def stream_temperatures(inputs: Inputs, model: Fusion) -> dict[str, float]:
    """Return the temperatures that the head holds, and the image baseline's, if there is one.

    A baseline that was trained again on train and val has none: no clip is left to fit it on.
    `train_fusion` does not know the image baseline, so its temperature is fitted here, on the same validation clips.
    """
    temperatures = dict(model.config.temperatures)
    image = inputs.artifacts.image_baseline
    if image and not inputs.clips.refits:
        validation = read_validation(inputs)
        logits = image.rows("logits", list(validation["id"]))
        temperatures["mv_image"] = fit_temperature(logits, validation["label"].to_numpy())
    return temperatures


def calibration_scores(logits: np.ndarray, labels: np.ndarray, temperature: float) -> dict[str, float]:
    """Return what the metrics of a stream say: its temperature, and the calibration error with it."""
    return {
        "temperature": temperature,
        "calibration_error_after": calibration_error(logits, labels, temperature=temperature),
    }
