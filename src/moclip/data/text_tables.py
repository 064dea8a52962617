"""Read the columns of a table as text: CSV as spreadsheets write it, Parquet, JSON lines."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from moclip.data.text_files import ENCODING_FIX, decode_text, undecodable_line
from moclip.errors import DatasetError

SUFFIXES = (".csv", ".parquet", ".jsonl")
_SEPARATORS = (",", ";", "\t")  # Excel writes ";" where "," is the decimal point, and "\t" as "Unicode text"


@dataclass(frozen=True)
class TextTable:
    """The wanted columns of a table, as text without spaces around it; an empty cell is "".

    columns : those of the wanted columns that the table has. Blank lines are left out.
    numbers : (n,) the number of each row, as a spreadsheet shows it: the header is row 1. JSON lines have no header.
    others : names of the other columns.
    """

    columns: pd.DataFrame
    numbers: np.ndarray
    others: list[str]


def read_text_table(path: Path, wanted: Collection[str]) -> TextTable:
    """Read the `wanted` columns of a .csv, .parquet or .jsonl file. Column names are compared in lower case.

    Raises DatasetError, with the row, where the file does not exist, is of another kind, or is malformed.
    """
    readers = {".csv": _read_csv, ".parquet": _read_parquet, ".jsonl": _read_json_lines}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        fix = f"a manifest ends in {', '.join(SUFFIXES)}"
        raise DatasetError("not a kind of table that can be read", where=path, fix=fix)
    try:
        names, cells, numbers = reader(path, wanted)
    except OSError as problem:
        raise DatasetError(f"cannot be read: {problem.strerror or problem}", where=path) from None
    columns = pd.DataFrame(
        {name: pd.Series(values, dtype="str").str.strip() for name, values in cells.items()}, index=range(len(numbers))
    )
    return TextTable(columns, numbers, [name for name in names if name not in wanted])


def _read_text(path: Path) -> str:
    content = path.read_bytes()
    text = decode_text(content)
    if text is None:
        line = undecodable_line(content)
        what = "not text in UTF-8, nor in UTF-16 with a byte-order mark"
        raise DatasetError(f"row {line}: {what}" if line else what, where=path, fix=ENCODING_FIX)
    return text


def _wanted_places(names: list[str], wanted: Collection[str], path: Path) -> dict[str, int]:
    """Return the place of each wanted column. Raises DatasetError for a column that is there twice."""
    if twice := sorted(name for name in set(names) & set(wanted) if names.count(name) > 1):
        what = f"the column {twice[0]} is there {names.count(twice[0])} times"
        raise DatasetError(what, where=path, fix="rename or remove all but one")
    return {name: place for place, name in enumerate(names) if name in wanted}


def _column_name(name: object) -> str:
    return str(name).strip().lower()


# ---------------------------------------------------------------------------------------------------------- CSV

_Read = tuple[list[str], dict[str, list[str]], np.ndarray]
"""All column names, the cells of the wanted columns, and the rows' numbers."""


def _read_csv(path: Path, wanted: Collection[str]) -> _Read:
    text = _read_text(path)
    header = next((line for line in io.StringIO(text, newline=None) if line.strip()), "")
    separator = max(_SEPARATORS, key=lambda one: _wanted_in(header, one, wanted))
    numbered = [(number, row) for number, row in _csv_rows(text, separator, path) if any(map(str.strip, row))]
    if not numbered:
        raise DatasetError("empty", where=path, fix="write a header with path and label, and a row for each clip")
    names = [_column_name(name) for name in numbered[0][1]]
    rows = [row for _, row in numbered[1:]]
    numbers = np.array([number for number, _ in numbered[1:]], np.int64)
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    for place in np.flatnonzero(lengths > len(names)).tolist():
        if any(map(str.strip, rows[place][len(names) :])):
            what = f"row {numbers[place]}: {lengths[place]} cells, but the header has {len(names)}"
            raise DatasetError(what, where=path, fix=f'put "..." around a value that contains {separator!r}')
    cells = {
        name: [row[place] if place < len(row) else "" for row in rows]
        for name, place in _wanted_places(names, wanted, path).items()
    }
    return names, cells, numbers


