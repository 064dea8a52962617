"""From a video file to what the models are given of it, in one decoding: the same as the stages read from their stores.

Called by `predictor`. It imports no network, so that worker processes start quickly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moclip.data.sampling import pick_motion, segment_frames, still_frames
from moclip.errors import VideoError, as_video_error
from moclip.motion.field import motion_field
from moclip.motion.quantise import quantise
from moclip.motion.windows import motion_fields
from moclip.video.clip_files import file_md5
from moclip.video.frames import read_pictures
from moclip.video.geometry import upright_picture
from moclip.video.transcode import transcoded_copy
from moclip.video.vector_records import DecodedFrame, gather_windows, unpack_vectors
from moclip.video.vectors import decode_once
from moclip.workers.time_limit import time_limit


@dataclass(frozen=True)
class FieldSettings:
    """How vectors become a field; must equal what the models were trained on."""

    transcode: bool
    canvas: tuple[int, int]
    cell: int
    clip: float
    accumulate: bool | str


@dataclass(frozen=True)
class ViewSettings:
    """Which parts of a clip are used: motion segments and crops, and stills."""

    segments: int
    crops: int
    crop: float
    stills: int
    choice: str
    seed: int


@dataclass(frozen=True)
class ClipInput:
    """What the models are given of a clip.

    levels : int8 (segments, 2, rows, columns), the motion fields as the store keeps them.
    stills : RGB pictures, each uint8 (height, width, 3).
    """

    levels: np.ndarray
    stills: list[np.ndarray]


@dataclass(frozen=True)
class ClipJob:
    """A clip to read, and how."""

    path: Path
    fields: FieldSettings
    views: ViewSettings


def read_input(job: ClipJob) -> ClipInput:
    """Read what the models are given of a clip. Raises VideoError."""
    if not job.fields.transcode:
        levels, stills, _ = _read(job, job.path, with_stills=True)
        return ClipInput(levels, stills)
    with transcoded_copy(job.path) as source:
        levels, _, numbers = _read(job, source, with_stills=False)
    return ClipInput(levels, read_pictures(job.path, numbers))


def read_or_reason(job: ClipJob) -> ClipInput | VideoError:
    """The same; what is wrong with a clip, whatever it is, is returned and not raised."""
    try:
        with time_limit():
            return read_input(job)
    except Exception as problem:  # whatever is wrong with one clip, it costs no other
        return as_video_error(problem, job.path)


def clip_lost(job: ClipJob, reason: str) -> ClipInput | VideoError:
    """The reason of a clip whose process is no more."""
    return VideoError(reason, where=job.path)


def _read(
    job: ClipJob, path: Path, with_stills: bool, length: int | None = None
) -> tuple[np.ndarray, list[np.ndarray], list[int]]:
    """The int8 fields (segments, 2, rows, columns), the stills if they are wanted, and their frame numbers.

    `length` is how many frames decode, where that is known to be another number than the packets tell.
    """
    views = job.views
    content = file_md5(path) if views.choice == "random" else ""  # which the middle frames do not depend on
    with decode_once(path) as (packets, decoded):
        frames = packets if length is None else length
        numbers = still_frames(frames, views.stills, views.choice, views.seed, content).tolist()
        stills: dict[int, np.ndarray] = {}
        kept = _keep_stills(decoded, frozenset(numbers if with_stills else ()), stills)
        wanted = segment_frames(np.array([frames]), views.segments)[0].tolist()
        if job.fields.accumulate:
            traced, count = pick_motion(_traced(job.fields, kept), wanted, np.copy)
            levels = [traced[n] for n in wanted if n in traced]
        else:
            # copies: a picture that is held changes the memory that FFmpeg decodes into, and so how damaged ones look
            moving = ((frame.carries_motion, frame.without_picture()) for frame in kept)
            picked, count = pick_motion(moving, wanted, lambda frame: frame)
            levels = _levels(job.fields, [picked[n] for n in wanted if n in picked])
    if count != frames:
        return _read(job, path, with_stills, count)
    return np.stack(levels), [stills[number] for number in numbers if with_stills], numbers


def _levels(settings: FieldSettings, frames: list[DecodedFrame]) -> list[np.ndarray]:
    if not frames:
        return []
    field = motion_field(unpack_vectors(frames), settings.canvas, settings.cell)
    return list(quantise(field, settings.clip))


def _traced(settings: FieldSettings, frames: Iterable[DecodedFrame]) -> Iterator[tuple[bool, np.ndarray]]:
    """Whether a frame moves, and its accumulated field: all frames' vectors go into them."""
    moves: list[bool] = []
    windows = gather_windows(_note(frames, moves))
    number = 0
    for fields, _ in motion_fields(windows, settings.canvas, settings.cell, settings.accumulate):
        for level in quantise(fields, settings.clip):
            yield moves[number], level
            number += 1


def _keep_stills(
    frames: Iterable[DecodedFrame], numbers: frozenset[int], stills: dict[int, np.ndarray]
) -> Iterator[DecodedFrame]:
    """Pass the frames on; pictures of the wanted ones go into `stills`."""
    for number, frame in enumerate(frames):
        if number in numbers:
            stills[number] = upright_picture(frame.picture)
        yield frame


def _note(frames: Iterable[DecodedFrame], moves: list[bool]) -> Iterator[DecodedFrame]:
    for frame in frames:
        moves.append(frame.carries_motion)
        yield frame
