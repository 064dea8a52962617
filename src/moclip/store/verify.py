"""Verify a motion-field store: recompute the checksum of every video."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from moclip.errors import StoreError
from moclip.store.layout import read_frame_types
from moclip.store.plain_reader import PlainReader
from moclip.store.reader import FieldReader
from moclip.store.table import field_checksum, rows_of


def verify_store(zarr_path: str | Path, table: str | Path | pd.DataFrame) -> list[str]:
    """Recompute every video's checksum. Return a line for each problem, which names the video."""
    reader = FieldReader(zarr_path, table)
    types = read_frame_types(zarr_path)
    problems = []
    plain_reader = PlainReader(reader.folder, reader.grid, reader.shard_frames)
    for row in rows_of(reader.table[reader.table["status"] == "ok"].sort_values("offset")):
        frames = np.arange(row.offset, row.offset + row.length)
        try:
            fields = plain_reader.read(frames)
        except (StoreError, ValueError, RuntimeError) as error:
            shard = row.offset // reader.shard_frames
            problems.append(f"{row.id}: shard {shard} cannot be read ({_first_line(error)})")
            continue
        if field_checksum(fields, types[frames]) != row.checksum:
            problems.append(f"{row.id}: the stored fields differ from the extracted ones (checksum)")
    return sorted(problems)


def _first_line(error: BaseException) -> str:
    return getattr(error, "what", None) or str(error).splitlines()[0]
