"""Smoothed labels of windows that come one after the other, a few windows late."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from moclip.inference.smoothing import Smoothing, smoothed_labels

VITERBI_LATE = 2
"""How late a Viterbi pass labels a window, in lengths of a window."""
KEPT = 8
"""Over how many lengths of a window it is run."""


class LabelledWindow(NamedTuple):
    """A window's label, None where nothing is known, and the probability of its class."""

    number: int
    label: int | None
    probability: float


class LabelStream:
    """Gives each window's label when enough windows after it are known; with a median, the same as for all at once.

    A Viterbi pass only sees some windows before and after the one that it labels.
    """

    def __init__(self, smoothing: Smoothing) -> None:
        self.smoothing = smoothing
        overlap = max(1, round(smoothing.overlap))
        late = {"median": smoothing.width // 2, "viterbi": VITERBI_LATE * overlap, "none": 0}[smoothing.kind]
        self.late = max(1, late)  # the last window is told at the end, which it reaches
        self.number = 0  # of the next window to label
        self._kept = KEPT * overlap + 2
        self._probabilities: list[np.ndarray] = []
        self._unknown: list[bool] = []

    def add(self, probabilities: np.ndarray, unknown: np.ndarray) -> Iterator[LabelledWindow]:
        """Take the next windows, (n, classes) and (n,); yield the labels that are known with them."""
        for row, is_unknown in zip(probabilities, unknown.tolist(), strict=True):
            self._probabilities.append(row)
            self._unknown.append(is_unknown)
            if len(self._unknown) > self.late:
                yield self._window(self._labels(), len(self._unknown) - 1 - self.late)
            del self._probabilities[: -self._kept], self._unknown[: -self._kept]

    def finish(self) -> Iterator[LabelledWindow]:
        """Yield the labels of the windows that waited for others."""
        labels = self._labels() if self._unknown else np.zeros(0, np.int64)
        for row in range(max(0, len(labels) - self.late), len(labels)):
            yield self._window(labels, row)

    def _labels(self) -> np.ndarray:
        return smoothed_labels(np.stack(self._probabilities), np.array(self._unknown), self.smoothing)

    def _window(self, labels: np.ndarray, row: int) -> LabelledWindow:
        label = int(labels[row])
        window = LabelledWindow(
            self.number, None if self._unknown[row] else label, float(self._probabilities[row][label])
        )
        self.number += 1
        return window
