"""The part of the report page on scores, and the clips of its gallery: for one label a clip, or for several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from moclip.evaluation.label_report import choose_label_gallery
from moclip.evaluation.metrics import class_probabilities
from moclip.evaluation.report import GalleryClip, choose_gallery, class_table, confusion
from moclip.models.fusion import load_fusion
from pipeline import paths
from pipeline.inputs import Inputs
from pipeline.multi_label import head_rules
from pipeline.report_matrix import cell_clips, matrix_drawing, worst_cells
from pipeline.report_page import label_section, label_summary_sentence, standalone_streams, summary_sentence


@dataclass(frozen=True)
class ScoresPart:
    """Values for the template, the probabilities (clips, classes) of the streams that are shown, and the gallery."""

    values: dict[str, Any]
    probabilities: dict[str, np.ndarray]
    chosen: list[GalleryClip]


def scores_part(
    inputs: Inputs,
    predictions: pd.DataFrame,
    logits: Mapping[str, np.ndarray],
    streams: list[dict[str, Any]],
    verdict: Mapping[str, Any],
    links: dict[str, str],
) -> ScoresPart:
    """Make the part. `streams` are the rows of the table of scores, `links` lead to the clips that a browser plays."""
    if inputs.multi_label:
        return _of_several_labels(inputs, predictions, logits, streams, verdict)
    return _of_one_label(inputs, predictions, logits, streams, links)


def _of_several_labels(
    inputs: Inputs,
    predictions: pd.DataFrame,
    logits: Mapping[str, np.ndarray],
    streams: list[dict[str, Any]],
    verdict: Mapping[str, Any],
) -> ScoresPart:
    rules = head_rules(load_fusion(paths.FUSION))
    probabilities = {name: rules[name].probabilities(logits[name]) for name in standalone_streams(logits)}
    params, labels, trusted = inputs.params, inputs.targets(predictions), verdict["trusted"]["stream"]
    values = {
        "lead": label_summary_sentence({stream["name"]: stream["map"] for stream in streams}),
        "label_section": label_section(streams, trusted, inputs.clips.classes, verdict["test"]["sources"]),
        "cells": None,
    }
    return ScoresPart(
        values, probabilities, choose_label_gallery(probabilities, labels, params.report.clips, params.seed)
    )


def _of_one_label(
    inputs: Inputs,
    predictions: pd.DataFrame,
    logits: Mapping[str, np.ndarray],
    streams: list[dict[str, Any]],
    links: dict[str, str],
) -> ScoresPart:
    head, names, params = load_fusion(paths.FUSION), inputs.clips.classes, inputs.params
    labels = predictions["label"].to_numpy()
    probabilities = {
        name: class_probabilities(logits[name] / head.temperature(name)) for name in standalone_streams(logits)
    }
    chosen = choose_gallery(probabilities, labels, params.report.clips, params.seed)
    confused = confusion(logits["fusion"], labels, names)
    values = {
        "lead": summary_sentence({stream["name"]: stream["top1"] for stream in streams}),
        "label_section": "",
        "classes": class_table(logits, labels, names),
        "without_clips": [name for label, name in enumerate(names) if label not in labels],
        "matrix": matrix_drawing(confused),
        "cells": cell_clips(confused, list(predictions["id"]), links, {choice.row for choice in chosen}),
        "worst": worst_cells(confused),
    }
    return ScoresPart(values, probabilities, chosen)
