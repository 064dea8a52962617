"""Precision, recall and F1 of each class, and their mean: for sets in which some classes have few clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np


@dataclass(frozen=True)
class ClassScore:
    """How well one class is recognised.

    clips : clips of the class.
    predicted : clips that were predicted as the class.
    precision : share of `predicted` that is correct; None if the class was never predicted.
    recall : share of `clips` that is predicted correctly; None if the class has no clip.
    f1 : harmonic mean of both, 2 correct / (clips + predicted); None if the class has no clip.
    """

    clips: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float | None

    @classmethod
    def of_counts(cls, correct: int, clips: int, predicted: int, **more: Any) -> Self:
        """Return the score of a class of which `correct` clips were predicted; `more` are fields of a subclass."""
        return cls(
            clips=clips,
            predicted=predicted,
            precision=correct / predicted if predicted else None,
            recall=correct / clips if clips else None,
            f1=2 * correct / (clips + predicted) if clips else None,
            **more,
        )


def class_scores(predicted: np.ndarray, labels: np.ndarray, classes: int) -> list[ClassScore]:
    """Return the score of each class in label order; `predicted` and `labels` are (n,) int."""
    correct = np.bincount(labels[predicted == labels], minlength=classes).tolist()
    occurring = np.bincount(labels, minlength=classes).tolist()
    chosen = np.bincount(predicted, minlength=classes).tolist()
    return [ClassScore.of_counts(*counts) for counts in zip(correct, occurring, chosen, strict=True)]


def macro_f1(scores: Sequence[ClassScore]) -> float:
    """Return the mean F1 of the classes that have clips.

    A class that has clips and is never predicted counts as 0. A class without clips does not count, but clips that are
    wrongly predicted as it lower the recall of their own classes.
    """
    return float(np.mean([score.f1 for score in scores if score.f1 is not None]))
