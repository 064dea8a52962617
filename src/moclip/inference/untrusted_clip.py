"""Read a file that a stranger has sent: first whether it keeps the limits, then what the models and a page need.

`moclip app` does so in a worker process, which imports this module. So it imports no network.
"""

from __future__ import annotations

import io
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from PIL import Image

from moclip.drawing.clip import collapsed_picture
from moclip.drawing.drawn_frames import Drawing
from moclip.drawing.thumbnails import Thumbnails
from moclip.errors import VideoError, as_video_error
from moclip.inference.clip_input import ClipInput, ClipJob, read_input
from moclip.inference.frame_samples import Sample
from moclip.inference.sample_decoding import Finished, Opened, SampleSettings, decode_samples
from moclip.video.decoding import open_stream
from moclip.video.probe import probe
from moclip.video.timed_frames import has_vectors
from moclip.video.transcode import transcoded_copy

MOST_PIXELS = 4096 * 2304
"""Of a picture."""
FRAMES_PER_SECOND = 120
"""Of a video as long as is allowed: a file may claim any length."""
FORMATS = "matroska,mov,avi,mpeg,mpegts,mpegvideo,flv,asf,ogg,h264,m4v,h263"
"""FFmpeg's names of the containers that are read. None of them leads to other files, as playlists do."""
MEMORY = 3 * 2**30
"""Bytes of address space that the process that decodes may take for a file."""
MOST_DRAWN = 250
"""Frames that the picture of the motion shows."""
SAMPLES_AT_ONCE = 8


@dataclass(frozen=True)
class Limits:
    """The largest file in bytes, the longest video in seconds, and how long reading one may take in seconds."""

    size: int
    seconds: float
    patience: float = 600.0

    @property
    def frames(self) -> int:
        return int(FRAMES_PER_SECOND * self.seconds)

    @property
    def text(self) -> str:
        return f"{megabytes(self.size)} and {length_text(self.seconds)}"


def megabytes(size: int) -> str:
    return f"{size / 1e6:.3g} MB"


def length_text(seconds: float) -> str:
    """Return a length of time in words: "45 s", "10 min", "1 min 30 s"."""
    minutes, rest = divmod(round(seconds), 60)
    parts = [f"{minutes} min" if minutes else "", f"{rest} s" if rest or not minutes else ""]
    return " ".join(filter(None, parts))


class Found(NamedTuple):
    """What the packets of a file say: its length in seconds and in frames, and whether its codec has motion vectors."""

    seconds: float
    frames: int
    codec: str
    has_vectors: bool


class MotionPicture(NamedTuple):
    """The motion of a clip: a PNG file, the number of frames that it shows, and whether the clip goes on after them."""

    png: bytes
    frames: int
    is_part: bool


@dataclass(frozen=True)
class ReadJob:
    """A file and what to read of it: a clip for the models, and samples for the windows of a timeline.

    samples : None where there is no timeline.
    window : seconds; only a longer video has a timeline.
    """

    clip: ClipJob
    limits: Limits
    samples: SampleSettings | None
    window: float


Part = Found | ClipInput | MotionPicture | VideoError | Opened | list[Sample] | Finished[Thumbnails]


def read_parts(job: ReadJob) -> Iterator[Part]:
    """Yield what is read of a file, in this order: `Found`, `ClipInput`, `MotionPicture` or why there is none.

    A video that is longer than a window goes on: `Opened`, lists of samples, `Finished`.

    Raises VideoError where the file cannot be used.
    """
    _limit_memory()
    path = job.clip.path
    try:
        found = check_limits(path, job.limits)
        yield found
        transcode = job.clip.fields.transcode or not found.has_vectors
        yield read_input(replace(job.clip, fields=replace(job.clip.fields, transcode=transcode)))
        yield draw_motion(path, found, job.window)
        if job.samples is not None and found.seconds > job.window:
            yield from _read_samples(
                path, replace(job.samples, fields=replace(job.samples.fields, transcode=transcode))
            )
    except MemoryError:
        raise VideoError("decoding it takes too much memory", where=path) from None
    except Exception as problem:
        raise as_video_error(problem, path) from None


