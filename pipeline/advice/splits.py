"""Findings on splits: clips whose sources are not named, sources and copies on both sides of a split."""

from __future__ import annotations

import pandas as pd

from moclip.data.label_sets import COLUMN, is_multi_label
from moclip.data.selection import usable_clips
from moclip.data.spans import are_cut, with_span_columns
from moclip.wording import shorten_list
from pipeline.advice.finding import Finding

UNNAMED = 0.5
"""Sources count as not named if the names of more than this share of the clips lack them."""


def split_findings(index: pd.DataFrame, has_lists: bool) -> list[Finding]:
    """Return findings on how far test clips differ from train clips, by contents and by names."""
    usable = with_span_columns(usable_clips(index))
    sources = _sources_on_both_sides(usable) if has_lists else _unnamed_sources(usable)
    return [*_copies_across_splits(usable), *_copies_across_classes(usable), *sources]


def is_copied_across_splits(usable: pd.DataFrame) -> pd.Series:
    """Return whether frames of each clip of an index are in another split, too: the same file, or a copy of it."""
    return usable["split"].groupby(_shared_frames(with_span_columns(usable))).transform("nunique") > 1


def _shared_frames(clips: pd.DataFrame) -> pd.Series:
    """Return the same text for clips that share frames: of the same contents, and overlapping if they are spans."""
    ordered = clips.sort_values(["video_md5", "first"])
    ends = ordered["first"] + ordered["frames"]
    reached = ends.groupby(ordered["video_md5"]).cummax().groupby(ordered["video_md5"]).shift(fill_value=0)
    run = (ordered["first"] >= reached).groupby(ordered["video_md5"]).cumsum()
    return (ordered["video_md5"] + " " + run.astype("str")).reindex(clips.index)


def _copies_across_splits(usable: pd.DataFrame) -> list[Finding]:
    copies = usable[is_copied_across_splits(usable)]
    if copies.empty:
        return []
    frames, what = _shared_frames(copies), "frames" if are_cut(copies).any() else "file"
    return [
        Finding(
            "copies",
            f"the same {what} in several splits: {_copies_text(copies, frames)}",
            "remove the copies, or give all of them the same source (gNN in the name) or the same list",
            {"clips": _sets_of_ids(copies, frames)},
        )
    ]


def _copies_across_classes(usable: pd.DataFrame) -> list[Finding]:
    column = COLUMN if is_multi_label(usable) else "label"
    copies = usable[usable.groupby("md5")[column].transform("nunique") > 1]
    if copies.empty:
        return []
    return [
        Finding(
            "copies",
            f"the same file in several classes: {_copies_text(copies, copies['md5'])}",
            "keep it in the class that it shows",
            {"clips": _sets_of_ids(copies, copies["md5"])},
        )
    ]


def _copies_text(copies: pd.DataFrame, same: pd.Series) -> str:
    """Return "Run/a.avi (train) = Run/b.avi (test), ..."; rows with the same value of `same` are copies."""
    names = copies["id"] + " (" + copies["split"] + ")"
    return shorten_list(names.groupby(same, sort=False).agg(" = ".join))


def _sets_of_ids(copies: pd.DataFrame, same: pd.Series) -> list[list[str]]:
    return copies["id"].groupby(same, sort=False).agg(list).to_list()


def _names_source(usable: pd.DataFrame) -> pd.Series:
    """Return whether the name of each clip has its source; without one, its whole name is its source.

    The source of a span of a longer video is known: it is the video.
    """
    return are_cut(usable) | (usable["group"] != usable["path"].str.extract(r"([^/]+)\.[^./]*$", expand=False))


def _unnamed_sources(usable: pd.DataFrame) -> list[Finding]:
    unnamed = int((~_names_source(usable)).sum())
    if unnamed <= UNNAMED * len(usable):
        return []
    sources = usable["group"].nunique()
    return [
        Finding(
            "sources",
            f"{len(usable)} clips, {sources} sources: similar clips may lie on both sides of the split, because "
            f"{unnamed} names do not say which video the clip was cut from",
            "if clips were cut from the same videos, add the video's number to their names, as in jump_g01_c02.mp4, or "
            "write split lists and set dataset.splits",
            {"clips": len(usable), "sources": sources, "unnamed": unnamed},
        )
    ]


def _sources_on_both_sides(usable: pd.DataFrame) -> list[Finding]:
    named = usable[_names_source(usable)]
    source = named["group"] if is_multi_label(named) else named["class"] + " " + named["group"]
    tested = set(source[named["split"] == "test"])
    both = sorted(tested & set(source[named["split"] != "test"]))
    if not both:
        return []
    return [
        Finding(
            "sources",
            f"in test, and also in train or val: {len(both)} of {len(tested)} sources: {shorten_list(both)}",
            "clips cut from one video are alike: name all clips of a source (gNN) in the same list",
            {"sources": both},
        )
    ]
