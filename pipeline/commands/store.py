"""`moclip store`: look into the store of motion fields, and check it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from moclip.errors import StoreError
from pipeline import paths
from pipeline.console.command import as_command
from pipeline.console.output import print_note, print_result

if TYPE_CHECKING:
    from moclip.store.reader import FieldReader


app = typer.Typer(
    help="Look into the store of motion fields, and check it.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def info() -> None:
    """What is in the store: clips, frames, size, and how the fields were made."""
    from moclip.data.selection import tally

    reader = _reader()
    ok = reader.table[reader.table["status"] == "ok"]
    files = reader.folder.sizes()
    size, frames = sum(files.values()), int(ok["length"].sum())
    made = reader.attributes
    print_result(
        reader.folder.url,
        ("", "value"),
        [
            ("clips", len(ok)),
            ("not usable", len(reader.table) - len(ok)),
            ("frames", f"{frames:,}"),
            ("shards", f"{ok['shard'].nunique()} of {reader.shard_frames} frames"),
            ("files", len(files)),
            ("size", f"{size / 1e6:.1f} MB, {size / max(1, frames):.0f} bytes a frame"),
            ("grid", f"2 x {reader.grid[0]} x {reader.grid[1]} cells of {made['cell']} px"),
            ("saturates at", f"{made['clip']:g} px, steps of {made['scale']:.4f} px"),
            ("accumulated", made["accumulate"] or "no"),
            *((f"read by {name}", count) for name, count in tally(ok["backend"]).items()),
            *((f"version: {name}", version) for name, version in made["versions"].items()),
        ],
    )


def verify() -> None:
    """Recompute every clip's checksum; name each damaged clip and end with exit code 1 if there is one."""
    from moclip.store.verify import verify_store

    _check_there()
    problems = verify_store(paths.MV_STORE, paths.MV_TABLE)
    if problems:
        raise StoreError(
            f"{len(problems)} clips are damaged\n  " + "\n  ".join(problems),
            where=paths.MV_STORE,
            fix="make it anew: moclip extract_mv --rebuild",
        )
    print_note(f"{paths.MV_STORE}: every clip is as it was extracted")


def show(
    clip: Annotated[str, typer.Argument(help="The clip's id (class/file), or a part of it that no other has.")],
) -> None:
    """Where a clip lies, its frame types, and how much moves in each frame."""
    import numpy as np

    from moclip.motion.quantise import dequantise

    reader = _reader()
    ids = [str(name) for name in reader.table["id"]]
    found = [clip] if clip in ids else [name for name in ids if clip in name]
    if len(found) != 1:
        near = "\n  ".join(found[:5])
        raise StoreError(f"{len(found)} clips are called so", where=clip, fix=near or "see data/index.parquet")
    row = reader.row(found[0])
    moved = np.hypot(*np.moveaxis(dequantise(reader.read_video(found[0]), reader.attributes["clip"]), 1, 0))
    print_result(
        found[0],
        ("", "value"),
        [(name, row[name]) for name in ("shard", "offset", "length", "slots", "backend", "md5", "checksum")],
    )
    print_result(
        "displacement in px of the canvas",
        ("frame", "type", "mean", "99 % below", "cells that move"),
        [
            (
                number,
                chr(kind),
                f"{field.mean():.2f}",
                f"{np.quantile(field, 0.99):.2f}",
                f"{(field > 0).mean():.0%}",
            )
            for number, (kind, field) in enumerate(zip(reader.frame_types(found[0]), moved, strict=True))
        ],
    )


def _reader() -> FieldReader:
    from moclip.store.reader import FieldReader

    _check_there()
    return FieldReader(paths.MV_STORE, paths.MV_TABLE)


def _check_there() -> None:
    """Where there is no store, say so if that is because this is not the project's folder."""
    from pipeline import params as parameters  # and with it pydantic and yaml, which take longer than `moclip --help`

    if not paths.MV_STORE.exists():
        parameters.check_folder()


for shown in (info, verify, show):
    app.command(shown.__name__)(as_command(shown))
