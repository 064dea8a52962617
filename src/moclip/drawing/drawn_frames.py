"""Read the frames of a clip to draw, each with its motion, and collapse them into one picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from moclip.drawing.colours import CELL, readable_limit
from moclip.drawing.styles import Form, Style
from moclip.errors import VideoError
from moclip.motion.field import motion_field
from moclip.motion.windows import motion_fields
from moclip.video.geometry import upright_picture
from moclip.video.probe import VideoInfo, probe
from moclip.video.vector_records import unpack_vectors
from moclip.video.vectors import decode_once, vector_windows

MOST_HELD = 8  # frames at a clip's beginning that are held back until one has motion

_BINS_PER_PX, _BINS = 8, 8 * 512  # of the histogram of lengths


def subtract_median(fields: np.ndarray) -> np.ndarray:
    """Subtract from each frame's field its median, which is the camera's motion where most of the scene is still.

    `fields` and the result are float (..., 2, rows, columns) in px. Blocks without a vector count as zero.
    """
    return fields - np.median(fields, axis=(-2, -1), keepdims=True)


@dataclass(frozen=True)
class Drawing:
    """How a clip is drawn.

    limit : px at full strength; None: the `readable_limit` of the drawn frames.
    start, stop : the frames to draw, as in a slice; None: to the end.
    over : whether to draw over the frame; the style "components" never does.
    stabilise : subtract the camera's motion.
    """

    style: Style = "arrows"
    form: Form = "mp4"
    over: bool = True
    stabilise: bool = False
    limit: float | None = None
    start: int = 0
    stop: int | None = None


class DrawnFrame(NamedTuple):
    """A frame as it is drawn.

    number : from 0, in display order.
    frame_type : I, P or B.
    has_vectors : whether its type has motion vectors in this codec.
    picture : uint8 (height, width, 3).
    field : float (2, rows, columns), px.
    field_frame : number of the frame whose motion `field` is.
    """

    number: int
    frame_type: str
    has_vectors: bool
    picture: np.ndarray
    field: np.ndarray
    field_frame: int


def count_frames(path: Path, drawing: Drawing) -> int:
    """Return how many frames there are to draw, from the file's packets. Raises VideoError."""
    return len(range(probe(path).frames)[drawing.start : drawing.stop])


def read_drawn_frames(path: Path, drawing: Drawing, info: VideoInfo) -> Iterator[DrawnFrame]:
    """Yield the frames to draw, each with its own motion (zero where its type has none). Raises VideoError."""
    size = info.height, info.width
    number = -1
    with decode_once(path) as (_, decoded):
        for number, frame in enumerate(islice(decoded, drawing.stop)):
            if number >= drawing.start:
                field = motion_field(unpack_vectors([frame.without_picture()]), size, CELL)[0]
                field = subtract_median(field) if drawing.stabilise else field
                letter, picture = chr(frame.frame_type), upright_picture(frame.picture)
                yield DrawnFrame(number, letter, frame.carries_motion, picture, field, number)
    if number < drawing.start:
        raise VideoError(f"{number + 1} frames of it decode, none from {drawing.start} on", where=path)


def hold_motion(frames: Iterable[DrawnFrame]) -> Iterator[DrawnFrame]:
    """Give frames whose type has no vectors the motion of the last frame before them that has some.

    At the beginning of a clip they get the first motion there is. `sampling.motion_frames` does the same for the
    networks. Without it an animation would go dark at every I-frame.
    """
    frames = iter(frames)
    held: list[DrawnFrame] = []
    for frame in frames:
        held.append(frame)
        if frame.has_vectors or len(held) == MOST_HELD:
            break
    latest = held[-1] if held and held[-1].has_vectors else None
    for frame in chain(held, frames):
        if frame.has_vectors:
            latest = frame
        yield frame if latest is None else frame._replace(field=latest.field, field_frame=latest.number)


def collapse_frames(frames: Iterable[DrawnFrame], longest: bool) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the mean picture, the mean or longest vector of each cell, and the number of frames with vectors.

    Only frames whose type has vectors count for the vectors. Raises VideoError where there is none.
    """
    pictures: Any = 0
    field: Any = 0
    count = with_vectors = 0
    for frame in frames:
        pictures = pictures + frame.picture.astype(np.float32)
        count += 1
        if frame.has_vectors:
            field = _longer_vectors(field, frame.field) if longest and with_vectors else field + frame.field
            with_vectors += 1
    if not with_vectors:
        raise VideoError("none of these frames has motion vectors", fix="draw more frames of the clip")
    return np.rint(pictures / count).astype(np.uint8), field if longest else field / with_vectors, with_vectors


def _longer_vectors(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the longer vector of each cell of two fields (2, rows, columns)."""
    return np.where(np.hypot(*first) >= np.hypot(*second), first, second)


def frames_limit(path: Path, drawing: Drawing, info: VideoInfo) -> float:
    """Return the `readable_limit` of the frames to draw, from a histogram, because a long clip has too many lengths."""
    size = info.height, info.width
    windows = motion_fields(vector_windows(path, "pyav", damaged=bool(info.damage)), size, CELL, accumulate=False)
    counts = np.zeros(_BINS, np.int64)
    for field in islice(chain.from_iterable(fields for fields, _ in windows), drawing.start, drawing.stop):
        lengths = np.hypot(*(subtract_median(field) if drawing.stabilise else field))
        bins = np.maximum(np.rint(lengths * _BINS_PER_PX), lengths > 0)  # bin 0 counts only lengths of zero
        counts += np.bincount(np.minimum(bins, _BINS - 1).astype(int).reshape(-1), minlength=_BINS)
    return readable_limit(np.arange(_BINS) / _BINS_PER_PX, counts)
