"""Writing small results: JSON with sorted keys and fixed rounding, set down atomically."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moclip.errors import MoclipError
from moclip.files.atomic import atomic_file, atomic_folder, write_atomically
from pipeline import params as parameters

if TYPE_CHECKING:
    import pandas as pd

DIGITS = 4
"""Decimals in metrics files: enough for 13,320 clips, short enough to read in `dvc metrics diff`."""


def rounded(value: Any, digits: int = DIGITS) -> Any:
    """`value` with every float in it rounded, mappings and sequences walked."""
    if isinstance(value, dict):
        return {str(key): rounded(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item, digits) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:  # a numpy or torch scalar
        value = value.item()
    return round(value, digits) if isinstance(value, float) else value


def write_text(path: Path, text: str) -> None:
    """Atomic, UTF-8."""
    write_atomically(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Sorted keys, floats rounded to `DIGITS` decimals, atomic: the same value always gives the same bytes."""
    write_text(path, json.dumps(rounded(value), indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def write_parquet(path: Path, table: pd.DataFrame) -> None:
    """Atomic, without pandas' index; the same table always gives the same bytes."""
    with atomic_file(path) as aside:
        table.to_parquet(aside, index=False)


def write_unused(folder: Path, reason: str) -> None:
    """Replace a stage's output folder by one that says why it is not used.

    Not by an empty one: DVC warns of empty folders on each run, and remotes with cloud versioning lose them.
    """
    with atomic_folder(folder) as aside:
        aside.mkdir()
        write_text(aside / "unused.txt", f"{reason}\n")


def read_parquet(path: Path, stage: str) -> pd.DataFrame:
    """Raises MoclipError naming the `stage` that writes the file where it is not there."""
    import pandas as pd  # who only predicts has none

    try:
        return pd.read_parquet(path)
    except FileNotFoundError:
        raise _absent(path, stage) from None


def read_json(path: Path, stage: str) -> dict[str, Any]:
    """Raises MoclipError naming the `stage` that writes the file where it is not there."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise _absent(path, stage) from None


def _absent(path: Path, stage: str) -> MoclipError:
    """The error for a file that is not there. Raises ParamError where this is not a project's folder at all."""
    parameters.check_folder()
    return MoclipError("not found", where=path, fix=f"run: dvc repro (or: python -m stages.{stage})")
