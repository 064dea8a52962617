"""Several processes that train MV-TSN end where one would, and only one of them writes and speaks.

Most ranks here are forked from a server that has PyTorch imported; they run what the command runs.
"""

from __future__ import annotations

import contextlib
import csv
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from moclip.data.clip_batches import SampledFields, SplitClips
from moclip.models.mv_tsn import MvTsn, MvTsnConfig, load_mv_tsn
from moclip.models.weights import load_weights, save_weights
from moclip.training.distributed import World, join
from moclip.training.global_batch import global_batch
from moclip.training.mv_tsn import _own_rows, _parts, _read_ahead, train_mv_tsn
from moclip.workers.processes import single_threaded_workers
from pipeline import params as parameters
from pipeline import paths
from pipeline.console.command import run_guarded
from pipeline.inputs import Inputs
from pipeline.training_recipe import training_recipe
from stages.train_mv import train_mv
from tests.conftest import BIN, run, set_keys
from tests.test_dag import digests

Launch = Callable[..., list[int]]

CURVES = ("train_loss", "train_top1", "val_loss", "val_top1")

TOLERANCE = 1e-3
"""Of float32 losses."""


@pytest.fixture(scope="module")
def launch() -> Iterator[Launch]:
    """`launch(size, work, *args)`: run `work(rank, *args)` in so many connected processes; their exit codes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with single_threaded_workers():
        yield lambda size, work, *args: _launch(context, size, work, args)


def _launch(context: ForkServerContext, size: int, work: Callable[..., None], args: Sequence[Any]) -> list[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [context.Process(target=_rank, args=(rank, size, port, work, args)) for rank in range(size)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(120)
    return [rank.exitcode if rank.exitcode is not None else -1 for rank in ranks]


def _rank(rank: int, size: int, port: int, work: Callable[..., None], args: Sequence[Any]) -> None:
    """As torchrun would have started it."""
    about = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in about.items()} | {"MASTER_ADDR": "127.0.0.1"})
    torch.set_num_threads(1)
    work(rank, *args)


def stage(rank: int, folders: Sequence[Path], said: Path, options: Sequence[str]) -> None:
    """`python -m stages.train_mv` in a folder of this rank's own; what it says goes into files below `said`."""
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(said / f"{rank}.{name}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
    os.chdir(folders[rank])
    sys.argv = ["train_mv", *options]
    train_mv()


def curves(folder: Path) -> dict[str, np.ndarray]:
    """The rows of metrics/train_mv: (epochs,) each."""
    found = {}
    for name in CURVES:
        with (folder / f"metrics/train_mv/plots/metrics/{name}.tsv").open() as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        assert [row["step"] for row in rows] == [str(step + 1) for step in range(len(rows))]
        found[name] = np.array([float(row[name]) for row in rows])
    return found


# ------------------------------------------------------------------------------------------------ shared batches


@pytest.fixture(scope="module")
def data(finished: Path) -> tuple[Path, SampledFields, SplitClips]:
    with contextlib.chdir(finished):
        inputs = Inputs(parameters.load(paths.PARAMS))
        return finished, inputs.sampled_fields(), inputs.motion_clips()


@settings(max_examples=40, deadline=None)
@given(
    clips=st.integers(1, 36),
    batch=st.integers(1, 40),
    most=st.integers(1, 5),
    size=st.integers(1, 7),
    seed=st.integers(0, 9),
)
def test_the_ranks_together_read_each_batch_of_one_process(
    data: tuple[Path, SampledFields, SplitClips], clips: int, batch: int, most: int, size: int, seed: int
) -> None:
    folder, fields, every = data

    def read(rank: int) -> list[tuple[SplitClips, np.ndarray]]:
        rows = None if rank < 0 else lambda count: _own_rows(World(rank, size), count, most)
        generator = np.random.default_rng(seed)
        return list(_read_ahead(fields, every[:clips], batch, 3, generator, drop_single=True, rows=rows))

    with contextlib.chdir(folder):
        alone, ranks = read(-1), [read(rank) for rank in range(size)]
    assert sum(len(part) for part, _ in alone) == clips
    for number, (part, whole) in enumerate(alone):
        owned = [_own_rows(World(rank, size), len(part), most) for rank in range(size)]
        np.testing.assert_array_equal(np.sort(np.concatenate(owned)), np.arange(len(part)))
        for rank in range(size):
            own = ranks[rank][number][1]
            np.testing.assert_array_equal(
                own, whole.reshape(len(part), 3, *whole.shape[1:])[owned[rank]].reshape(own.shape)
            )
        for rows in _parts(len(part), most):
            sizes = [share.stop - share.start for share in World(0, size).shares(rows)]
            assert max(sizes) - min(sizes) <= 1


# ------------------------------------------------------------------------------------------- the same as by one


class Precise(MvTsn):
    """MV-TSN in float64, where rounding stays small: a difference that remains is one of the method."""

    def __init__(self, config: MvTsnConfig) -> None:
        super().__init__(config)
        self.double()
        self.head.register_forward_pre_hook(lambda module, given: (given[0].double(),))

    def features(self, fields: Tensor) -> Tensor:
        return super().features(fields.double())


def train_precisely(rank: int, folder: Path, out: Path, change: dict[str, Any]) -> None:
    os.chdir(folder)
    with join() as world:
        params = parameters.load(paths.PARAMS, change)
        inputs = Inputs(params)
        torch.manual_seed(1)
        tsn = params.tsn
        model = Precise(MvTsnConfig(tsn.backbone, ("a", "b", "c", "d"), tsn.size, tsn.dropout, tsn.stem_stride))
        rows: list[dict[str, float]] = []
        train_mv_tsn(
            model,
            inputs.sampled_fields(),
            inputs.motion_clips("train"),
            inputs.motion_clips("val"),
            training_recipe(params, tsn.segments),
            torch.device("cpu"),
            out / f"checkpoint-{world.size}",
            "",
            rows.append,
            world=world,
        )
        save_weights(out / f"{world.size}-{rank}", model.state_dict(), {"rows": rows})


@pytest.mark.parametrize(
    ("size", "change"),
    [
        (2, {"tsn.backbone": "test_resnet", "tsn.batch": 7, "tsn.dropout": 0.5}),  # 7, 7 and 2 clips
        (4, {"tsn.backbone": "test_efficientnet", "tsn.batch": 6, "tsn.accumulate": 2}),  # two ranks without any
    ],
)
def test_ranks_end_with_the_weights_of_one_process(
    finished: Path, launch: Launch, tmp_path: Path, size: int, change: dict[str, Any]
) -> None:
    assert launch(1, train_precisely, finished, tmp_path, change) == [0]
    assert launch(size, train_precisely, finished, tmp_path, change) == [0] * size
    alone, about = load_weights(tmp_path / "1-0", "")
    for rank in range(size):
        found, said = load_weights(tmp_path / f"{size}-{rank}", "")
        assert (tmp_path / f"{size}-{rank}").read_bytes() == (tmp_path / f"{size}-0").read_bytes()
        for name, tensor in alone.items():
            torch.testing.assert_close(found[name], tensor, atol=1e-6, rtol=0, msg=name)
        for row, expected in zip(said["rows"], about["rows"], strict=True):
            assert row == pytest.approx(expected, rel=1e-6)


def test_batch_norm_of_weights_is_left_as_it_is() -> None:
    weights = torch.randn(1, 8, 9)
    with global_batch(World(0, 2), 4, 3, torch.device("cpu")):
        within = functional.batch_norm(weights, None, None, training=True)
    torch.testing.assert_close(within, functional.batch_norm(weights, None, None, training=True))


# -------------------------------------------------------------------------------------------------- the command


def test_only_the_main_process_writes_and_speaks(finished: Path, project: Path, launch: Launch, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(finished, other, symlinks=True)
    before = digests(other, ".")
    (project / "data/models/mv_tsn.safetensors").unlink()
    assert launch(2, stage, [project, other], tmp_path, ["--checkpoint-seconds", "0"]) == [0, 0]
    assert digests(other, ".") == before
    assert (tmp_path / "1.out").read_text() + (tmp_path / "1.err").read_text() == ""
    said = (tmp_path / "0.out").read_text().splitlines()
    assert said[0] == "train_mv: test_resnet, 16 clips, 8 to choose the epoch on, 2 processes on cpu"
    assert said[1].startswith("train_mv: best epoch")
    assert len(said) == 2
    own, usual = (load_mv_tsn(folder / "data/models/mv_tsn.safetensors") for folder in (project, finished))
    assert own.config == usual.config
    assert list(own.state_dict()) == list(usual.state_dict())


def said_by(ranks: int, folder: Path) -> str:
    return "".join((folder / f"{rank}.err").read_text() for rank in range(ranks))


def test_an_error_that_all_meet_is_told_once(project: Path, launch: Launch, tmp_path: Path) -> None:
    (project / "data/features/mv.parquet").unlink()
    assert launch(2, stage, [project, project], tmp_path, []) == [1, 1]
    told = said_by(2, tmp_path).splitlines()
    assert told[0] == "error: data/features/mv.parquet: not found"
    assert len(told) == 2


def test_ranks_that_read_different_parameters_do_not_train(
    finished: Path, project: Path, launch: Launch, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(finished, other, symlinks=True)
    set_keys(other / "params.yaml", {"tsn.lr": 0.1})
    assert launch(2, stage, [project, other], tmp_path, []) == [1, 1]
    assert said_by(2, tmp_path).count("error: the processes read different parameters, clips or checkpoints") == 1


def lose(rank: int, said: Path) -> None:
    os.dup2(os.open(said / f"{rank}.err", os.O_CREAT | os.O_WRONLY), 2)
    with join() as world:
        if rank == 1:
            os._exit(0)
        run_guarded(lambda: world.sum_(torch.ones(1)))


def test_a_rank_that_is_left_alone_ends(launch: Launch, tmp_path: Path) -> None:
    assert launch(2, lose, tmp_path) == [1, 0]
    assert said_by(2, tmp_path).startswith("error: lost another process of this training\n  run the same command again")


RUN = ("--tsn-epochs", "12", "--tsn-lr", "0.001", "--tsn-batch", "7", "--tsn-accumulate", "2")
"""7, 7 and 2 clips, each batch in two parts."""


def test_a_launch_that_was_killed_goes_on_with_another_number_of_processes(
    project: Path, launch: Launch, tmp_path: Path
) -> None:
    run("python", "-m", "stages.train_mv", *RUN, cwd=project)
    alone = curves(project)
    checkpoint = project / "data/work/train_mv.safetensors"
    accelerate = [str(BIN / "accelerate"), "launch", "--num_processes", "2", "--cpu", "-m", "stages.train_mv"]
    process = subprocess.Popen(
        [*accelerate, *RUN, "--checkpoint-seconds", "0"],
        cwd=project,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"},
        start_new_session=True,
    )
    assert process.stdout is not None
    assert "2 processes on cpu" in process.stdout.readline()
    while not checkpoint.exists():
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    done = len(load_weights(checkpoint, "")[1]["history"])
    assert 1 <= done < 12
    assert launch(3, stage, [project] * 3, tmp_path, RUN) == [0] * 3
    assert not checkpoint.exists()
    found = curves(project)
    for name in ("train_loss", "val_loss"):
        np.testing.assert_allclose(found[name], alone[name], rtol=TOLERANCE, err_msg=name)
    assert load_mv_tsn(project / "data/models/mv_tsn.safetensors").config.backbone == "test_resnet"
