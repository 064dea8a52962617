"""Compute what the report page shows of clips with several labels: scores by class, and the clips of the gallery."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from moclip.evaluation.report import GalleryClip


def label_class_table(scores: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each class that has a clip, the one with the lowest average precision of fusion first.

    `scores` has the metrics of each stream. A row has the class's clips, each stream's average precision, and the
    precision, recall, F1 and threshold of fusion. With "still", "motion" and "still" are what each adds to fusion, as
    in `class_table`; without, both are None.
    """
    of_fusion = scores["fusion"]["per_class"]
    rows: list[dict[str, Any]] = []
    for name, own in of_fusion.items():
        if own["clips"]:
            precisions = {stream: one["per_class"][name]["average_precision"] for stream, one in scores.items()}
            gains = {"motion": "still", "still": "mv_tsn"} if "still" in scores else {}
            added = {key: precisions["fusion"] - precisions[other] for key, other in gains.items()}
            rows.append({"name": name, "ap": precisions, "motion": None, "still": None} | own | added)
    return sorted(rows, key=lambda row: row["ap"]["fusion"])


def choose_label_gallery(
    probabilities: Mapping[str, np.ndarray], positives: np.ndarray, count: int, seed: int
) -> list[GalleryClip]:
    """Choose `count` clips of each kind, as `choose_gallery` does for clips with one label.

    `probabilities` are (clips, classes) of each label by itself, of "fusion" and of the streams that it is compared
    with. A clip's gain is how much more probable its labels are by fusion than by the best of the other streams, in the
    mean. Its error is how much more probable by fusion the most probable wrong class is than the least probable label;
    at most 0 where all labels come first.
    """
    has = positives > 0
    of_labels = {name: np.where(has, values, 0).sum(axis=1) / has.sum(axis=1) for name, values in probabilities.items()}
    gain = of_labels["fusion"] - np.max([values for name, values in of_labels.items() if name != "fusion"], axis=0)
    fused = probabilities["fusion"]
    error = np.where(has, -np.inf, fused).max(axis=1) - np.where(has, fused, np.inf).min(axis=1)
    error = np.where(np.isfinite(error), error, 0.0)  # a clip with all labels
    rows = np.arange(len(has))
    chosen = {
        "gain": _highest(rows[gain > 0], gain)[:count],
        "error": _highest(rows[error > 0], error)[:count],
        "random": np.random.default_rng(seed).permutation(rows)[:count],
    }
    kinds_of: dict[int, list[str]] = {}
    for kind, kind_rows in chosen.items():
        for row in kind_rows.tolist():
            kinds_of.setdefault(row, []).append(kind)
    return [GalleryClip(row, kinds, float(gain[row]), float(error[row])) for row, kinds in kinds_of.items()]


def _highest(rows: np.ndarray, score: np.ndarray) -> np.ndarray:
    return rows[np.argsort(-score[rows], kind="stable")]
