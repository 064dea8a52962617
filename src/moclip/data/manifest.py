"""Read and check a manifest: a table with a row per clip that gives its path and label, and perhaps more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from moclip.data.clip_folder import ClipFolder
from moclip.data.groups import groups_of
from moclip.data.label_sets import SEPARATOR, join_labels, split_labels
from moclip.data.name_spelling import fold_name, group_by
from moclip.data.text_tables import TextTable, read_text_table
from moclip.errors import DatasetError
from moclip.files.folders import SCHEMES, is_absolute, is_url

REQUIRED = ("path", "label")
OPTIONAL = ("split", "group", "id", "weight")
LATER = {
    "start": "cut the clips into files of their own",
    "end": "cut the clips into files of their own",
}
"""Columns that are not supported yet, and what to do instead."""
SPLITS = ("train", "val", "test", "none")
MAY_BE_EMPTY = ("group", "weight")

_FIX = {
    "path": "write the path of the clip's file, relative to dataset.root",
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
        several labels: "jump|run"), split ("" in all rows where the manifest gives none), group, id; and weight
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
    def clips(self) -> ClipFolder:
        """The clips as if they were those of a folder."""
        return ClipFolder(self.rows["path"].tolist(), self.classes, ignored=[], hidden=[], misplaced=[])


def read_manifest(file: Path, root: str) -> Manifest:
    """Read a manifest, whose paths are relative to the folder `root`, by path or URL.

    Columns path and label are required; split, group, id and weight are optional. Without a group, the file's name
    gives it (`group_of`). Without ids, the path is the id. Raises DatasetError, with row and column, for whatever is
    wrong. The clips' files are not looked for.
    """
    if not file.exists():
        raise DatasetError("not found", where=file, fix="set dataset.manifest to a table of clips")
    if not is_url(root) and not Path(root).is_dir():
        fix = "set dataset.root to the folder that the manifest's paths are relative to"
        raise DatasetError("no such folder", where=root, fix=fix)
    table = read_text_table(file, (*REQUIRED, *OPTIONAL, *LATER))
    _check_columns(table, file)
    given = [name for name in OPTIONAL if name in table.columns and (table.columns[name] != "").any()]
    rows = table.columns[[*REQUIRED, *given]].assign(number=table.numbers)
    _check_cells(rows, file)
    rows["path"] = _clean_paths(rows, root, file)
    rows["label"] = _clean_labels(rows, file)
    rows, repeated = _without_repeated(rows, file)
    if "weight" in rows:
        rows["weight"] = _read_weights(rows, file)
    if "id" not in rows:
        rows["id"] = rows["path"]
    _check_ids(rows, file)
    notes = [*_ignored_columns(table, file), *repeated, *_similar_labels(rows, file), *_several_labels(rows, file)]
    if "split" in rows:
        _check_splits(rows, file)
    else:
        rows["split"] = ""
    own = groups_of(rows["path"])
    if "group" in rows:
        rows["group"] = rows["group"].where(rows["group"] != "", own)
        notes += _divided_groups(rows, file)
    else:
        rows["group"] = own
    weight = ["weight"] if "weight" in rows else []
    rows = rows.rename(columns={"label": "class"})[["path", "class", "split", "group", "id", *weight]]
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
    for name, instead in LATER.items():
        if name in table.columns:
            rows = table.columns.assign(number=table.numbers)
            fix = f"{instead}, and remove the column or leave it empty"
            _refuse(table.columns[name] != "", rows, name, "not supported yet", fix, file)


def _check_cells(rows: pd.DataFrame, file: Path) -> None:
    """Raise DatasetError for an empty cell of a column that needs one, or a control character, such as a line break."""
    for name in rows.columns.drop("number"):
        if name not in MAY_BE_EMPTY:
            _refuse(rows[name] == "", rows, name, "empty", _FIX[name], file)
        wrong = rows[name].str.contains(r"[\x00-\x1f\x7f]", regex=True)
        _refuse(wrong, rows, name, "{!r} has a control character, such as a line break", "remove it", file)


def _check_splits(rows: pd.DataFrame, file: Path) -> None:
    unknown = ~rows["split"].isin(SPLITS)
    _refuse(unknown, rows, "split", f"{{!r}}; expected {', '.join(SPLITS)}", _FIX["split"], file)
    for part in ("train", "test"):
        if not (rows["split"] == part).any():
            fix = f"write {part} in some rows; or remove the column: the clips are then split by group"
            raise DatasetError(f"column split: no row has {part}", where=file, fix=fix)


def _check_ids(rows: pd.DataFrame, file: Path) -> None:
    twice = rows["id"].duplicated()
    if twice.any():
        place = int(twice.to_numpy().argmax())
        first = rows["number"][(rows["id"] == rows["id"].iloc[place]).to_numpy().argmax()]
        _refuse(twice, rows, "id", f"{{!r}} is also the id of row {first}", _FIX["id"], file)


def _without_repeated(rows: pd.DataFrame, file: Path) -> tuple[pd.DataFrame, list[str]]:
    """Leave each file's first row, and return a note if others go.

    Raises DatasetError where the same file has other labels, splits or groups.
    """
    repeated = rows["path"].duplicated()
    if not repeated.any():
        return rows, []
    same = rows[rows["path"].isin(rows["path"][repeated])]
    first_of = same.groupby("path", sort=False)
    for name in [column for column in ("label", "split", "group", "weight") if column in rows]:
        wrong = same[name] != first_of[name].transform("first")
        if wrong.any():
            row = same[wrong].iloc[0]
            first = same[same["path"] == row["path"]].iloc[0]
            what = f"{{!r}}, but row {first['number']} gives the same file, {row['path']}, {first[name]!r}"
            _refuse(wrong, same, name, what, "leave one row per file", file)
    row = same[same["path"].duplicated()].iloc[0]
    first = same[same["path"] == row["path"]].iloc[0]
    note = f"{file}: rows {first['number']} and {row['number']} name the same file, {row['path']}: used once"
    return rows[~repeated].reset_index(drop=True), [f"{note}; such rows: {int(repeated.sum())}"]


def _refuse(wrong: pd.Series, rows: pd.DataFrame, column: str, what: str, fix: str, file: Path) -> None:
    """Raise DatasetError for the first row that is `wrong`. `{!r}` in `what` stands for its cell."""
    if wrong.any():
        row = rows.iloc[int(wrong.to_numpy().argmax())]
        count = int(wrong.sum())
        more = f"; such rows: {count}" if count > 1 else ""
        what = f"row {row['number']}, column {column}: {what.replace('{!r}', repr(row[column]))}{more}"
        raise DatasetError(what, where=file, fix=fix)


# ----------------------------------------------------------------------------------------------------------- paths


def _clean_paths(rows: pd.DataFrame, root: str, file: Path) -> pd.Series:
    """Return each path as the index has it: relative to the root if it is below it, with single slashes."""
    paths = rows["path"]
    windows = paths.str.contains("\\", regex=False) & ~paths.str.contains("/", regex=False)
    paths = paths.where(~windows, paths.str.replace("\\", "/", regex=False))
    urls = paths.str.contains(r"^[A-Za-z][A-Za-z0-9+.-]*://", regex=True)
    schemes = "|".join(SCHEMES)
    unsupported = urls & ~paths.str.contains(rf"^(?:{schemes})://", regex=True)
    wanted = ", ".join(f"{name}://" for name in SCHEMES)
    _refuse(unsupported, rows, "path", "{!r}: this kind of URL is not supported", f"use one of {wanted}", file)
    if not is_url(root):
        paths = paths.str.removeprefix("file://")
        urls &= ~rows["path"].str.startswith("file://")
    untidy = ~urls & paths.str.contains(r"(?:^|/)\.\.?(?:/|$)|//|/$", regex=True)
    paths = paths.where(~untidy, paths[untidy].map(lambda path: PurePosixPath(path).as_posix()))
    for folder in _spellings(root):
        paths = paths.str.removeprefix(f"{folder}/")
    relative = ~paths.str.contains(r"^/|://", regex=True)
    outside = relative & paths.str.contains(r"(?:^|/)\.\.(?:/|$)", regex=True)
    fix = "write the absolute path; or set dataset.root to a folder above all clips"
    _refuse(outside, rows, "path", "{!r} leads out of dataset.root", fix, file)
    _refuse(paths.isin(["", ".", "/"]), rows, "path", "{!r} is no file", _FIX["path"], file)
    return paths


def _spellings(root: str) -> list[str]:
    """Return the absolute paths or URLs that stand for the root."""
    if root.startswith("file://"):
        return [root.rstrip("/"), root.removeprefix("file://").rstrip("/")]
    if is_absolute(root) and is_url(root):
        return [root.rstrip("/")]
    return list(dict.fromkeys([str(Path(root).absolute()), str(Path(root).resolve())]))


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
        _refuse(wrong.astype(bool), rows[several], "label", what, fix, file)
    return labels.where(~several, names.map(join_labels))


def _read_weights(rows: pd.DataFrame, file: Path) -> pd.Series:
    weights = pd.to_numeric(rows["weight"].replace("", "1"), errors="coerce").astype("float64")
    wrong = ~weights.between(0, np.inf, inclusive="neither")
    _refuse(wrong, rows, "weight", "{!r}; expected a number above 0", _FIX["weight"], file)
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


def _divided_groups(rows: pd.DataFrame, file: Path) -> Iterator[str]:
    """Describe groups with clips in test, and in train or val."""
    used = rows[rows["split"].isin(("train", "val", "test"))]
    tested = used["split"] == "test"
    both = np.intersect1d(used["group"][tested].unique(), used["group"][~tested].unique())
    if len(both):
        own = used[used["group"] == both[0]]
        test, other = (own[own["split"].eq("test") == side].iloc[0] for side in (True, False))
        yield (
            f"{file}: the group {both[0]} is in test (row {test['number']}) and in {other['split']} "
            f"(row {other['number']}); such groups: {len(both)}; clips cut from one video are alike"
        )
