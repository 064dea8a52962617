"""Read the models' input from a video file, decoding it once; it equals what the stages read from their stores.

Worker processes of `predictor` import this module, so it imports no network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from moclip.data.sampling import neighbours, pick_motion, segment_frames, still_frames
from moclip.errors import VideoError, as_video_error
from moclip.motion.field import motion_field
from moclip.motion.quantise import clip_of, quantise
from moclip.motion.windows import motion_fields
from moclip.video.clip_files import file_md5
from moclip.video.frames import read_pictures
from moclip.video.geometry import upright_picture
from moclip.video.probe import PacketCount, count_packets
from moclip.video.transcode import transcoded_copy
from moclip.video.vector_records import DecodedFrame, gather_windows, unpack_vectors
from moclip.video.vectors import decode_once
from moclip.workers.time_limit import time_limit


@dataclass(frozen=True)
class FieldSettings:
    """How vectors become a field; the same as for the data the models were trained on."""

    transcode: bool
    canvas: tuple[int, int]
    cell: int
    clip: float
    accumulate: bool | str
    per: str = "frame"


@dataclass(frozen=True)
class ViewSettings:
    """Which parts of a clip are used: motion segments, each of `stack` neighbouring fields, crops, and stills."""

    segments: int
    crops: int
    crop: float
    stills: int
    choice: str
    seed: int
    stack: int = 1


@dataclass(frozen=True)
class ClipInput:
    """What the models get from a clip.

    levels : int8 (segments, 2 * stack, rows, columns), the motion fields as the store keeps them.
    stills : RGB pictures, each uint8 (height, width, 3).
    damage : what of the clip does not decode; "" for nothing.
    """

    levels: np.ndarray
    stills: list[np.ndarray]
    damage: str = ""


@dataclass(frozen=True)
class ClipJob:
    """A clip to read, and how to read it."""

    path: Path
    fields: FieldSettings
    views: ViewSettings


def read_input(job: ClipJob) -> ClipInput:
    """Read the models' input from a clip. Raises VideoError."""
    if not job.fields.transcode:
        found = _read_file(job, job.path, with_stills=True)
        return ClipInput(found.levels, found.stills, PacketCount(found.packets).damage(found.frames))
    with transcoded_copy(job.path) as copy:
        found = _read_file(job, copy, with_stills=False)
    damage = count_packets(job.path).damage(found.frames)  # the copy has what decodes of the clip
    return ClipInput(found.levels, read_pictures(job.path, found.numbers), damage)


def read_or_reason(job: ClipJob) -> ClipInput | VideoError:
    """Do what `read_input` does; return the reason, instead of raising it, if something is wrong with the clip."""
    try:
        with time_limit():
            return read_input(job)
    except Exception as problem:  # one bad clip must not stop the others
        return as_video_error(problem, job.path)


def worker_died(job: ClipJob, reason: str) -> ClipInput | VideoError:
    """Return the result of a clip whose worker process died."""
    return VideoError(reason, where=job.path)


class _FileRead(NamedTuple):
    """What is read of a file: int8 fields (segments, 2 * stack, rows, columns), and the stills by their frame numbers.

    packets : how many packets should give a picture; `frames` do.
    """

    levels: np.ndarray
    stills: list[np.ndarray]
    numbers: list[int]
    packets: int
    frames: int


def _read_file(job: ClipJob, path: Path, with_stills: bool, length: int | None = None) -> _FileRead:
    """Read fields and the stills' frame numbers, and the stills if they are wanted.

    `length` is the number of frames that decode, if it is known; otherwise the packets are counted.
    """
    views = job.views
    content = file_md5(path) if views.choice == "random" else ""  # middle frames do not depend on it
    with decode_once(path) as (packets, decoded):
        frames = packets if length is None else length
        numbers = still_frames(frames, views.stills, views.choice, views.seed, content).tolist()
        stills: dict[int, np.ndarray] = {}
        decoded = _keep_stills(decoded, frozenset(numbers if with_stills else ()), stills)
        lengths = np.array([frames])
        wanted = neighbours(segment_frames(lengths, views.segments), lengths, views.stack).reshape(-1).tolist()
        saturation = clip_of(path, job.fields.clip, job.fields.per)
        if job.fields.accumulate:
            traced, count = pick_motion(_accumulated_levels(job.fields, decoded), wanted, np.copy)
            levels = [traced[n] for n in wanted if n in traced]
        else:
            # copies: a picture that is held changes the memory that FFmpeg decodes into, and so how damaged ones look
            copies = ((frame.carries_motion, frame.without_picture()) for frame in decoded)
            picked, count = pick_motion(copies, wanted, lambda frame: frame)
            levels = _field_levels(job.fields, saturation, [picked[n] for n in wanted if n in picked])
    if count != frames:  # some frames do not decode, so that segments and stills are others
        return _read_file(job, path, with_stills, count)
    pictures = [stills[number] for number in numbers if with_stills]
    return _FileRead(_stacked(levels, views.stack), pictures, numbers, packets, count)


def _stacked(levels: list[np.ndarray], stack: int) -> np.ndarray:
    """Put neighbouring fields side by side: (segments * stack, 2, gh, gw) -> (segments, 2 * stack, gh, gw)."""
    fields = np.stack(levels)
    return fields.reshape(-1, 2 * stack, *fields.shape[2:])


def _field_levels(settings: FieldSettings, saturation: float, frames: list[DecodedFrame]) -> list[np.ndarray]:
    if not frames:
        return []
    field = motion_field(unpack_vectors(frames), settings.canvas, settings.cell)
    return list(quantise(field, saturation))


def _accumulated_levels(settings: FieldSettings, frames: Iterable[DecodedFrame]) -> Iterator[tuple[bool, np.ndarray]]:
    """Yield whether each frame has vectors, and its accumulated field, which depends on the frames before it."""
    has_vectors: list[bool] = []

    def noted() -> Iterator[DecodedFrame]:
        for frame in frames:
            has_vectors.append(frame.carries_motion)
            yield frame

    windows = motion_fields(gather_windows(noted()), settings.canvas, settings.cell, settings.accumulate)
    levels = chain.from_iterable(quantise(fields, settings.clip) for fields, _ in windows)
    for number, level in enumerate(levels):
        yield has_vectors[number], level


def _keep_stills(
    frames: Iterable[DecodedFrame], numbers: frozenset[int], stills: dict[int, np.ndarray]
) -> Iterator[DecodedFrame]:
    """Pass frames on, and put the pictures of those in `numbers` into `stills`."""
    for number, frame in enumerate(frames):
        if number in numbers:
            stills[number] = upright_picture(frame.picture)
        yield frame
