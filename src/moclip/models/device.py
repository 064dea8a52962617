"""The device that networks run on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from moclip.errors import ModelError


def pick_device() -> torch.device:
    """Return the GPU if there is one, else the CPU. Under `accelerate launch --cpu`, always return the CPU.

    With several GPUs, it is the one that `join_processes` assigned to this process.
    """
    return torch.device("cuda" if torch.cuda.is_available() and not wants_cpu() else "cpu")


def named_device(name: str | torch.device | None) -> torch.device:
    """Return the device of this name; None: that of `pick_device`. Raises ModelError where it is not there."""
    if name is None:
        return pick_device()
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as problem:
        reason = str(problem).strip().partition("\n")[0]
        raise ModelError(f"no such device: {reason}", where=str(name), fix="omit it, or name cpu") from None
    return device


def wants_cpu() -> bool:
    """Return whether `accelerate launch --cpu` started this process."""
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("true", "yes", "1")


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Let PyTorch compute on one thread in each thread of this process that begins its work inside this block."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
