"""Clips of a split and the motion fields of their sampled frames, read from the store in batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from moclip.sampling import segment_frames
from moclip.store import FieldReader


@dataclass(frozen=True)
class Clips:
    """Clips of one split: where each lies in the store and its label, each (n,) int64."""

    offsets: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: np.ndarray | slice) -> Clips:
        return Clips(self.offsets[rows], self.lengths[rows], self.labels[rows])


class Fields:
    """Motion fields of sampled frames: the store's reader with I-frames led to the motion before them."""

    def __init__(self, reader: FieldReader, motion_frame: np.ndarray) -> None:
        self.reader = reader
        self.motion_frame = motion_frame
        self.grid = reader.grid

    def read_async(
        self, clips: Clips, segments: int, generator: np.random.Generator | None = None
    ) -> Callable[[], np.ndarray]:
        """Begin one batched read; the returned call gives (n * segments, 2, gh, gw) int8."""
        frames = clips.offsets[:, None] + segment_frames(clips.lengths, segments, generator)
        future = self.reader.read_async(self.motion_frame[frames].reshape(-1))
        return lambda: np.asarray(future.result())
