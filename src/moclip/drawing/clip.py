"""Draw a clip as an animation, as one picture per frame, or as one picture of all frames."""

from __future__ import annotations

import errno
import functools
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
from moclip.video.clip_files import paths_below
from moclip.video.probe import VideoInfo, probe
from moclip.workers.processes import run_jobs
from moclip.workers.time_limit import time_limit

Advance = Callable[[int], object]

COLLAPSED = ("mean", "max")


class DrawingResult(NamedTuple):
    """What `draw_clip` wrote: the file or folder, the number of frames, and the px at full strength."""

    path: Path
    frames: int
    limit: float


def draw_clip(path: Path, target: Path, drawing: Drawing, advance: Advance = lambda count: None) -> DrawingResult:
    """Draw a clip into `target` with the suffix of the form; "png" writes a folder without a suffix.

    `advance` is called with the number of frames newly drawn. An existing drawing is replaced at the end.

    Raises
    ------
    VideoError
        The clip cannot be read, has no motion vectors, or does not have these frames.
    MoclipError
        The result cannot be written.
    """
    info = probe(path)
    if drawing.start >= info.frames:
        raise VideoError(f"it has {info.frames} frames, none from {drawing.start} on", where=path)
    draw = _draw_collapsed if drawing.form in COLLAPSED else _draw_frames
    try:
        return draw(path, target, drawing, info, advance)
    except OSError as problem:  # of writing: reading raises VideoError
        if problem.errno == errno.ENAMETOOLONG:
            raise VideoError("its name is too long for the name of a drawing", where=path) from problem
        raise MoclipError(f"cannot be written: {problem.strerror or problem}", where=target) from problem


def _draw_frames(path: Path, target: Path, drawing: Drawing, info: VideoInfo, advance: Advance) -> DrawingResult:
    limit = drawing.limit or frames_limit(path, drawing, info)
    frames = _report_frames(read_drawn_frames(path, drawing, info), advance)
    paint = functools.partial(_paint_frame, drawing=drawing, limit=limit, info=info)
    if drawing.form == "png":
        digits = max(4, len(str(info.frames - 1)))
        count = 0
        with atomic_folder(target) as temporary:
            temporary.mkdir()
            for frame in frames:
                _save_png(temporary / f"{frame.number:0{digits}d}_{frame.frame_type}.png", paint(frame))
                count += 1
        return DrawingResult(target, count, limit)
    target = target.with_name(f"{target.name}.{drawing.form}")
    count = write_animation(target, map(paint, hold_motion(frames)), Fraction(info.fps) or 25)
    return DrawingResult(target, count, limit)


def _report_frames(frames: Iterable[DrawnFrame], advance: Advance) -> Iterator[DrawnFrame]:
    for frame in frames:
        yield frame
        advance(1)


def _draw_collapsed(path: Path, target: Path, drawing: Drawing, info: VideoInfo, advance: Advance) -> DrawingResult:
    picture, count, limit = collapsed_picture(path, drawing, info, advance)
    target = target.with_name(f"{target.name}.{drawing.form}.png")
    with atomic_file(target) as temporary:
        _save_png(temporary, picture)
    return DrawingResult(target, count, limit)


def collapsed_picture(
    path: Path, drawing: Drawing, info: VideoInfo, advance: Advance = lambda count: None
) -> tuple[np.ndarray, int, float]:
    """Return one picture of all frames to draw, of the form "mean" or "max", with its legend: uint8 (height, width, 3).

    Also the number of frames with vectors, and the px at full strength. Raises VideoError.
    """
    frames = _report_frames(read_drawn_frames(path, drawing, info), advance)
    picture, field, count = collapse_frames(frames, longest=drawing.form == "max")
    limit = drawing.limit or readable_limit(np.hypot(*field))
    caption = f"{'longest' if drawing.form == 'max' else 'mean'} of {count} frames"
    return _paint(picture, field, drawing, limit, info, caption), count, limit


def _save_png(path: Path, picture: np.ndarray) -> None:
    Image.fromarray(picture).save(path, "PNG", compress_level=4)


def _paint_frame(frame: DrawnFrame, drawing: Drawing, limit: float, info: VideoInfo) -> np.ndarray:
    caption = f"frame {frame.number}, {frame.frame_type}"
    if not frame.has_vectors:
        caption += ", no vectors" if frame.field_frame == frame.number else f", vectors of {frame.field_frame}"
    return _paint(frame.picture, frame.field, drawing, limit, info, caption)


def _paint(
    frame: np.ndarray, field: np.ndarray, drawing: Drawing, limit: float, info: VideoInfo, caption: str
) -> np.ndarray:
    """Draw a field over its frame, with the legend below."""
    background = frame if drawing.over and drawing.style != "components" else None
    picture = paint_field(drawing.style, background, field, limit, (info.height, info.width))
    captions = (caption, "less the camera's motion") if drawing.stabilise else (caption,)
    legend = draw_legend(drawing.style, limit, picture.shape[1], CELL * enlargement(info.width), captions)
    return np.concatenate([picture, legend])


def drawing_paths(clips: Sequence[Path], folder: Path, style: Style) -> list[Path]:
    """Return the path of each clip's drawing, without the suffix: `folder`/Class/clip.avi.arrows."""
    return [path.with_name(f"{path.name}.{style}") for path in paths_below(clips, folder)]


DrawJob = tuple[Path, Path, Drawing]
"""A clip, the `target` of `draw_clip`, and how to draw it."""


def draw_clips(jobs: Sequence[DrawJob], workers: int) -> Iterator[tuple[DrawJob, DrawingResult | VideoError]]:
    """Draw clips in worker processes; yield each job with its result as it completes.

    A clip that crashes its worker costs only itself. Raises MoclipError where nothing can be written.
    """
    yield from run_jobs(draw_or_reason, list(jobs)[::-1], workers, lambda job, reason: VideoError(reason, where=job[0]))


def draw_or_reason(job: DrawJob, advance: Advance = lambda count: None) -> DrawingResult | VideoError:
    """Draw a clip; return the reason, instead of raising it, if something is wrong with the clip.

    Raises MoclipError where nothing can be written.
    """
    try:
        with time_limit():
            return draw_clip(*job, advance)
    except Exception as problem:  # one bad clip must not stop the others
        return as_video_error(problem, job[0])
