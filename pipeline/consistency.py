"""Whether the models, the text features, the class names and params.yaml belong together.

Called by `evaluate`, `predict`, `export`, `timing` and `report` before they use any of them.
"""

from __future__ import annotations

import numpy as np

from moclip.models.weights import load_weights
from moclip.video.clip_files import file_md5
from pipeline import paths
from pipeline.inputs import Inputs
from pipeline.io import read_json
from pipeline.params import Params
from pipeline.provenance import check_made_from, stale_error


def check_consistent(params: Params) -> Inputs:
    """The project's inputs, all of whose models go with each other, with the index and with params.yaml.

    Raises MoclipError where a model is absent, or was trained with other parameters, clips, labels, splits, classes or
    features than there are now. An index and stores that are gone are not missed: a prediction needs none.
    """
    inputs = Inputs.learning(params)
    if paths.INDEX.exists():
        inputs.index  # noqa: B018  which checks it
    inputs.check_model(paths.MV_TSN, "train_mv")
    head = inputs.check_model(paths.FUSION, "train_fusion")
    check_made_from(file_md5(paths.MV_TSN), head["mv_tsn"], "another MV-TSN", paths.FUSION, "train_fusion")
    text = inputs.clip_text
    for now in (inputs.clip_here, text.attributes.get("clip")):
        if now:
            check_made_from(now, head["clip"], "another CLIP", paths.FUSION, "train_fusion")
    _check_text(text.array("features"))
    return inputs


def check_scores(inputs: Inputs) -> None:
    """Raise MoclipError where the metrics are not those of the index's test split and of the models."""
    where = paths.STREAM_JSON["fusion"]
    scores = read_json(where, "evaluate")
    check_made_from(inputs.fingerprint("test"), scores["fingerprint"], "other test clips", where, "evaluate")
    check_made_from(inputs.models(), scores["models"], "other models", where, "evaluate")


def _check_text(text: np.ndarray) -> None:
    """The head `text` holds the text features that it was trained with."""
    own = load_weights(paths.FUSION, "train_fusion")[0].get("text")
    if own is not None and not np.array_equal(own.numpy(), text):
        raise stale_error("it was trained with other text features", paths.FUSION, "train_fusion")
