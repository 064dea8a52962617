"""Clips with several labels: their text in a manifest, "run|jump", and their targets, a 1 for each label.

A data set is multi-label if a row of its manifest has several labels. Its index then has the column `labels`, the names
of a clip's classes joined by `SEPARATOR`. Its column `class` has the same text, and `label` the clip's rarest class,
which decides how splits and folds are balanced and nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

SEPARATOR = "|"

COLUMN = "labels"
"""The column of a multi-label index."""


def split_labels(text: str) -> list[str]:
    """Return the labels in a text, in its order, without the spaces around them; "" for an empty one."""
    return [name.strip() for name in text.split(SEPARATOR)]


def join_labels(names: Sequence[str]) -> str:
    """Return the text of labels: each name once, sorted, so that equal sets have equal texts."""
    return SEPARATOR.join(sorted(set(names)))


def is_multi_label(table: pd.DataFrame) -> bool:
    """Return whether an index, or rows of it, are of clips with several labels."""
    return COLUMN in table.columns


def label_names(table: pd.DataFrame) -> list[str]:
    """Return the classes of a multi-label index, sorted, which is label order. Rows with `label` -1 do not count."""
    texts = table.loc[table["label"] >= 0, COLUMN].unique()
    return sorted({name for text in texts for name in split_labels(text)})


def label_matrix(texts: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """Return whether each clip has each label: (n, classes) bool. Raises KeyError for a name that is no class."""
    number = {name: label for label, name in enumerate(classes)}
    matrix = np.zeros((len(texts), len(classes)), bool)
    for row, text in enumerate(texts):
        matrix[row, [number[name] for name in split_labels(text)]] = True
    return matrix


def targets(rows: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
    """Return what a network is to answer for rows of an index.

    They are (n,) int64, the label of each clip, or (n, classes) float32 of 0 and 1 in a multi-label index.
    """
    if is_multi_label(rows):
        return label_matrix(rows[COLUMN].tolist(), classes).astype(np.float32)
    return rows["label"].to_numpy(np.int64)


def rarest_labels(texts: Sequence[str], counted: np.ndarray, classes: Sequence[str]) -> list[int]:
    """Return each clip's rarest label, (n,), -1 for a clip with a label that is no class.

    Clips are counted where `counted` (n,) is true. Of equally rare labels it is the first in label order.
    """
    number = {name: label for label, name in enumerate(classes)}
    names = [split_labels(text) for text in texts]
    counts = Counter(name for own, counts in zip(names, counted, strict=True) if counts for name in own)
    return [
        min((counts[name], number[name]) for name in own)[1] if all(name in number for name in own) else -1
        for own in names
    ]


def one_row_per_label(table: pd.DataFrame) -> pd.DataFrame:
    """Return a row per clip and label, with that label in `class` and `label`; a single-label table as it is.

    Labels of clips whose `label` is -1 keep it.
    """
    if not is_multi_label(table):
        return table
    number = {name: label for label, name in enumerate(label_names(table))}
    rows = table.assign(**{"class": table[COLUMN].str.split(SEPARATOR, regex=False)}).explode(
        "class", ignore_index=True
    )
    known = rows["label"] >= 0
    rows.loc[known, "label"] = rows.loc[known, "class"].map(number)
    return rows
