"""Stage `train_mv`: train MV-TSN on the store of motion fields -> data/models/mv_tsn.safetensors and its curves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline import paths
from pipeline.console.command import while_importing
from pipeline.console.output import print_note, set_verbosity
from pipeline.params import Params
from pipeline.stage import stage
from pipeline.training_recipe import CHECKPOINT_SECONDS, RECIPE_KEYS

if TYPE_CHECKING:
    from moclip.training.distributed import World


@stage(
    "dataset.shots",
    "dataset.base_to_new",
    "dataset.unknown",
    "tsn.backbone",
    "tsn.segments",
    "tsn.stack",
    "tsn.moments",
    *RECIPE_KEYS,
)
def train_mv(
    params: Params,
    checkpoint_seconds: Annotated[
        float, typer.Option(min=0, help="Least time between two checkpoints, in seconds; 0: one after each epoch.")
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
        from moclip.training.objective import chosen_by
        from pipeline.inputs import Inputs
        from pipeline.network_fit import NetworkFit, describe_clips, mv_tsn_config, save_folds
        from pipeline.provenance import FIELD_KEYS

    if not world.is_main:
        set_verbosity(quiet=True)
    tsn = params.tsn
    inputs = Inputs(params)
    config = mv_tsn_config(params, inputs.clips.classes)
    where = world.device.type if world.size == 1 else f"{world.size} processes on {world.device.type}"
    print_note(f"train_mv: {tsn.backbone}, {describe_clips(inputs)}, {where}")
    fit = NetworkFit(
        "train_mv", inputs, config, tsn.pretrained, tsn.segments, world, paths.TRAIN_MV_LOG, checkpoint_seconds
    )
    fitted = fit.run()
    if world.is_main:
        record = fit.record(*FIELD_KEYS)
        save_folds(fitted.folds, record)
        fitted.network.save(paths.MV_TSN, record)
        fit.remove_checkpoints()
    print_note(f"train_mv: best epoch {fitted.best['epoch'] + 1:.0f}, {chosen_by(fitted.best)}")


if __name__ == "__main__":
    train_mv()
