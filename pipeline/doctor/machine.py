"""Check processor, GPU, memory and disk."""

from __future__ import annotations

import os
import platform
import resource
import shutil
from contextlib import suppress
from pathlib import Path

from pipeline.doctor.finding import OK, PROBLEM, WARNING, Finding
from pipeline.options import cpu_count

MIN_BYTES = 2e9
"""Less memory or free disk space than this is a warning."""


def check_machine(folder: str | Path = ".") -> list[Finding]:
    """Check processor, GPU, memory, and the disk of `folder`."""
    return [
        Finding("processor", _processor_name()),
        Finding("cores for this process", str(cpu_count())),
        *_check_torch(),
        _check_memory(),
        *_check_memory_limit(),
        check_disk("disk", folder),
    ]


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # macOS
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _check_torch() -> list[Finding]:
    try:
        import torch

        from moclip.training.common import autocast_type
    except Exception:  # the findings on versions say so
        return []
    has_bfloat16 = autocast_type("auto", torch.device("cpu"), dense=True) == torch.bfloat16
    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return [
        Finding("threads of torch", str(torch.get_num_threads())),
        Finding("bfloat16 in the processor", "yes" if has_bfloat16 else "no"),
        Finding("GPU", "; ".join(f"{gpu.name}, {size_text(gpu.total_memory)}" for gpu in gpus) or "none"),
    ]


def _check_memory() -> Finding:
    """Check the memory of the machine, or of the container if it has a lower limit."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # not in a container, or no limit: "max"
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return Finding("memory", size_text(total), *_state_and_advice(total, "lower tsn.batch, clip.batch, embed.batch"))


def memory_limit() -> int | None:
    """Return how many bytes of memory the shell allows each process (ulimit -v); None: any."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit


def _check_memory_limit() -> list[Finding]:
    limit = memory_limit()
    if limit is None:
        return []
    what = f"{size_text(limit)} a process (ulimit -v): H.264 clips look damaged where memory is refused"
    return [Finding("memory limit", what, WARNING, "run: ulimit -v unlimited")]


def check_disk(what: str, folder: str | Path, denied: str = PROBLEM) -> Finding:
    """Check free space where `folder` is or will be. `denied` is the state if this process may not write there."""
    folder = Path(folder).resolve()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if not os.access(existing, os.W_OK):
        return Finding(what, f"{folder}: no permission to write", denied, "choose another folder")
    return Finding(what, f"{folder}: {size_text(free)} free", *_state_and_advice(free, "free disk space"))


def _state_and_advice(size: float, advice: str) -> tuple[str, str]:
    return (OK, "") if size >= MIN_BYTES else (WARNING, advice)


def size_text(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
