"""Groups of clips from one source, and splits that never divide a group."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np
import pandas as pd

_GROUP = re.compile(r"_(g\d+)(?:_|$)")


def group_of(clip: str) -> str:
    """Return the source of a clip: the gNN in its name, as in UCF-101; without one the clip is its own source."""
    stem = PurePosixPath(clip).stem
    found = _GROUP.search(stem)
    return found.group(1) if found else stem


def groups_of(clips: pd.Series) -> pd.Series:
    """Return `group_of` each clip of a column of text; quicker for many clips."""
    names = clips.str.rsplit("/", n=1).str[-1]
    stems = names.str.replace(r"(?<=.)\.[^.]+$", "", regex=True)
    return stems.str.extract(_GROUP.pattern, expand=False).fillna(stems)


def hmdb_group_of(clip: str) -> str:
    """Return the source of a clip of HMDB-51, "<class>/<source>_<class>_<properties>_<number>.avi"."""
    path = PurePosixPath(clip)
    return re.split(re.escape(f"_{path.parent.name}_"), path.stem, maxsplit=1, flags=re.IGNORECASE)[0]


def hold_out(groups: pd.Series, labels: pd.Series, fraction: float, seed: int) -> pd.Series:
    """Hold out about `fraction` of the clips of each class, in whole groups; a group may span classes.

    `groups` and `labels` are aligned (n,). Groups are visited in seeded order. A group is held out if that brings the
    counts per class closer to the wanted ones and leaves each of its classes another group. Returns a boolean mask
    (n,).
    """
    names, group_labels, totals = _labels_by_group(groups, labels)
    order = np.random.default_rng(seed).permutation(len(names))
    wanted, left = fraction * totals, totals
    held = np.zeros_like(totals)
    chosen = []
    for number in order:
        counts = np.bincount(group_labels[number], minlength=len(totals))
        closer = np.abs(wanted - held - counts).sum() < np.abs(wanted - held).sum()
        if closer and np.all((left - counts > 0) | (counts == 0)):
            held, left = held + counts, left - counts
            chosen.append(names[number])
    return groups.isin(chosen)


def divide_into_folds(groups: pd.Series, labels: pd.Series, folds: int, seed: int) -> pd.Series:
    """Divide clips into `folds` parts, in whole groups, each with about the same share of every class.

    `groups` and `labels` are aligned (n,). Returns the part of each clip, from 0: (n,) int. A part is empty where there
    are too few groups.
    """
    part = pd.Series(folds - 1, index=groups.index)
    left = pd.Series(True, index=groups.index)
    for number in range(folds - 1):
        held = hold_out(groups[left], labels[left], 1 / (folds - number), seed + number)
        part[held.index[held]] = number
        left[held.index[held]] = False
    return part


def smallest_fraction(groups: pd.Series, labels: pd.Series) -> float | None:
    """Return the smallest fraction, in thousandths, at which `hold_out` holds out a group, whatever the seed.

    None where it never does, because each group is the only one of some class.
    """
    _, group_labels, totals = _labels_by_group(groups, labels)
    fractions = np.arange(1, 1000) / 1000
    for own_labels in group_labels:
        found, counts = np.unique(own_labels, return_counts=True)
        if np.all(counts < totals[found]):
            wanted = np.outer(fractions, totals[found])
            closer = wanted.sum(axis=1) - np.abs(wanted - counts).sum(axis=1) > 1e-9
            fractions = fractions[: np.argmax(closer) + 1] if closer.any() else fractions
    return float(fractions[-1]) if len(fractions) < 999 else None  # .5 is enough wherever a group can be held out


def sources_needed(fractions: Mapping[str, float]) -> int:
    """Return how many sources, of one clip each, a class needs for `hold_out` to hold some out at each fraction.

    `fractions` are applied one after the other, each to what the one before leaves. One source always stays.
    """
    return next(count for count in itertools.count(1) if _can_hold_out(count, list(fractions.values())))


def _can_hold_out(sources: int, fractions: Sequence[float]) -> bool:
    for fraction in fractions:
        held = min(math.ceil(fraction * sources - 0.5), sources - 1)  # as many as come closest to the wanted share
        if held < 1:
            return False
        sources -= held
    return True


def _labels_by_group(groups: pd.Series, labels: pd.Series) -> tuple[pd.Index, list[np.ndarray], np.ndarray]:
    """Return the sorted names of groups, the labels in each, and how often each label occurs.

    Labels are renumbered from 0 without gaps. A table of groups by classes would take gigabytes where each of many
    clips is its own source.
    """
    codes, names = pd.factorize(groups, sort=True)
    dense = np.unique(labels, return_inverse=True)[1]
    ends = np.cumsum(np.bincount(codes, minlength=len(names)))
    group_labels = np.split(dense[np.argsort(codes, kind="stable")], ends)[: len(names)]
    return names, group_labels, np.bincount(dense)
