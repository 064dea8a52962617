"""Check that the models, text features, class names and params.yaml belong together.

Used by `evaluate`, `predict`, `export`, `timing` and `report` before they use any of them.
"""

from __future__ import annotations

import numpy as np

from moclip.models.weights import read_config, read_tensor
from moclip.video.clip_files import file_md5
from pipeline import paths
from pipeline.inputs import Inputs
from pipeline.io import read_json
from pipeline.params import Params
from pipeline.provenance import check_digest, stale_error


def check_consistent(params: Params) -> Inputs:
    """Return the project's inputs after checking that its models fit each other, the index and params.yaml.

    Raises MoclipError if a model is missing, or was trained with other parameters, clips, labels, splits, classes or
    features than there are now. The index and the feature stores may be gone: a prediction needs none of them.
    """
    inputs = Inputs(params)
    artifacts = inputs.artifacts
    if paths.INDEX.exists():
        inputs.clips.index  # noqa: B018  reading the index checks it
    artifacts.check_model(paths.MV_TSN, "train_mv")
    head = artifacts.check_model(paths.FUSION, "train_fusion")
    check_digest(file_md5(paths.MV_TSN), head["mv_tsn"], "another MV-TSN", paths.FUSION, "train_fusion")
    text = artifacts.clip_text
    for digest in (artifacts.clip_digest, text.attributes.get("clip") if text else None):
        if digest:
            check_digest(digest, head["clip"], "another CLIP", paths.FUSION, "train_fusion")
    if "temperatures" not in read_config(paths.FUSION, "train_fusion"):
        raise stale_error("it has no temperatures: an earlier version made it", paths.FUSION, "train_fusion")
    if text:
        _check_text_features(text.array("features"))
    return inputs


def check_scores(inputs: Inputs) -> None:
    """Raise MoclipError if the metrics are of another test split or other models than there are now."""
    fingerprint, models = inputs.clips.fingerprint("test"), inputs.artifacts.models_digest()
    for where in (paths.STREAM_JSON["fusion"], paths.VERDICT_JSON):
        recorded = read_json(where, "evaluate")
        check_digest(fingerprint, recorded["fingerprint"], "other test clips", where, "evaluate")
        check_digest(models, recorded["models"], "other models", where, "evaluate")


def _check_text_features(text: np.ndarray) -> None:
    """Raise StoreError if the head `text`, which holds the text features it was trained with, has others."""
    trained_with = read_tensor(paths.FUSION, "train_fusion", "text")
    if trained_with is not None and not np.array_equal(trained_with, text):
        raise stale_error("it was trained with other text features", paths.FUSION, "train_fusion")
