"""Groups of clips from one source, and splits that never divide a group."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import numpy as np
import pandas as pd

_GROUP = re.compile(r"_(g\d+)(?:_|$)")


def group_of(clip: str) -> str:
    """The source of a clip: gNN in its name, as UCF-101 writes it; a clip without is its own source."""
    stem = PurePosixPath(clip).stem
    found = _GROUP.search(stem)
    return found.group(1) if found else stem


def hmdb_group_of(clip: str) -> str:
    """The source of a clip of HMDB-51, "<class>/<source>_<class>_<properties>_<number>.avi"."""
    path = PurePosixPath(clip)
    return re.split(re.escape(f"_{path.parent.name}_"), path.stem, maxsplit=1, flags=re.IGNORECASE)[0]


def hold_out(groups: pd.Series, labels: pd.Series, fraction: float, seed: int) -> pd.Series:
    """Choose about `fraction` of the clips of each class, in whole groups; a group counts across classes.

    `groups` and `labels` are aligned (n,). Groups come in seeded order and are taken where that brings the held-out
    counts per class nearer to the wanted ones, never a class's last group. Returns a boolean mask (n,).
    """
    names, inside, totals = _by_group(groups, labels)
    order = np.random.default_rng(seed).permutation(len(names))
    want, left = fraction * totals, totals
    held = np.zeros_like(totals)
    chosen = []
    for number in order:
        row = np.bincount(inside[number], minlength=len(totals))
        nearer = np.abs(want - held - row).sum() < np.abs(want - held).sum()
        if nearer and np.all((left - row > 0) | (row == 0)):
            held, left = held + row, left - row
            chosen.append(names[number])
    return groups.isin(chosen)


def smallest_fraction(groups: pd.Series, labels: pd.Series) -> float | None:
    """The smallest fraction, in thousandths, of which `hold_out` holds out any group, whatever the seed.

    None where it never does, because each group is all that some class has.
    """
    _, inside, totals = _by_group(groups, labels)
    fractions = np.arange(1, 1000) / 1000
    for row in inside:
        found, counts = np.unique(row, return_counts=True)
        if np.all(counts < totals[found]):
            want = np.outer(fractions, totals[found])
            nearer = want.sum(axis=1) - np.abs(want - counts).sum(axis=1) > 1e-9
            fractions = fractions[: np.argmax(nearer) + 1] if nearer.any() else fractions
    return float(fractions[-1]) if len(fractions) < 999 else None  # .5 is enough wherever a group can be spared


def _by_group(groups: pd.Series, labels: pd.Series) -> tuple[pd.Index, list[np.ndarray], np.ndarray]:
    """Names of groups, sorted; the labels in each, counted from 0 without gaps; and how often each label occurs.

    A table of groups by classes would take gigabytes where each of many clips is its own source.
    """
    codes, names = pd.factorize(groups, sort=True)
    plain = np.unique(labels, return_inverse=True)[1]
    ends = np.cumsum(np.bincount(codes, minlength=len(names)))
    inside = np.split(plain[np.argsort(codes, kind="stable")], ends)[: len(names)]
    return names, inside, np.bincount(plain)
