"""`moclip store`: show what the store of motion fields holds, and check it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from moclip.errors import StoreError
from moclip.wording import counted
from pipeline import paths
from pipeline.console.command import as_command
from pipeline.console.help import ListingGroup, SectionedCommand
from pipeline.console.output import print_note, print_result

if TYPE_CHECKING:
    import pandas as pd

    from moclip.store.reader import FieldReader


app = typer.Typer(
    cls=ListingGroup,
    help="Show what the store of motion fields holds, and check it.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def info() -> None:
    """Show what is in the store: clips, frames, size, and how the fields were made."""
    from moclip.data.selection import tally

    reader = _open_store()
    ok = reader.table[reader.table["status"] == "ok"]
    files = reader.folder.sizes()
    size, frames = sum(files.values()), int(ok["length"].sum())
    attributes = reader.attributes
    print_result(
        reader.folder.url,
        ("", "value"),
        [
            ("videos" if _span_rows(reader.table) is not None else "clips", len(ok)),
            ("not usable", f"{len(reader.table) - len(ok):,}"),
            ("frames", f"{frames:,}"),
            ("shards", f"{ok['shard'].nunique()} of {reader.shard_frames} frames"),
            ("files", len(files)),
            ("size", f"{size / 1e6:.1f} MB, {size / max(1, frames):.0f} bytes a frame"),
            ("grid", f"2 x {reader.grid[0]} x {reader.grid[1]} cells of {attributes['cell']} px"),
            ("saturates at", f"{attributes['clip']:g} px, steps of {attributes['scale']:.4f} px"),
            ("accumulated", attributes["accumulate"] or "no"),
            *((f"read by {name}", count) for name, count in tally(ok["backend"]).items()),
            *((f"version: {name}", version) for name, version in attributes["versions"].items()),
        ],
    )


def verify() -> None:
    """Recompute every clip's checksum. Name each damaged clip, and exit with 1 if there is one."""
    from moclip.store.verify import verify_store

    _check_project_folder()
    problems = verify_store(paths.MV_STORE, paths.MV_TABLE)
    if problems:
        raise StoreError(
            "\n  ".join([f"{counted(len(problems), 'damaged clip')}", *problems]),
            where=paths.MV_STORE,
            fix="extract it again: moclip extract_mv --rebuild",
        )
    print_note(f"{paths.MV_STORE}: all clips are intact")


def show(
    clip: Annotated[str, typer.Argument(help="The clip's id (class/file), or a part of it that no other clip has.")],
) -> None:
    """Show where a clip is in the store, its frame types, and how much moves in each frame."""
    import numpy as np
    import pandas as pd

    from moclip.motion.quantise import dequantise

    reader = _open_store()
    spans = _span_rows(reader.table)
    if spans is not None:
        others = reader.table[~reader.table["id"].isin(set(spans["id"]))]
        reader = reader.with_table(pd.concat([others, spans], ignore_index=True))
    ids = [str(name) for name in reader.table["id"]]
    found = [clip] if clip in ids else [name for name in ids if clip in name]
    if len(found) != 1:
        matches = "\n  ".join(found[:5])
        fix = matches or "see data/index.parquet"
        raise StoreError(f"{len(found)} clips have this in their id", where=clip, fix=fix)
    row = reader.row(found[0])
    lengths = np.hypot(*np.moveaxis(dequantise(reader.read_video(found[0]), reader.attributes["clip"]), 1, 0))
    print_result(
        found[0],
        ("", "value"),
        [(name, row[name]) for name in ("shard", "offset", "length", "slots", "backend", "md5", "checksum")],
    )
    print_result(
        "displacement in px of the canvas",
        ("frame", "type", "mean", "99 % are below", "cells that move"),
        [
            (
                number,
                chr(kind),
                f"{length.mean():.2f}",
                f"{np.quantile(length, 0.99):.2f}",
                f"{(length > 0).mean():.0%}",
            )
            for number, (kind, length) in enumerate(zip(reader.frame_types(found[0]), lengths, strict=True))
        ],
    )


def _span_rows(videos: pd.DataFrame) -> pd.DataFrame | None:
    """Return a row like the store's table for each clip that is a span; None if the index has no spans.

    The store's table, `videos`, has a row per video.
    """
    from moclip.data.spans import are_cut, fields_of_clips, has_spans, with_span_columns
    from pipeline.io import read_parquet

    if not paths.INDEX.exists():
        return None
    index = with_span_columns(read_parquet(paths.INDEX, "index"))
    if not has_spans(index):
        return None
    return fields_of_clips(index[are_cut(index) | (index["id"] != index["video"])], videos)


def _open_store() -> FieldReader:
    from moclip.store.reader import FieldReader

    _check_project_folder()
    return FieldReader(paths.MV_STORE, paths.MV_TABLE)


def _check_project_folder() -> None:
    """If there is no store because this is not the project's folder, say so."""
    from pipeline import params as parameters  # imports pydantic and yaml, which `moclip --help` does not need

    if not paths.MV_STORE.exists():
        parameters.check_project_folder()


for subcommand in (info, verify, show):
    app.command(subcommand.__name__, cls=SectionedCommand)(as_command(subcommand))
