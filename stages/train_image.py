"""Stage `train_image`: the baseline that sees motion as a photo -> data/baselines/image, its model and curves."""

from __future__ import annotations

from pipeline import paths
from pipeline.console.command import while_importing
from pipeline.console.output import print_note
from pipeline.io import write_unused
from pipeline.params import Params
from pipeline.stage import stage
from pipeline.training_recipe import RECIPE_KEYS, run_fingerprint, training_recipe


@stage("dataset.shots", "dataset.base_to_new", "baselines.image", *RECIPE_KEYS)
def train_image(params: Params) -> None:
    """Train the baseline: an image classifier on RGB pictures of the motion fields.

    One picture a clip and epoch; otherwise as MV-TSN is trained. ImageNet weights where tsn.pretrained is hub. Writes
    data/baselines/image with `model.safetensors` and `curves`; with baselines.image false only unused.txt. An
    interrupted run goes on from its last checkpoint.
    """
    with while_importing():
        pass

    backbone = params.baselines.image
    if backbone is False:
        write_unused(paths.IMAGE_BASELINE, "baselines.image is false")
        print_note("train_image: nothing to do, baselines.image is false")
        return
    _train(params, backbone)


def _train(params: Params, backbone: str) -> None:
    # imported here: with nothing to do, nobody waits for torch
    from moclip.files.atomic import folder_aside
    from moclip.models.device import pick_device
    from moclip.models.mv_tsn import MvTsn, MvTsnConfig
    from moclip.training.mv_tsn import train_mv_tsn
    from pipeline.inputs import Inputs
    from pipeline.provenance import FIELD_KEYS
    from pipeline.seeding import seed_everything
    from pipeline.training_log import live_log, loss_errors_name_clips

    seed_everything(params.seed)
    inputs = Inputs(params)
    train, val = inputs.motion_clips("train"), inputs.motion_clips("val")
    tsn, classes = params.tsn, tuple(inputs.clips.classes)
    config = MvTsnConfig(backbone, classes, tsn.size, tsn.dropout, tsn.stem_stride, channels=3)
    pretrained = "hub" if tsn.pretrained == "hub" else False
    model, wanted, device, fields = (
        MvTsn(config, pretrained),
        training_recipe(params, 1),
        pick_device(),
        inputs.sampled_fields(),
    )
    print_note(f"train_image: {backbone}, {len(train)} clips, {len(val)} to choose the epoch on, {device}")
    run = run_fingerprint(params, wanted, config, pretrained, inputs, fields)
    checkpoint = paths.WORK / "train_image.safetensors"
    with loss_errors_name_clips(inputs.motion_rows("train")), folder_aside(paths.IMAGE_BASELINE) as folder:
        with live_log(folder / "curves", "train_image", tsn.epochs) as log:
            best = train_mv_tsn(model, fields, train, val, wanted, device, checkpoint, run, log)
        model.save(folder / paths.IMAGE_MODEL.name, inputs.artifacts.model_record("baselines.image", *FIELD_KEYS))
    checkpoint.unlink(missing_ok=True)  # the model is in its place
    print_note(f"train_image: best epoch {best['epoch'] + 1}, val top-1 {best['val_top1']:.4f}")


if __name__ == "__main__":
    train_image()
