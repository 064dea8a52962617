"""Stage `train_probe`: train a linear probe on the cached motion features -> data/models/motion_probe.safetensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline import paths
from pipeline.console.command import while_importing
from pipeline.console.output import print_note
from pipeline.params import Params
from pipeline.stage import stage

if TYPE_CHECKING:
    from moclip.training.linear_probe import LabelledFeatures
    from pipeline.inputs import Inputs


@stage("seed", "dataset.shots", "dataset.base_to_new")
def train_probe(params: Params) -> None:
    """Train a linear probe on the cached motion features, to compare MV-TSN and fusion with.

    It is a logistic regression on the features of the test protocol, on the clips that the fusion head is trained on.
    Chooses the strength of its regularisation on the validation split. Writes data/models/motion_probe.safetensors.
    """
    with while_importing():
        from moclip.training.linear_probe import train_linear_probe
        from pipeline.inputs import Inputs

    inputs = Inputs(params)
    train, val = (_motion_features(inputs, split) for split in ("train", "val"))
    probe, score = train_linear_probe(train, val, len(inputs.clips.classes))
    record = inputs.artifacts.model_record("evaluate.protocol", "evaluate.crop")
    probe.save(paths.MOTION_PROBE, record | {"mv_tsn": inputs.artifacts.mv_embed.attributes["model"]})
    print_note(f"train_probe: {len(train.labels)} clips; strength {score.strength:g}, val top-1 {score.top1:.4f}")


def _motion_features(inputs: Inputs, split: str) -> LabelledFeatures:
    import numpy as np

    from moclip.training.linear_probe import LabelledFeatures

    rows = inputs.fused_rows(split)
    features = inputs.artifacts.mv_embed.rows("features", list(rows["id"]))
    return LabelledFeatures(features, rows["label"].to_numpy(np.int64))


if __name__ == "__main__":
    train_probe()