def _limit_memory() -> None:
    """Let this process take `MEMORY` more than it has: libraries map up to some GB before a file is read."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    status = Path("/proc/self/statm")  # Linux alone has it
    pages = int(status.read_text().split()[0]) if status.exists() else 0
    most = pages * resource.getpagesize() + MEMORY
    soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
    with suppress(OSError, ValueError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def check_limits(path: Path, limits: Limits) -> Found:
    """Check a file by its header and its packets, without decoding. Raises VideoError where it is no video or too long.

    The header may lie, so the packets count. Of a file that is too long, not all of them are read.
    """
    if path.stat().st_size > limits.size:
        what = f"it has {megabytes(path.stat().st_size)}, more than {megabytes(limits.size)}"
        raise VideoError(what, where=path, fix="send a smaller file")
    with open_stream(path, FORMATS) as (container, stream):
        context = stream.codec_context
        if context.width * context.height > MOST_PIXELS:
            what = f"pictures of {context.width}x{context.height} px, more than {MOST_PIXELS:,} px"
            raise VideoError(what, where=path, fix="send a smaller video")
        _check_length((container.duration or 0) / av.time_base, path, limits)
        clock = _PacketClock(stream)
        for packet in container.demux(stream):
            clock.see(packet)
            _check_length(clock.seconds, path, limits)
            if clock.frames > limits.frames:
                raise VideoError(f"it has more than {limits.frames} frames", where=path, fix="send a shorter part")
        return Found(clock.seconds, clock.frames, context.name, has_vectors(stream))


def _check_length(seconds: float, path: Path, limits: Limits) -> None:
    if seconds > limits.seconds + 1:
        what = f"it is longer than {length_text(limits.seconds)}"
        raise VideoError(what, where=path, fix="send a shorter part")


class _PacketClock:
    """Counts the packets that hold pictures, and the seconds from the first to the end of the last one shown."""

    def __init__(self, stream: Any) -> None:
        self.frames = 0
        self._unit = float(stream.time_base or 0)
        self._frame = 1 / float(stream.average_rate or stream.guessed_rate or 25)
        self._first = self._last = None

    def see(self, packet: Any) -> None:
        if not packet.size:
            return
        self.frames += 1
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is not None:
            self._first = stamp if self._first is None else min(self._first, stamp)
            self._last = stamp if self._last is None else max(self._last, stamp)

    @property
    def seconds(self) -> float:
        if self._first is None or self._last is None:
            return self.frames * self._frame
        return (self._last - self._first) * self._unit + self._frame


def draw_motion(path: Path, found: Found, seconds: float) -> MotionPicture | VideoError:
    """Draw the longest vectors of a clip's first seconds over their mean, in colours; return the reason if it fails."""
    try:
        stop = min(max(2, round(seconds * found.frames / found.seconds)), MOST_DRAWN)
        with _with_vectors(path, found) as source:
            picture, count, _ = collapsed_picture(source, Drawing("hsv", "max", stop=stop), probe(source))
            return MotionPicture(_png(picture), count, found.frames > stop)
    except Exception as problem:  # the classes are told without it
        return as_video_error(problem, path)


@contextmanager
def _with_vectors(path: Path, found: Found) -> Iterator[Path]:
    """Yield the file, or a re-encoded copy where its codec has no motion vectors."""
    if found.has_vectors:
        yield path
        return
    with transcoded_copy(path) as copy:
        yield copy


def _png(picture: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "png")
    return content.getvalue()


def _read_samples(path: Path, settings: SampleSettings) -> Iterator[Part]:
    batch: list[Sample] = []
    for item in decode_samples(path, settings, Thumbnails()):
        if isinstance(item, Sample):
            batch.append(item)
        if batch and (len(batch) == SAMPLES_AT_ONCE or not isinstance(item, Sample)):
            yield batch
            batch = []
        if not isinstance(item, Sample):
            yield item
