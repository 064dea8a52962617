"""Train one network on several devices, with a process on each.

`accelerate launch` or `torchrun` starts the processes, and Accelerate connects them (docs/devices.md).
"""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist

from moclip.errors import ModelError
from moclip.models.device import pick_device, wants_cpu

if TYPE_CHECKING:
    from accelerate import Accelerator  # type: ignore[import-untyped]


class World:
    """The processes that train one network together, each on its own device.

    `size` is their number, `rank` the number of this one. Without an `accelerator` there is only this process.
    """

    def __init__(self, device: torch.device, accelerator: Accelerator | None = None) -> None:
        self.device = device
        self.accelerator = accelerator
        self.rank: int = accelerator.process_index if accelerator else 0
        self.size: int = accelerator.num_processes if accelerator else 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Return this process's share of `count` rows. Shares are contiguous, and differ by one row at most."""
        return equal_slices(count, self.size)[self.rank]

    def distribute(self, model: nn.Module) -> nn.Module:
        """Wrap `model` in DistributedDataParallel, whose backward pass averages the gradients of all processes.

        On GPUs, batch norms use the statistics of all processes. PyTorch has no such layer for CPUs.
        """
        if self.accelerator is None:
            return model
        if self.device.type == "cuda":
            # PyTorch's own function drops the activation of timm's BatchNormAct2d
            from timm.layers import convert_sync_batchnorm

            model = convert_sync_batchnorm(model)
        wrapped: nn.Module = self.accelerator.prepare_model(model)
        return wrapped

    def average_buffers(self, model: nn.Module) -> None:
        """Average the running statistics of batch norms over the processes, because each sees only its own clips."""
        if self.accelerator is not None:
            for buffer in model.buffers():
                if buffer.is_floating_point():  # integer buffers count batches and are equal everywhere
                    buffer.copy_(self.accelerator.reduce(buffer, "mean"))

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of `tensor` over all processes."""
        return tensor if self.accelerator is None else self.accelerator.reduce(tensor, "sum")

    def agrees(self, text: str) -> bool:
        """Return whether all processes pass the same `text`."""
        if self.accelerator is None:
            return True
        digest = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])
        return len(self.accelerator.gather(torch.tensor([digest], device=self.device)).unique()) == 1


@contextmanager
def join_processes() -> Iterator[World]:
    """Connect to the processes that were started together with this one, if any.

    Raises ModelError if there are fewer GPUs than processes, or if another process is lost.
    """
    device = pick_device()
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        if wants_cpu() and "MASTER_PORT" in os.environ:  # Accelerate sets it where several processes were asked for
            raise ModelError(
                "accelerate launch --cpu starts one process only",
                fix="run: torchrun --nproc-per-node N -m stages.train_mv",
            )
        yield World(device)
        return
    local, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count()
    if device.type == "cuda" and local > gpus:
        raise ModelError(f"{local} processes, but {gpus} GPUs", fix=f"accelerate launch --num_processes {gpus} ...")
    from accelerate import Accelerator, DistributedDataParallelKwargs

    ddp = DistributedDataParallelKwargs(broadcast_buffers=False)  # `average_buffers` uses those of all processes
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no", kwargs_handlers=[ddp])
    try:
        yield World(device, accelerator)
    except RuntimeError as problem:  # gloo and NCCL raise nothing more specific when a process is lost
        raise ModelError(
            f"training on {accelerator.num_processes} processes stopped: {str(problem).strip().splitlines()[0]}",
            fix="if a process was lost, run the same command again to continue from the last checkpoint",
        ) from problem
    accelerator.end_training()


def equal_slices(count: int, parts: int) -> list[slice]:
    """Divide `count` rows into `parts` slices whose sizes differ by one at most."""
    edges = np.linspace(0, count, parts + 1).round().astype(int).tolist()
    return [slice(start, end) for start, end in pairwise(edges)]


def first_to_fail() -> bool:
    """Return whether this process fails first and should print the error. Call it once, when the process fails.

    The main process hosts the store that all ask, so it waits up to 2 s for the others.
    """
    if not dist.is_initialized():  # an error this early occurs in every process
        return os.environ.get("LOCAL_RANK", "0") == "0"
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        # PyTorch prints a stack trace if nothing listens at the port, so find out first
        socket.create_connection((address, port), timeout=5).close()
        store = dist.TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=5))
        failed = store.add("moclip/failed", 1)
    except (OSError, RuntimeError):  # the main process has ended, and has printed its error
        return False
    if dist.get_rank() == 0:
        _wait_for_failures(store, dist.get_world_size())
    return failed == 1


def _wait_for_failures(store: dist.TCPStore, count: int) -> None:
    """Wait until `count` processes have called `first_to_fail`, at most 2 s."""
    until = time.monotonic() + 2
    with suppress(RuntimeError):  # the launcher, if it hosts the store, may end before
        while store.add("moclip/failed", 0) < count and time.monotonic() < until:
            time.sleep(0.05)
