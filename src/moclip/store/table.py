"""The table of a motion-field store: one row a video, with its place, its checksum and what went wrong."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from moclip.errors import StoreError
from moclip.files.folders import Folder
from moclip.store.layout import RERUN, short_digest

TABLE_COLUMNS = {
    "id": "str", "md5": "str", "offset": "int64", "length": "int64", "slots": "int64", "shard": "int64",
    "backend": "str", "status": "str", "reason": "str", "checksum": "int64", "key": "str",
}  # fmt: skip


def write_table(path: str | Path, table: pd.DataFrame) -> None:
    """Write the table of videos (columns and dtypes of `TABLE_COLUMNS`) as Parquet, atomically, to a path or URL."""
    folder, _, name = str(path).rpartition("/")
    content = BytesIO()
    as_table(table).to_parquet(content, index=False)
    Folder(folder or ".").write(name, content.getvalue())


def contents_digest(table: pd.DataFrame) -> str:
    """16 hexadecimal digits for what a store holds: which videos, where, and their checksums."""
    return short_digest(*(table[name].tolist() for name in ("id", "offset", "length", "checksum")))


def rows_of(table: pd.DataFrame) -> Iterator[Any]:
    """A table's rows, a named tuple each."""
    return iter(table.itertuples(index=False))


def as_table(rows: pd.DataFrame) -> pd.DataFrame:
    """The table's columns, in order and with their dtypes."""
    return rows.reindex(columns=list(TABLE_COLUMNS)).astype(TABLE_COLUMNS).reset_index(drop=True)


def read_table(path: str | Path) -> pd.DataFrame:
    """Read the table of videos, from a path or URL.

    Raises
    ------
    StoreError
        It is not there, or is no such table.
    """
    try:
        folder, _, name = str(path).rpartition("/")
        table = pd.read_parquet(BytesIO(Folder(folder or ".").read(name)))
    except FileNotFoundError as error:
        raise StoreError("no table of motion fields", where=path, fix=RERUN) from error
    except Exception as error:
        raise StoreError(f"not a table of motion fields ({error})", where=path, fix=RERUN) from error
    absent = [name for name in TABLE_COLUMNS if name not in table]
    if absent:
        raise StoreError(f"no table of motion fields: it lacks {', '.join(absent)}", where=path, fix=RERUN)
    return table


def field_checksum(fields: np.ndarray, frame_types: np.ndarray) -> int:
    """CRC-32 of a video's int8 fields followed by its frame types."""
    return zlib.crc32(frame_types.tobytes(), zlib.crc32(fields.tobytes()))
