"""The tables of each stream's logits: data/validation.parquet and data/predictions.parquet.

A table has a row per clip: id, class, label, and a list of float32 per stream, one value per class in label order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from moclip.data.label_sets import is_multi_label
from moclip.evaluation.metrics import EQUAL_WEIGHTS, SumWeights
from moclip.models.weights import PROVENANCE, read_config
from pipeline import paths
from pipeline.inputs import Inputs
from pipeline.io import read_parquet, write_parquet
from pipeline.provenance import check_digest, check_made_with


def sum_record(inputs: Inputs, weights: SumWeights) -> dict[str, Any]:
    """Return what the trained head records of the stream "score_sum"."""
    return {"score_sum": {"weights": asdict(weights), "text": inputs.artifacts.text_digest()}}


def read_sum_weights(inputs: Inputs) -> SumWeights:
    """Return the weights of "score_sum" that the trained head records; equal ones from a head of an earlier version.

    Raises StoreError if they were chosen with other text features.
    """
    recorded = read_config(paths.FUSION, "train_fusion")[PROVENANCE].get("score_sum")
    if recorded is None:
        return EQUAL_WEIGHTS
    current = inputs.artifacts.text_digest()
    check_digest(current, recorded["text"], "other text features", paths.FUSION, "train_fusion")
    return SumWeights(**recorded["weights"])


def write_logits(path: Path, rows: pd.DataFrame, logits: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> None:
    """Write a table of logits. `rows` are the index's rows of the clips, `record` says what it was made from.

    Clips that were held out have the column `fold`, too.
    """
    table = rows[[name for name in ("id", "class", "label", "labels", "fold") if name in rows]].copy()
    table.attrs.update(record)  # Parquet keeps them
    for name, values in logits.items():
        table[name] = list(values.astype(np.float32))
    write_parquet(path, table)


def validation_record(inputs: Inputs) -> dict[str, Any]:
    """Return what data/validation.parquet records: a digest of the heads, and what its features were made with.

    The heads are in data/models by then. They record their MV-TSN and their CLIP.
    """
    artifacts = inputs.artifacts
    return {"models": artifacts.head_digest(), "made_with": artifacts.mv_embed.attributes.get("made_with", {})}


def read_validation(inputs: Inputs) -> pd.DataFrame:
    """Read the logits of the validation clips under the trained head, with every stream except "mv_image".

    Raises MoclipError if the table is missing, or was made with another head, other text features or parameters.
    """
    table = read_parquet(paths.VALIDATION, "train_fusion")
    check_digest(
        inputs.artifacts.head_digest(), table.attrs.get("models"), "another head", paths.VALIDATION, "train_fusion"
    )
    check_made_with(table.attrs.get("made_with", {}), inputs.artifacts.params, paths.VALIDATION, "train_fusion")
    return table


def clip_sources(rows: pd.DataFrame) -> np.ndarray:
    """Return the source of each clip, (n,) str; `rows` are the index's. Clips of one source are alike.

    A source is a group of a class. With several labels a clip it is the group alone: clips that were cut from one video
    may have other labels.
    """
    if is_multi_label(rows):
        return np.asarray(rows["group"], dtype=str)
    return np.asarray(rows["class"] + "/" + rows["group"])


def stacked_logits(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return a table's logits of each stream, (clips, classes) float32."""
    return {name: np.stack(table[name].to_list()) for name in paths.STREAM_JSON if name in table}
