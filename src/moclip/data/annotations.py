"""Read annotations of long videos: a table with a row per action, from when to when."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from moclip.data.text_files import read_text_file
from moclip.errors import DatasetError

REQUIRED = ("start", "end", "class")
_FIX = "write a CSV with the columns start, end (in seconds), class and, for more than one video, video"


class Annotation(NamedTuple):
    """An action: `start` and `end` in seconds, its class, and the video's name in the table, "" without one."""

    start: float
    end: float
    name: str
    video: str


def read_annotations(path: Path) -> list[Annotation]:
    """Read a CSV with the columns start, end, class and perhaps video. Raises DatasetError, with the row."""
    text = read_text_file(path)
    header = text.partition("\n")[0]
    separator = max(",;\t", key=header.count)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    names = {(name or "").strip().lower(): name for name in rows.fieldnames or []}
    if missing := [name for name in REQUIRED if name not in names]:
        raise DatasetError(f"no column {', '.join(missing)}", where=path, fix=_FIX)
    numbered = [(number, row) for number, row in enumerate(rows, 2) if any(row.values())]
    if not numbered:
        raise DatasetError("no rows", where=path, fix="write a row for each action below the header")
    return [_annotation(row, names, f"{path}: row {number}") for number, row in numbered]


def _annotation(row: Mapping[str, str | None], names: Mapping[str, str], where: str) -> Annotation:
    values = {name: (row.get(column) or "").strip() for name, column in names.items()}
    times = []
    for name in ("start", "end"):
        try:
            times.append(float(values[name]))
        except ValueError:
            what = f"{name} = {values[name]!r} is not a number of seconds"
            raise DatasetError(what, where=where, fix=_FIX) from None
    start, end = times
    if not 0 <= start < end < float("inf"):
        raise DatasetError(f"from {start:g} to {end:g} s: the end must come after the start", where=where)
    if not values["class"]:
        raise DatasetError("no class", where=where, fix=_FIX)
    return Annotation(start, end, values["class"], values.get("video", ""))


def annotations_of(annotations: Sequence[Annotation], videos: Sequence[Path]) -> list[list[Annotation]]:
    """Return those of each video, by its path or else the name of its file. Those without a name are the only video's.

    Raises DatasetError for the name of several videos.
    """
    found: list[list[Annotation]] = [[] for _ in videos]
    for one in annotations:
        fitting = [number for number, video in enumerate(videos) if one.video == str(video)]
        fitting = fitting or [number for number, video in enumerate(videos) if one.video in (video.name, video.stem)]
        if not one.video and len(videos) == 1:
            fitting = [0]
        if len(fitting) > 1:
            names = " and ".join(str(videos[number]) for number in fitting[:2])
            raise DatasetError(f"video = {one.video!r} fits {names}", fix="write the path of the video in its place")
        if fitting:
            found[fitting[0]].append(one)
    return found
