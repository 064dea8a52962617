"""The table of scores of clips with several labels, and the names of their streams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NOT_SCORED = {"score_sum": "it adds probabilities of one answer per clip, and several labels have none"}
"""Streams that have no meaning with several labels a clip, and why."""

CLASS_SHARES = "shares of the classes"
"""What the stream `majority` is called: it gives every clip the shares that the classes have in train."""

COLUMNS = ("", "views", "mAP", "95 % interval", "macro F1", "top-1", "M multiply-adds")


def stream_titles(titles: Mapping[str, str], scores: Mapping[str, Any]) -> dict[str, str]:
    """Return the names of the streams; `scores` are those of a stream."""
    return {**titles, "majority": CLASS_SHARES} if "map" in scores else dict(titles)


def label_score_rows(
    streams: Mapping[str, Mapping[str, Any]], cost: Mapping[str, float], titles: Mapping[str, str]
) -> list[tuple[str, ...]]:
    """Return a row per stream for `COLUMNS`."""
    return [
        (
            stream_titles(titles, score)[name],
            score["protocol"],
            f"{score['map']:.3f}",
            f"{score['map_low']:.3f}-{score['map_high']:.3f}",
            f"{score['macro_f1']:.3f}",
            f"{score['top1']:.3f}",
            f"{cost[name]:,.1f}",
        )
        for name, score in streams.items()
    ]


def left_out_note(titles: Mapping[str, str]) -> str:
    """Return which streams are not in the table, and why."""
    return "; ".join(f"not in the table: {titles[name]}: {why}" for name, why in NOT_SCORED.items())
