"""The frames of a clip to draw, each with its motion, and how they collapse into one picture."""

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

LEAD = 8  # frames at a clip's beginning that wait for the first motion

_BINS_A_PX, _BINS = 8, 8 * 512  # of the histogram of lengths


def subtract_median(fields: np.ndarray) -> np.ndarray:
    """Subtract from each frame's field its median, which is the camera's motion where most of the scene stands still.

    float (..., 2, rows, columns) in px, and so is the result. Blocks without a vector count as standing still.
    """
    return fields - np.median(fields, axis=(-2, -1), keepdims=True)


@dataclass(frozen=True)
class Drawing:
    """How a clip is drawn.

    limit : px at full strength; None: what `readable_limit` says of the frames drawn.
    start, stop : the part to draw, as in a slice; None: to the end.
    over : whether the frame is seen below; the style "components" takes none.
    stabilise : draw what moves against the camera's motion.
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
    kind : I, P or B.
    moves : whether its type has motion vectors in this codec.
    picture : uint8 (height, width, 3).
    field : float (2, rows, columns), px.
    of : the frame whose motion `field` is.
    """

    number: int
    kind: str
    moves: bool
    picture: np.ndarray
    field: np.ndarray
    of: int


def count_frames(path: Path, drawing: Drawing) -> int:
    """How many frames there are to draw, by what the file says. Raises VideoError."""
    return len(range(probe(path).frames)[drawing.start : drawing.stop])


def read_drawn_frames(path: Path, drawing: Drawing, info: VideoInfo) -> Iterator[DrawnFrame]:
    """Yield the frames to draw, each with its own motion: zero where its type has none. Raises VideoError."""
    size = info.height, info.width
    number = -1
    with decode_once(path) as (_, decoded):
        for number, frame in enumerate(islice(decoded, drawing.stop)):
            if number >= drawing.start:
                field = motion_field(unpack_vectors([frame.without_picture()]), size, CELL)[0]
                field = subtract_median(field) if drawing.stabilise else field
                kind, picture = chr(frame.frame_type), upright_picture(frame.picture)
                yield DrawnFrame(number, kind, frame.carries_motion, picture, field, number)
    if number < drawing.start:
        raise VideoError(f"{number + 1} frames of it decode, none from {drawing.start} on", where=path)


def hold_motion(frames: Iterable[DrawnFrame]) -> Iterator[DrawnFrame]:
    """Give frames whose type has no vectors the motion before them, the first ones the first there is.

    As `sampling.motion_frames` does for the networks: without it an animation goes dark at every I-frame.
    """
    frames = iter(frames)
    lead: list[DrawnFrame] = []
    for frame in frames:
        lead.append(frame)
        if frame.moves or len(lead) == LEAD:
            break
    latest = lead[-1] if lead and lead[-1].moves else None
    for frame in chain(lead, frames):
        if frame.moves:
            latest = frame
        yield frame if latest is None else frame._replace(field=latest.field, of=latest.number)


def collapse_frames(frames: Iterable[DrawnFrame], longest: bool) -> tuple[np.ndarray, np.ndarray, int]:
    """Frames as one: their mean picture; each cell's mean or longest vector; and of how many frames.

    Vectors are taken from frames whose type has some. Raises VideoError where there is none.
    """
    pictures: Any = 0
    field: Any = 0
    shown = moving = 0
    for frame in frames:
        pictures = pictures + frame.picture.astype(np.float32)
        shown += 1
        if frame.moves:
            field = _longer(field, frame.field) if longest and moving else field + frame.field
            moving += 1
    if not moving:
        raise VideoError("no frame of this part has motion vectors", fix="draw more of the clip")
    return np.rint(pictures / shown).astype(np.uint8), field if longest else field / moving, moving


def _longer(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The longer vector of the two in each cell of fields (2, rows, columns)."""
    return np.where(np.hypot(*one) >= np.hypot(*other), one, other)


def frames_limit(path: Path, drawing: Drawing, info: VideoInfo) -> float:
    """`readable_limit` of the frames to draw, from a histogram: the lengths of a long clip would fill the memory."""
    size = info.height, info.width
    windows = motion_fields(vector_windows(path, "pyav", damaged=bool(info.damage)), size, CELL, accumulate=False)
    counts = np.zeros(_BINS, np.int64)
    for field in islice(chain.from_iterable(fields for fields, _ in windows), drawing.start, drawing.stop):
        lengths = np.hypot(*(subtract_median(field) if drawing.stabilise else field))
        bins = np.maximum(np.rint(lengths * _BINS_A_PX), lengths > 0)  # what moves at all is in none of the zeros
        counts += np.bincount(np.minimum(bins, _BINS - 1).astype(int).reshape(-1), minlength=_BINS)
    return readable_limit(np.arange(_BINS) / _BINS_A_PX, counts)
