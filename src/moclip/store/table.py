"""The table of a motion-field store: one row per video, with its frames' offset, checksum and reason of failure."""

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
from moclip.store.layout import RERUN_EXTRACTION, short_digest

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
    """Return 16 hexadecimal digits of a store's contents: videos, offsets, lengths and checksums."""
    return short_digest(*(table[name].tolist() for name in ("id", "offset", "length", "checksum")))


def rows_of(table: pd.DataFrame) -> Iterator[Any]:
    """Iterate over a table's rows as named tuples."""
    return iter(table.itertuples(index=False))


def as_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return `rows` with the columns of `TABLE_COLUMNS`, in their order and dtypes."""
    return rows.reindex(columns=list(TABLE_COLUMNS)).astype(TABLE_COLUMNS).reset_index(drop=True)


def read_table(path: str | Path) -> pd.DataFrame:
    """Read the table of videos, from a path or URL.

    Raises
    ------
    StoreError
        It does not exist, or is not such a table.
    """
    try:
        folder, _, name = str(path).rpartition("/")
        table = pd.read_parquet(BytesIO(Folder(folder or ".").read(name)))
    except FileNotFoundError as error:
        raise StoreError("no table of motion fields", where=path, fix=RERUN_EXTRACTION) from error
    except Exception as error:
        raise StoreError(f"not a table of motion fields ({error})", where=path, fix=RERUN_EXTRACTION) from error
    missing = [name for name in TABLE_COLUMNS if name not in table]
    if missing:
        raise StoreError(
            f"not a table of motion fields: it has no column {', '.join(missing)}", where=path, fix=RERUN_EXTRACTION
        )
    return table


def field_checksum(fields: np.ndarray, frame_types: np.ndarray) -> int:
    """Return the CRC-32 of a video's int8 fields followed by its frame types."""
    return zlib.crc32(frame_types.tobytes(), zlib.crc32(fields.tobytes()))
