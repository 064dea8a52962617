"""Read and check a manifest: a table with a row per clip that gives its path and label, and perhaps more.

A clip is a whole file or a span of a longer video, from `start` to `end` (`manifest_spans`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from moclip.data.clip_folder import ClipFolder
from moclip.data.groups import groups_of
from moclip.data.label_sets import SEPARATOR, join_labels, split_labels
from moclip.data.manifest_paths import PATH_FIX, clean_paths
from moclip.data.manifest_spans import (
    CLIP,
    END,
    START,
    are_spans,
    clip_names,
    divided,
    divided_videos,
    parse_spans,
    video_keys,
)
from moclip.data.name_spelling import fold_name, group_by
from moclip.data.row_errors import refuse
from moclip.data.text_tables import TextTable, read_text_table
from moclip.errors import DatasetError
from moclip.files.folders import is_url

REQUIRED = ("path", "label")
OPTIONAL = ("split", "group", "id", START, END, "weight")
MAY_BE_EMPTY = ("group", START, END, "weight")
SPLITS = ("train", "val", "test", "none")

_FIX = {
    "path": PATH_FIX,
    "label": "write the name of the clip's class, or of several: run|jump",
    "split": "write train, val, test or none in each row; or leave the whole column empty: the split is then by group",
    "weight": "write a number above 0, such as 0.5; or leave the cell empty, for 1",
    "id": "write a name that no other row has; or remove the column: the path is then the id",
}


@dataclass(frozen=True)
class Manifest:
    """A checked manifest.

    file : its path.
    rows : a row per clip, in the file's order. Columns path (relative to the root, or absolute, or a URL), class (with
        several labels: "jump|run"), split ("" in all rows where the manifest gives none), group, id, start and end
        (microseconds, int64; `TO_THE_END`), and video, the key of its video in the store of motion fields; and weight
        (float64) if the manifest gives weights.
    notes : what to tell the user, a line each.
    """

    file: str
    rows: pd.DataFrame
    notes: list[str]

    @property
    def has_splits(self) -> bool:
        return bool(self.rows["split"].iloc[0])

    @property
    def has_val(self) -> bool:
        return bool((self.rows["split"] == "val").any())

    @property
    def classes(self) -> list[str]:
        """Names of the classes that have a clip in train, val or test, sorted."""
        return _label_names(self.rows.loc[self.rows["split"] != "none", "class"])

    @property
    def is_multi_label(self) -> bool:
        """Whether a clip has several labels."""
        return bool(self.rows["class"].str.contains(SEPARATOR, regex=False).any())

    @property
    def has_spans(self) -> bool:
        """Whether a clip is a span of a longer video."""
        return bool(are_spans(self.rows).any())

    @property
    def clips(self) -> ClipFolder:
        """The clips' files, each once, as if they were those of a folder."""
        return ClipFolder(self.rows["path"].unique().tolist(), self.classes, ignored=[], hidden=[], misplaced=[])


def read_manifest(file: Path, root: str) -> Manifest:
    """Read a manifest, whose paths are relative to the folder `root`, by path or URL.

    Columns path and label are required; the others are optional. Without a group, the file's name gives it
    (`group_of`), the same for all spans of a video. Without ids, the id is the path, with the times of a span
    (`clip_names`). Raises DatasetError, with row and column, for whatever is wrong. The clips' files are not looked
    for.
    """
    if not file.exists():
        raise DatasetError("not found", where=file, fix="set dataset.manifest to a table of clips")
    if not is_url(root) and not Path(root).is_dir():
        fix = "set dataset.root to the folder that the manifest's paths are relative to"
        raise DatasetError("no such folder", where=root, fix=fix)
    table = read_text_table(file, (*REQUIRED, *OPTIONAL))
    _check_columns(table, file)
    given = [name for name in OPTIONAL if name in table.columns and (table.columns[name] != "").any()]
    rows = table.columns[[*REQUIRED, *given]].assign(number=table.numbers)
    _check_cells(rows, file)
    rows["path"] = clean_paths(rows, root, file)
    rows["label"] = _clean_labels(rows, file)
    rows, repeated = _without_repeated(parse_spans(rows, file), file)
    if "weight" in rows:
        rows["weight"] = _read_weights(rows, file)
    if "id" not in rows:
        rows["id"] = clip_names(rows)
    _check_ids(rows, file)
    rows["video"] = video_keys(rows, file)
    notes = [*_ignored_columns(table, file), *repeated, *_similar_labels(rows, file), *_several_labels(rows, file)]
    own = groups_of(rows["path"])
    if "group" in rows:
        rows["group"] = rows["group"].where(rows["group"] != "", own)
    if "split" in rows:
        _check_splits(rows, file)
        notes += divided(rows, "group", "group", file) if "group" in rows else []
    notes += divided_videos(rows, file)
    rows = pd.DataFrame({"split": "", "group": own} | dict(rows.rename(columns={"label": "class"})))
    weight = ["weight"] if "weight" in rows else []
    rows = rows[["path", "class", "split", "group", "id", START, END, "video", *weight]]
    manifest = Manifest(str(file), rows, notes)
    if len(manifest.classes) < 2:
        what = f"column label: only one class ({', '.join(manifest.classes)}): training needs at least two"
        raise DatasetError(what, where=file, fix="add rows of other classes")
    return manifest


# --------------------------------------------------------------------------------------------------- what is wrong


def _check_columns(table: TextTable, file: Path) -> None:
    for name in REQUIRED:
        if name not in table.columns:
            there = ", ".join([*table.columns, *table.others]) or "none"
            raise DatasetError(f"no column {name}; its columns: {there}", where=file, fix=f"name a column {name}")
    if table.columns.empty:
        raise DatasetError("no rows", where=file, fix="write a row for each clip below the header")


