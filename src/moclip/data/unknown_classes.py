"""Classes for clips of none of the classes: those left out of training to measure rejection, and the background."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

import pandas as pd

from moclip.data.selection import class_names
from moclip.errors import DatasetError

UNKNOWN = "unknown"
"""The split of the test clips of classes that are left out. Their label is -1."""

MOST_NAMED = 20
"""An error names no more classes than that."""

KEY, BACKGROUND_KEY = "dataset.unknown", "dataset.background"


def leave_out(table: pd.DataFrame, unknown: Sequence[str]) -> pd.DataFrame:
    """Return an index without the classes `unknown`: their rows have the label -1, the others consecutive labels.

    Their test clips are in the split `UNKNOWN`, which no model is trained, validated or tested on; their other clips
    are in none. The splits of the other classes stay as they are, whatever is left out.

    Raises DatasetError if the index has no such class, if fewer than two classes stay, or if a left-out class has no
    usable test clip.
    """
    classes = class_names(table)
    _check_names(classes, unknown)
    label_of = {name: label for label, name in enumerate(name for name in classes if name not in unknown)}
    left = table.copy()
    left["label"] = table["class"].map(label_of).fillna(-1).astype(table["label"].dtype)
    out = table["class"].isin(unknown)
    left.loc[out, "split"] = table.loc[out, "split"].map(lambda split: UNKNOWN if split == "test" else "none")
    for name in unknown:
        if not ((left["class"] == name) & (left["split"] == UNKNOWN) & (left["status"] == "ok")).any():
            what = f"{name!r} has no usable test clip, so nothing could be measured with it"
            raise DatasetError(what, where=KEY, fix="name a class with test clips")
    return left


def check_background(classes: Sequence[str], background: str) -> None:
    """Raise DatasetError if the class that means none of the others is not one of the classes."""
    if background not in classes:
        raise _no_class_error(background, classes, BACKGROUND_KEY)


def _no_class_error(name: str, classes: Sequence[str], key: str) -> DatasetError:
    near = get_close_matches(name, classes, n=1)
    more = f", ... ({len(classes)} in all)" if len(classes) > MOST_NAMED else ""
    known = f"the classes are {', '.join(classes[:MOST_NAMED])}{more}"
    return DatasetError(f"no class {name!r}", where=key, fix=f"did you mean {near[0]}? {known}" if near else known)


def _check_names(classes: Sequence[str], unknown: Sequence[str]) -> None:
    for name in unknown:
        if name not in classes:
            raise _no_class_error(name, classes, KEY)
    if len(stay := [name for name in classes if name not in unknown]) < 2:
        what = f"{len(stay)} of {len(classes)} classes would stay: training needs at least two"
        raise DatasetError(what, where=KEY, fix="leave fewer classes out")
