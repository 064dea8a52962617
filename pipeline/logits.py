"""Compute the logits of every stream, and keep them as tables: data/validation.parquet and data/predictions.parquet.

A table has a row per clip: id, class, label, and a list of float32 per stream, one value per class in label order.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from moclip.evaluation.metrics import score_sum
from moclip.store.features import Features
from pipeline import paths
from pipeline.baselines import Heads, majority_logits, still_logits
from pipeline.inputs import Inputs
from pipeline.io import read_parquet, write_parquet
from pipeline.provenance import check_digest, check_made_with


def compute_logits(
    inputs: Inputs, heads: Heads, ids: list[str], image_baseline: Features | None = None
) -> dict[str, np.ndarray]:
    """Return the logits of each stream, (clips, classes) float32; "mv_image" only with the image baseline's store."""
    text, temperature = inputs.text_features()
    motion, stills = inputs.artifacts.mv_embed.rows("features", ids), inputs.still_features(ids)
    with torch.inference_mode():
        fused = heads.fusion(torch.from_numpy(motion), torch.from_numpy(stills)).numpy()
    zero_shot = temperature * inputs.mean_still_features(ids) @ text.T
    mv_tsn = inputs.artifacts.mv_embed.rows("logits", ids)
    return {
        "majority": majority_logits(inputs, len(ids)),
        "zero_shot": zero_shot,
        "still": still_logits(heads.still, stills),
        **({"mv_image": image_baseline.rows("logits", ids)} if image_baseline else {}),
        "motion_probe": heads.motion_probe.logits(motion),
        "mv_tsn": mv_tsn,
        "score_sum": score_sum(zero_shot, mv_tsn),
        "fusion": fused,
    }


def write_logits(path: Path, rows: pd.DataFrame, logits: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> None:
    """Write a table of logits. `rows` are the index's rows of the clips, `record` says what it was made from."""
    table = rows[["id", "class", "label"]].copy()
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
    """Return the source of each clip, (n,) str; `rows` are the index's. Clips of one source are alike."""
    return np.asarray(rows["class"] + "/" + rows["group"])


def stacked_logits(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return a table's logits of each stream, (clips, classes) float32."""
    return {name: np.stack(table[name].to_list()) for name in paths.STREAM_JSON if name in table}
