"""Stage `train_mv`: MV-TSN on the store of motion fields -> data/models/mv_tsn.safetensors and its curves."""

from __future__ import annotations

from dataclasses import asdict

from moclip import dataset
from moclip.device import pick_device
from moclip.mv_training import MvTsnRecipe, recipe_fingerprint, train_mv_tsn
from moclip.mv_tsn import MvTsn, MvTsnConfig
from pipeline import console, paths
from pipeline.inputs import Inputs
from pipeline.log import live_log
from pipeline.params import Params
from pipeline.seed import seed_everything
from pipeline.stage import stage


@stage(
    "seed",
    "dataset.shots",
    "tsn.backbone",
    "tsn.pretrained",
    "tsn.size",
    "tsn.segments",
    "tsn.epochs",
    "tsn.batch",
    "tsn.lr",
    "tsn.eps",
    "tsn.weight_decay",
    "tsn.lr_mult.head",
    "tsn.lr_mult.stem",
    "tsn.lr_mult.rest",
    "tsn.lr_steps",
    "tsn.dropout",
    "tsn.crops",
    "tsn.flip",
    "tsn.precision",
    "evaluate.crop",
)
def train_mv(params: Params) -> None:
    """Train MV-TSN on the motion vectors.

    The best epoch is chosen on the validation part of train. An interrupted run goes on from its last checkpoint.
    Writes data/models/mv_tsn.safetensors and the curves in metrics/train_mv.
    """
    seed_everything(params.seed)
    tsn = params.tsn
    inputs = Inputs(params.dataset.shots, params.seed)
    train, val = inputs.motion_clips("train"), inputs.motion_clips("val")
    config = MvTsnConfig(tsn.backbone, tuple(dataset.class_names(inputs.index)), tsn.size, tsn.dropout)
    model = MvTsn(config, tsn.pretrained)
    recipe = MvTsnRecipe(
        segments=tsn.segments,
        epochs=tsn.epochs,
        batch=tsn.batch,
        lr=tsn.lr,
        eps=tsn.eps,
        weight_decay=tsn.weight_decay,
        lr_mult_head=tsn.lr_mult.head,
        lr_mult_stem=tsn.lr_mult.stem,
        lr_mult_rest=tsn.lr_mult.rest,
        lr_steps=tuple(tsn.lr_steps),
        crops=tuple(tsn.crops),
        flip=tsn.flip,
        precision=tsn.precision,
        test_crop=params.evaluate.crop,
        seed=params.seed,
    )
    device = pick_device()
    console.note(f"train_mv: {tsn.backbone}, {len(train)} clips, {len(val)} to choose the epoch on, {device}")
    fields = inputs.fields()
    same_run = recipe_fingerprint(
        recipe,
        network=asdict(config),
        pretrained=tsn.pretrained,
        clips=inputs.fingerprint(),
        shots=params.dataset.shots,
        store=fields.reader.attributes["recipe"],
    )
    with live_log(paths.TRAIN_MV_LOG, "train_mv", tsn.epochs) as log:
        best = train_mv_tsn(
            model, fields, train, val, recipe, device, paths.WORK / "train_mv.safetensors", same_run, log
        )
    model.save(paths.MV_TSN)
    console.note(f"train_mv: best epoch {best['epoch'] + 1}, val top-1 {best['val_top1']:.4f}")


if __name__ == "__main__":
    train_mv()
