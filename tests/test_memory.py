"""Commands keep freed memory for the next tensor: returning it to the kernel costs a fifth to a third of a training."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from tests.conftest import run_fresh

COUNT_FAULTS = """
import resource
{first}
import torch

def page_faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step():
    held = [torch.ones(24 << 18) for _ in range(4)]  # 24 MiB each, 24,576 pages together

step()
before = page_faults()
for _ in range(5):
    step()
print(page_faults() - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library has no mallopt")
def test_freed_memory_is_used_again(tmp_path: Path) -> None:
    default, ours = (
        int(run_fresh("python", "-c", COUNT_FAULTS.format(first=first), cwd=tmp_path).stdout)
        for first in ("", "import pipeline")
    )
    assert default > 2_000, "glibc returns it by default"
    assert ours < 200
