"""Which stream to trust, and what the test split says about it.

The stream is chosen on the validation split by `choose_stream`. The test split chooses nothing: `compare_streams` says
what it shows about that stream, about the motion and about the still. Arrays are numpy: logits (n, classes) float,
labels (n,) int, sources (n,) of any type, the source that each clip was cut from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from moclip.evaluation.metrics import bootstrap_interval
from moclip.wording import counted

SIMPLEST_FIRST = ("zero_shot", "mv_tsn", "fusion")
"""The streams to choose from, those that a prediction has: no training, one trained network, two."""

LEAST_SOURCES = 6
"""Fewest sources that say anything: by chance alone, five have the same sign with a probability of 2 / 2^5 = 0.06."""

BEATS, DOES_NOT, CANNOT_TELL = "beats", "does not beat", "cannot tell"


# ------------------------------------------------------------------------------- the choice, on the validation split


def choose_stream(streams: Mapping[str, np.ndarray], labels: np.ndarray, sources: np.ndarray) -> dict[str, Any]:
    """Choose the stream to trust by its logits on the validation split. Streams of no prediction are ignored.

    The rule is that of one standard error (Breiman et al. 1984, section 3.4.3): the simplest stream whose top-1 is
    within one standard error of the best one's. The standard error is that of the difference between the two, clip by
    clip (`difference_error`), so a difference of one clip is never enough. With one source there is none, and the best
    stream is taken, or the simplest of equal ones.

    Returns `stream`, the number of `clips` and `sources`, and in `candidates` the `top1` of each stream, how far it is
    `behind` the best one, and the `standard_error` of that.
    """
    correct = {name: _correct(streams[name], labels) for name in SIMPLEST_FIRST if name in streams}
    best = max(correct, key=lambda name: correct[name].mean())  # the first, and simplest, of equal ones
    candidates = {
        name: {
            "top1": float(own.mean()),
            "behind": float(correct[best].mean() - own.mean()),
            "standard_error": difference_error(correct[best], own, sources),
        }
        for name, own in correct.items()
    }
    # rounded, because a difference of one clip is one standard error exactly
    near = [name for name, found in candidates.items() if round(found["behind"] - found["standard_error"], 9) <= 0]
    return {"stream": near[0], "clips": len(labels), "sources": _count(sources), "candidates": candidates}


def difference_error(one: np.ndarray, other: np.ndarray, sources: np.ndarray) -> float:
    """Return the standard error of the difference between two accuracies on the same clips; 0 with one source.

    `one` and `other` are (n,) bool. It is that of a ratio over clusters of unequal sizes (Cochran, Sampling Techniques,
    1977, chapter 9A), the sources: clips cut from one source are alike.
    """
    difference = one.astype(float) - other
    _, numbers = np.unique(sources, return_inverse=True)
    residuals = np.bincount(numbers, weights=difference - difference.mean())
    count = len(residuals)
    if count == 1:
        return 0.0
    return float(np.sqrt(count / (count - 1) * np.square(residuals).sum()) / len(difference))


# ------------------------------------------------------------------------------------ what the test split says about it


@dataclass(frozen=True)
class Comparison:
    """Two streams on the test split.

    difference : top-1 of `stream` less top-1 of `other`.
    low, high : the 95 % interval of the difference; None with fewer than `LEAST_SOURCES` sources.
    answer : `BEATS` if the interval is above 0, `DOES_NOT` if none of it is, otherwise `CANNOT_TELL`.
    """

    stream: str
    other: str
    stream_top1: float
    other_top1: float
    difference: float
    low: float | None
    high: float | None
    answer: str


def compare_streams(
    trusted: str, streams: Mapping[str, np.ndarray], labels: np.ndarray, sources: np.ndarray, seed: int
) -> dict[str, Any]:
    """Compare streams by their logits on the test split.

    `streams` has `trusted` and "majority", "mv_tsn" and "fusion", and "still" if there are stills. Returns the number
    of `clips` and `sources`, and three comparisons: `majority`, of the trusted stream and the commonest class;
    `motion`, of fusion and the head on the still alone, which is what motion adds; `still`, of fusion and MV-TSN, which
    is what the still adds. Without stills there is only the first. The intervals are of paired differences: each draw
    of sources is the same for both streams.
    """
    pairs = compared_pairs(trusted, streams)
    correct = {name: _correct(streams[name], labels).astype(float) for pair in pairs.values() for name in pair}
    differences = np.stack([correct[stream] - correct[other] for stream, other in pairs.values()], axis=1)
    count = _count(sources)
    intervals = bootstrap_interval(differences, sources, seed).tolist() if count >= LEAST_SOURCES else None
    found: dict[str, Any] = {"clips": len(labels), "sources": count}
    for number, (name, (stream, other)) in enumerate(pairs.items()):
        low, high = intervals[number] if intervals else (None, None)
        top1 = float(correct[stream].mean()), float(correct[other].mean())
        difference = float(differences[:, number].mean())
        found[name] = asdict(Comparison(stream, other, *top1, difference, low, high, answer_of(low, high)))
    return found


def compared_pairs(trusted: str, streams: Mapping[str, np.ndarray]) -> dict[str, tuple[str, str]]:
    """Return which stream is compared with which other one, by the name of the comparison."""
    pairs = {"majority": (trusted, "majority"), "motion": ("fusion", "still"), "still": ("fusion", "mv_tsn")}
    return pairs if "still" in streams else {"majority": pairs["majority"]}


def answer_of(low: float | None, high: float | None) -> str:
    """Return what a 95 % interval of a difference says."""
    if low is None or high is None:
        return CANNOT_TELL
    if low > 0:
        return BEATS
    return DOES_NOT if high <= 0 else CANNOT_TELL


def _correct(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.asarray(logits.argmax(axis=1) == labels)


def _count(sources: np.ndarray) -> int:
    return len(np.unique(sources))


# ----------------------------------------------------------------------------------------------------- in words

_SAID = {
    "majority": ("it beats always answering {}", "it does not beat always answering {}"),
    "motion": ("motion adds to the still", "motion adds nothing to the still"),
    "still": ("the still adds to motion", "the still adds nothing to motion"),
}
"""What each comparison says if the answer is `BEATS`, and if it is `DOES_NOT`."""

_OF_SHARES = ("it beats {} alone", "it does not beat {} alone")
"""The same of the comparison `majority` with several labels a clip, where no class can always be right."""


def verdict_sentences(verdict: Mapping[str, Any], titles: Mapping[str, str]) -> list[str]:
    """Return a verdict in words: which stream to trust, what motion adds, what the still adds.

    `verdict` has `trusted` (of `choose_stream`), `test` (of `compare_streams`) and `commonest_class`, the name of the
    commonest class of the training clips. `titles` are the names of the streams. With several labels a clip, `test` is
    of `compare_by_map`.
    """
    majority, *others = _answers(verdict, "it")
    return [f"{_trust_sentence(verdict, titles)} {majority}", *others]


def verdict_on_page(verdict: Mapping[str, Any], titles: Mapping[str, str]) -> tuple[str, list[str]]:
    """Return the same verdict with the answer first: whether the trusted stream beats the commonest class; the rest."""
    majority, *others = _answers(verdict, repr(titles[verdict["trusted"]["stream"]]))
    return majority, [_trust_sentence(verdict, titles), *others]


def _trust_sentence(verdict: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    choice = verdict["trusted"]
    clips = counted(choice["clips"], "validation clip")
    return f"The stream to trust most is {titles[choice['stream']]!r}, chosen on {clips}."


def _answers(verdict: Mapping[str, Any], trusted: str) -> list[str]:
    """Return a sentence for each comparison; `trusted` is what the trusted stream is called in the first one."""
    test = verdict["test"]
    said = {name: [text.format(verdict["commonest_class"]) for text in texts] for name, texts in _SAID.items()}
    if _metric(test) == "map":
        said["majority"] = [text.format("the shares of the classes") for text in _OF_SHARES]
    said["majority"] = [f"{trusted} {text.removeprefix('it ')}" for text in said["majority"]]
    return [_sentence(test, name, *said[name]) for name in _SAID if name in test]


UNBALANCED = 0.05
"""The classes are unbalanced if the commonest one's share of the clips is this much above that of equal classes."""


