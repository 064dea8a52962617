"""Findings on the videos: length, frame rate, codec, size, and what cannot be used."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from moclip.data.label_sets import COLUMN, is_multi_label
from moclip.data.selection import tally, usable_clips
from moclip.data.spans import REASONS as SPAN_REASONS
from moclip.video.decoding import B_VECTOR_CODECS
from moclip.video.messages import NO_VECTORS
from moclip.wording import counted, shorten_list
from pipeline.advice.finding import Finding, has_key, share_text
from pipeline.params import Params

RARE, FEW = 0.05, 5
"""A frame rate, codec or size of a smaller share, or of fewer clips, is rare, and not told."""
LONG_SECONDS = 60.0
RATE_RATIO, SHAPE_RATIO, WIDTH_RATIO = 1.3, 1.5, 3.0
"""Frame rates, shapes (width / height) and widths in px that differ by a larger factor differ much."""
GIVEAWAY = 0.15
"""How much more often than always the commonest class a property must give the right class to be told."""
TRANSCODE = "index.transcode: mpeg4 makes all clips alike, at the cost of encoding them again"


def video_findings(index: pd.DataFrame) -> list[Finding]:
    """Return findings on how the usable clips of an index differ as videos."""
    usable = usable_clips(index)
    return [*_without_vectors(usable), *_frame_rates(usable), *_codecs(usable), *_shapes(usable)]


def length_findings(index: pd.DataFrame, params: Params) -> list[Finding]:
    """Return findings on clips too short for the segments that are sampled of them, and on very long ones."""
    usable = usable_clips(index)
    return [*_short_clips(usable, params), *_long_clips(usable)]


def unusable_findings(index: pd.DataFrame) -> list[Finding]:
    """Return a finding for each reason why clips cannot be used, and one on damaged clips."""
    failed = index[index["status"] != "ok"]
    found = []
    for reason, clips in failed.groupby("reason")["id"]:
        what = f"{len(clips)} of {len(index)} clips: {reason}: {shorten_list(clips)}"
        found.append(Finding("unusable clips", what, _repair(str(reason)), {"reason": reason, "clips": list(clips)}))
    usable = usable_clips(index)
    if len(damaged := usable[usable["damage"] != ""]):
        what = f"used as far as they decode: {len(damaged)} of {len(usable)} clips: {shorten_list(damaged['id'])}"
        found.append(Finding("damaged clips", what, "copy or download them again", {"clips": damaged["id"].to_list()}))
    return found


def _repair(reason: str) -> str:
    if NO_VECTORS in reason:
        return "set index.transcode: mpeg4"
    if reason in SPAN_REASONS:
        return "correct start and end in the manifest"
    if reason.startswith("named in "):
        return "add the file, or remove the line from the list"
    return "repair, replace or remove them"


# ------------------------------------------------------------------------------------------------------------ length


def _short_clips(usable: pd.DataFrame, params: Params) -> Iterator[Finding]:
    segments, (test_segments, _) = params.tsn.segments, params.evaluate.views
    frames = usable["frames"]
    if len(short := usable[frames < segments]):
        what = (
            f"fewer frames than tsn.segments = {segments}: {counted(len(short), 'clip')}: {shorten_list(short['id'])}"
        )
        yield Finding("length", what, "remove them, or lower tsn.segments", {"clips": short["id"].to_list()})
    short_share = (frames < test_segments).mean()
    if short_share >= RARE:
        what = (
            f"{share_text(short_share, 1)} of the clips have fewer frames than the {test_segments} segments of "
            f"evaluate.protocol = {params.evaluate.protocol}; the shortest has {frames.min()}"
        )
        advice = "lower the segments of evaluate.protocol: the same frames are scored several times"
        yield Finding("length", what, advice, {"clips": int((frames < test_segments).sum())})


def _long_clips(usable: pd.DataFrame) -> Iterator[Finding]:
    seconds = usable["frames"] / usable["fps"].where(usable["fps"] > 0)
    if len(long := usable[seconds > LONG_SECONDS]):
        longest = int(seconds.argmax())
        yield Finding(
            "length",
            f"longer than {LONG_SECONDS:.0f} s: {len(long)} of {len(usable)} clips; the longest, "
            f"{usable['id'].iloc[longest]}, has {seconds.iloc[longest]:.0f} s",
            "cut them to the action, or raise tsn.segments and evaluate.protocol: few frames of a clip are looked at",
            {"clips": long["id"].to_list()},
        )


# --------------------------------------------------------------------------------------------------- how clips differ


def _without_vectors(usable: pd.DataFrame) -> Iterator[Finding]:
    b_frames = usable[usable["has_b"] & ~usable["codec"].isin(B_VECTOR_CODECS)]
    for rows, what in (
        (b_frames, "B-frames without vectors, as FFmpeg exports none for their codec"),
        (usable[usable["gop"] == 1], "key frames only, so no vectors"),
    ):
        if len(rows):
            found = f"{what}: {len(rows)} of {len(usable)} clips: {shorten_list(rows['id'])}"
            yield Finding("motion vectors", found, "set index.transcode: mpeg4", {"clips": rows["id"].to_list()})


def _frame_rates(usable: pd.DataFrame) -> Iterator[Finding]:
    known = usable[usable["fps"] > 0]
    rates = known["fps"].round().astype(int)
    if len(known) and _spread(rates) > RATE_RATIO:
        found = f"{_range_text(rates, ' frames a second')}: at a lower rate the same motion has longer vectors"
        advice = "re-encode the clips to one frame rate"
        if has_key("mv.per"):
            advice = f"set mv.per: second, or {advice}"
        yield Finding("frame rates", f"{found}{_giveaway(known, rates)}", advice, {"clips": tally(rates)})


def _codecs(usable: pd.DataFrame) -> Iterator[Finding]:
    codecs = usable["codec"] + np.where(usable["has_b"], " with B-frames", "")
    if len(_common(codecs)) > 1:
        tallied = shorten_list(f"{codec} ({counted(count, 'clip')})" for codec, count in codecs.value_counts().items())
        found = f"{tallied}: which vectors a frame has depends on the encoder{_giveaway(usable, codecs)}"
        yield Finding("codecs", found, TRANSCODE, {"clips": tally(codecs)})


def _shapes(usable: pd.DataFrame) -> Iterator[Finding]:
    sizes = usable["w"].astype(str) + "x" + usable["h"].astype(str)
    shapes = (usable["w"] / usable["h"]).round(2)
    if _spread(shapes) > SHAPE_RATIO:
        found = f"width / height {_range_text(shapes)}: all are stretched to mv.canvas, which distorts motion in some"
        advice = "crop or pad the clips to one shape"
    elif _spread(usable["w"]) > WIDTH_RATIO:
        found = (
            f"{_range_text(usable['w'], ' px wide')}: vectors are of blocks of 8 or 16 px, so coarse in small pictures"
        )
        advice = TRANSCODE
    else:
        return
    yield Finding("picture sizes", f"{found}{_giveaway(usable, sizes)}", advice, {"clips": tally(sizes)})


def _spread(values: pd.Series) -> float:
    """Return how much the largest value exceeds the smallest, leaving out the rarest on either side."""
    low, high = np.quantile(values, (RARE, 1 - RARE), method="inverted_cdf")
    return float(high / low)


def _range_text(values: pd.Series, unit: str = "") -> str:
    """Return "15 to 60 px, most often 30 (80 of 150 clips)"."""
    commonest = values.mode()[0]
    count = int((values == commonest).sum())
    return f"{values.min():g} to {values.max():g}{unit}, most often {commonest:g} ({count} of {len(values)} clips)"


def _common(values: pd.Series) -> list[str]:
    """Return the values that are not rare."""
    counts = values.value_counts()
    return list(counts.index[counts >= max(FEW, RARE * len(values))])


def _giveaway(clips: pd.DataFrame, values: pd.Series) -> str:
    """Say so if a property of the files tells the class: the network may learn it in place of the action."""
    several = is_multi_label(clips)
    by_value = pd.crosstab(values.where(values.isin(_common(values)), "other"), clips[COLUMN if several else "label"])
    right, commonest = by_value.max(axis=1).sum(), by_value.sum().max()
    if right - commonest < GIVEAWAY * len(clips):
        return ""
    return f"; this alone tells the {'labels' if several else 'class'} of {share_text(right, len(clips))} of the clips"
