"""How much of the time the whole picture of a clip moves: the camera, or one thing that fills the picture."""

from __future__ import annotations

import numpy as np

from moclip.data.clip_batches import SampledFields, SplitClips

_CLIPS_PER_READ = 128


def moving_shares(fields: SampledFields, clips: SplitClips, frames: int, least: float) -> np.ndarray:
    """Return the share of `frames` frames of each clip whose median vector is at least `least` long: (n,) in [0, 1].

    The frames are the middle ones of equal parts of the clip. `least` is in the store's units (int8 levels). The
    components' medians over the cells are taken one by one.
    """
    shares = []
    for start in range(0, len(clips), _CLIPS_PER_READ):
        levels = fields.read_async(clips[start : start + _CLIPS_PER_READ], frames)()
        medians = np.median(levels.reshape(*levels.shape[:2], -1), axis=2)
        shares.append((np.hypot(*medians.T) >= least).reshape(-1, frames).mean(axis=1))
    return np.concatenate(shares)
