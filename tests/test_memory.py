"""Commands keep freed memory for the next tensor: returning it to the kernel costs a sixth of a training."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from tests.conftest import run_fresh

COUNT_FAULTS = """
import resource
import pipeline
import torch

def page_faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step():
    held = [torch.ones(24 << 18) for _ in range(4)]  # 24 MiB each, 24,576 pages together

for _ in range(5):
    step()
before = page_faults()
for _ in range(5):
    step()
print(page_faults() - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library has no mallopt")
def test_freed_memory_is_used_again(tmp_path: Path) -> None:
    assert int(run_fresh("python", "-c", COUNT_FAULTS, cwd=tmp_path).stdout) < 1_000  # by default 100,000
