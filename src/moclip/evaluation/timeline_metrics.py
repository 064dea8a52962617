"""How well events were found in long videos, against annotations.

Frame accuracy, segmental F1 and edit score are those of Lea et al. 2017 (arXiv 1611.05267, section 4.1). The mean
average precision is that of the ActivityNet challenge (Caba Heilbron et al., CVPR 2015).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

F1_OVERLAPS = (0.10, 0.25, 0.50)
MAP_OVERLAP = 0.5


class Segment(NamedTuple):
    """A stretch of a video with one class: `start` and `end` in seconds. `score` orders predictions."""

    start: float
    end: float
    name: str
    score: float = 1.0


class VideoEvents(NamedTuple):
    """The predicted and the true segments of a video, its duration in seconds, and its frames per second."""

    predicted: Sequence[Segment]
    actual: Sequence[Segment]
    duration: float
    rate: float


def timeline_metrics(videos: Sequence[VideoEvents]) -> dict[str, Any]:
    """Return all metrics over some videos, as shares from 0 to 1.

    Where neither a segment is true nor one predicted, F1 and the edit score are 1; the mean average precision is None
    without a true segment.
    """
    correct, frames = np.sum([_frame_counts(video) for video in videos], axis=0)
    return {
        "videos": len(videos),
        "actual": sum(len(video.actual) for video in videos),
        "predicted": sum(len(video.predicted) for video in videos),
        "frame_accuracy": float(correct / max(1, frames)),
        **{f"f1_at_{round(100 * overlap)}": segmental_f1(videos, overlap) for overlap in F1_OVERLAPS},
        "edit": float(np.mean([edit_score(video.predicted, video.actual) for video in videos])),
        "map_at_50": mean_average_precision(videos, MAP_OVERLAP),
    }


def overlap_share(one: Segment, other: Segment) -> float:
    """Return the intersection of two stretches of time over their union."""
    shared = min(one.end, other.end) - max(one.start, other.start)
    return max(0.0, shared) / (max(one.end, other.end) - min(one.start, other.start)) if shared > 0 else 0.0


# ------------------------------------------------------------------------------------------------- per frame


def frame_labels(segments: Sequence[Segment], count: int, rate: float, numbers: Mapping[str, int]) -> np.ndarray:
    """Return the label of each frame by the segment that holds its middle: (count,) int64, -1 in no segment."""
    labels = np.full(count, -1, np.int64)
    middles = (np.arange(count) + 0.5) / rate
    for segment in segments:
        first, last = np.searchsorted(middles, (segment.start, segment.end))
        labels[first:last] = numbers[segment.name]
    return labels


def _frame_counts(video: VideoEvents) -> tuple[int, int]:
    """Return how many frames have the right label ("no action" is one, too), and how many there are."""
    count = round(video.duration * video.rate)
    names = sorted({segment.name for segment in (*video.predicted, *video.actual)})
    numbers = {name: number for number, name in enumerate(names)}
    predicted, actual = (
        frame_labels(segments, count, video.rate, numbers) for segments in (video.predicted, video.actual)
    )
    return int((predicted == actual).sum()), count


# ---------------------------------------------------------------------------------------------- per segment


def segmental_f1(videos: Sequence[VideoEvents], overlap: float) -> float:
    """Return F1 over the segments of all videos.

    A predicted segment is correct if the true segment of its class that it overlaps most, by at least `overlap`, was
    not found by an earlier one.
    """
    correct = sum(_matches(video, overlap) for video in videos)
    total = sum(len(video.predicted) + len(video.actual) for video in videos)
    return 2 * correct / total if total else 1.0


def _matches(video: VideoEvents, overlap: float) -> int:
    found: set[int] = set()
    for segment in sorted(video.predicted):
        best = _best_overlap(segment, video.actual)
        if best is not None and overlap_share(segment, video.actual[best]) >= overlap:
            found.add(best)
    return len(found)


def _best_overlap(segment: Segment, others: Sequence[Segment]) -> int | None:
    """Return the row of the segment of the same class that overlaps most, the first of equals."""
    rows = [row for row, other in enumerate(others) if other.name == segment.name]
    return max(rows, key=lambda row: overlap_share(segment, others[row]), default=None)


def edit_score(predicted: Sequence[Segment], actual: Sequence[Segment]) -> float:
    """Return 1 - the Levenshtein distance of the two orders of classes, over the length of the longer one.

    Neighbouring segments of the same class count as one.
    """
    one, other = (
        [name for name, _ in groupby(segment.name for segment in sorted(part))] for part in (predicted, actual)
    )
    if not one and not other:
        return 1.0
    return 1 - _levenshtein(one, other) / max(len(one), len(other))


def _levenshtein(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the least number of insertions, deletions and replacements that turn one into the other."""
    row = list(range(len(other) + 1))
    for number, name in enumerate(one, 1):
        before, row = row, [number]
        for column, wanted in enumerate(other, 1):
            row.append(min(before[column] + 1, row[-1] + 1, before[column - 1] + (name != wanted)))
    return row[-1]


# --------------------------------------------------------------------------------------- by score of a segment


def mean_average_precision(videos: Sequence[VideoEvents], overlap: float) -> float | None:
    """Return the mean over the classes with a true segment of `average_precision`; None without one."""
    names = sorted({segment.name for video in videos for segment in video.actual})
    return float(np.mean([average_precision(videos, name, overlap) for name in names])) if names else None


def average_precision(videos: Sequence[VideoEvents], name: str, overlap: float) -> float:
    """Return the area under the curve of precision over recall of a class.

    The predictions of all videos are taken in the order of their scores. Each finds, of the true segments of its video
    that none has found yet, the one that it overlaps most, by at least `overlap`. The precision at a recall is the
    best one at that recall or a higher one.
    """
    ranked = sorted(
        ((-segment.score, number, segment) for number, video in enumerate(videos) for segment in video.predicted),
    )
    free = {
        number: [segment for segment in video.actual if segment.name == name] for number, video in enumerate(videos)
    }
    actual = sum(map(len, free.values()))
    hits = []
    for _, number, segment in ranked:
        if segment.name != name:
            continue
        best = _best_overlap(segment, free[number])
        hit = best is not None and overlap_share(segment, free[number][best]) >= overlap
        if hit and best is not None:
            free[number].pop(best)
        hits.append(hit)
    if not actual or not hits:
        return 0.0
    correct = np.cumsum(hits)
    precision = correct / np.arange(1, len(hits) + 1)
    best_later = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best_later[np.array(hits)].sum() / actual)
