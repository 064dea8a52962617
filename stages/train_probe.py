"""Stage `train_probe`: train a linear probe on the cached motion features -> data/models/motion_probe.safetensors."""

from __future__ import annotations

from moclip.wording import counted
from pipeline import paths
from pipeline.console.command import while_importing
from pipeline.console.output import print_note
from pipeline.params import Params
from pipeline.stage import stage


@stage("seed", "dataset.shots", "dataset.base_to_new", "fit.folds", "fit.refit")
def train_probe(params: Params) -> None:
    """Train a linear probe on the cached motion features, to compare MV-TSN and fusion with.

    It is a logistic regression on the features of the test protocol, on the clips that the fusion head is trained on.
    Chooses the strength of its regularisation on the validation split; with fit.folds, on the clips held out of all
    folds. Writes data/models/motion_probe.safetensors.
    """
    with while_importing():
        from moclip.training.linear_probe import choose_linear_probe, train_linear_probe
        from pipeline.inputs import Inputs
        from pipeline.probe_data import labelled_features, labelled_fold

    inputs = Inputs(params)
    artifacts, clips, classes = inputs.artifacts, inputs.clips, len(inputs.clips.classes)
    folds = [labelled_fold(inputs, number, fold) for number, fold in enumerate(clips.folds(), start=1)]
    probes, score = choose_linear_probe(folds, classes)
    train = labelled_features(inputs, inputs.fused_rows(*clips.final_splits), artifacts.mv_embed)
    probe = train_linear_probe(train, classes, score.strength) if clips.refits else probes[0]
    record = artifacts.model_record("evaluate.protocol", "evaluate.crop")
    probe.save(paths.MOTION_PROBE, record | {"mv_tsn": artifacts.mv_embed.attributes["model"]})
    reached = f"val top-1 {score.top1:.3f}" if score.map is None else f"val mAP {score.map:.3f}"
    print_note(f"train_probe: {counted(len(train.labels), 'clip')}; regularisation {score.strength:g}, {reached}")


if __name__ == "__main__":
    train_probe()
