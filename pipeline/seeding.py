"""Seeding: the same seed gives the same bytes on one machine."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch, and make PyTorch use deterministic kernels."""
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    # As use_deterministic_algorithms(True), but without importing torch.compile.
    torch.set_deterministic_debug_mode("error")
    # Deterministic mode also fills each new tensor, against reads of memory that nothing wrote: a tenth of a training.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a property of the module
    torch.backends.cudnn.benchmark = False


def cloned_generator() -> torch.Generator:
    """Return a generator that goes on as PyTorch's own on the CPU does, for a thread of its own."""
    import torch

    return torch.Generator().set_state(torch.get_rng_state())