def _check_cells(rows: pd.DataFrame, file: Path) -> None:
    """Raise DatasetError for an empty cell of a column that needs one, or a control character, such as a line break."""
    for name in rows.columns.drop("number"):
        if name not in MAY_BE_EMPTY:
            refuse(rows[name] == "", rows, name, "empty", _FIX[name], file)
        wrong = rows[name].str.contains(r"[\x00-\x1f\x7f]", regex=True)
        refuse(wrong, rows, name, "{!r} has a control character, such as a line break", "remove it", file)


def _check_splits(rows: pd.DataFrame, file: Path) -> None:
    unknown = ~rows["split"].isin(SPLITS)
    refuse(unknown, rows, "split", f"{{!r}}; expected {', '.join(SPLITS)}", _FIX["split"], file)
    for part in ("train", "test"):
        if not (rows["split"] == part).any():
            fix = f"write {part} in some rows; or remove the column: the clips are then split by group"
            raise DatasetError(f"column split: no row has {part}", where=file, fix=fix)


def _check_ids(rows: pd.DataFrame, file: Path) -> None:
    twice = rows["id"].duplicated()
    if twice.any():
        place = int(twice.to_numpy().argmax())
        first = rows["number"][(rows["id"] == rows["id"].iloc[place]).to_numpy().argmax()]
        refuse(twice, rows, "id", f"{{!r}} is also the id of row {first}", _FIX["id"], file)


def _without_repeated(rows: pd.DataFrame, file: Path) -> tuple[pd.DataFrame, list[str]]:
    """Leave each clip's first row, and return a note if others go.

    Raises DatasetError where the same clip has other labels, splits or groups.
    """
    repeated = rows.duplicated(CLIP)
    if not repeated.any():
        return rows, []
    same = rows[rows.duplicated(CLIP, keep=False)]
    first_of = same.groupby(CLIP, sort=False)
    for name in [column for column in ("label", "split", "group", "weight") if column in rows]:
        wrong = same[name] != first_of[name].transform("first")
        if wrong.any():
            row = same[wrong].iloc[0]
            first = _first_row(same, row)
            what = f"{{!r}}, but row {first['number']} gives the same {_clip_text(row)}, {first[name]!r}"
            refuse(wrong, same, name, what, "leave one row per clip", file)
    row = same[same.duplicated(CLIP)].iloc[0]
    first = _first_row(same, row)
    note = f"{file}: rows {first['number']} and {row['number']} name the same {_clip_text(row)}: used once"
    return rows[~repeated].reset_index(drop=True), [f"{note}; such rows: {int(repeated.sum())}"]


def _first_row(same: pd.DataFrame, row: pd.Series) -> pd.Series:
    """Return the first row of the clip of `row`."""
    return same[(same[CLIP] == row[CLIP]).all(axis=1)].iloc[0]


def _clip_text(row: pd.Series) -> str:
    rows = row.to_frame().T
    return f"{'span' if are_spans(rows).iloc[0] else 'file'}, {clip_names(rows).iloc[0]}"


# ---------------------------------------------------------------------------------------------------------- labels


def _clean_labels(rows: pd.DataFrame, file: Path) -> pd.Series:
    """Return the text of each clip's labels, in which equal sets are equal: "run | jump" -> "jump|run"."""
    labels = rows["label"]
    several = labels.str.contains(SEPARATOR, regex=False)
    names = labels[several].map(split_labels)
    fix = f"write each label once, with {SEPARATOR} between them, as in run{SEPARATOR}jump"
    for wrong, what in (
        (names.map(lambda own: "" in own), "{!r} has an empty label"),
        (names.map(lambda own: len(set(own)) < len(own)), "{!r} names a label twice"),
    ):
        refuse(wrong.astype(bool), rows[several], "label", what, fix, file)
    return labels.where(~several, names.map(join_labels))


def _read_weights(rows: pd.DataFrame, file: Path) -> pd.Series:
    weights = pd.to_numeric(rows["weight"].replace("", "1"), errors="coerce").astype("float64")
    wrong = ~weights.between(0, np.inf, inclusive="neither")
    refuse(wrong, rows, "weight", "{!r}; expected a number above 0", _FIX["weight"], file)
    return weights


def _label_names(labels: pd.Series) -> list[str]:
    return sorted({name for text in labels.unique() for name in split_labels(text)})


# ----------------------------------------------------------------------------------------------------------- notes


def _ignored_columns(table: TextTable, file: Path) -> Iterator[str]:
    if names := [name for name in table.others if name]:
        yield f"{file}: columns that are not read: {', '.join(names)}"


def _similar_labels(rows: pd.DataFrame, file: Path) -> Iterator[str]:
    alike = [names for names in group_by(fold_name, _label_names(rows["label"])).values() if len(names) > 1]
    if alike:
        names = " and ".join(map(repr, alike[0]))
        yield (
            f"{file}: the labels {names} are different classes, though they differ only in upper and lower case, or in "
            f"how an accent is encoded; such labels: {len(alike)}"
        )


def _several_labels(rows: pd.DataFrame, file: Path) -> Iterator[str]:
    several = int(rows["label"].str.contains(SEPARATOR, regex=False).sum())
    if several:
        classes = len(_label_names(rows["label"]))
        what = f"{several} of {len(rows)} clips have several labels, of {classes} classes"
        yield f"{file}: {what}: each class is trained and scored by itself"
