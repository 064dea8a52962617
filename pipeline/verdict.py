"""The verdict: which stream to trust, chosen by `train_fusion` and kept by the head; what `evaluate` found about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from moclip.evaluation.multi_label_verdict import compare_by_map
from moclip.evaluation.verdict import compare_streams
from moclip.models.weights import PROVENANCE, read_config
from pipeline import paths
from pipeline.inputs import Inputs
from pipeline.logits import clip_sources
from pipeline.params import Params


def trusted_stream() -> str:
    """Return the stream that the trained head says to trust; fusion if an earlier version trained it."""
    recorded = read_config(paths.FUSION, "train_fusion")[PROVENANCE]
    return str(recorded["trusted"]["stream"]) if "trusted" in recorded else "fusion"


def make_verdict(
    inputs: Inputs, params: Params, rows: pd.DataFrame, logits: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Return what metrics/verdict.json holds. `rows` are the index's rows of the test clips."""
    choice = inputs.artifacts.check_model(paths.FUSION, "train_fusion")["trusted"]
    compare = compare_by_map if inputs.multi_label else compare_streams
    return {
        "trusted": choice,
        "test": compare(choice["stream"], logits, inputs.targets(rows), clip_sources(rows), params.seed),
        "commonest_class": inputs.clips.classes[logits["majority"][0].argmax()],
        "fingerprint": inputs.clips.fingerprint("test"),
        "models": inputs.artifacts.models_digest(),
    }
