"""Train MV-TSN on the store of motion fields."""

from __future__ import annotations

from moclip.errors import ModelError
from moclip.models.mv_tsn import MvTsn
from moclip.training.distributed import World
from moclip.training.epochs import Log
from moclip.training.mv_batches import MotionData
from moclip.training.mv_checkpoint import Checkpoint
from moclip.training.mv_recipe import MvTsnRecipe
from moclip.training.mv_training import MvTsnTraining


def train_mv_tsn(
    model: MvTsn, data: MotionData, recipe: MvTsnRecipe, world: World, checkpoint: Checkpoint, log: Log
) -> dict[str, float]:
    """Train `model` in place. It ends with the weights of the best epoch on `data.val`. Return that epoch's row.

    `log` gets a row per epoch: epoch, lr (of its first step), train_loss (with label smoothing), train_top1, and with
    `data.val` also val_loss and val_top1 (`objective.scores`). A resumed run logs the earlier epochs again. The last
    epoch's checkpoint stays: remove it after you have saved the model, so that a kill in between does not cost the
    training.

    The processes of `world` share every batch and end with the same weights and rows. The main process writes the
    checkpoint. Raises LossError if the loss is NaN or infinite, and ModelError if the processes cannot train together.
    """
    training = MvTsnTraining(model, data, recipe, world)
    checkpoint.resume(training)
    if not world.agrees(f"{checkpoint.fingerprint} {len(training.history)}"):
        raise ModelError(
            "the processes read different parameters, clips or checkpoints", fix="run them in one folder that all share"
        )
    for row in training.history:
        log(row)
    epochs = recipe.stop_after or recipe.epochs
    for epoch in range(len(training.history), epochs):
        log(training.train_epoch(epoch))
        if world.is_main and (checkpoint.is_due() or epoch + 1 == epochs):
            checkpoint.save(training)
    training.best.restore_into(model)
    model.eval()
    return training.best.row
