"""Show what a command found, as a table and as CSV, and the options that the commands share."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from moclip.wording import counted
from pipeline.console.output import print_note, print_result
from pipeline.io import rounded, write_text

FOLDER = Path("ask")

By = Annotated[
    Literal["picture", "motion", "both"] | None,
    typer.Option(
        help="picture: mean of the stills; motion: MV-TSN's features; both: side by side.  [default: what exists]",
        show_default=False,
    ),
]

Page = Annotated[
    Path | None,
    typer.Option(
        "--page", metavar="FILE", help="Also write a page with each clip's picture and motion: HTML, one file."
    ),
]

CsvFile = Annotated[Path, typer.Option("--csv", metavar="FILE", help="Where to write the rows as CSV.")]

Row = dict[str, Any]


def show_rows(command: str, title: str, columns: Sequence[str], rows: Sequence[Row], file: Path) -> None:
    """Print rows as a table, and write them as CSV. A value that is None is an empty cell."""
    print_result(
        title,
        [name.replace("_", " ") for name in columns],
        [[value_text(row[name]) for name in columns] for row in rows],
    )
    content = io.StringIO()
    writer = csv.DictWriter(content, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rounded({name: row[name] for name in columns}) for row in rows)
    write_text(file, content.getvalue())
    print_note(f"{command}: {file}, {counted(len(rows), 'row')}")


def value_text(value: Any) -> str:
    """Return a value as tables and pages show it."""
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
