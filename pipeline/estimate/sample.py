"""Choose the files that are timed, and shorten long ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

LONG_BYTES = 8 * 2**20
"""Of a file above this size, only about so many bytes from its beginning are timed."""

MOST_KINDS = 12
"""Most kinds of files that are sure to be in the sample: those with most bytes."""


def choose_files(kinds: Sequence[str], sizes: np.ndarray, count: int) -> np.ndarray:
    """Choose about `count` files of all kinds and sizes: their numbers, ascending.

    `kinds` names the kind of each file, `sizes` (n,) are in bytes. A kind gets a part of the sample that fits its
    bytes, and in it files from the smallest to the largest.
    """
    names = np.array(kinds)
    total = max(1.0, float(sizes.sum()))
    of_kinds = sorted(((float(sizes[names == kind].sum()), str(kind)) for kind in set(kinds)), reverse=True)
    chosen: list[int] = []
    for of_kind, kind in of_kinds[:MOST_KINDS]:
        own = np.flatnonzero(names == kind)
        own = own[np.argsort(sizes[own], kind="stable")]
        wanted = min(len(own), max(1, round(count * of_kind / total)))
        chosen += own[((np.arange(wanted) + 0.5) * len(own) / wanted).astype(int)].tolist()
    return np.unique(chosen)


def shorten(path: Path, target: Path, most_bytes: int = LONG_BYTES) -> tuple[Path, float]:
    """Return the file to time in place of a clip, and its share of the clip's bytes.

    That is the clip itself, unless it has more than `most_bytes`: then `target`, with its first packets. Where they
    cannot be copied, it is the clip itself, too.
    """
    size = path.stat().st_size
    if size <= most_bytes:
        return path, 1.0
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        _copy_packets(path, target, most_bytes)
    except (av.error.FFmpegError, ValueError):
        return path, 1.0
    return target, min(1.0, target.stat().st_size / size)


def _copy_packets(path: Path, target: Path, most_bytes: int) -> None:
    """Copy the first packets of the first video stream, without decoding them."""
    with av.open(str(path)) as source, av.open(str(target), "w") as out:
        stream = source.streams.video[0]
        copied = out.add_stream_from_template(stream)
        size = 0
        for packet in source.demux(stream):
            if packet.dts is None or size > most_bytes:
                break
            size += packet.size
            packet.stream = copied
            out.mux(packet)
