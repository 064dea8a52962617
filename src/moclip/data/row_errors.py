"""Errors that name a table's row and column."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from moclip.errors import DatasetError


def refuse(wrong: pd.Series, rows: pd.DataFrame, column: str, what: str, fix: str, file: Path) -> None:
    """Raise DatasetError for the first row that is `wrong`. `{!r}` in `what` stands for its cell.

    `rows` have a column number, as a spreadsheet counts them.
    """
    if wrong.any():
        row = rows.iloc[int(wrong.to_numpy().argmax())]
        count = int(wrong.sum())
        more = f"; such rows: {count}" if count > 1 else ""
        what = f"row {row['number']}, column {column}: {what.replace('{!r}', repr(row[column]))}{more}"
        raise DatasetError(what, where=file, fix=fix)
