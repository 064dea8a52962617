"""The confusion matrix of the report: its drawing, and the clips that each of its cells opens."""

from __future__ import annotations

import os
from collections.abc import Container
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from moclip.evaluation.report import Confusion
from moclip.files.folders import absolute_path, is_url, join_path
from pipeline import paths

CELL_SIDE, MATRIX_SIDE, MAX_LABELS = 22, 640, 40
"""Of the confusion matrix: a cell's side in px, its own side without labels in px, and the most classes with labels."""

MOST_LISTED, MOST_IN_ALL = 50, 20_000
"""Most clips that a cell lists, and about the most of all cells together: they are part of the page."""

PLAYED = {".mp4": {"h264", "vp9", "av1"}, ".m4v": {"h264"}, ".webm": {"vp8", "vp9", "av1"}}
"""The codecs that browsers play, by the suffix of the file."""


def matrix_drawing(confused: Confusion) -> dict[str, Any]:
    """Return the confusion matrix as rectangles in px. Cells without clips are left out."""
    classes = len(confused.names)
    labelled = classes <= MAX_LABELS
    side = CELL_SIDE if labelled else MATRIX_SIDE / classes
    longest = max(map(len, confused.names))
    left, top = (round(12 + 6.4 * longest), round(16 + 5.2 * longest)) if labelled else (1, 1)  # room for the labels
    totals = np.maximum(1, confused.counts.sum(axis=1))
    cells = [
        {
            "key": f"{row},{column}",
            "x": round(left + column * side, 2),
            "y": round(top + row * side, 2),
            "count": int(count),
            "share": round(0.12 + 0.6 * count / totals[row], 3),
            "title": f"{confused.names[row]} predicted as {confused.names[column]}: {count} of {totals[row]}",
        }
        for (row, column), count in np.ndenumerate(confused.counts)
        if count
    ]
    labels = [{"name": name, "at": top + (position + 0.5) * side} for position, name in enumerate(confused.names)]
    extent = round(classes * side, 2)
    return {
        "side": side,
        "left": left,
        "top": top,
        "extent": extent,
        "width": left + extent + (round(4 * longest) if labelled else 1),
        "height": top + extent + 1,
        "labels": labels if labelled else [],
        "cells": cells,
    }


def worst_cells(confused: Confusion) -> list[dict[str, Any]]:
    """Return the most frequent confusions: actual and predicted class, clips, clips of the class, and the cell."""
    places = {name: place for place, name in enumerate(confused.names)}
    return [
        {"actual": actual, "predicted": predicted, "wrong": wrong, "total": total}
        | {"key": f"{places[actual]},{places[predicted]}"}
        for actual, predicted, wrong, total in confused.worst
    ]


def cell_clips(confused: Confusion, ids: list[str], links: dict[str, str], pictured: Container[int]) -> dict[str, Any]:
    """Return what the page needs to open a cell: the class names, and the clips of each cell with their links.

    `ids` are the clips' in the order of the predictions, `pictured` the numbers of those in the gallery, which come
    first. A cell has all its clips' number, and at most `MOST_LISTED` of them.
    """
    most = max(1, min(MOST_LISTED, MOST_IN_ALL // max(1, len(confused.clips))))
    cells = {}
    for (row, column), numbers in sorted(confused.clips.items()):
        shown = sorted(numbers, key=lambda number: number not in pictured)[:most]
        clips = [[ids[number], links.get(ids[number], "")] for number in shown]
        cells[f"{row},{column}"] = {"count": len(numbers), "clips": clips}
    return {"names": confused.names, "cells": cells}


def clip_links(index: pd.DataFrame, root: str) -> dict[str, str]:
    """Return links to the clips that a browser plays, by id; `index` are rows of the index.

    A link is relative to the page if the file is inside the project. For a span it starts and ends with the span.
    """
    return {str(clip["id"]): _link(clip, root) for clip in index.to_dict("records") if _plays(clip, root)}


def _plays(clip: dict[Any, Any], root: str) -> bool:
    played = PLAYED.get(Path(clip["path"]).suffix.lower(), set())
    return clip["codec"] in played and not is_url(join_path(root, clip["path"]))


def _link(clip: dict[Any, Any], root: str) -> str:
    file, project = Path(absolute_path(join_path(root, clip["path"]))), Path.cwd()
    if file.is_relative_to(project):
        link = quote(Path(os.path.relpath(file, project / paths.REPORT.parent)).as_posix())
    else:
        link = file.as_uri()
    if clip["fps"] > 0 and clip["frames"] < clip["video_frames"]:
        start, end = clip["first"] / clip["fps"], (clip["first"] + clip["frames"]) / clip["fps"]
        link += f"#t={start:.3f},{end:.3f}"
    return link
