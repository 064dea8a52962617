"""`moclip timeline`: which action happens when in long videos, or in a live stream."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from moclip.errors import MoclipError, ModelError, VideoError
from moclip.inference.smoothing import SWITCH_COST, Smooth
from pipeline import paths
from pipeline.commands.predict import (
    PREDICT_KEYS,
    BundleOption,
    RuntimeOption,
    chosen_predictor,
    no_rejection_error,
)
from pipeline.console.command import while_importing
from pipeline.console.output import print_clip_errors, print_damage, print_note
from pipeline.params import Params
from pipeline.stage import command

if TYPE_CHECKING:
    from moclip.inference.predictor import Predictor
    from pipeline.timeline_run import Request

Stream = Literal["fusion", "mv_tsn", "zero_shot"]


@command(*PREDICT_KEYS, "dataset.background")
def timeline(
    params: Params | None,
    videos: Annotated[
        list[Path] | None, typer.Argument(help="Videos, folders of videos, or patterns in quotes.", show_default=False)
    ] = None,
    window: Annotated[str, typer.Option(metavar="TIME", help="Length of a window: 2, 2s, 500ms, 1m.")] = "2s",
    every: Annotated[str, typer.Option(metavar="TIME", help="Time from one window to the next.")] = "0.5s",
    stream: Annotated[
        Stream | None, typer.Option(help="The stream whose events are shown.  [default: the stream to trust]")
    ] = None,
    smooth: Annotated[
        Smooth, typer.Option(help="How windows are smoothed: viterbi, a median over about a window's length, or none.")
    ] = "viterbi",
    switch_cost: Annotated[
        float, typer.Option(min=0.0, help="Viterbi: what a change of the class costs, in nats; more: fewer events.")
    ] = SWITCH_COST,
    min_length: Annotated[str, typer.Option(metavar="TIME", help="Leave out events shorter than this.")] = "0s",
    threshold: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Leave out events of a lower mean probability.")
    ] = 0.0,
    background: Annotated[
        str | None,
        typer.Option(help="The class that stands for no action: it has no events.  [default: dataset.background]"),
    ] = None,
    reject: Annotated[
        bool, typer.Option("--reject", help="Leave out what none of the classes fits, as `moclip predict --reject`.")
    ] = False,
    annotations: Annotated[
        Path | None, typer.Option(help="CSV with start, end, class (and video): measure how well events are found.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for what is written of each video.")] = Path("timeline"),
    from_bundle: BundleOption = None,
    runtime: RuntimeOption = "torch",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON instead of tables; live: a line of JSON per event.")
    ] = False,
    live: Annotated[
        str | None,
        typer.Option(help="Watch a stream instead: rtsp://, http://, /dev/video0, a file that grows.", metavar="URL"),
    ] = None,
    retries: Annotated[int, typer.Option(min=0, help="Live: attempts to connect again after a break.")] = 5,
    timeout: Annotated[str, typer.Option(metavar="TIME", help="Live: how long without a frame is a break.")] = "10s",
    buffer: Annotated[
        str,
        typer.Option(metavar="TIME", help="Live: how much may wait for the networks before the oldest is dropped."),
    ] = "30s",
) -> None:
    """Find which action happens when in long videos, with the models that `dvc repro` trained.

    Scores windows of each video as `moclip predict` scores clips, decoding it once, and joins them to events. Writes
    CSV, JSON, subtitles (.vtt, .srt) and a page for each video. A video that cannot be read is reported, and the others
    are done. The exit code is 1 if no video could be read. With --live it prints each event when it has ended, until
    the stream ends or Ctrl-C.
    """
    if bool(videos) == (live is not None):
        raise MoclipError("name videos, or a stream with --live URL", where="moclip timeline")
    length, distance = parse_seconds(window, "--window"), parse_seconds(every, "--every")
    least, patience = parse_seconds(min_length, "--min-length", 0.0), parse_seconds(timeout, "--timeout")
    waiting = parse_seconds(buffer, "--buffer")
    if live is None:
        _make_folder(out)
    predictor = _predictor(params, from_bundle, reject, runtime)
    background = background or background_class(predictor, params if from_bundle is None else None)
    if not reject:
        predictor = dataclasses.replace(predictor, rejection=None)
    with while_importing():
        from moclip.inference.events import EventRules
        from moclip.inference.smoothing import Smoothing
        from moclip.inference.windows import Windows
        from moclip.video.live import LiveSource
        from pipeline.timeline_live import watch_stream
        from pipeline.timeline_run import Request, checked_class, checked_stream

    smoothing = Smoothing(smooth, length / distance, switch_cost)
    rules = EventRules(smoothing, least, threshold, checked_class(predictor, background))
    request = Request(Windows(length, distance), rules, checked_stream(predictor, stream))
    if live is None:
        _read_videos(predictor, request, videos or [], annotations, out, as_json)
    else:
        watch_stream(predictor, request, LiveSource(live, retries, patience, waiting), as_json)


def _predictor(params: Params | None, bundle: str | None, reject: bool, runtime: str) -> Predictor:
    predictor = chosen_predictor(params, bundle, reject, runtime)
    if predictor.fusion.config.multi_label:
        what = "the clips of the training have several labels: timeline only knows one class at a time"
        raise ModelError(what, where=bundle or paths.FUSION, fix="cut the video, and use `moclip predict`")
    if reject and predictor.rejection is None:
        raise no_rejection_error(predictor, bundle)
    return predictor


def background_class(predictor: Predictor, params: Params | None) -> str | None:
    """Return the background class of a project, or else of a bundle; None without one."""
    if params:
        return params.dataset.background or None
    rejection = predictor.rejection
    return predictor.classes[rejection.background] if rejection and rejection.background is not None else None


def _read_videos(
    predictor: Predictor, request: Request, videos: list[Path], annotations: Path | None, out: Path, as_json: bool
) -> None:
    with while_importing():
        from moclip.data.annotations import read_annotations
        from moclip.video.clip_files import find_clips, paths_below
        from pipeline.timeline_files import describe, write_files
        from pipeline.timeline_run import print_events, read_videos
        from pipeline.timeline_scores import score_events

    files = find_clips(videos)
    actual = read_annotations(annotations) if annotations else None
    found, failed = [], []
    for (path, result), target in zip(read_videos(predictor, request, files), paths_below(files, out), strict=True):
        if isinstance(result, VideoError):
            failed.append((path, result))
            continue
        try:
            write_files(result, target)
        except OSError as problem:
            if problem.errno != errno.ENAMETOOLONG:
                raise
            failed.append((path, VideoError("its name is too long for the files about it", fix="rename it")))
            continue
        found.append(result)
        if damage := result.timeline.damage:
            print_damage(path, damage)
        if not as_json:
            print_events(result)
            print_note(f"timeline: {target}.html, and .csv, .json, .vtt, .srt")
    if as_json:
        errors = [{"video": str(path), "error": problem.what, "fix": problem.fix} for path, problem in failed]
        print(json.dumps([describe(one) for one in found] + errors))
    print_clip_errors((path, problem.what, problem.fix) for path, problem in failed)
    if actual is not None and found:
        score_events(found, actual, request.rules.background, out / "metrics.json", quiet=as_json)
    if not found:
        raise VideoError("no video could be read", fix="see the reasons above")


def _make_folder(out: Path) -> None:
    """Make the folder that is written to, before hours are spent. Raises MoclipError where that is impossible."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        what = f"this folder cannot be made: {problem.strerror or problem}"
        raise MoclipError(what, where=f"--out {out}", fix="name another folder") from None
    if not os.access(out, os.W_OK):
        raise MoclipError("this folder cannot be written to", where=f"--out {out}", fix="name another folder")


_UNITS = {"": 1.0, "s": 1.0, "ms": 0.001, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_seconds(text: str, option: str, least: float = 0.001) -> float:
    """Return the seconds of "2", "2s", "500ms", "1m" or "1h". Raises MoclipError for anything else."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|min|m|h|)\s*", text)
    value = float(found[1]) * _UNITS[found[2]] if found else -1.0
    if value < least:
        raise MoclipError(f"{text!r} is not a length of time", where=option, fix="for example 2s, 0.5, 500ms or 1m")
    return value


if __name__ == "__main__":
    timeline()
