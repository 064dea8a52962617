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
from moclip.models.heads.config import read_head_config
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
    config, shown, params = read_head_config(paths.FUSION), standalone_streams(logits), inputs.params
    labels, clips, seed = inputs.targets(predictions), params.report.clips, params.seed
    if inputs.multi_label:
        rules = head_rules(config)
        probabilities = {name: rules[name].probabilities(logits[name]) for name in shown}
        chosen = choose_label_gallery(probabilities, labels, clips, seed)
        return ScoresPart(_values_of_several_labels(inputs, streams, verdict), probabilities, chosen)
    probabilities = {name: class_probabilities(logits[name] / config.temperature(name)) for name in shown}
    chosen = choose_gallery(probabilities, labels, clips, seed)
    confused = confusion(logits["fusion"], labels, inputs.clips.classes)
    values = {
        "lead": summary_sentence({stream["name"]: stream["top1"] for stream in streams}),
        "label_section": "",
        "classes": class_table(logits, labels, inputs.clips.classes),
        "without_clips": [name for label, name in enumerate(inputs.clips.classes) if label not in labels],
        "matrix": matrix_drawing(confused),
        "cells": cell_clips(confused, list(predictions["id"]), links, {choice.row for choice in chosen}),
        "worst": worst_cells(confused),
    }
    return ScoresPart(values, probabilities, chosen)


def _values_of_several_labels(
    inputs: Inputs, streams: list[dict[str, Any]], verdict: Mapping[str, Any]
) -> dict[str, Any]:
    trusted, sources = verdict["trusted"]["stream"], verdict["test"]["sources"]
    return {
        "lead": label_summary_sentence({stream["name"]: stream["map"] for stream in streams}),
        "label_section": label_section(streams, trusted, inputs.clips.classes, sources),
        "cells": None,
    }
