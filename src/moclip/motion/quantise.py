"""Convert motion fields from px to int8 and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from moclip.errors import VideoError
from moclip.video.decoding import frame_rate, open_stream
from moclip.video.times import HIGHEST_RATE

LEVELS = 127  # int8 levels on either side of zero
PER = ("frame", "second")
REFERENCE_RATE = 30.0  # frames per second of a clip whose fields are the same by frame and by second


def clip_of(path: str | Path, clip: float, per: str) -> float:
    """Return the displacement in px per frame at which the fields of a video saturate.

    For `per` "frame" it is `clip`. For "second" it is reached at the same speed whatever the frame rate: `clip` is then
    in px per 1/30 s. Raises VideoError where the file does not say how many frames a second it has.
    """
    if per == "frame":
        return clip
    with open_stream(path) as (_, stream):
        return saturation(frame_rate(stream), clip, per, path)


def saturation(rate: float, clip: float, per: str, where: str | Path) -> float:
    """Do what `clip_of` does for a video of `rate` frames per second; 0 where it does not say. `where` names it."""
    if per == "frame":
        return clip
    if not 0 < rate <= HIGHEST_RATE:
        what = f"a frame rate of {rate:g} frames a second" if rate else "the file does not say its frame rate"
        raise VideoError(what, where=where, fix="set mv.per to frame, or re-encode the clip")
    return clip * REFERENCE_RATE / rate


def quantise(fields: np.ndarray, clip: float = 20.0) -> np.ndarray:
    """Round fields in px to int8: ±127 stands for ±`clip` px and more; -128 never occurs."""
    levels = fields * (LEVELS / clip)
    np.rint(levels, out=levels)
    np.clip(levels, -LEVELS, LEVELS, out=levels)
    return levels.astype(np.int8)


def dequantise(levels: np.ndarray, clip: float = 20.0) -> np.ndarray:
    """Convert int8 fields to px, float32 of the same shape, within clip / 254 of the fields that were rounded."""
    return levels.astype(np.float32) * np.float32(clip / LEVELS)
