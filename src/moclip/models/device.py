"""The device that networks run on."""

from __future__ import annotations

import os

import torch


def pick_device() -> torch.device:
    """The GPU if there is one, else the CPU; always the CPU under `accelerate launch --cpu`.

    Of several GPUs it is the one that `join` gave to this process.
    """
    return torch.device("cuda" if torch.cuda.is_available() and not wants_cpu() else "cpu")


def wants_cpu() -> bool:
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("true", "yes", "1")
