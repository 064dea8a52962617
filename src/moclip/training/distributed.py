"""Several processes that train one network together."""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch import distributed as dist

from moclip.errors import ModelError
from moclip.models.device import pick_device, several, wants_cpu


@dataclass(frozen=True)
class World:
    """The processes that train one network: how many there are, and which of them (its rank) this one is."""

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        """Whether it is the one process that writes and reports."""
        return self.rank == 0

    def shares(self, rows: slice) -> list[slice]:
        """Each rank's part of `rows`: contiguous and nearly equal, empty where there are more ranks than rows."""
        count = rows.stop - rows.start
        edges = [rows.start + count * rank // self.size for rank in range(self.size + 1)]
        return [slice(start, end) for start, end in pairwise(edges)]

    def share(self, rows: slice) -> slice:
        """This rank's part of `rows`."""
        return self.shares(rows)[self.rank]

    def sum_(self, tensor: Tensor) -> Tensor:
        """`tensor`, with those of the other ranks added in place. Raises ModelError where one of them has ended."""
        if self.size > 1:
            with _connected():
                dist.all_reduce(tensor)
        return tensor

    def gather(self, tensor: Tensor) -> Tensor:
        """The tensors of all ranks, in their order: (...) -> (size, ...). Raises ModelError where one has ended."""
        if self.size == 1:
            return tensor[None]
        every = [torch.empty_like(tensor) for _ in range(self.size)]
        with _connected():
            dist.all_gather(every, tensor)
        return torch.stack(every)


ALONE = World()
"""One process that works by itself."""


@contextmanager
def join() -> Iterator[World]:
    """Connect to the processes that were launched with this one; one that was not has a world of its own.

    Raises ModelError where there are too few GPUs, or `accelerate launch` did not start what it was asked for.
    """
    _start_what_accelerate_did_not()
    if not several():
        yield World()
        return
    from accelerate import PartialState  # type: ignore[import-untyped]

    local, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count()
    on_cpu = pick_device().type == "cpu"
    if not on_cpu and local > gpus:
        raise ModelError(f"{local} processes, and {gpus} GPUs", fix=f"accelerate launch --num_processes {gpus} ...")
    _end_with_the_launcher()
    state = PartialState(cpu=on_cpu)
    yield World(state.process_index, state.num_processes)
    state.destroy_process_group()


def first_to_fail() -> bool:
    """Whether this process is the one to tell what went wrong: of several that fail, the first."""
    if not dist.is_initialized():  # what fails so early fails in all of them
        return os.environ.get("LOCAL_RANK", "0") == "0"
    own = str(dist.get_rank())
    try:
        return dist.distributed_c10d._get_default_store().compare_set("moclip/failed", "", own).decode() == own
    except RuntimeError:  # the launcher is gone, or the process that keeps the store: it has told
        return False


@contextmanager
def _connected() -> Iterator[None]:
    try:
        yield
    except RuntimeError as problem:
        raise ModelError(
            "lost another process of this training", fix="run the same command again to go on from the last checkpoint"
        ) from problem


def _start_what_accelerate_did_not() -> None:
    """`accelerate launch --cpu --num_processes 2` starts one process (two only under MPI): become torchrun instead."""
    if several() or not wants_cpu() or "MASTER_PORT" not in os.environ:
        return
    asked = _asked_of_the_launcher()
    if asked == 1:
        return
    if asked is None:
        raise ModelError(
            "accelerate launch --cpu has started one process of several",
            fix="name --num_processes in its command, or start them by: torchrun --nproc-per-node N -m stages.train_mv",
        )
    _end_with_the_launcher()
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(asked)]
    os.execv(sys.executable, [sys.executable, *torchrun, *sys.orig_argv[1:]])


def _asked_of_the_launcher() -> int | None:
    """How many processes the command says that started this one; nothing else of Accelerate's knows."""
    import psutil  # Accelerate needs it too

    options = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    options.add_argument("--num_processes", "--num-processes", type=int)
    options.add_argument("--num_machines", "--num-machines", type=int, default=1)
    asked, _ = options.parse_known_args(psutil.Process(os.getppid()).cmdline())
    return asked.num_processes if asked.num_machines == 1 else None


def _end_with_the_launcher() -> None:
    """Let this process end when its parent is killed: left over, it would train beside the next run."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
