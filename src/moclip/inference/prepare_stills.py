"""Read stills of clips and prepare them for an encoder, in worker processes.

Clips of one video are read together: from the key frames before their stills, or in one pass over the video.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, islice
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from moclip.data.sampling import still_frames
from moclip.errors import VideoError, as_video_error
from moclip.files.folders import is_url, join_path
from moclip.files.local_copies import local_copy
from moclip.inference.encode import Versions
from moclip.models.encoders.source import EncoderSource
from moclip.video.clip_files import check_unchanged
from moclip.video.frames import each_picture
from moclip.workers.cluster import check_visible
from moclip.workers.processes import SingleWorker, WorkerDiedError, run_jobs_in_order, single_threaded_workers
from moclip.workers.time_limit import time_limit

if TYPE_CHECKING:
    from moclip.models.encoders.preparing import Preparer

CLIPS_PER_JOB = 32
"""Most clips of one video whose prepared stills a worker returns together: 20 MB for one still of 224 px of each."""

Prepared = dict[str, np.ndarray]
"""What an image tower takes, a row for each feature."""

Stills = tuple[np.ndarray, Prepared | VideoError]
"""The numbers of a clip's stills, from its first frame, and the prepared stills or why they cannot be read."""


@dataclass(frozen=True)
class StillsTask:
    """Which frames of each clip the encoder gets, and where the parts are written.

    `indexed` is true if the index describes the files below `root`, and false if it describes transcoded copies.
    `parts_folder` and `key` are those of `ResumableParts`.
    """

    source: EncoderSource
    root: str
    indexed: bool
    frames: int
    choice: str
    seed: int
    batch: int
    workers: int
    parts_folder: str
    key: str
    versions: Versions

    def check_input_visible(self) -> None:
        check_visible(is_url(self.root) or Path(self.root).is_dir(), self.root)


@dataclass(frozen=True)
class StillsJob:
    """A clip whose stills are read. `md5` is that of its file.

    A span of a longer video begins at its frame `first`, and `content` stands for the contents of the span.
    """

    path: str
    md5: str
    frames: int
    seekable: bool
    task: StillsTask
    preparer: Preparer
    first: int = 0
    content: str = ""

    @property
    def numbers(self) -> np.ndarray:
        """The frame numbers of its stills, from its first frame."""
        task = self.task
        return still_frames(self.frames, task.frames, task.choice, task.seed, self.content or self.md5)


def prepare_in_order(clips: Iterable[StillsJob], workers: int, ahead: int) -> Iterator[Stills]:
    """Read and prepare the stills of clips, in their order; those of one video must be together.

    `ahead` is how many jobs are taken ahead, each of up to `CLIPS_PER_JOB` clips of a video.
    """
    for in_one_pass, jobs in groupby(_jobs(clips), key=_needs_one_pass):
        if in_one_pass:
            for job in jobs:
                yield from _read_in_one_pass(job)
        else:
            for stills in run_jobs_in_order(prepare_stills, jobs, workers, worker_died, ahead):
                yield from stills


def _jobs(clips: Iterable[StillsJob]) -> Iterator[list[StillsJob]]:
    """Yield the clips that are read together. Only those of a video that is read in one pass may be many."""
    for _, of_video in groupby(clips, key=attrgetter("path")):
        together = list(of_video)
        if _needs_one_pass(together):
            yield together
        else:
            yield from (together[start : start + CLIPS_PER_JOB] for start in range(0, len(together), CLIPS_PER_JOB))


def _needs_one_pass(clips: Sequence[StillsJob]) -> bool:
    """Return whether a video would be decoded, or downloaded, anew for each few of these clips."""
    return len(clips) > CLIPS_PER_JOB and (not clips[0].seekable or is_url(_file_of(clips[0])))


def _file_of(clip: StillsJob) -> str:
    return join_path(clip.task.root, clip.path)


# ------------------------------------------------------------------------------------------- in a worker process


