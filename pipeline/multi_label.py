"""Clips with several labels: how a stream's logits become answers and scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from moclip.errors import DatasetError
from moclip.evaluation.multi_label import (
    choose_thresholds,
    fit_platt,
    label_calibration_error,
    label_probabilities,
    label_set_scores,
    threshold_scores,
)
from pipeline.console.label_scores import stream_titles
from pipeline.console.output import STREAM_LABELS

if TYPE_CHECKING:
    import pandas as pd

    from moclip.models.fusion import Fusion
    from moclip.models.heads.config import FusionConfig
    from pipeline.inputs import Inputs


def refuse_command(inputs: Inputs, command: str, why: str) -> None:
    """Raise DatasetError if clips have several labels."""
    if inputs.multi_label:
        what = f"moclip {command} does not work with clips of several labels: {why}"
        raise DatasetError(
            what, where=inputs.params.dataset.manifest, fix="give each clip one label in another manifest"
        )


# ----------------------------------------------------------------------------------------------- answers of a stream


@dataclass(frozen=True)
class LabelRule:
    """How logits become probabilities, sigmoid((logits - shift) / temperature), and these answers: by `thresholds`."""

    temperature: float
    shift: float
    thresholds: np.ndarray

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        return label_probabilities(logits, self.temperature, self.shift)


def fit_label_rule(logits: np.ndarray, positives: np.ndarray, calibrated: bool = True) -> LabelRule:
    """Choose the rule of a stream on validation clips. Without `calibrated` the temperature is 1 and the shift 0."""
    temperature, shift = fit_platt(logits, positives) if calibrated else (1.0, 0.0)
    thresholds = choose_thresholds(label_probabilities(logits, temperature, shift), positives)
    return LabelRule(temperature, shift, thresholds)


def calibrate_head(head: Fusion, streams: Mapping[str, np.ndarray], positives: np.ndarray) -> None:
    """Let the head keep the rule of each stream, chosen by the logits of the validation clips."""
    rules = {name: fit_label_rule(logits, positives, name != "majority") for name, logits in streams.items()}
    fitted = {name: rule for name, rule in rules.items() if name != "majority"}
    head.calibrate_labels(
        {name: rule.temperature for name, rule in fitted.items()},
        {name: rule.shift for name, rule in fitted.items()},
        {name: rule.thresholds.tolist() for name, rule in rules.items()},
    )


def head_rules(config: FusionConfig) -> dict[str, LabelRule]:
    """Return the rules that a head keeps in its configuration."""
    return {
        name: LabelRule(config.temperature(name), config.label_shifts.get(name, 0.0), np.array(thresholds))
        for name, thresholds in config.label_thresholds.items()
    }


def stream_rules(inputs: Inputs, head: Fusion) -> dict[str, LabelRule]:
    """Return the rule of every stream: those that the head keeps, and the image baseline's.

    `train_fusion` does not know the image baseline, so its rule is chosen here, on the same validation clips.
    """
    from pipeline.calibration import held_out_image_logits
    from pipeline.logits import read_validation

    rules = head_rules(head.config)
    if inputs.artifacts.image_baseline:
        validation = read_validation(inputs)
        rules["mv_image"] = fit_label_rule(held_out_image_logits(inputs, validation), inputs.targets(validation))
    return rules


# ------------------------------------------------------------------------------------------------------------ scores


def label_stream_scores(
    logits: Mapping[str, np.ndarray],
    positives: np.ndarray,
    sources: np.ndarray,
    rules: Mapping[str, LabelRule],
    classes: list[str],
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Return what the metrics file of each stream says of its answers: mAP, F1, each class, calibration."""
    scores: dict[str, dict[str, Any]] = dict(label_set_scores(logits, positives, sources, seed))
    for name, values in logits.items():
        rule = rules[name]
        probabilities = rule.probabilities(values)
        scores[name] |= threshold_scores(values, probabilities, positives, rule.thresholds, classes)
        if name != "majority":
            scores[name] |= {
                "temperature": rule.temperature,
                "shift": rule.shift,
                "calibration_error": label_calibration_error(label_probabilities(values), positives),
                "calibration_error_after": label_calibration_error(probabilities, positives),
            }
    return scores


def label_plots(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, pd.DataFrame]:
    """Return the tables of metrics/plots by file name. There are no confusions: a clip has no one answer."""
    import pandas as pd

    titles = stream_titles(STREAM_LABELS, scores["fusion"])
    streams = [
        {"stream": titles[name], "top1": round(score["top1"], 4), "map": round(score["map"], 4)}
        for name, score in scores.items()
    ]
    of_fusion = scores["fusion"]["per_class"]
    known = [name for name, row in of_fusion.items() if row["clips"]]
    recalls = [
        {"class": name} | {stream: round(score["per_class"][name]["recall"], 4) for stream, score in scores.items()}
        for name in known
    ]
    table = pd.DataFrame([{"class": name} | of_fusion[name] for name in known])
    return {
        "streams.csv": pd.DataFrame(streams),
        "confusion.csv": pd.DataFrame(columns=["actual", "predicted"]),
        "per_class.csv": pd.DataFrame(recalls),
        "class_f1.csv": table.sort_values("f1", kind="stable").round(4),
    }
