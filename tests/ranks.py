"""What several connected processes do in tests: `python -m tests.ranks FILE` runs the function in FILE.

In a module of its own, so that the processes import no tests.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.layers import BatchNormAct2d

from moclip.data.clip_batches import SampledFields, SplitClips
from moclip.models.mv_tsn import MvTsn, MvTsnConfig
from moclip.models.weights import save_weights
from moclip.training.distributed import join_processes
from moclip.training.mirroring import Mirroring
from moclip.training.mv_batches import MotionData
from moclip.training.mv_checkpoint import Checkpoint
from moclip.training.mv_tsn import train_mv_tsn
from pipeline import params as parameters
from pipeline import paths
from pipeline.console.command import run_guarded
from pipeline.inputs import Inputs
from pipeline.training_recipe import training_recipe
from stages.train_mv import train_mv

CLASSES = ("a", "b", "c", "d")


def plain_network(classes: tuple[str, ...] = ("left", "right")) -> MvTsn:
    """Without BatchNorm and dropout, so that clips do not depend on what else is in their part of the batch."""
    torch.manual_seed(1)
    model = MvTsn(MvTsnConfig("test_resnet", classes, 32, 0.0))
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, torch.nn.BatchNorm2d):
                setattr(parent, name, torch.nn.ReLU() if isinstance(child, BatchNormAct2d) else torch.nn.Identity())
    return model


def with_batch_norms() -> MvTsn:
    torch.manual_seed(1)
    return MvTsn(MvTsnConfig("test_resnet", CLASSES, 32, 0.5))


def without() -> MvTsn:
    return plain_network(CLASSES)


class Recorded(SampledFields):
    """Fields that note which clips they read."""

    seen: list[np.ndarray]

    def read_async(
        self,
        clips: SplitClips,
        segments: int,
        generator: np.random.Generator | None = None,
        own: slice = slice(None),
    ) -> Callable[[], np.ndarray]:
        self.seen.append(clips.offsets[own])
        return super().read_async(clips, segments, generator, own)


def train_recorded(
    rank: int, build: Callable[[], MvTsn], folder: Path, out: Path, changes: dict[str, dict[str, Any]]
) -> None:
    """Train networks, one for each change of the parameters; leaves their weights, rows and the clips they have read.

    They are files NAME-SIZE-RANK below `out`.
    """
    os.chdir(folder)
    with join_processes() as world:
        for name, change in changes.items():
            params = parameters.load(paths.PARAMS, change)
            inputs = Inputs(params)
            stored = inputs.sampled_fields()
            fields = Recorded(stored.reader, stored.motion_frame, stored.first)
            fields.seen = []
            data = MotionData(fields, inputs.motion_clips("train"), inputs.motion_clips("val"))
            model = build()
            rows: list[dict[str, float]] = []
            checkpoint = Checkpoint(out / f"{name}-{world.size}.checkpoint", "", 0.0)
            recipe = training_recipe(params, params.tsn.segments, Mirroring(True))
            train_mv_tsn(model, data, recipe, world, checkpoint, rows.append)
            read = {"read": torch.from_numpy(np.concatenate(fields.seen))}
            save_weights(out / f"{name}-{world.size}-{rank}", model.state_dict() | read, {"rows": rows})


def stage(rank: int, folders: Sequence[Path], printed: Path, options: Sequence[str]) -> None:
    """`python -m stages.train_mv` in a folder of this rank's own; what it says goes into files below `printed`."""
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(printed / f"{rank}.{name}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
    os.chdir(folders[rank])
    sys.argv = ["train_mv", *options]
    train_mv()


def lose(rank: int, printed: Path) -> None:
    os.dup2(os.open(printed / f"{rank}.err", os.O_CREAT | os.O_WRONLY), 2)

    def work() -> None:
        with join_processes() as world:
            if rank == 1:
                os._exit(0)
            world.sum(torch.ones(1))

    run_guarded(work)


def main() -> None:
    torch.set_num_threads(1)
    work, args = pickle.loads(Path(sys.argv[1]).read_bytes())
    work(int(os.environ["RANK"]), *args)


if __name__ == "__main__":
    main()
