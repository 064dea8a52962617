"""The metrics of timelines: by hand, and against slow plain ones."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moclip.evaluation.timeline_metrics import (
    Segment,
    VideoEvents,
    average_precision,
    edit_score,
    mean_average_precision,
    overlap_share,
    segmental_f1,
    timeline_metrics,
)

TRUTH = [Segment(0, 10, "a"), Segment(10, 20, "b"), Segment(30, 40, "a")]


def video(*predicted: tuple[float, float, str, float], truth: Sequence[Segment] = TRUTH) -> VideoEvents:
    return VideoEvents([Segment(*one) for one in predicted], truth, 40.0, 10.0)


def test_all_right_is_1() -> None:
    found = timeline_metrics([VideoEvents(TRUTH, TRUTH, 40.0, 25.0)])
    assert (found["videos"], found["actual"], found["predicted"]) == (1, 3, 3)
    assert {value for name, value in found.items() if name not in ("videos", "actual", "predicted")} == {1.0}


def test_by_hand() -> None:
    one = video((0, 5, "a", 0.9), (5, 20, "b", 0.8), (22, 26, "b", 0.7), (28, 40, "a", 0.6))
    found = timeline_metrics([one])
    # wrong are 5 to 10 (b for a), 22 to 26 and 28 to 30 (an action where there is none): 11 of 40 s
    assert found["frame_accuracy"] == pytest.approx(29 / 40)
    # overlaps are 5/10, 10/15, none, 10/12: three of four are right, of three
    assert found["f1_at_10"] == found["f1_at_25"] == found["f1_at_50"] == pytest.approx(2 * 3 / (4 + 3))
    assert segmental_f1([one], 0.6) == pytest.approx(2 * 2 / 7)
    assert found["edit"] == 1.0, "a b b a: two of the same in a row are one"
    # a: both right; b: right, then wrong
    assert found["map_at_50"] == pytest.approx(1.0)
    late = video((22, 26, "b", 0.9), (10, 20, "b", 0.8))
    assert average_precision([late], "b", 0.5) == pytest.approx(0.5)
    assert mean_average_precision([late], 0.5) == pytest.approx((0.5 + 0) / 2)
    twice = video((10, 20, "b", 0.9), (11, 20, "b", 0.8))
    assert segmental_f1([twice], 0.5) == pytest.approx(2 * 1 / (2 + 3)), "each action is found once"
    assert average_precision([twice], "b", 0.5) == 1.0


def test_nothing_found_and_nothing_there() -> None:
    none = timeline_metrics([video()])
    assert none["frame_accuracy"] == pytest.approx(0.25)
    assert none["f1_at_50"] == none["edit"] == none["map_at_50"] == 0
    empty = timeline_metrics([video(truth=[])])
    assert empty["frame_accuracy"] == empty["f1_at_50"] == empty["edit"] == 1
    assert empty["map_at_50"] is None


def test_videos_are_pooled() -> None:
    good, bad = video((0, 10, "a", 0.5)), video((0, 10, "c", 0.9), truth=[Segment(0, 10, "b")])
    found = timeline_metrics([good, bad])
    assert found["f1_at_50"] == pytest.approx(2 * 1 / (2 + 4))
    assert found["edit"] == pytest.approx((1 / 3 + 0) / 2)
    assert average_precision([good, bad], "a", 0.5) == pytest.approx(1 / 2)


# ------------------------------------------------------------------------------------------------- slow and plain


@st.composite
def random_video(draw: st.DrawFn) -> VideoEvents:
    """Segments that do not overlap each other, on whole seconds."""

    def segments() -> list[Segment]:
        edges = sorted(draw(st.lists(st.integers(0, 30), unique=True, max_size=10)))
        pairs = [(a, b) for a, b in itertools.pairwise(edges) if draw(st.booleans())]
        return [
            Segment(a, b, draw(st.sampled_from("abc")), draw(st.integers(0, 99)) / 100 + n / 1e4)
            for n, (a, b) in enumerate(pairs)
        ]

    return VideoEvents(segments(), segments(), 30.0, 4.0)


def plain_overlap(one: Segment, other: Segment) -> float:
    """Counted in seconds."""
    first, second = (set(range(int(part.start), int(part.end))) for part in (one, other))
    return len(first & second) / len(first | second)


def plain_frame_accuracy(case: VideoEvents) -> float:
    def name_at(segments: Sequence[Segment], time: float) -> str | None:
        return next((one.name for one in segments if one.start <= time < one.end), None)

    times = [(number + 0.5) / case.rate for number in range(int(case.duration * case.rate))]
    return float(np.mean([name_at(case.predicted, time) == name_at(case.actual, time) for time in times]))


def plain_f1(case: VideoEvents, overlap: float) -> float:
    taken = [False] * len(case.actual)
    right = 0
    for segment in sorted(case.predicted, key=lambda one: one.start):
        shares = [plain_overlap(segment, other) if other.name == segment.name else -1.0 for other in case.actual]
        if shares and max(shares) >= overlap and not taken[int(np.argmax(shares))]:
            taken[int(np.argmax(shares))] = True
            right += 1
    wrong, missed = len(case.predicted) - right, len(case.actual) - right
    if not case.predicted and not case.actual:
        return 1.0
    return 2 * right / (2 * right + wrong + missed)


def plain_edit(case: VideoEvents) -> float:
    def merged(segments: Sequence[Segment]) -> str:
        names = "".join(one.name for one in segments)
        return "".join(name for number, name in enumerate(names) if number == 0 or names[number - 1] != name)

    one, other = merged(case.predicted), merged(case.actual)

    @functools.cache
    def distance(rows: int, columns: int) -> int:
        if not rows or not columns:
            return rows + columns
        return min(
            distance(rows - 1, columns) + 1,
            distance(rows, columns - 1) + 1,
            distance(rows - 1, columns - 1) + (one[rows - 1] != other[columns - 1]),
        )

    longest = max(len(one), len(other))
    return 1 - distance(len(one), len(other)) / longest if longest else 1.0


def plain_average_precision(cases: Sequence[VideoEvents], name: str, overlap: float) -> float:
    predicted = [(one, number) for number, case in enumerate(cases) for one in case.predicted if one.name == name]
    predicted.sort(key=lambda pair: -pair[0].score)
    free = [[one for one in case.actual if one.name == name] for case in cases]
    actual = sum(map(len, free))
    curve = []
    right = 0
    for number, (segment, where) in enumerate(predicted, 1):
        fits = [other for other in free[where] if plain_overlap(segment, other) >= overlap]
        if fits:
            free[where].remove(max(fits, key=lambda other: plain_overlap(segment, other)))
            right += 1
        curve.append((right / actual, right / number))
    steps = [(number + 1) / actual for number in range(actual)]
    best = [max((precision for recall, precision in curve if recall >= step - 1e-9), default=0.0) for step in steps]
    return sum(best) / actual


@given(random_video())
def test_they_are_those_that_are_counted(case: VideoEvents) -> None:
    found = timeline_metrics([case])
    assert found["frame_accuracy"] == pytest.approx(plain_frame_accuracy(case))
    assert found["edit"] == pytest.approx(plain_edit(case))
    assert edit_score(case.predicted, case.actual) == pytest.approx(plain_edit(case))
    for overlap in (10, 25, 50):
        assert found[f"f1_at_{overlap}"] == pytest.approx(plain_f1(case, overlap / 100))
    for one in case.predicted:
        for other in case.actual:
            assert overlap_share(one, other) == pytest.approx(plain_overlap(one, other))


@given(st.lists(random_video(), min_size=1, max_size=3))
def test_average_precision_is_the_mean_of_the_best_precisions(cases: list[VideoEvents]) -> None:
    names = sorted({one.name for case in cases for one in case.actual})
    plain = [plain_average_precision(cases, name, 0.5) for name in names]
    for name, value in zip(names, plain, strict=True):
        assert average_precision(cases, name, 0.5) == pytest.approx(value)
    found = mean_average_precision(cases, 0.5)
    assert found == (pytest.approx(np.mean(plain)) if names else None)
