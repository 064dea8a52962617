"""Say which classes lack clips in a split, for the stage `index` and for its errors."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from moclip.data.groups import sources_needed
from moclip.data.label_sets import one_row_per_label
from moclip.data.selection import class_names
from moclip.wording import counted

PURPOSES = {"train": "to train on", "val": "to choose epochs on", "test": "to test on"}
"""What each split is for."""

MOST_CLASSES = 10
"""More classes are counted, not named."""


NAMED_SOURCES = "the gNN in a name, or else the clip itself"


def class_shortages(table: pd.DataFrame, fractions: Mapping[str, float], source: str = NAMED_SOURCES) -> list[str]:
    """Return a line for each class that lacks a usable clip in a split, at most `MOST_CLASSES`, and what to do.

    `table` is an index, `fractions` are the shares of the splits that are held out of it, in order, `source` says
    what a source is. Without such a class there are no lines.
    """
    rows = one_row_per_label(table)
    rows = rows[rows["label"] >= 0]
    by_class = {str(name): own for name, own in rows.groupby("class", sort=False)}
    needed = sources_needed(fractions)
    lines = [line for name in class_names(table) if (line := _shortage(name, by_class[name], needed))]
    if not lines:
        return []
    more = [f"... and {len(lines) - MOST_CLASSES} more classes"] if len(lines) > MOST_CLASSES else []
    return [*lines[:MOST_CLASSES], *more, _advice(fractions, source)]


def _shortage(name: str, rows: pd.DataFrame, needed: int) -> str:
    """Return what a class lacks, "" if it lacks nothing; `rows` are those of its clips."""
    usable = rows[(rows["status"] == "ok") & (rows["split"] != "none")]
    missing = [purpose for split, purpose in PURPOSES.items() if not (usable["split"] == split).any()]
    if not missing:
        return ""
    if usable.empty:
        return f"class {name}: no usable clip among its {len(rows)}"
    sources = usable["group"].nunique()
    line = f"class {name}: {counted(len(usable), 'usable clip')} of {counted(sources, 'source')}, none "
    line += " and none ".join(missing)
    return f"{line}; at least {needed} sources are needed" if sources < needed else line


def _advice(fractions: Mapping[str, float], source: str) -> str:
    """Return what to do about classes that lack clips."""
    if "test" not in fractions:
        return "name more clips of these classes in each split, or remove the classes"
    return f"add clips of other sources, or remove the classes; a source is {source}"
