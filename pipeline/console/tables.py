"""The layout of tables: a row is one line where there is room, and as many as needed on a narrow terminal."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

NUMBER = re.compile(r"-?|[-+]?\d[\d.,]*([-x±][\d.,]+)?( ?%| M)?")
"""A number, perhaps with a unit, a range, "8x1", "0.91±0.02", or an empty cell: aligned right and never wrapped."""

LEAST_WIDTH = 16
"""Columns of longer texts are not narrower than this, in characters; shorter texts are not wrapped."""

MOST_WHOLE = 24
"""Words up to this length, such as most class names, are not broken."""

SPACE = 2
"""Spaces between two columns, and in front of the cells below a label."""


def table_lines(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    console: Console,
    styles: Mapping[str, str] | None = None,
    repeated: int = 1,
) -> list[str]:
    """Return the lines of a table with headers that fits the width of `console`.

    Where it is too wide, long texts and the headers of numbers are wrapped. If the first cells have long words, such as
    paths, or those after a rank, they stand on lines of their own. Columns for which there is no room follow below,
    with the first `repeated` columns again. `styles` maps the text of a cell to the name of one of rich's styles.
    """
    from rich.text import Text

    cells = [[str(cell) for cell in row] for row in rows]
    all_columns = [_column(name, [row[number] for row in cells]) for number, name in enumerate(columns)]
    parts: list[RenderableType] = [Text(title, "bold")]
    labels, others = _labels(all_columns)
    if others and _needed(all_columns) > console.width and labels.longest_word() > console.width // 3:
        parts += _below_labels(labels, others, console.width, styles)
    else:
        for block in _blocks(all_columns[:repeated], all_columns[repeated:], console.width):
            parts += [*([""] if len(parts) > 1 else []), _table(block, _fitted(block, console.width), styles)]
    with console.capture() as captured:
        for part in parts:
            console.print(part)
    return [line.rstrip() for line in captured.get().splitlines()]


@dataclass
class _Column:
    """A column of a table: its header, its cells, and whether they are numbers."""

    name: str
    cells: list[str]
    numbers: bool

    def natural(self) -> int:
        """Return the width of the longest cell or the header."""
        return max(map(_width, (self.name, *self.cells)))

    def least(self) -> int:
        """Return the smallest width: of whole numbers and words, or `LEAST_WIDTH` for texts."""
        header = max(map(_width, re.split(r" |(?<=\w{8}-)", self.name)))  # textwrap also breaks after a hyphen
        cell = max(map(_width, self.cells), default=0)
        words = min(self.longest_word(), MOST_WHOLE)
        return max(1, header, cell if self.numbers else min(cell, max(LEAST_WIDTH, words)))

    def longest_word(self) -> int:
        return max((_width(word) for cell in self.cells for word in cell.split()), default=0)


def _column(name: str, cells: list[str]) -> _Column:
    return _Column(name, cells, all(NUMBER.fullmatch(cell) for cell in cells))


def _labels(columns: list[_Column]) -> tuple[_Column, list[_Column]]:
    """Return the column that tells what a row is about, which is the first two after a rank; and the other columns."""
    first, *others = columns
    if not (others and first.numbers) or others[0].numbers:
        return first, others
    ranked = [f"{rank}  {cell}" for rank, cell in zip(first.cells, others[0].cells, strict=True)]
    return _Column(f"{first.name}  {others[0].name}", ranked, numbers=False), others[1:]


def _width(text: str) -> int:
    """Return how many places of a terminal a text takes; a Chinese character takes two."""
    from rich.cells import cell_len

    return cell_len(text)


def _needed(columns: Sequence[_Column]) -> int:
    return sum(column.natural() for column in columns) + SPACE * (len(columns) - 1)


def _fitted(columns: Sequence[_Column], width: int) -> list[int]:
    """Return widths that fit. Headers of numbers are wrapped first, then the widest texts, down to the least widths."""
    widths = [max(1, column.natural()) for column in columns]
    while sum(widths) + SPACE * (len(columns) - 1) > width:
        wide = [number for number, column in enumerate(columns) if widths[number] > column.least()]
        if not wide:
            break
        widths[max(wide, key=lambda number: (columns[number].numbers, widths[number]))] -= 1
    return widths


def _blocks(repeated: list[_Column], columns: list[_Column], width: int) -> Iterator[list[_Column]]:
    """Yield the columns in blocks that fit; each begins with those that are repeated."""
    block = list(repeated)
    for column in columns:
        needed = sum(one.least() + SPACE for one in (*block, column)) - SPACE
        if len(block) > len(repeated) and needed > width:
            yield block
            block = list(repeated)
        block.append(column)
    yield block


def _table(
    columns: Sequence[_Column], widths: Sequence[int], styles: Mapping[str, str] | None, header: bool = True
) -> RenderableType:
    from rich.box import Box  # rich takes longer to import than `moclip --help` to run
    from rich.table import Table
    from rich.text import Text

    rule_below_headers = Box("    \n    \n -- \n" + 5 * "    \n", ascii=True)
    table = Table(box=rule_below_headers, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False, show_header=header)
    for column, width in zip(columns, widths, strict=True):
        title = "\n".join(textwrap.wrap(column.name, width))
        table.add_column(title, justify="right" if column.numbers else "left", overflow="fold", width=width)
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*(Text(cell, (styles or {}).get(cell, "")) for cell in row))  # Text: [brackets] are not markup
    return table


def _below_labels(
    labels: _Column, columns: list[_Column], width: int, styles: Mapping[str, str] | None
) -> list[RenderableType]:
    """Return rows that begin with a line for their label, unless it is empty, and go on with a line per block."""
    from rich.padding import Padding
    from rich.text import Text

    blocks = list(_blocks([], columns, width - SPACE))
    widths = [_fitted(block, width - SPACE) for block in blocks]
    heads = [[_Column(one.name, [one.name], one.numbers) for one in block] for block in blocks]
    parts: list[RenderableType] = [Text(labels.name, "bold")]
    bold = {column.name: "bold" for column in columns}
    parts += [Padding(_rows(head, at, bold), (0, 0, 0, SPACE)) for head, at in zip(heads, widths, strict=True)]
    parts.append("-" * max(sum(at) + SPACE * len(at) for at in widths))
    for number, label in enumerate(labels.cells):
        if label:
            parts.append(Text(label, overflow="fold"))
        for block, at in zip(blocks, widths, strict=True):
            row = [_Column(column.name, [column.cells[number]], column.numbers) for column in block]
            parts.append(Padding(_rows(row, at, styles), (0, 0, 0, SPACE)))
    return parts


def _rows(columns: Sequence[_Column], widths: Sequence[int], styles: Mapping[str, str] | None) -> RenderableType:
    return _table(columns, widths, styles, header=False)
