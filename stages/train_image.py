"""Stage `train_image`: train the image baseline on motion drawn as RGB -> data/baselines/image, model and curves."""

from __future__ import annotations

from pipeline import paths
from pipeline.console.command import while_importing
from pipeline.console.output import print_note
from pipeline.io import write_unused
from pipeline.params import Params
from pipeline.stage import stage
from pipeline.training_recipe import CHECKPOINT_SECONDS, RECIPE_KEYS, run_fingerprint, training_recipe


@stage("dataset.shots", "dataset.base_to_new", "baselines.image", *RECIPE_KEYS)
def train_image(params: Params) -> None:
    """Train the baseline: an image classifier on RGB pictures of the motion fields.

    Trains like MV-TSN, but on one picture per clip and epoch. Starts from ImageNet weights if tsn.pretrained is hub. A
    killed run resumes from its last checkpoint. Writes data/baselines/image with `model.safetensors` and `curves`, or
    with only unused.txt if baselines.image is false.
    """
    backbone = params.baselines.image
    if backbone is False:
        write_unused(paths.IMAGE_BASELINE, "baselines.image is false")
        print_note("train_image: nothing to do, baselines.image is false")
        return
    _train(params, backbone)


def _train(params: Params, backbone: str) -> None:
    with while_importing():
        from moclip.files.atomic import atomic_folder
        from moclip.models.device import pick_device
        from moclip.models.mv_tsn import MvTsn, MvTsnConfig
        from moclip.training.distributed import World
        from moclip.training.mv_batches import MotionData
        from moclip.training.mv_checkpoint import Checkpoint
        from moclip.training.mv_tsn import train_mv_tsn
        from pipeline.inputs import Inputs
        from pipeline.provenance import FIELD_KEYS
        from pipeline.seeding import seed_everything
        from pipeline.training_log import live_log, loss_errors_name_clips

    seed_everything(params.seed)
    tsn = params.tsn
    inputs = Inputs(params)
    data = MotionData(inputs.sampled_fields(), inputs.motion_clips("train"), inputs.motion_clips("val"))
    config = MvTsnConfig(backbone, tuple(inputs.clips.classes), tsn.size, tsn.dropout, tsn.stem_stride, channels=3)
    pretrained = "hub" if tsn.pretrained == "hub" else False
    model = MvTsn(config, pretrained)
    recipe, world = training_recipe(params, 1), World(pick_device())
    print_note(
        f"train_image: {backbone}, {len(data.train)} clips, {len(data.val)} to choose the epoch on, {world.device}"
    )
    checkpoint = Checkpoint(
        paths.WORK / "train_image.safetensors",
        run_fingerprint(params, recipe, config, pretrained, inputs, data.fields),
        CHECKPOINT_SECONDS,
    )
    with loss_errors_name_clips(inputs.motion_rows("train")), atomic_folder(paths.IMAGE_BASELINE) as folder:
        with live_log(folder / "curves", "train_image", tsn.epochs) as log:
            best = train_mv_tsn(model, data, recipe, world, checkpoint, log)
        model.save(folder / paths.IMAGE_MODEL.name, inputs.artifacts.model_record("baselines.image", *FIELD_KEYS))
    checkpoint.path.unlink(missing_ok=True)  # not before the model is saved
    print_note(f"train_image: best epoch {best['epoch'] + 1}, val top-1 {best['val_top1']:.4f}")


if __name__ == "__main__":
    train_image()
