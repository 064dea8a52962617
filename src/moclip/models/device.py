"""The device that networks run on."""

from __future__ import annotations

import os

import torch


def pick_device() -> torch.device:
    """Return the GPU if there is one, else the CPU. Under `accelerate launch --cpu`, always return the CPU.

    With several GPUs, it is the one that `join_processes` assigned to this process.
    """
    return torch.device("cuda" if torch.cuda.is_available() and not wants_cpu() else "cpu")


def wants_cpu() -> bool:
    """Return whether `accelerate launch --cpu` started this process."""
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("true", "yes", "1")
