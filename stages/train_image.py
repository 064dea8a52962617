"""Stage `train_image`: the baseline that sees motion as a photo -> data/baselines/image, model and logits of it."""

from __future__ import annotations

from moclip.files import folder_aside
from pipeline import console, paths
from pipeline.params import Params
from pipeline.recipe import RECIPE_KEYS, recipe, same_run
from pipeline.stage import stage


@stage("dataset.shots", "dataset.base_to_new", "baselines.image", "embed.batch", "evaluate.protocol", *RECIPE_KEYS)
def train_image(params: Params) -> None:
    """Train the baseline: an image classifier on RGB pictures of the motion fields.

    One picture a clip and epoch; otherwise as MV-TSN is trained. ImageNet weights where tsn.pretrained is hub. Writes
    data/baselines/image with `model.safetensors`, `logits.zarr` of every clip under evaluate.protocol, and `curves`;
    with baselines.image false it stays empty.
    """
    backbone = params.baselines.image
    if backbone is False:
        with folder_aside(paths.IMAGE_BASELINE) as folder:
            folder.mkdir()
        console.note("train_image: nothing to do, baselines.image is false")
        return
    _train(params, backbone)


def _train(params: Params, backbone: str) -> None:
    # imported here: with nothing to do, nobody waits for torch
    from moclip import dataset
    from moclip.device import pick_device
    from moclip.features import write_features
    from moclip.mv_training import embed, train_mv_tsn
    from moclip.mv_tsn import MvTsn, MvTsnConfig
    from pipeline.inputs import Inputs
    from pipeline.log import live_log
    from pipeline.seed import seed_everything

    seed_everything(params.seed)
    inputs = Inputs.learning(params)
    train, val, everyone = inputs.motion_clips("train"), inputs.motion_clips("val"), inputs.motion_clips()
    tsn, classes = params.tsn, tuple(dataset.class_names(inputs.index))
    config = MvTsnConfig(backbone, classes, tsn.size, tsn.dropout, tsn.stem_stride, channels=3)
    pretrained = "hub" if tsn.pretrained == "hub" else False
    model, wanted, device, fields = MvTsn(config, pretrained), recipe(params, 1), pick_device(), inputs.fields()
    console.note(f"train_image: {backbone}, {len(train)} clips, {len(val)} to choose the epoch on, {device}")
    run = same_run(params, wanted, config, pretrained, inputs, fields)
    segments, crops = params.evaluate.views
    with inputs.naming(inputs.motion_rows("train")), folder_aside(paths.IMAGE_BASELINE) as folder:
        with live_log(folder / "curves", "train_image", tsn.epochs) as log:
            checkpoint = paths.WORK / "train_image.safetensors"
            best = train_mv_tsn(model, fields, train, val, wanted, device, checkpoint, run, log)
        model.save(folder / "model.safetensors")
        frozen = model.frozen()
        _, logits = embed(frozen, fields, everyone, segments, crops, params.evaluate.crop, params.embed.batch, device)
        write_features(
            folder / "logits.zarr",
            list(inputs.motion_rows()["id"]),
            {"logits": (logits, ("class",))},
            {"protocol": params.evaluate.protocol, "classes": list(classes), "cost": model.segment_cost()},
        )
    console.note(f"train_image: best epoch {best['epoch'] + 1}, val top-1 {best['val_top1']:.4f}")


if __name__ == "__main__":
    train_image()
