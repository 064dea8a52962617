"""Readers that crash, hang or run out of memory on chosen clips. They replace the real ones in worker processes.

This is a separate module, because each worker imports the module of its function.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moclip.data import probing
from moclip.inference import prepare_stills
from moclip.inference.clip_input import ClipJob, read_or_reason
from moclip.inference.sample_decoding import decode_samples
from moclip.inference.untrusted_clip import Found, ReadJob
from moclip.motion import extract_workers
from moclip.motion.extract_plan import ClipToExtract, FieldRecipe, ShardJob
from moclip.video.probe import VideoInfo
from moclip.workers.processes import DECODER_DIED, DECODER_KILLED
from moclip.workers.time_limit import time_limit

_decode, _probe, _describe, _frames = (
    extract_workers._decode,
    probing.probe_clip,
    probing.probe,
    prepare_stills.each_picture,
)


def hang() -> None:
    """As a C library would: no signal handler of Python's gets to run, and no other thread."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    library = ctypes.PyDLL(None)  # which keeps Python's lock
    while True:
        library.sleep(60)


def die() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def use_up_memory() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (2**31, before[1]))
    try:
        np.ones(2**31)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def note_and_die(job: tuple[Path, int]) -> int:
    """Write into a file that the job has begun, and return its number; the jobs 0 and 5 die instead.

    Job 1 is at work while job 0 dies.
    """
    folder, number = job
    with (folder / str(number)).open("a") as file:
        file.write("begun ")
    while number == 0 and not (folder / "1").exists():
        time.sleep(0.01)
    if number in (0, 5):
        die()
    time.sleep(0.5 if number == 1 else 0)
    return number


def die_in_its_answer(job: int) -> int:
    """Return the number of the job; job 1 ends its process after half of an answer."""
    if job == 1:
        connection = sys._getframe(1).f_locals["connection"]  # of `_serve`
        os.write(connection.fileno(), struct.pack("!i", 1000) + bytes(500))
        be_killed()
    return job


def fail(job: str) -> None:
    raise ValueError(job)


def give_what_cannot_be_sent(job: str) -> Any:
    return lambda: job


# ------------------------------------------------------------------------------------------------- extraction


def write_or_hang(job: ShardJob) -> None:
    extract_workers._decode = _decode_or_hang
    extract_workers.write_shard(job)


def read_or_hang(job: ShardJob, clip: ClipToExtract) -> Any:
    extract_workers._decode = _decode_or_hang
    return extract_workers.read_clip(job, clip)


def _decode_or_hang(slot: np.ndarray, clip: ClipToExtract, recipe: FieldRecipe) -> Any:
    if clip.id == "v3":
        hang()
    return _decode(slot, clip, recipe)


# ------------------------------------------------------------------------------------------------------ index

ENDS: dict[str, tuple[Callable[[], None], str]] = {
    "Run/v_Run_g01_c01": (die, DECODER_DIED),
    "Run/v_Run_g02_c01": (be_killed, DECODER_KILLED),
    "Run/v_Run_g03_c01": (hang, "its decoder gave nothing for 2 s"),
    "Jump/v_Jump_g01_c01": (use_up_memory, "MemoryError: Unable to allocate 16.0 GiB"),
}
"""How the reader of each of these clips ends, and the reason that its row must have."""


def probe_or_die(job: Any) -> Any:
    probing.probe = _describe_or_die  # type: ignore[assignment]
    return _probe(job)


def _describe_or_die(path: Path) -> VideoInfo:
    for name, (end, _) in ENDS.items():
        if f"{name}." in str(path):
            end()
    return _describe(path)


# ----------------------------------------------------------------------------------------------------- stills


def read_or_die(clips: Any) -> Any:
    prepare_stills.each_picture = _frames_or_die  # type: ignore[assignment]
    return prepare_stills.prepare_stills(clips)


def stacked(pictures: Sequence[np.ndarray]) -> dict[str, Tensor]:
    """Prepare pictures of one size by doing nothing."""
    return {"pixels": torch.from_numpy(np.stack(pictures))}


def _frames_or_die(path: Path, indices: Any, seekable: bool) -> Any:
    if "g01_c01" in str(path):
        die()
    return _frames(path, indices, seekable)


# ------------------------------------------------------------------------------------------------- predictions


def read_input_or_die(job: ClipJob) -> Any:
    if job.path.name in ("die.avi", "hang.avi"):
        with time_limit():
            die() if job.path.name == "die.avi" else hang()
    return read_or_reason(job)


# -------------------------------------------------------------------------------------------------- timelines


def samples_or_die(path: Path, settings: Any, observer: Any) -> Any:
    for number, item in enumerate(decode_samples(path, settings, observer)):
        if number == 5 and path.stem in ("die", "hang"):
            die() if path.stem == "die" else hang()
        yield item


def read_parts_or_die(job: ReadJob) -> Iterator[Any]:
    yield Found(1.0, 25, "mpeg4", True)
    {"die": die, "kill": be_killed, "hang": hang, "memory": use_up_memory}[job.clip.path.stem]()