def unbalanced_sentence(majority: Mapping[str, Any]) -> list[str]:
    """Return a warning to compare the mean class accuracy too if the test clips are unbalanced, otherwise nothing.

    `majority` has `top1` and `mean_class_accuracy` of always answering the commonest class.
    """
    if "mean_class_accuracy" not in majority:
        return []  # with several labels each class is scored by itself
    top1, equal = majority["top1"], majority["mean_class_accuracy"]
    if top1 - equal <= UNBALANCED:
        return []
    return [
        f"The classes are unbalanced: {100 * top1:.1f} % of the test clips are of one class. Compare the mean class "
        f"accuracy, too. Always answering that class has {100 * equal:.1f} %."
    ]


def _sentence(test: Mapping[str, Any], name: str, beats: str, does_not: str) -> str:
    found = test[name]
    of_sources = "" if test["sources"] >= LEAST_SOURCES else f" of {counted(test['sources'], 'source')}"
    cannot_tell = f"cannot tell with {counted(test['clips'], 'test clip')}{of_sources} whether {beats}"
    answer = {BEATS: beats, DOES_NOT: does_not, CANNOT_TELL: cannot_tell}[found["answer"]]
    metric = _metric(test)
    figures = f"{100 * found[f'stream_{metric}']:.1f} % against {100 * found[f'other_{metric}']:.1f} %"
    if found["low"] is not None:
        low, high = 100 * found["low"], 100 * found["high"]
        figures += f", {100 * found['difference']:+.1f} points (95 % interval {low:+.1f} to {high:+.1f})"
    named = "mAP " if metric == "map" else ""
    return f"{answer[0].upper()}{answer[1:]}: {named}{figures}."


def _metric(test: Mapping[str, Any]) -> str:
    """Return what the comparisons of a verdict compare: "top1", or "map" with several labels a clip."""
    return "map" if "stream_map" in test["majority"] else "top1"
