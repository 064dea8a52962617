"""The device that networks run on."""

from __future__ import annotations

import os

import torch

SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where torchrun and the kinds of MPI say how many processes they started."""


def pick_device() -> torch.device:
    """The GPU where there is one, else the CPU; the CPU also under `accelerate launch --cpu`.

    Of several GPUs it is the one that `join` gave to this process.
    """
    return torch.device("cuda" if torch.cuda.is_available() and not wants_cpu() else "cpu")


def wants_cpu() -> bool:
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("true", "yes", "1")


def several() -> bool:
    return any(int(os.environ.get(name) or 1) > 1 for name in SIZES)
