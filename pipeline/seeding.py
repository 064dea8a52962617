"""Seeding: the same seed gives the same bytes on one machine."""

from __future__ import annotations

import os
import random

import numpy as np


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch, and ask PyTorch for deterministic kernels."""
    import torch  # stages without a network never pay for this import

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms(True) without importing a compiler
    torch.backends.cudnn.benchmark = False
