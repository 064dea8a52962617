"""Batches of clips with their fields, read while the network works on the batch before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from moclip.data.clip_batches import SampledFields, SplitClips


@dataclass(frozen=True)
class MotionData:
    """The store of motion fields, the clips to train on and those to choose the epoch on."""

    fields: SampledFields
    train: SplitClips
    val: SplitClips


def read_ahead(
    fields: SampledFields,
    batches: Sequence[SplitClips],
    segments: int,
    generator: np.random.Generator | None = None,
    share: Callable[[int], slice] = lambda count: slice(count),
) -> Iterator[tuple[SplitClips, np.ndarray]]:
    """Each batch with the fields of its `share` (n * segments, 2, gh, gw) int8, read while you work on the one before.

    Frames are drawn for the whole batch.
    """

    def begin(batch: SplitClips) -> Callable[[], np.ndarray]:
        return fields.read_async(batch, segments, generator, share(len(batch)))

    waiting = begin(batches[0])
    for number, batch in enumerate(batches):
        read = waiting()
        if number + 1 < len(batches):
            waiting = begin(batches[number + 1])
        yield batch, read


def slice_batches(count: int, batch: int, least: int = 1) -> list[slice]:
    """`count` rows in slices of `batch`; a last slice of fewer than `least` rows joins the one before."""
    starts = list(range(0, count, batch))
    if len(starts) > 1 and count - starts[-1] < least:
        starts.pop()
    return [slice(start, end) for start, end in pairwise([*starts, count])]
