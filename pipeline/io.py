"""Write and read small files: text, JSON and Parquet. Files are written atomically."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moclip.errors import MoclipError, StoreError
from moclip.files.atomic import atomic_file, atomic_folder, write_atomically
from pipeline import params as parameters

if TYPE_CHECKING:
    import pandas as pd

DIGITS = 4
"""Decimals in metrics files: enough for 13,320 clips, short enough to read in `dvc metrics diff`."""


def rounded(value: Any, digits: int = DIGITS) -> Any:
    """Return `value` with every float in it rounded, also within mappings and sequences."""
    if isinstance(value, dict):
        return {str(key): rounded(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item, digits) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:  # a numpy or torch scalar
        value = value.item()
    return round(value, digits) if isinstance(value, float) else value


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomically(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys and floats rounded to `DIGITS` decimals. The same value gives the same bytes."""
    write_text(path, json.dumps(rounded(value), indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def write_parquet(path: Path, table: pd.DataFrame) -> None:
    """Write a table without pandas' index. The same table gives the same bytes."""
    with atomic_file(path) as temporary:
        table.to_parquet(temporary, index=False)


UNUSED = "unused.txt"


def write_unused(folder: Path, reason: str) -> None:
    """Replace a stage's output folder with one that holds only unused.txt, which says why.

    The folder is not left empty: DVC warns of empty folders on each run, and remotes with cloud versioning lose them.
    """
    with atomic_folder(folder) as temporary:
        temporary.mkdir()
        write_text(temporary / UNUSED, f"{reason}\n")


def read_parquet(path: Path, stage: str) -> pd.DataFrame:
    """Read a table. Raises MoclipError that names the `stage` which writes the file, if it is missing."""
    import pandas as pd  # not installed where only exported models run

    try:
        return pd.read_parquet(path)
    except FileNotFoundError:
        raise _missing_file(path, stage) from None


def read_json(path: Path, stage: str) -> dict[str, Any]:
    """Read a JSON object. Raises MoclipError that names the `stage` which writes the file, if it is missing."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise _missing_file(path, stage) from None


def _missing_file(path: Path, stage: str) -> MoclipError:
    """Return the error for a missing artifact. Raises ParamError if this is not a project's folder at all."""
    parameters.check_project_folder()
    return StoreError("not found", where=path, fix=f"run: dvc repro (or: moclip {stage})")
