"""Processor, GPU, memory and disk."""

from __future__ import annotations

import os
import platform
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass
from pipeline.doctor.finding import OK, PROBLEM, WARNING, Finding

ROOM = 2e9
"""Bytes of memory, or of free disk, below which there is a warning."""


def check_machine(folder: str | Path = ".") -> list[Finding]:
    """Processor, GPU, memory, and the disk that `folder` lies on."""
    return [
        Finding("processor", _processor()),
        Finding("cores for this process", str(_cores())),
        *_torch(),
        _memory(),
        check_disk("disk", folder),
    ]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # macOS
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _cores() -> int:
    # macOS has no affinity
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _torch() -> list[Finding]:
    try:
        import torch

        from moclip.training.common import autocast_type
    except Exception:  # said among the versions
        return []
    native = autocast_type("auto", torch.device("cpu"), dense=True) == torch.bfloat16
    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return [
        Finding("threads of torch", str(torch.get_num_threads())),
        Finding("bfloat16 in the processor", "yes" if native else "no"),
        Finding("GPU", "; ".join(f"{gpu.name}, {size(gpu.total_memory)}" for gpu in gpus) or "none"),
    ]


def _memory() -> Finding:
    """The machine's, or less where a container has a limit."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # no container, or "max"
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return Finding("memory", size(total), *_enough(total, "lower tsn.batch, clip.batch, embed.batch"))


def check_disk(what: str, folder: str | Path, denied: str = PROBLEM) -> Finding:
    """Free space where `folder` is or will be; `denied` is the verdict where this process may not write there."""
    folder = Path(folder).resolve()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if not os.access(there, os.W_OK):
        return Finding(what, f"{folder}: no permission to write", denied, "choose another folder")
    return Finding(what, f"{folder}: {size(free)} free", *_enough(free, "make room"))


def _enough(size: float, advice: str) -> tuple[str, str]:
    return (OK, "") if size >= ROOM else (WARNING, advice)


def size(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
