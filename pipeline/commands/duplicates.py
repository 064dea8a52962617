"""`moclip duplicates`: clips that are copies of each other, also re-encoded ones, within and across splits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from moclip.wording import counted, shorten_list
from pipeline.ask.answer import FOLDER, CsvFile, Page, Row, show_rows
from pipeline.console.command import while_importing
from pipeline.console.output import print_note
from pipeline.console.progress import show_progress
from pipeline.options import Workers, cpu_count
from pipeline.params import Params
from pipeline.stage import command

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from pipeline.ask.page import Section
    from pipeline.inputs import Inputs

LEAST = 0.4
"""The value of `moclip.data.near_copies.SAME_MOTION`, which takes a second to import."""
SPLITS = ("train", "val", "test", "none")
COLUMNS = ("splits", "kind", "clip", "copy", "class", "class_of_copy", "picture", "motion")


@command("dataset.root", "index.transcode", "mv.canvas", "mv.cell", "mv.clip", "mv.accumulate", "mv.per")
def duplicates(
    params: Params,
    least: Annotated[
        float, typer.Option("--least", min=0, max=1, help="Lowest cosine of the motion of two re-encoded copies.")
    ] = LEAST,
    csv_file: CsvFile = FOLDER / "duplicates.csv",
    page: Page = None,
    workers: Workers = cpu_count(),
) -> None:
    """Show pairs of clips that are copies of each other. Pairs across splits are leaks, and come first.

    Files with the same bytes are found by the index. Re-encoded copies show the same pictures and have the same motion
    at the same times; this needs the motion fields (extract_mv) and reads three frames of each clip. Cut, cropped or
    mirrored copies are not found. Writes ask/duplicates.csv.
    """
    with while_importing():
        from pipeline.ask.features import note_left_out
        from pipeline.ask.page import show_page
        from pipeline.inputs import Inputs

    inputs = Inputs(params)
    compared = inputs.motion_rows()
    index = inputs.clips.index
    pairs = _same_files(index[index["status"] == "ok"])
    known = {frozenset((row["clip"], row["copy"])) for row in pairs}
    pairs += [
        row
        for row in _re_encoded(inputs, compared, least, workers)
        if frozenset((row["clip"], row["copy"])) not in known
    ]
    pairs.sort(key=lambda row: (not _is_leak(row), row["kind"] != "same file", -row["motion"], row["clip"]))
    leaks = sum(map(_is_leak, pairs))
    title = f"{counted(len(pairs), 'pair')} of copies among {counted(len(compared), 'clip')}, {leaks:,} across splits"
    show_rows("duplicates", title, COLUMNS, pairs, csv_file)
    note_left_out("duplicates", inputs, compared["id"])
    text = f"Pairs across splits come first. The motion of re-encoded copies has a cosine of {least:g} or more."
    show_page("duplicates", title, text, _sections(pairs), inputs, page, workers)


def _same_files(usable: pd.DataFrame) -> list[Row]:
    """Return a pair for each clip with the same bytes as an earlier one."""
    first = {clip["md5"]: clip for clip in usable.drop_duplicates("md5").to_dict("records")}
    again = usable[usable.duplicated("md5")].to_dict("records")
    return [_pair(first[clip["md5"]], clip, "same file", 1.0, 1.0) for clip in again]


def _re_encoded(inputs: Inputs, clips: pd.DataFrame, least: float, workers: int) -> list[Row]:
    """Return the pairs that show the same pictures and have the same motion at the same times."""
    import numpy as np

    from moclip.data.near_copies import LOOKS, copy_pairs, course_of_motion, read_looks

    with show_progress("duplicates: motion", len(clips)) as advance:
        reader, courses = inputs.artifacts.field_reader(), []
        for clip in clips["id"]:
            courses.append(course_of_motion(reader.read_video(clip), reader.frame_types(clip)))
            advance(1)
    motion = np.stack(courses)
    with show_progress("duplicates: pictures", len(clips) * len(LOOKS), "picture") as advance:
        looks = read_looks(inputs.params.dataset.root, clips, workers, advance)
    _note_incomparable(clips, looks, motion)
    pairs, pictures, motions = copy_pairs(looks, motion, least)
    rows = clips.to_dict("records")
    return [
        _pair(rows[one], rows[other], "re-encoded", float(picture), float(same))
        for (one, other), picture, same in zip(pairs.tolist(), pictures, motions, strict=True)
    ]


def _note_incomparable(clips: pd.DataFrame, looks: list[np.ndarray], motion: np.ndarray) -> None:
    """Say how many clips can only be compared by their bytes."""
    import numpy as np

    plain = ~np.stack([look.any(axis=1) for look in looks]).all(axis=0)
    for which, why in (
        (~motion.any(axis=1), "without motion"),
        (plain, "with a frame that is plain or cannot be read"),
    ):
        if names := [name for name, is_so in zip(clips["id"], np.asarray(which).tolist(), strict=True) if is_so]:
            print_note(
                f"duplicates: compared by their bytes alone: {counted(len(names), 'clip')} {why}: {shorten_list(names)}"
            )


def _pair(one: dict[Any, Any], other: dict[Any, Any], kind: str, picture: float, motion: float) -> Row:
    first, second = sorted((one, other), key=lambda clip: SPLITS.index(clip["split"]))
    splits = first["split"] if first["split"] == second["split"] else f"{first['split']}/{second['split']}"
    values = (splits, kind, first["id"], second["id"], first["class"], second["class"], picture, motion)
    return dict(zip(COLUMNS, values, strict=True))


def _is_leak(row: Row) -> bool:
    return "/" in row["splits"] and "none" not in row["splits"]


def _sections(pairs: list[Row]) -> list[Section]:
    from pipeline.ask.page import Card, Section

    sections = []
    for row in pairs:
        heading = f"{row['splits']}: {row['kind']}, picture {row['picture']:.3f}, motion {row['motion']:.3f}"
        cards = [Card(row["clip"], [("class", row["class"])]), Card(row["copy"], [("class", row["class_of_copy"])])]
        sections.append(Section(heading, cards))
    return sections


if __name__ == "__main__":
    duplicates()
