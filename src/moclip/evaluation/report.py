"""Compute what the report page shows from predictions: accuracy by class, confusions, and the clips of the gallery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from moclip.evaluation.class_scores import class_scores
from moclip.evaluation.metrics import class_accuracy

PAPER_TOP1 = {"zero_shot": 0.650, "mv_tsn": 0.665, "fusion": 0.892}
"""The paper's top-1 on UCF-101 (arXiv 2509.17084, table 1)."""
PAPER_COST = 16.9e3
"""The paper's multiply-adds per video for the fusion, in millions."""

GALLERY_KINDS = {"gain": "fusion gains most", "error": "worst errors", "random": "drawn at random"}


def class_table(streams: Mapping[str, np.ndarray], labels: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row for each class that occurs, the one with the lowest F1 of fusion first.

    A row has the class's clips, each stream's accuracy, precision and F1 of fusion, and what each input adds. `streams`
    are logits (clips, classes), among them "mv_tsn" and "fusion". With "still", the head on the still alone, "motion"
    is the gain of fusion over it, and "still" the gain over MV-TSN; without, both are None.
    """
    accuracies = {name: class_accuracy(logits.argmax(axis=1), labels) for name, logits in streams.items()}
    scores = class_scores(streams["fusion"].argmax(axis=1), labels, len(names))
    rows: list[dict[str, Any]] = [
        {
            "name": names[label],
            "clips": scores[label].clips,
            "precision": scores[label].precision,
            "f1": scores[label].f1,
            "right": {name: accuracy[label] for name, accuracy in accuracies.items()},
            "motion": accuracies["fusion"][label] - accuracies["still"][label] if "still" in streams else None,
            "still": accuracies["fusion"][label] - accuracies["mv_tsn"][label] if "still" in streams else None,
        }
        for label in np.unique(labels).tolist()
    ]
    return sorted(rows, key=lambda row: row["f1"])


@dataclass(frozen=True)
class Confusion:
    """Which classes are predicted for which.

    names : classes of rows and columns.
    counts : (classes, classes), clips of the row's class that were predicted as the column's.
    worst : the most frequent confusions: actual, predicted, number of clips, all clips of the actual class.
    clips : the numbers of the clips of each cell that has some, by row and column.
    """

    names: list[str]
    counts: np.ndarray
    worst: list[tuple[str, str, int, int]]
    clips: dict[tuple[int, int], list[int]]


def confusion(logits: np.ndarray, labels: np.ndarray, names: Sequence[str], most: int = 8) -> Confusion:
    """Count the predictions of each class, for the classes that occur or are predicted."""
    predicted = logits.argmax(axis=1)
    used = np.union1d(labels, predicted)
    counts = np.zeros((len(used), len(used)), np.int64)
    clips: dict[tuple[int, int], list[int]] = {}
    cells = zip(np.searchsorted(used, labels).tolist(), np.searchsorted(used, predicted).tolist(), strict=True)
    for number, cell in enumerate(cells):
        clips.setdefault(cell, []).append(number)
        counts[cell] += 1
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [(int(row), int(column)) for row, column in zip(*np.unravel_index(order, wrong.shape), strict=True)]
    used_names = [names[label] for label in used]
    totals = counts.sum(axis=1)
    worst = [(used_names[a], used_names[b], int(wrong[a, b]), int(totals[a])) for a, b in pairs if wrong[a, b]]
    return Confusion(used_names, counts, worst, clips)


@dataclass(frozen=True)
class GalleryClip:
    """A clip of the gallery.

    row : its row among the predictions.
    kinds : why it was chosen, keys of `GALLERY_KINDS`.
    gain : how much more probable the true class is by fusion than by the best of the other streams.
    error : how much more probable another class is than the true one; at most 0 where fusion is correct.
    """

    row: int
    kinds: list[str]
    gain: float
    error: float


def choose_gallery(
    probabilities: Mapping[str, np.ndarray], labels: np.ndarray, count: int, seed: int
) -> list[GalleryClip]:
    """Choose `count` clips of each kind: the largest gains of fusion, its worst errors, and random clips.

    `probabilities` are (clips, classes) of "fusion" and of the streams that it is compared with. A class gets a second
    clip of a kind only after every class that has such clips got one. A clip may be of several kinds.
    """
    rows = np.arange(len(labels))
    of_label = {name: values[rows, labels] for name, values in probabilities.items()}
    fused = probabilities["fusion"]
    gain = of_label["fusion"] - np.max([values for name, values in of_label.items() if name != "fusion"], axis=0)
    error = fused.max(axis=1) - of_label["fusion"]
    wrong = fused.argmax(axis=1) != labels
    chosen = {
        "gain": _rank_by_class(rows[~wrong & (gain > 0)], gain, labels)[:count],
        "error": _rank_by_class(rows[wrong], error, labels)[:count],
        "random": np.random.default_rng(seed).permutation(rows)[:count],
    }
    kinds_of: dict[int, list[str]] = {}
    for kind, kind_rows in chosen.items():
        for row in kind_rows.tolist():
            kinds_of.setdefault(row, []).append(kind)
    return [GalleryClip(row, kinds, float(gain[row]), float(error[row])) for row, kinds in kinds_of.items()]


def _rank_by_class(rows: np.ndarray, score: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Order rows by falling score: first the best of each class, then the second of each, and so on."""
    ordered = rows[np.argsort(-score[rows], kind="stable")]
    rank = np.array([np.sum(labels[ordered[:place]] == labels[row]) for place, row in enumerate(ordered)], int)
    return ordered[np.argsort(rank, kind="stable")]
