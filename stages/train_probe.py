"""Stage `train_probe`: train a linear probe on the cached motion features -> data/models/motion_probe.safetensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline import paths
from pipeline.console.command import while_importing
from pipeline.console.output import counted, print_note
from pipeline.params import Params
from pipeline.stage import stage

if TYPE_CHECKING:
    import pandas as pd

    from moclip.store.features import Features
    from moclip.training.linear_probe import LabelledFeatures
    from pipeline.inputs import Inputs


@stage("seed", "dataset.shots", "dataset.base_to_new", "fit.folds", "fit.refit")
def train_probe(params: Params) -> None:
    """Train a linear probe on the cached motion features, to compare MV-TSN and fusion with.

    It is a logistic regression on the features of the test protocol, on the clips that the fusion head is trained on.
    Chooses the strength of its regularisation on the validation split; with fit.folds, on the first fold. Writes
    data/models/motion_probe.safetensors.
    """
    with while_importing():
        from moclip.training.linear_probe import choose_linear_probe, train_linear_probe
        from pipeline.inputs import Inputs

    inputs = Inputs(params)
    artifacts, clips, classes = inputs.artifacts, inputs.clips, len(inputs.clips.classes)
    train = _labelled(inputs, inputs.fused_rows(*clips.final_splits), artifacts.mv_embed)
    if clips.refits:
        others, held_out = inputs.fold_rows(clips.folds()[0])
        protocol, views = artifacts.fold_features(1)
        _, score = choose_linear_probe(_labelled(inputs, others, views), _labelled(inputs, held_out, protocol), classes)
        probe = train_linear_probe(train, classes, score.strength)
    else:
        probe, score = choose_linear_probe(
            train, _labelled(inputs, inputs.fused_rows("val"), artifacts.mv_embed), classes
        )
    record = artifacts.model_record("evaluate.protocol", "evaluate.crop")
    probe.save(paths.MOTION_PROBE, record | {"mv_tsn": artifacts.mv_embed.attributes["model"]})
    reached = f"val top-1 {score.top1:.3f}" if score.map is None else f"val mAP {score.map:.3f}"
    print_note(f"train_probe: {counted(len(train.labels), 'clip')}; regularisation {score.strength:g}, {reached}")


def _labelled(inputs: Inputs, rows: pd.DataFrame, motion: Features) -> LabelledFeatures:
    """Return the motion features and labels of clips; of augmented views, the mean of each clip's."""
    from moclip.data.clip_weights import weights_of
    from moclip.training.linear_probe import LabelledFeatures

    features = motion.rows("features", list(rows["id"]))
    features = features.mean(axis=1) if features.ndim == 3 else features
    return LabelledFeatures(features, inputs.targets(rows), weights_of(rows))


if __name__ == "__main__":
    train_probe()