def _wanted_in(header: str, separator: str, wanted: Collection[str]) -> tuple[int, int]:
    """Return how many wanted columns a header has with this separator, and how many columns."""
    names = [_column_name(name) for name in next(csv.reader([header], delimiter=separator, skipinitialspace=True), [])]
    return len(set(names) & set(wanted)), len(names)


def _csv_rows(text: str, separator: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the cells of each row. A cell in quotes may hold line breaks."""
    number = 0
    try:
        lines = io.StringIO(text, newline="")
        for row in csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True):
            number += 1
            yield number, row
    except csv.Error as problem:
        fix = 'close each quote; a quote within "..." is written twice, ""'
        raise DatasetError(f"row {number + 1}: not valid CSV: {problem}", where=path, fix=fix) from None


# ------------------------------------------------------------------------------------------ Parquet, JSON lines


def _read_parquet(path: Path, wanted: Collection[str]) -> _Read:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        given = parquet.read_schema(path).names
        names = [_column_name(name) for name in given if not name.startswith("__index_level_")]
        places = _wanted_places([_column_name(name) for name in given], wanted, path)
        table = parquet.read_table(path, columns=[given[place] for place in places.values()])
    except pa.ArrowException as problem:
        raise DatasetError(f"not a Parquet file: {problem}", where=path, fix="write it again") from None
    numbers = np.arange(table.num_rows) + 2
    cells = {
        name: list(_texts(table.column(given[place]).to_pylist(), numbers, name, path))
        for name, place in places.items()
    }
    return names, cells, numbers


def _read_json_lines(path: Path, wanted: Collection[str]) -> _Read:
    names: dict[str, None] = {}
    values: dict[str, list[Any]] = {name: [] for name in wanted}
    numbers = []
    for number, line in enumerate(_read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        record = _json_record(line, number, path)
        names |= dict.fromkeys(record)
        numbers.append(number)
        for name, column in values.items():
            column.append(record.get(name))
    found = np.array(numbers, np.int64)
    cells = {name: list(_texts(column, found, name, path)) for name, column in values.items() if name in names}
    return list(names), cells, found


def _with_column_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object with the names of columns as keys. Raises ValueError for one that is there twice."""
    record = {_column_name(name): value for name, value in pairs}
    if len(record) < len(pairs):
        names = [_column_name(name) for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)} is there twice")
    return record


def _json_record(line: str, number: int, path: Path) -> dict[str, Any]:
    fix = 'each line is an object: {"path": "a.mp4", "label": "run"}'
    try:
        record = json.loads(line, object_pairs_hook=_with_column_names)
    except json.JSONDecodeError as problem:
        what = f"row {number}: not valid JSON: {problem.msg}, character {problem.pos + 1}"
        raise DatasetError(what, where=path, fix=fix) from None
    except ValueError as problem:
        raise DatasetError(f"row {number}: {problem}", where=path, fix="rename or remove all but one") from None
    if not isinstance(record, dict):
        raise DatasetError(f"row {number}: not a JSON object", where=path, fix=fix)
    return record


def _texts(values: Iterable[Any], numbers: np.ndarray, column: str, path: Path) -> Iterator[str]:
    """Yield each value as text: "" for none, "3" for 3 and 3.0."""
    for place, value in enumerate(values):
        if isinstance(value, str):
            yield value
        elif value is None or (isinstance(value, float) and math.isnan(value)):
            yield ""
        elif isinstance(value, bool):
            yield str(value).lower()
        elif isinstance(value, int | float):
            yield str(int(value) if isinstance(value, float) and value.is_integer() else value)
        else:
            what = f"row {numbers[place]}, column {column}: {type(value).__name__}; expected text or a number"
            raise DatasetError(what, where=path, fix="write one value per cell")
