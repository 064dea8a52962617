"""Which stream to trust, and what the test split says about it, for clips with several labels.

As in `moclip.evaluation.verdict`, with mean average precision in place of top-1. That is no mean over clips, so its
standard error and intervals come from resampling the sources (`resampled_map`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from moclip.evaluation.multi_label import resampled_map
from moclip.evaluation.verdict import LEAST_SOURCES, SIMPLEST_FIRST, answer_of, compared_pairs
from moclip.training.average_precision import mean_average_precision


def choose_stream_by_map(
    streams: Mapping[str, np.ndarray], positives: np.ndarray, sources: np.ndarray, seed: int
) -> dict[str, Any]:
    """Choose the stream to trust by its logits on the validation split. Streams of no prediction are ignored.

    It is the simplest stream whose mean average precision is within one standard error of the best one's. The standard
    error is that of the difference between the two in the resamplings. With one source there is none, and the best
    stream is taken, or the simplest of equal ones.

    Returns `metric` ("map"), `stream`, the number of `clips` and `sources`, and in `candidates` the `map` of each
    stream, how far it is `behind` the best one, and the `standard_error` of that.
    """
    own = {name: streams[name] for name in SIMPLEST_FIRST if name in streams}
    found = {name: mean_average_precision(logits, positives) for name, logits in own.items()}
    best = max(found, key=lambda name: found[name])  # the first, and simplest, of equal ones
    drawn = dict(zip(own, resampled_map(own, positives, sources, seed).T, strict=True))
    candidates = {
        name: {
            "map": value,
            "behind": found[best] - value,
            "standard_error": float((drawn[best] - drawn[name]).std(ddof=1)),
        }
        for name, value in found.items()
    }
    near = [name for name, one in candidates.items() if round(one["behind"] - one["standard_error"], 9) <= 0]
    counts = {"clips": len(positives), "sources": len(np.unique(sources))}
    return {"metric": "map", "stream": near[0], **counts, "candidates": candidates}


def compare_by_map(
    trusted: str, streams: Mapping[str, np.ndarray], positives: np.ndarray, sources: np.ndarray, seed: int
) -> dict[str, Any]:
    """Compare streams by their logits on the test split, in the same pairs as `compare_streams` does.

    Each comparison has `stream_map` and `other_map` in place of the top-1. The stream "majority" gives every clip the
    shares of the classes.
    """
    pairs = compared_pairs(trusted, streams)
    own = {name: streams[name] for pair in pairs.values() for name in pair}
    drawn = dict(zip(own, resampled_map(own, positives, sources, seed).T, strict=True))
    count = len(np.unique(sources))
    found: dict[str, Any] = {"clips": len(positives), "sources": count}
    for name, (stream, other) in pairs.items():
        maps = [mean_average_precision(streams[one], positives) for one in (stream, other)]
        low, high = (None, None)
        if count >= LEAST_SOURCES:
            low, high = np.quantile(drawn[stream] - drawn[other], [0.025, 0.975]).tolist()
        found[name] = {
            "stream": stream,
            "other": other,
            "stream_map": maps[0],
            "other_map": maps[1],
            "difference": maps[0] - maps[1],
            "low": low,
            "high": high,
            "answer": answer_of(low, high),
        }
    return found
