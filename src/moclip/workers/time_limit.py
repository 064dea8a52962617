"""A time limit for decoders: a worker that hangs in a C library is ended by a signal from the kernel."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

SECONDS_VARIABLE = "MOCLIP_CLIP_SECONDS"
"""Environment variable: seconds that a decoder may give nothing; 0 means any time."""
DEFAULT_SECONDS = 120.0

_allowed = 0.0  # seconds, in a worker; 0 where a process is not to be ended
_limiting = False  # whether this is within `limited`


def seconds_allowed() -> float:
    try:
        return max(0.0, float(os.environ.get(SECONDS_VARIABLE) or DEFAULT_SECONDS))
    except ValueError:
        return DEFAULT_SECONDS


def set_limit(seconds: float) -> None:
    """Allow a decoder so many seconds in this process; 0 means any time."""
    global _allowed
    _allowed = seconds


def obey_time_limit() -> None:
    """Let `limited` end this process too, which somebody else has started and will miss (a worker of a cluster)."""
    set_limit(seconds_allowed())


@contextmanager
def time_limit() -> Iterator[None]:
    """Within, a worker ends when neither the block nor a call of `still_alive` comes in time.

    By a signal that nothing handles: the kernel acts on it wherever the process is, also in a library's endless loop.
    """
    global _limiting
    _limiting = True
    restart_time_limit()
    try:
        yield
    finally:
        _limiting = False
        _alarm(0)


def restart_time_limit() -> None:
    """Within `limited`: the time begins anew. Elsewhere it does nothing."""
    if _limiting:
        _alarm(_allowed)


def _alarm(seconds: float) -> None:
    if _allowed:
        signal.setitimer(signal.ITIMER_REAL, seconds)
