"""Batches of clips with their fields. The next batch is read while the network works on the current one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from moclip.data.clip_batches import SampledFields, SplitClips


@dataclass(frozen=True)
class MotionData:
    """The store of motion fields, the clips to train on, and the clips to choose the best epoch on.

    With an empty `val`, the last epoch is kept.
    """

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
    """Yield each batch with its fields: int8 (n * segments, 2, rows, columns). The next batch is read ahead.

    `share` gives the rows of a batch whose fields are read, by default all. The frames are drawn for the whole batch,
    so they do not depend on the share.
    """

    def start_read(batch: SplitClips) -> Callable[[], np.ndarray]:
        return fields.read_async(batch, segments, generator, share(len(batch)))

    finish_read = start_read(batches[0])
    for number, batch in enumerate(batches):
        batch_fields = finish_read()
        if number + 1 < len(batches):
            finish_read = start_read(batches[number + 1])
        yield batch, batch_fields


def slice_batches(count: int, batch: int, least: int = 1) -> list[slice]:
    """Divide `count` rows into slices of `batch` rows. A last slice of fewer than `least` joins the one before."""
    starts = list(range(0, count, batch))
    if len(starts) > 1 and count - starts[-1] < least:
        starts.pop()
    return [slice(start, end) for start, end in pairwise([*starts, count])]