def prepare_stills(clips: Sequence[StillsJob]) -> list[Stills]:
    """Read the stills of clips of one video, and prepare them here, so that large pictures stay in this process."""
    with time_limit():
        return list(_stills_in_order(clips))


def worker_died(clips: Sequence[StillsJob], reason: str) -> list[Stills]:
    """Return the result of clips whose worker process died."""
    return [(clip.numbers, VideoError(reason)) for clip in clips]


def _stills_in_order(clips: Sequence[StillsJob]) -> Iterator[Stills]:
    """Yield the stills of clips of one video, in their order. Each picture is let go when its clips are prepared."""
    numbers = [clip.numbers for clip in clips]
    found: dict[int, Prepared | VideoError] = {}
    turn = 0
    problem: Exception | None = None
    try:
        with local_copy(_file_of(clips[0])) as file:
            if clips[0].task.indexed:
                _check_once(file, clips[0].md5)
            for place, prepared in _prepared_as_read(file, clips, numbers):
                found[place] = prepared
                while turn in found:
                    yield numbers[turn], found.pop(turn)
                    turn += 1
    except Exception as error:  # one bad video must not stop the run
        problem = error
    for place in range(turn, len(clips)):
        yield numbers[place], found.get(place) or as_video_error(problem or ValueError(), clips[0].path)


def _prepared_as_read(
    file: Path, clips: Sequence[StillsJob], numbers: Sequence[np.ndarray]
) -> Iterator[tuple[int, Prepared | VideoError]]:
    """Yield the place of each clip, and its prepared stills, as soon as the last of them is read."""
    wanted_by: dict[int, list[int]] = {}
    for place, (clip, own) in enumerate(zip(clips, numbers, strict=True)):
        for number in set((own + clip.first).tolist()):
            wanted_by.setdefault(number, []).append(place)
    waiting: dict[int, dict[int, np.ndarray]] = {}
    for number, picture in each_picture(file, wanted_by, clips[0].seekable):
        for place in wanted_by[number]:
            pictures = waiting.setdefault(place, {})
            pictures[number] = picture
            own = (numbers[place] + clips[place].first).tolist()
            if len(pictures) == len(set(own)):
                del waiting[place]
                yield place, _prepare(clips[place], [pictures[one] for one in own])


def _prepare(clip: StillsJob, pictures: Sequence[np.ndarray]) -> Prepared | VideoError:
    try:
        return {name: rows.numpy() for name, rows in clip.preparer(pictures).items()}
    except Exception as problem:  # nor must one clip of a video stop the others
        return as_video_error(problem, clip.path)


def _check_once(file: Path, md5: str) -> None:
    """Do what `check_unchanged` does; a file of many clips is hashed once in each process."""
    if file.exists():
        about = file.stat()
        _check_version(file, md5, about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=64)
def _check_version(file: Path, md5: str, size: int, changed_at: int) -> None:
    check_unchanged(file, md5)


# ---------------------------------------------------------------------------------------- one pass over a video


def _read_in_one_pass(clips: Sequence[StillsJob]) -> Iterator[Stills]:
    """Yield the stills of all clips of a video, which another process decodes once. It is one step ahead."""
    done = 0
    with single_threaded_workers(), SingleWorker() as worker, ThreadPoolExecutor(1) as thread:
        running = thread.submit(worker.run, _begin_pass, clips)
        while done < len(clips):
            try:
                found: list[Stills] = running.result()
            except WorkerDiedError as died:
                yield from worker_died(clips[done:], str(died))
                return
            done += len(found)
            if done < len(clips):
                running = thread.submit(worker.run, _go_on)
            yield from found


_pass: list[Iterator[Stills]] = []  # in the process that reads a video in one pass


def _begin_pass(clips: Sequence[StillsJob]) -> list[Stills]:
    _pass[:] = [_stills_in_order(clips)]
    return _go_on()


def _go_on() -> list[Stills]:
    with time_limit():
        return list(islice(_pass[0], CLIPS_PER_JOB))
