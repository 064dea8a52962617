"""Time work: the seconds that it would take if nothing else ran on this machine.

On a busy machine work waits for a processor. Linux says how long, and that is left out. So the estimate of a run of
hours does not depend on what else runs during the seconds of the estimate.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

_WAITED = Path("/proc/thread-self/schedstat")  # ns on a processor, ns waited for one, turns


class Took(NamedTuple):
    """Seconds that work took, and that it would have taken alone."""

    wall: float
    alone: float

    def __add__(self, other: object) -> Took:
        assert isinstance(other, Took)
        return Took(self.wall + other.wall, self.alone + other.alone)


NOTHING = Took(0.0, 0.0)


def timed(work: Callable[..., Any], *given: Any) -> tuple[Took, Any]:
    """Return the time of `work(*given)`, which runs in one thread, and what it returns."""
    started, waited = time.perf_counter(), _waited()
    result = work(*given)
    wall = time.perf_counter() - started
    return Took(wall, max(0.0, wall - (_waited() - waited))), result


def timed_network(work: Callable[[], Any], threads: int) -> tuple[Took, Any]:
    """Return the time of `work`, which computes in so many threads, and what it returns. 0 threads: on a GPU.

    Threads wait for each other, so it is the processor time of the one that began, or of all divided by their number.
    """
    started, own, everyone = time.perf_counter(), time.thread_time(), time.process_time()
    result = work()
    wall = time.perf_counter() - started
    if not threads:
        return Took(wall, wall), result
    used = max(time.thread_time() - own, (time.process_time() - everyone) / threads)
    return Took(wall, min(wall, used)), result


def timed_here(work: Callable[[], Any]) -> tuple[Took, Any]:
    """Return the time of work of a network on the device that this process uses, and what it returns."""
    import torch

    from moclip.models.device import pick_device

    return timed_network(work, 0 if pick_device().type == "cuda" else torch.get_num_threads())


def _waited() -> float:
    """Return the seconds that this thread has waited for a processor; 0 where the system does not say."""
    try:
        return int(_WAITED.read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def peak_memory() -> int:
    """Return the bytes of the most memory that this process has used."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def each_of(run: Callable[[], Took], budget: float, most: int = 50) -> tuple[Took, int]:
    """Call `run` until the budget of seconds is spent. Return the mean of what it returns, and the number of calls."""
    taken: list[Took] = []
    while not taken or (sum(one.wall for one in taken) < budget and len(taken) < most):
        taken.append(run())
    count = len(taken)
    return Took(sum(one.wall for one in taken) / count, sum(one.alone for one in taken) / count), count
