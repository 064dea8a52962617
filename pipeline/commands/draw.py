"""`moclip draw`: pictures and animations of clips' motion vectors. It needs no params.yaml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moclip.drawing.styles import Form, Style
from moclip.errors import MoclipError, VideoError
from moclip.wording import counted
from pipeline.console.command import while_importing
from pipeline.console.output import print_clip_errors, print_note
from pipeline.console.progress import show_progress
from pipeline.options import Workers, cpu_count
from pipeline.stage import command

if TYPE_CHECKING:
    from moclip.drawing.clip import DrawingResult, DrawJob


@command()
def draw(
    clips: Annotated[
        list[Path], typer.Argument(help="Clips, folders of clips, or patterns in quotes.", show_default=False)
    ],
    style: Annotated[
        Style, typer.Option(help="arrows; hsv: colours by direction; components: dx, dy and length as R, G and B.")
    ] = "arrows",
    form: Annotated[
        Form,
        typer.Option("--as", help="mp4, gif, webp: an animation; png: a picture per frame; mean, max: one picture."),
    ] = "mp4",
    out: Annotated[Path, typer.Option(help="Folder for the drawings.")] = Path("drawings"),
    over: Annotated[
        bool | None,
        typer.Option(
            "--over/--alone", help="Draw over the dimmed frame, or without it.  [default: over; of components: alone]"
        ),
    ] = None,
    stabilise: Annotated[
        bool, typer.Option("--stabilise", help="Subtract each frame's median motion: the camera's.")
    ] = False,
    limit: Annotated[
        float | None,
        typer.Option(
            help="Motion at full strength, in px per frame.  [default: 95th percentile of what is drawn]",
            show_default=False,
        ),
    ] = None,
    frames: Annotated[str, typer.Option(metavar="A:B", help="Draw frames A to B - 1, counted from 0.")] = ":",
    workers: Workers = cpu_count(),
) -> None:
    """Draw the motion vectors of clips.

    The default form is mp4: a fraction of a GIF's size, with all colours and the clip's own speed. gif and webp loop by
    themselves in pages and slides. Arrows point to where the content moves. The legend of each picture says how many px
    of the clip per frame are drawn at full strength; it is the same for all frames of a clip. In an animation, frames
    without vectors, mainly I-frames, show the motion before them, and the legend says so. A clip that cannot be read is
    reported and the others are drawn. The exit code is 1 if none could be drawn.
    """
    with while_importing():
        from moclip.drawing.clip import drawing_paths
        from moclip.drawing.drawn_frames import Drawing
        from moclip.video.clip_files import find_clips

    if limit is not None and not 0 < limit < float("inf"):
        raise MoclipError("must be above 0", where="--limit")
    if style == "components" and over:
        raise MoclipError("components fill the whole picture and hide the frame", where="--over")
    start, stop = _parse_range(frames)
    drawing = Drawing(style, form, over is not False, stabilise, limit, start, stop)
    files = find_clips(clips)
    jobs = [(file, target, drawing) for file, target in zip(files, drawing_paths(files, out, style), strict=True)]
    results = _draw_one(jobs[0]) if len(jobs) == 1 else _draw_many(jobs, workers)
    order = {job: number for number, job in enumerate(jobs)}
    results.sort(key=lambda result: order[result[0]])
    for _, result in results:
        if not isinstance(result, VideoError):
            print_note(
                f"draw: {result.path}, {counted(result.frames, 'frame')}, {result.limit:g} px a frame at full strength"
            )
    failed = [(file, result) for (file, *_), result in results if isinstance(result, VideoError)]
    print_clip_errors((file, problem.what, problem.fix) for file, problem in failed)
    if len(failed) == len(jobs):
        raise VideoError("no clip could be drawn", fix="see the reasons above")


def _draw_one(job: DrawJob) -> list[tuple[DrawJob, DrawingResult | VideoError]]:
    """Draw one clip in this process, and show the progress of its frames."""
    from moclip.drawing.clip import draw_or_reason
    from moclip.drawing.drawn_frames import count_frames

    try:
        frames = count_frames(job[0], job[2])
    except VideoError as problem:
        return [(job, problem)]
    with show_progress("draw", frames, "frame") as advance:
        return [(job, draw_or_reason(job, advance))]


def _draw_many(jobs: list[DrawJob], workers: int) -> list[tuple[DrawJob, DrawingResult | VideoError]]:
    from moclip.drawing.clip import draw_clips

    results = []
    with show_progress("draw", len(jobs)) as advance:
        for result in draw_clips(jobs, workers):
            results.append(result)
            advance(1)
    return results


def _parse_range(frames: str) -> tuple[int, int | None]:
    """Return the ends of "A:B". Either may be left out."""
    ends = re.fullmatch(r"(\d*):(\d*)", frames)
    if ends:
        start, stop = int(ends[1] or 0), int(ends[2]) if ends[2] else None
        if stop is None or start < stop:
            return start, stop
    raise MoclipError(f"{frames} is not a range of frames", where="--frames", fix="for example 10:20, 10: or :20")


if __name__ == "__main__":
    draw()
