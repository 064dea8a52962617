"""Draw a clip: as an animation, as one picture a frame, or as one picture of all frames."""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from moclip.drawing.animation import write_animation
from moclip.drawing.colours import CELL, readable_limit
from moclip.drawing.drawn_frames import (
    Drawing,
    DrawnFrame,
    collapse_frames,
    frames_limit,
    hold_motion,
    read_drawn_frames,
)
from moclip.drawing.legend import draw_legend
from moclip.drawing.paint import enlargement, paint_field
from moclip.drawing.styles import Style
from moclip.errors import MoclipError, VideoError, as_video_error
from moclip.files.atomic import atomic_file, atomic_folder
from moclip.video.probe import VideoInfo, probe
from moclip.workers.processes import run_jobs
from moclip.workers.time_limit import time_limit

Advance = Callable[[int], object]

COLLAPSED = ("mean", "max")


class DrawingResult(NamedTuple):
    """What `draw_clip` wrote: a file or folder, of how many frames, and the px at full strength."""

    path: Path
    frames: int
    limit: float


def draw_clip(path: Path, target: Path, drawing: Drawing, advance: Advance = lambda count: None) -> DrawingResult:
    """Draw a clip into `target`, to which the suffix is added: nothing for "png", which makes a folder.

    `advance` is called with the number of frames newly drawn. What is there already is replaced, at the end.

    Raises
    ------
    VideoError
        The clip cannot be read, has no motion vectors, or has no such frames.
    MoclipError
        The result cannot be written.
    """
    info = probe(path)
    if drawing.start >= info.frames:
        raise VideoError(f"it has {info.frames} frames, none from {drawing.start} on", where=path)
    draw = _draw_still if drawing.form in COLLAPSED else _draw_frames
    try:
        return draw(path, target, drawing, info, advance)
    except OSError as problem:  # of reading, it would be a VideoError
        if problem.errno == errno.ENAMETOOLONG:
            raise VideoError("its name is too long for that of a drawing", where=path) from problem
        raise MoclipError(f"cannot be written: {problem.strerror or problem}", where=target) from problem


def _draw_frames(path: Path, target: Path, drawing: Drawing, info: VideoInfo, advance: Advance) -> DrawingResult:
    limit = drawing.limit or frames_limit(path, drawing, info)
    frames = _told(read_drawn_frames(path, drawing, info), advance)
    paint = functools.partial(_picture, drawing=drawing, limit=limit, info=info)
    if drawing.form == "png":
        with atomic_folder(target) as aside:
            aside.mkdir()
            digits = max(4, len(str(info.frames - 1)))
            names = [_save_png(aside / f"{frame.number:0{digits}d}_{frame.kind}.png", paint(frame)) for frame in frames]
        return DrawingResult(target, len(names), limit)
    target = target.with_name(f"{target.name}.{drawing.form}")
    count = write_animation(target, map(paint, hold_motion(frames)), Fraction(info.fps) or 25)
    return DrawingResult(target, count, limit)


def _told(frames: Iterable[DrawnFrame], advance: Advance) -> Iterator[DrawnFrame]:
    for frame in frames:
        yield frame
        advance(1)


def _draw_still(path: Path, target: Path, drawing: Drawing, info: VideoInfo, advance: Advance) -> DrawingResult:
    picture, field, count = collapse_frames(
        _told(read_drawn_frames(path, drawing, info), advance), longest=drawing.form == "max"
    )
    limit = drawing.limit or readable_limit(np.hypot(*field))
    said = f"{'longest' if drawing.form == 'max' else 'mean'} of {count} frames"
    target = target.with_name(f"{target.name}.{drawing.form}.png")
    with atomic_file(target) as aside:
        _save_png(aside, _finished(picture, field, drawing, limit, info, said))
    return DrawingResult(target, count, limit)


def _save_png(path: Path, picture: np.ndarray) -> str:
    Image.fromarray(picture).save(path, "PNG", compress_level=4)
    return path.name


def _picture(frame: DrawnFrame, drawing: Drawing, limit: float, info: VideoInfo) -> np.ndarray:
    said = f"frame {frame.number}, {frame.kind}"
    if not frame.moves:
        said += ", no vectors" if frame.of == frame.number else f", vectors of {frame.of}"
    return _finished(frame.picture, frame.field, drawing, limit, info, said)


def _finished(
    frame: np.ndarray, field: np.ndarray, drawing: Drawing, limit: float, info: VideoInfo, said: str
) -> np.ndarray:
    ground = frame if drawing.over and drawing.style != "components" else None
    picture = paint_field(drawing.style, ground, field, limit, (info.height, info.width))
    aside = (said, "less the camera's motion") if drawing.stabilise else (said,)
    return np.concatenate(
        [picture, draw_legend(drawing.style, limit, picture.shape[1], CELL * enlargement(info.width), aside)]
    )


def drawing_paths(clips: Sequence[Path], folder: Path, style: Style) -> list[Path]:
    """Where each clip's drawing goes, without the suffix: `folder`/Class/clip.avi.arrows.

    They lie in `folder` as the clips do in the folder that holds them all, whose own name comes first: clips of the
    same name keep apart, also when each is drawn by a call of its own.
    """
    whole = [Path(os.path.abspath(clip)) for clip in clips]  # noqa: PTH100  resolving would follow links
    shared = Path(os.path.commonpath([clip.parent for clip in whole])).parent
    return [folder / clip.parent.relative_to(shared) / f"{clip.name}.{style}" for clip in whole]


DrawJob = tuple[Path, Path, Drawing]


def draw_clips(jobs: Sequence[DrawJob], workers: int) -> Iterator[tuple[DrawJob, DrawingResult | VideoError]]:
    """Draw clips (path, target, how) on processes: each with what came of it, in the order of completion.

    A process that a clip takes with it costs that clip alone. Raises MoclipError where nothing can be written.
    """
    yield from run_jobs(draw_or_reason, list(jobs)[::-1], workers, lambda job, reason: VideoError(reason, where=job[0]))


def draw_or_reason(job: DrawJob, advance: Advance = lambda count: None) -> DrawingResult | VideoError:
    """Draw a clip; what is wrong with it, whatever it is, is returned and not raised.

    Raises MoclipError where nothing can be written.
    """
    try:
        with time_limit():
            return draw_clip(*job, advance)
    except Exception as problem:  # whatever is wrong with one clip, it costs no other
        return as_video_error(problem, job[0])
