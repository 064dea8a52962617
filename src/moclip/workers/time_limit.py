"""A time limit for decoders: a signal from the kernel ends a worker that hangs in a C library."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

TIME_LIMIT_VARIABLE = "MOCLIP_CLIP_SECONDS"
"""Environment variable: seconds that a decoder may go without output. 0 means no limit."""
DEFAULT_SECONDS = 120.0

_limit = 0.0  # seconds; 0 in processes that no limit may end, such as the main one
_in_block = False  # whether this is inside `with time_limit()`


def time_limit_seconds() -> float:
    try:
        return max(0.0, float(os.environ.get(TIME_LIMIT_VARIABLE) or DEFAULT_SECONDS))
    except ValueError:
        return DEFAULT_SECONDS


def set_time_limit(seconds: float) -> None:
    """Let `time_limit` end this process after `seconds` without output. 0 means no limit."""
    global _limit
    _limit = seconds


def enable_time_limit() -> None:
    """Let `time_limit` end this process. For workers of a cluster, which Ray replaces."""
    set_time_limit(time_limit_seconds())


@contextmanager
def time_limit() -> Iterator[None]:
    """End this worker when neither the block ends nor `restart_time_limit` is called in time.

    The signal has no handler, so the kernel ends the process wherever it is, even in a library's endless loop.
    """
    global _in_block
    _in_block = True
    restart_time_limit()
    try:
        yield
    finally:
        _in_block = False
        _set_alarm(0)


def restart_time_limit() -> None:
    """Restart the time inside a `time_limit` block. Does nothing elsewhere."""
    if _in_block:
        _set_alarm(_limit)


def _set_alarm(seconds: float) -> None:
    if _limit:
        signal.setitimer(signal.ITIMER_REAL, seconds)
