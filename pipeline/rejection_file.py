"""data/models/rejection.safetensors: when `moclip predict --reject` answers unknown. It is refused if it is stale."""

from __future__ import annotations

from typing import Any

from moclip.inference.rejection import Rejection, load_rejection, save_rejection
from moclip.models.weights import PROVENANCE, read_config, save_weights
from moclip.video.clip_files import file_md5
from pipeline import paths
from pipeline.inputs import Inputs
from pipeline.provenance import check_digest, check_made_with, made_with

KEYS = (
    "dataset.unknown",
    "dataset.background",
    "evaluate.protocol",
    "evaluate.crop",
    "evaluate.reject_score",
    "evaluate.reject_coverage",
    "evaluate.reject_false_alarms",
)
"""Parameters that the file records. Those of the models are recorded by the models."""


def write_rejection(inputs: Inputs, rejection: Rejection | None) -> None:
    """Write the file, with digests of the models and the parameters that the rejection was chosen with.

    None stands for clips with several labels, which need no rejection.
    """
    record = {PROVENANCE: {"made_with": made_with(inputs.params, *KEYS), **_digests(inputs)}}
    if rejection is None:
        save_weights(paths.REJECTION, {}, record)
    else:
        save_rejection(paths.REJECTION, rejection, record)


def read_rejection(inputs: Inputs) -> Rejection | None:
    """Read the file; None if the clips have several labels.

    Raises MoclipError if the file is missing, or was chosen with other models or parameters.
    """
    recorded = read_config(paths.REJECTION, "evaluate")[PROVENANCE]
    current = _digests(inputs)
    for name, other in (("fusion", "another fusion head"), ("text", "other text features")):
        check_digest(current[name], recorded[name], other, paths.REJECTION, "evaluate")
    check_made_with(recorded["made_with"], inputs.params, paths.REJECTION, "evaluate")
    return None if inputs.multi_label else load_rejection(paths.REJECTION)


def _digests(inputs: Inputs) -> dict[str, Any]:
    """Return digests of the fusion head, which records MV-TSN and the encoder, and of the classes' text features."""
    return {"fusion": file_md5(paths.FUSION), "text": inputs.artifacts.text_digest()}
