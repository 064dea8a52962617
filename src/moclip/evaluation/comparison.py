"""Compare two experiments on the same clips: each score of both, and the paired difference with its interval.

Arrays are numpy. `sources` (n,) of any type says what each clip was cut from. Each resampling of them is the same
for both experiments, so what makes a clip hard for both does not widen the interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from moclip.evaluation.metrics import bootstrap_interval
from moclip.evaluation.multi_label import resampled_map
from moclip.evaluation.verdict import LEAST_SOURCES
from moclip.training.average_precision import mean_average_precision


@dataclass(frozen=True)
class Difference:
    """A score of two experiments on the same clips.

    clips : number of clips that it is of.
    first, second : the score of each experiment, from 0 to 1.
    difference : `second` less `first`.
    low, high : the 95 % interval of the difference; None with fewer than `LEAST_SOURCES` sources.
    """

    clips: int
    first: float
    second: float
    difference: float
    low: float | None
    high: float | None

    @property
    def better(self) -> int:
        """1 or 2 if the interval says that this experiment is better, otherwise 0."""
        if self.low is None or self.high is None:
            return 0
        return 2 if self.low > 0 else 1 if self.high < 0 else 0


def compare_top1(
    first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray], sources: np.ndarray, seed: int
) -> dict[str, Difference]:
    """Compare the top-1 of each stream in `first`; both hold whether each clip is right, (n,) bool, by stream."""
    pairs = [(first[name].astype(float), second[name].astype(float)) for name in first]
    differences = np.stack([two - one for one, two in pairs], axis=1)
    intervals = _intervals(differences, sources, seed)
    return {
        name: Difference(len(one), float(one.mean()), float(two.mean()), float((two - one).mean()), low, high)
        for name, (one, two), (low, high) in zip(first, pairs, intervals, strict=True)
    }


def compare_classes(
    first: np.ndarray, second: np.ndarray, classes: np.ndarray, sources: np.ndarray, seed: int
) -> dict[str, Difference]:
    """Compare the accuracy of each class, the largest difference first.

    `first` and `second` are (n,) bool, whether each clip is right, `classes` (n,) str the clips' own.
    """
    found = {}
    for name in np.unique(classes).tolist():
        own = classes == name
        found[name] = compare_top1({name: first[own]}, {name: second[own]}, sources[own], seed)[name]
    return dict(sorted(found.items(), key=lambda item: -abs(item[1].difference)))


def compare_map(
    first: Mapping[str, np.ndarray],
    second: Mapping[str, np.ndarray],
    positives: np.ndarray,
    sources: np.ndarray,
    seed: int,
) -> dict[str, Difference]:
    """Compare the mean average precision of each stream in `first`, for clips with several labels.

    Both hold logits (n, classes) by stream; `positives` (n, classes) are 1 where the clip has the label.
    """
    both = {f"{number} {name}": of[name] for number, of in enumerate((first, second)) for name in first}
    drawn = dict(zip(both, resampled_map(both, positives, sources, seed).T, strict=True))
    enough = len(np.unique(sources)) >= LEAST_SOURCES
    found = {}
    for name in first:
        one, two = (mean_average_precision(of[name], positives) for of in (first, second))
        low, high = None, None
        if enough:
            low, high = np.quantile(drawn[f"1 {name}"] - drawn[f"0 {name}"], [0.025, 0.975]).tolist()
        found[name] = Difference(len(positives), one, two, two - one, low, high)
    return found


def _intervals(differences: np.ndarray, sources: np.ndarray, seed: int) -> list[tuple[float | None, float | None]]:
    """Return low and high for each column of `differences` (n, columns)."""
    if len(np.unique(sources)) < LEAST_SOURCES:
        return [(None, None)] * differences.shape[1]
    return [(float(low), float(high)) for low, high in bootstrap_interval(differences, sources, seed)]
