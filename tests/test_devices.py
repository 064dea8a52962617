"""Several processes that train MV-TSN end where one would, and only one of them writes and speaks.

Most ranks here run functions of `tests.ranks`, in processes forked from the warm one.
"""

from __future__ import annotations

import csv
import os
import pickle
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moclip.models.mv_tsn import load_mv_tsn
from moclip.models.weights import load_weights
from moclip.training.distributed import equal_slices
from tests.conftest import BIN, ROOT, run, set_keys, surroundings
from tests.ranks import CLASSES, lose, plain_network, stage, train_recorded, with_batch_norms, without
from tests.test_dag import digests

pytestmark = pytest.mark.slow

Launch = Callable[..., list[int]]

CURVES = ("train_loss", "train_top1", "val_loss", "val_top1")


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    """`launch(size, work, *args)`: run `work(rank, *args)` in so many connected processes; their exit codes."""
    return lambda size, work, *args: run_ranks(tmp_path, size, work, args)


def run_ranks(folder: Path, size: int, work: Callable[..., None], args: Sequence[Any]) -> list[int]:
    """Start the processes as torchrun would."""
    (folder / "work").write_bytes(pickle.dumps((work, args)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(size):
        about = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
        env = {name: str(value) for name, value in about.items()} | {"MASTER_ADDR": "127.0.0.1"}
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        command = ("python", "-m", "tests.ranks", folder / "work")
        processes.append(subprocess.Popen(command, cwd=folder, env=surroundings() | env))
    return [process.wait(120) for process in processes]


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


@given(count=st.integers(0, 200), parts=st.integers(1, 9))
def test_slices_cover_every_row_once_and_are_nearly_equal(count: int, parts: int) -> None:
    found = equal_slices(count, parts)
    assert len(found) == parts
    assert [row for part in found for row in range(count)[part]] == list(range(count))
    sizes = [part.stop - part.start for part in found]
    assert max(sizes) - min(sizes) <= 1


EXACT = {"tsn.epochs": 3, "tsn.eps": 1.0, "tsn.lr": 1.0}
"""With `eps` this large Adam's steps follow the size of the gradients."""

COSINE = {
    "tsn.optimiser": "adamw",
    "tsn.schedule": "cosine",
    "tsn.warmup": 0.2,
    "tsn.label_smoothing": 0.1,
    "tsn.ema": 0.5,
}


CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "6, 6 and 4 clips": (2, {"tsn.batch": 6}),
    "parts": (3, {"tsn.batch": 16, "tsn.accumulate": 2}),
    "cosine": (2, {"tsn.batch": 6, "tsn.min_steps": 14, **COSINE}),
    "onecycle": (2, {"tsn.batch": 6, "tsn.optimiser": "adamw", "tsn.schedule": "onecycle", "tsn.warmup": 0.3}),
}
"""So many processes, and what is changed for them and for one alone."""


@pytest.fixture(scope="module")
def trained(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the processes of each of CASES left, and what one process did."""
    folder = tmp_path_factory.mktemp("trained")
    for size in (1, 2, 3):
        changes = {name: EXACT | change for name, (wanted, change) in CASES.items() if size in (1, wanted)}
        assert run_ranks(folder, size, train_recorded, (without, finished, folder, changes)) == [0] * size
    return folder


@pytest.mark.parametrize("case", CASES)
def test_processes_end_with_the_weights_of_one(trained: Path, case: str) -> None:
    size, _ = CASES[case]
    alone, about = load_weights(trained / f"{case}-1-0", "")
    fresh = plain_network(CLASSES).state_dict()
    assert max((alone[name] - fresh[name]).abs().max() for name in fresh) > 0.01, "it has learnt something"
    for rank in range(size):
        found, printed = load_weights(trained / f"{case}-{size}-{rank}", "")
        for name in fresh:
            torch.testing.assert_close(found[name], alone[name], atol=1e-4, rtol=1e-3, msg=name)
        for row, expected in zip(printed["rows"], about["rows"], strict=True):
            assert row == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("size", [2, 3])
def test_each_clip_is_read_once_an_epoch_and_all_end_with_the_same_network(
    finished: Path, launch: Launch, tmp_path: Path, size: int
) -> None:
    """Of batches of 7 the last has 2 clips: too few for the processes, so they join the one before."""
    change = EXACT | COSINE | {"tsn.batch": 7, "tsn.min_steps": 12}
    assert launch(size, train_recorded, with_batch_norms, finished, tmp_path, {"end": change}) == [0] * size
    ends = [load_weights(tmp_path / f"end-{size}-{rank}", "")[0] for rank in range(size)]
    read = [end.pop("read").numpy() for end in ends]
    _, times = np.unique(np.concatenate(read), return_counts=True)
    assert sorted(times) == [3] * 8 + [6] * 16, "8 clips to validate on in each of 3 epochs, 16 to train on twice"
    assert max(map(len, read)) - min(map(len, read)) <= 3 * 4
    for end in ends[1:]:
        assert all(torch.equal(end[name], ends[0][name]) for name in ends[0]), "statistics of batch norms, too"


def test_the_learning_rate_of_an_epoch_does_not_depend_on_the_number_of_processes(
    finished: Path, launch: Launch, tmp_path: Path
) -> None:
    """Of batches of 7 one process makes 3 an epoch, and two processes make 2."""
    change = COSINE | {"tsn.epochs": 3, "tsn.batch": 7}
    schedules = {name: change | {"tsn.schedule": name} for name in ("cosine", "onecycle")}
    for count in (1, 2):
        assert launch(count, train_recorded, with_batch_norms, finished, tmp_path, schedules) == [0] * count
    for name in schedules:
        alone, shared = (load_weights(tmp_path / f"{name}-{count}-0", "")[1]["rows"] for count in (1, 2))
        assert [row["lr"] for row in shared] == [row["lr"] for row in alone]
        assert len({row["lr"] for row in alone}) == 3


# -------------------------------------------------------------------------------------------------- the command


def test_only_the_main_process_writes_and_speaks(finished: Path, project: Path, launch: Launch, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(finished, other, symlinks=True)
    before = digests(other, ".")
    (project / "data/models/mv_tsn.safetensors").unlink()
    assert launch(2, stage, [project, other], tmp_path, ["--checkpoint-seconds", "0"]) == [0, 0]
    assert digests(other, ".") == before
    assert (tmp_path / "1.out").read_text() + (tmp_path / "1.err").read_text() == ""
    printed = (tmp_path / "0.out").read_text().splitlines()
    assert printed[0] == "train_mv: test_resnet, 16 clips, 8 to choose the epoch on, 2 processes on cpu"
    assert printed[1].startswith("train_mv: best epoch")
    assert len(printed) == 2
    own, usual = (load_mv_tsn(folder / "data/models/mv_tsn.safetensors") for folder in (project, finished))
    assert own.config == usual.config
    assert list(own.state_dict()) == list(usual.state_dict())


def printed_by(ranks: int, folder: Path) -> str:
    return "".join((folder / f"{rank}.err").read_text() for rank in range(ranks))


def test_an_error_in_all_processes_is_printed_once(project: Path, launch: Launch, tmp_path: Path) -> None:
    (project / "data/features/mv.parquet").unlink()
    assert launch(2, stage, [project, project], tmp_path, []) == [1, 1]
    message = printed_by(2, tmp_path).splitlines()
    assert message[0] == "error: data/features/mv.parquet: not found"
    assert len(message) == 2


def test_ranks_that_read_different_parameters_do_not_train(
    finished: Path, project: Path, launch: Launch, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(finished, other, symlinks=True)
    set_keys(other / "params.yaml", {"tsn.lr": 0.1})
    assert launch(2, stage, [project, other], tmp_path, []) == [1, 1]
    assert printed_by(2, tmp_path).count("error: the processes read different parameters, clips or checkpoints") == 1


def test_losing_one_process_ends_the_others(launch: Launch, tmp_path: Path) -> None:
    assert launch(2, lose, tmp_path) == [1, 0]
    message = printed_by(2, tmp_path)
    assert message.startswith("error: training on 2 processes stopped: ")
    assert message.endswith(
        "\n  if a process was lost, run the same command again to continue from the last checkpoint\n"
    )


def test_more_processes_than_a_batch_feeds_do_not_train(project: Path, launch: Launch, tmp_path: Path) -> None:
    assert launch(3, stage, [project] * 3, tmp_path, ["--tsn-batch", "5"]) == [1] * 3
    assert printed_by(3, tmp_path).splitlines() == [
        "error: a batch of 5 clips is too small for 3 processes: each needs two",
        "  start fewer processes, or raise tsn.batch",
    ]


def test_accelerate_that_starts_one_process_of_two_is_refused(project: Path) -> None:
    launch = ("python", BIN / "accelerate", "launch", "--cpu", "--num_processes", "2", "-m", "stages.train_mv")
    assert (
        "error: accelerate launch --cpu starts one process only\n  run: torchrun"
        in run(*launch, cwd=project, code=1).stderr
    )


def test_two_processes_train_as_one_does_with_the_batch_in_two_parts(project: Path) -> None:
    """Their batch norms see the same clips then, though running statistics move in other steps, and validation with
    them. Dropout draws other masks, so it is left out."""
    options = ("--tsn-epochs", "8", "--tsn-lr", "0.01", "--tsn-dropout", "0")
    run("python", "-m", "stages.train_mv", *options, "--tsn-accumulate", "2", cwd=project)
    alone = curves(project)
    launch = ("python", BIN / "accelerate", "launch", "--multi_gpu", "--num_processes", "2", "-m", "stages.train_mv")
    done = run(*launch, *options, cwd=project, OMP_NUM_THREADS="1")
    assert "2 processes on cpu" in done.stdout
    found = curves(project)
    assert found["train_loss"][-1] < 0.9 * found["train_loss"][0]
    np.testing.assert_allclose(found["train_loss"], alone["train_loss"], rtol=1e-3)
    np.testing.assert_allclose(found["train_top1"], alone["train_top1"], atol=1e-6)


def test_a_stopped_launch_resumes_with_another_number_of_processes(
    project: Path, launch: Launch, tmp_path: Path
) -> None:
    options = ("--tsn-epochs", "12", "--tsn-batch", "7")
    checkpoint = project / "data/work/train_mv.safetensors"
    torchrun = ["python", str(BIN / "torchrun"), "--standalone", "--nproc-per-node", "2", "-m", "stages.train_mv"]
    process = subprocess.Popen(
        [*torchrun, *options, "--checkpoint-seconds", "0"],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=surroundings() | {"OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    assert "2 processes on cpu" in process.stdout.readline()
    while not checkpoint.exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()
    process.communicate(timeout=60)
    rows = load_weights(checkpoint, "")[1]["history"]
    assert 1 <= len(rows) < 12
    assert launch(3, stage, [project] * 3, tmp_path, options) == [0] * 3
    assert not checkpoint.exists()
    found = curves(project)
    for name in CURVES:
        assert len(found[name]) == 12
        assert list(found[name][: len(rows)]) == pytest.approx([row[name] for row in rows], abs=1e-6)
    assert load_mv_tsn(project / "data/models/mv_tsn.safetensors").config.backbone == "test_resnet"
