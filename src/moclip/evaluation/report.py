"""What the report page says, worked out of predictions: accuracies by class, confusions, and which clips to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from moclip.evaluation.metrics import class_accuracy

PAPER = {"zero_shot": 0.650, "mv_tsn": 0.665, "fusion": 0.892}
"""Top-1 on UCF-101 (arXiv 2509.17084, table 1)."""
PAPER_COST = 16.9e3
"""Multiply-adds of a video there, fusion of both, in millions."""

KINDS = {"gain": "fusion gains most", "error": "worst errors", "random": "drawn at random"}


def class_table(streams: Mapping[str, np.ndarray], labels: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each class that occurs: its clips, each stream's share right, and what each input adds to the other.

    `streams` are logits (clips, classes), with "zero_shot", "mv_tsn" and "fusion" among them. "motion" is how much more
    fusion gets right than zero-shot CLIP, "still" how much more than MV-TSN alone.
    """
    right = {name: class_accuracy(logits.argmax(axis=1), labels) for name, logits in streams.items()}
    counts = np.bincount(labels, minlength=len(names))
    return [
        {
            "name": names[label],
            "clips": int(counts[label]),
            "right": {name: shares[label] for name, shares in right.items()},
            "motion": right["fusion"][label] - right["zero_shot"][label],
            "still": right["fusion"][label] - right["mv_tsn"][label],
        }
        for label in np.unique(labels).tolist()
    ]


@dataclass(frozen=True)
class Confusion:
    """`counts` (classes, classes): clips of a row's class that were taken for a column's; `names` of both.

    `worst` are the most frequent confusions: actual, predicted, how many clips, of how many.
    """

    names: list[str]
    counts: np.ndarray
    worst: list[tuple[str, str, int, int]]


def confusion(logits: np.ndarray, labels: np.ndarray, names: Sequence[str], most: int = 8) -> Confusion:
    """Count which classes are taken for which, of those that occur or are predicted."""
    predicted = logits.argmax(axis=1)
    seen = np.union1d(labels, predicted)
    counts = np.zeros((len(seen), len(seen)), np.int64)
    np.add.at(counts, (np.searchsorted(seen, labels), np.searchsorted(seen, predicted)), 1)
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [(int(row), int(column)) for row, column in zip(*np.unravel_index(order, wrong.shape), strict=True)]
    own = [names[label] for label in seen]
    totals = counts.sum(axis=1)
    worst = [(own[a], own[b], int(wrong[a, b]), int(totals[a])) for a, b in pairs if wrong[a, b]]
    return Confusion(own, counts, worst)


@dataclass(frozen=True)
class Choice:
    """A clip of the gallery: its row, why it is there (of `KINDS`), and by how much.

    gain : how much more probable fusion makes the true class than the better stream alone does.
    error : how much more probable it makes another class than the true one; not above 0 where it is right.
    """

    row: int
    kinds: list[str]
    gain: float
    error: float


def choose_gallery(shares: Mapping[str, np.ndarray], labels: np.ndarray, count: int, seed: int) -> list[Choice]:
    """Clips to look at, `count` of each kind: where fusion gains most, where it errs worst, and a random draw.

    `shares` are probabilities (clips, classes) of "zero_shot", "mv_tsn" and "fusion". No class has a second clip of a
    kind before each that can has one. A clip may be of several kinds.
    """
    rows = np.arange(len(labels))
    true = {name: values[rows, labels] for name, values in shares.items()}
    fused = shares["fusion"]
    gain = true["fusion"] - np.maximum(true["zero_shot"], true["mv_tsn"])
    error = fused.max(axis=1) - true["fusion"]
    wrong = fused.argmax(axis=1) != labels
    gained, erred = rows[~wrong & (gain > 0)], rows[wrong]
    picked = {
        "gain": _highest(gained, gain, labels)[:count],
        "error": _highest(erred, error, labels)[:count],
        "random": np.random.default_rng(seed).permutation(rows)[:count],
    }
    kinds: dict[int, list[str]] = {}
    for kind, chosen in picked.items():
        for row in chosen.tolist():
            kinds.setdefault(row, []).append(kind)
    return [Choice(row, own, float(gain[row]), float(error[row])) for row, own in kinds.items()]


def _highest(rows: np.ndarray, score: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The rows by falling score; the best of each class first, then the second of each..."""
    ordered = rows[np.argsort(-score[rows], kind="stable")]
    earlier = np.array([np.sum(labels[ordered[:place]] == labels[row]) for place, row in enumerate(ordered)], int)
    return ordered[np.argsort(earlier, kind="stable")]
