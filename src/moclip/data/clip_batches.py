"""Read the motion fields of sampled frames from the store, in batches of clips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from moclip.data.clip_weights import weights_of
from moclip.data.sampling import motion_frames, neighbours, segment_frames
from moclip.store.layout import read_frame_types
from moclip.store.reader import FieldReader
from moclip.video.decoding import B_VECTOR_CODECS


@dataclass(frozen=True)
class SplitClips:
    """Clips of one split: first frame and number of frames in the store, and label; each (n,) int64.

    With several labels a clip, `labels` is (n, classes) float32, 1 for each of them. `weights` (n,) float say how much
    each counts in training; None: all the same.
    """

    offsets: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None = None

    @classmethod
    def of(cls, rows: pd.DataFrame, labels: np.ndarray | None = None) -> SplitClips:
        """Return the clips of rows with the columns offset, length and label; `labels` replace those of the column.

        The column weight may be there.
        """
        offsets, lengths, column = (rows[name].to_numpy(np.int64) for name in ("offset", "length", "label"))
        return cls(offsets, lengths, column if labels is None else labels, weights_of(rows))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: np.ndarray | slice) -> SplitClips:
        weights = None if self.weights is None else self.weights[rows]
        return SplitClips(self.offsets[rows], self.lengths[rows], self.labels[rows], weights)


class SampledFields:
    """Motion fields of sampled frames; frames without vectors get the motion of another (`sampling.motion_frames`).

    `stack` is how many neighbouring frames stand for a sampled one, which is in their middle.
    """

    def __init__(self, reader: FieldReader, motion_frame: np.ndarray, first: int = 0, stack: int = 1) -> None:
        self.reader, self.stack = reader, stack
        self.motion_frame = motion_frame  # the frame whose motion stands for frames `first`, `first` + 1, ...
        self.first = first
        self.grid = reader.grid

    @classmethod
    def of(cls, reader: FieldReader, rows: pd.DataFrame, stack: int = 1) -> SampledFields:
        """Prepare reading these clips (columns offset, length, codec); only their frame types are read."""
        offsets, lengths = rows["offset"].to_numpy(np.int64), rows["length"].to_numpy(np.int64)
        first, end = int(offsets.min()), int((offsets + lengths).max())
        types = read_frame_types(reader.folder, first, end)
        runs, starts, ends = _join_overlapping(offsets, offsets + lengths)
        has_vectors = rows["codec"].isin(B_VECTOR_CODECS).to_numpy()[runs]
        return cls(reader, first + motion_frames(types, starts - first, ends - starts, has_vectors), first, stack)

    def read_async(
        self,
        clips: SplitClips,
        segments: int,
        generator: np.random.Generator | None = None,
        own: slice = slice(None),
    ) -> Callable[[], np.ndarray]:
        """Begin one batched read; the returned call gives (n * segments, 2 * stack, gh, gw) int8.

        Frames are drawn for all `clips`, and read for the n that are in `own`.
        """
        frames = neighbours(segment_frames(clips.lengths, segments, generator), clips.lengths, self.stack)
        frames += clips.offsets[:, None, None]
        future = self.reader.read_async(self._with_motion(frames[own], clips[own]).reshape(-1))
        return lambda: np.asarray(future.result()).reshape(-1, 2 * self.stack, *self.grid)

    def _with_motion(self, frames: np.ndarray, clips: SplitClips) -> np.ndarray:
        """Return the frames whose motion stands for `frames` (n, segments, stack) of n clips.

        Clips may overlap, as spans of one video. The motion of a frame outside of the clip never stands for one inside:
        before the clip's first frame with vectors, that frame's does.
        """
        found = self.motion_frame[frames - self.first]
        starts = np.broadcast_to(clips.offsets[:, None, None], frames.shape)
        ends = np.broadcast_to((clips.offsets + clips.lengths)[:, None, None], frames.shape)
        outside = (found < starts) | (found >= ends)
        if outside.any():
            begins = starts[outside] - self.first
            moving = self._moving
            place = np.minimum(np.searchsorted(moving, begins), len(moving) - 1)
            following = moving[place] + self.first
            found[outside] = np.where(following < ends[outside], following, frames[outside])
        return found

    @cached_property
    def _moving(self) -> np.ndarray:
        """The frames that have motion of their own, from `first`."""
        own = np.arange(self.first, self.first + len(self.motion_frame))
        return np.flatnonzero(self.motion_frame == own)


def _join_overlapping(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Join overlapping clips to runs. Return the number of a clip in each, and where each starts and ends: (runs,)."""
    order = np.argsort(starts, kind="stable")
    reached = np.maximum.accumulate(ends[order])
    begins = np.flatnonzero(np.concatenate([[True], starts[order][1:] >= reached[:-1]]))
    return order[begins], starts[order][begins], reached[np.append(begins[1:], len(order)) - 1]
