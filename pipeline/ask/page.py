"""One static page of clips, each with a picture and its motion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moclip.drawing.colours import CELL
from moclip.evaluation.report_pictures import colour_wheel_uri
from moclip.files.folders import join_path
from moclip.files.local_copies import local_copy
from moclip.motion.quantise import dequantise
from moclip.motion.windows import motion_fields
from moclip.store.reader import FieldReader
from moclip.video.probe import probe
from moclip.video.vectors import vector_windows
from moclip.wording import counted
from pipeline import paths
from pipeline.ask.answer import value_text
from pipeline.clip_pages import Place, clip_pictures, draw_cards, no_pictures
from pipeline.console.output import print_note
from pipeline.inputs import Inputs
from pipeline.io import write_text
from pipeline.pages import template


@dataclass(frozen=True)
class Card:
    """A clip on the page: an id of the index or the path of a file, and facts about it (name, value)."""

    clip: str
    facts: Sequence[tuple[str, str]]
    is_file: bool = False


@dataclass(frozen=True)
class Section:
    """Clips that belong together, with a heading, which may be empty."""

    heading: str
    cards: Sequence[Card]


def facts(row: Mapping[str, Any], columns: Sequence[str]) -> list[tuple[str, str]]:
    """Return the columns of a row of the table as facts of a card."""
    return [(name.replace("_", " "), value_text(row[name])) for name in columns if row[name] is not None]


def show_page(
    command: str, title: str, text: str, sections: Sequence[Section], inputs: Inputs, file: Path | None, workers: int
) -> None:
    """Write the page of a command, if a file is named."""
    if file is None:
        return
    content = page_text(title, text, sections, inputs, workers, command)
    write_text(file, content)
    cards = sum(len(section.cards) for section in sections)
    print_note(f"{command}: {file}, {len(content) / 1e6:.1f} MB, {counted(cards, 'clip')}")


def page_text(
    title: str, text: str, sections: Sequence[Section], inputs: Inputs, workers: int, label: str = "page"
) -> str:
    """Return the page as HTML with no outside resources. A clip whose pictures cannot be drawn gets the reason."""
    pictures = CardPictures(inputs)
    cards = [card for section in sections for card in section.cards]
    parts = iter(draw_cards(label, pictures.of, cards, workers))
    shown = [
        {
            "heading": section.heading,
            "cards": [{"clip": card.clip, "facts": card.facts} | next(parts) for card in section.cards],
        }
        for section in sections
    ]
    return template("clips.html").render(title=title, text=text, sections=shown, wheel=colour_wheel_uri())


class CardPictures:
    """Draws clips: motion from the store where it has the clip, else from the file."""

    def __init__(self, inputs: Inputs) -> None:
        self.root = inputs.params.dataset.root
        self.reader: FieldReader | None = None
        self.stored: set[str] = set()
        self.index = inputs.clips.index.set_index("id")
        if paths.MV_TABLE.exists() and paths.MV_STORE.exists():
            table = inputs.clips.mv_table
            self.reader = FieldReader(paths.MV_STORE, table)
            self.stored = set(table.loc[table["status"] == "ok", "id"])

    def of(self, card: Card) -> dict[str, Any]:
        clip: Any = None if card.is_file else self.index.loc[card.clip]
        url = card.clip if clip is None else join_path(self.root, clip["path"])
        try:
            with local_copy(url) as file:
                if clip is None:
                    fields = _read_fields(file, 0, None)
                    return clip_pictures(file, fields, len(fields) // 2, Place())
                place, frames = Place.of(clip), int(clip["frames"])
                if self.reader and card.clip in self.stored:
                    fields = dequantise(self.reader.read_video(card.clip), self.reader.attributes["clip"])
                else:
                    fields = _read_fields(file, place.first, frames or None)
                    frames = len(fields)
                return clip_pictures(file, fields, frames // 2, place)
        except Exception as problem:  # nor must one that cannot be read
            return no_pictures(problem, url)


def _read_fields(file: Path, first: int, count: int | None) -> np.ndarray:
    """Return the motion of `count` frames of a file from `first` on, or of all: (T, 2, rows, columns) in px."""
    info = probe(file)
    windows = vector_windows(file, "pyav", damaged=bool(info.damage))
    fields = []
    start, end = 0, info.frames if count is None else first + count
    for found, _ in motion_fields(windows, (info.height, info.width), CELL, accumulate=False):
        if start + len(found) > first and start < end:
            fields.append(found[max(0, first - start) : end - start])
        start += len(found)
    return np.concatenate(fields)
