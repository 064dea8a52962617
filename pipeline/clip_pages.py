"""What pages with pictures of clips share: the report, and the pages of the commands that ask the feature store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from moclip.errors import as_video_error
from moclip.evaluation.report_pictures import motion_uri, still_uri
from pipeline.console.progress import show_progress

Item = TypeVar("Item")


def draw_cards(
    label: str, draw: Callable[[Item], dict[str, Any]], items: Sequence[Item], workers: int
) -> list[dict[str, Any]]:
    """Return `draw(item)` of each item, in order, with a progress bar."""
    cards = []
    with show_progress(label, len(items)) as advance, ThreadPoolExecutor(workers) as pool:
        for card in pool.map(draw, items):  # threads suffice: decoding and encoding release the interpreter lock
            cards.append(card)
            advance(1)
    return cards


@dataclass(frozen=True)
class Place:
    """Where a clip is in its file: its first frame; and whether pictures of it are read by seeking."""

    first: int = 0
    seekable: bool = False

    @classmethod
    def of(cls, row: pd.Series) -> Place:
        """Return the place of a clip by its row of the index. Whole files are read in order."""
        return cls(int(row["first"]), bool(row["seekable"])) if row["first"] else cls()


def clip_pictures(path: Path, fields: np.ndarray, frame: int, place: Place) -> dict[str, Any]:
    """Return a clip's still, its frame number `frame`, and its motion as pictures, or why there are none."""
    try:
        still = still_uri(path, place.first + frame, place.seekable)
        return {"still": still, "motion": motion_uri(path, fields, place.first, place.seekable)}
    except Exception as problem:  # one clip that cannot be drawn must not stop the others
        return no_pictures(problem, path)


def no_pictures(problem: Exception, where: str | Path) -> dict[str, Any]:
    """Return the reason why a clip has no pictures."""
    return {"still": None, "reason": as_video_error(problem, where).what}
