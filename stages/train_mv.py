"""Stage `train_mv`: train MV-TSN on the store of motion fields -> data/models/mv_tsn.safetensors and its curves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline import paths
from pipeline.console.command import while_importing
from pipeline.console.output import print_note, set_verbosity
from pipeline.params import Params
from pipeline.stage import stage
from pipeline.training_recipe import CHECKPOINT_SECONDS, RECIPE_KEYS, run_fingerprint, training_recipe

if TYPE_CHECKING:
    from moclip.training.distributed import World


@stage("dataset.shots", "dataset.base_to_new", "tsn.backbone", "tsn.segments", *RECIPE_KEYS)
def train_mv(
    params: Params,
    checkpoint_seconds: Annotated[
        float, typer.Option(min=0, help="Least time between two checkpoints; 0: one after each epoch.")
    ] = CHECKPOINT_SECONDS,
) -> None:
    """Train MV-TSN on the motion vectors.

    Chooses the best epoch on the validation split. A killed run resumes from its last checkpoint. Writes
    data/models/mv_tsn.safetensors, and curves to metrics/train_mv. With `accelerate launch` or `torchrun`, several
    processes train it together, each on its own GPU.
    """
    with while_importing():
        from moclip.training.distributed import join_processes

    with join_processes() as world:
        _train(params, checkpoint_seconds, world)


def _train(params: Params, checkpoint_seconds: float, world: World) -> None:
    with while_importing():
        from moclip.models.mv_tsn import MvTsn, MvTsnConfig
        from moclip.training.mv_batches import MotionData
        from moclip.training.mv_checkpoint import Checkpoint
        from moclip.training.mv_tsn import train_mv_tsn
        from pipeline.inputs import Inputs
        from pipeline.provenance import FIELD_KEYS
        from pipeline.seeding import seed_everything
        from pipeline.training_log import live_log, loss_errors_name_clips

    if not world.is_main:
        set_verbosity(quiet=True)
    seed_everything(params.seed)
    tsn = params.tsn
    inputs = Inputs(params)
    data = MotionData(inputs.sampled_fields(), inputs.motion_clips("train"), inputs.motion_clips("val"))
    config = MvTsnConfig(tsn.backbone, tuple(inputs.clips.classes), tsn.size, tsn.dropout, tsn.stem_stride)
    model = MvTsn(config, tsn.pretrained)
    recipe = training_recipe(params, tsn.segments)
    where = world.device.type if world.size == 1 else f"{world.size} processes on {world.device.type}"
    print_note(f"train_mv: {tsn.backbone}, {len(data.train)} clips, {len(data.val)} to choose the epoch on, {where}")
    checkpoint = Checkpoint(
        paths.WORK / "train_mv.safetensors",
        run_fingerprint(params, recipe, config, tsn.pretrained, inputs, data.fields),
        checkpoint_seconds,
    )
    naming_clips = loss_errors_name_clips(inputs.motion_rows("train"))
    with naming_clips, live_log(paths.TRAIN_MV_LOG, "train_mv", tsn.epochs, world.is_main) as log:
        best = train_mv_tsn(model, data, recipe, world, checkpoint, log)
    if world.is_main:
        model.save(paths.MV_TSN, inputs.artifacts.model_record(*FIELD_KEYS))
        checkpoint.path.unlink(missing_ok=True)  # not before the model is saved
    print_note(f"train_mv: best epoch {best['epoch'] + 1}, val top-1 {best['val_top1']:.4f}")


if __name__ == "__main__":
    train_mv()
