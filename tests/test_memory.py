"""Commands keep freed memory for the next tensor: returning it to the kernel costs a sixth of a training."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from tests.conftest import run_fresh

COUNT_FAULTS = """
import ctypes, re, resource
from pathlib import Path
import pipeline
import torch

def is_in_heap():
    library = ctypes.CDLL(None)
    library.malloc.restype = ctypes.c_void_p
    block = library.malloc(24 << 20)
    start, end = re.search(r"^(\\w+)-(\\w+) .*\\[heap\\]", Path("/proc/self/maps").read_text(), re.MULTILINE).groups()
    return int(start, 16) <= block < int(end, 16)

print(is_in_heap())  # by default the kernel gives the first large block alone, and takes it back

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


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library has no mallopt")
def test_freed_memory_is_used_again(tmp_path: Path) -> None:
    in_heap, faults = run_fresh("python", "-c", COUNT_FAULTS, cwd=tmp_path).stdout.split()
    assert in_heap == "True"
    assert int(faults) < 1_000, "by default mostly 100,000"
