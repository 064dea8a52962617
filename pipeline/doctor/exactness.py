"""Check how exactly each backend reads clips whose motion is known."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from pipeline.doctor.finding import PROBLEM, WARNING, Finding
from pipeline.doctor.sample_clips import STEP, encode, panning_pictures
from pipeline.doctor.versions import INSTALL_PYAV, first_line

if TYPE_CHECKING:
    from moclip.video.vector_records import Vectors

READS = 10
"""How often each backend reads each clip. Where mvextractor loses vectors, nine of its ten reads differed."""
TOLERANCE = 0.25
"""Vectors with a larger mean error, in px, are wrong. It is the finest step of a codec."""
_X264 = {"preset": "veryfast", "crf": "20", "threads": "1"}
_FIXED_FRAMES = "ref=1:b-adapt=0:scenecut=0:weightp=0:"
CLIPS: dict[str, tuple[str, str, dict[str, str], int]] = {
    "MPEG-4": ("mpeg4", ".avi", {"flags": "+qscale", "global_quality": str(2 * 118), "threads": "1"}, 1),
    "H.264": ("libx264", ".mp4", _X264 | {"x264-params": _FIXED_FRAMES + "bframes=0"}, 1),
    # x264 uses B-frames as references by default; frame threads lose the vectors of those
    "H.264, B-frames": (
        "libx264",
        ".mp4",
        _X264 | {"x264-params": _FIXED_FRAMES + "bframes=2:b-pyramid=normal"},
        3,
    ),
}
"""Encoder, suffix, options, and the largest distance in frames between a block and its reference."""


def check_exactness(reads: int = READS) -> list[Finding]:
    """Encode clips with known motion and read each `reads` times with each backend.

    Each finding says whether all reads are the same, what share of the blocks equals those of PyAV on one thread, and
    how far the vectors are from the known motion.
    """
    try:
        from moclip.video.vectors import has_mvextractor
    except ImportError:  # the findings on versions say so
        return []
    backends = [name for name in ("pyav", "mvextractor") if name == "pyav" or has_mvextractor()]
    found = []
    with TemporaryDirectory(prefix="moclip-") as folder:
        for name, (encoder, suffix, options, max_distance) in CLIPS.items():
            path = Path(folder) / f"clip{suffix}"
            try:
                encode(path, panning_pictures(48, (240, 320)), encoder, options)
            except Exception as problem:
                found.append(Finding(name, f"not tried: {first_line(problem)}", WARNING, INSTALL_PYAV))
                continue
            found += [_check_backend(name, path, backend, max_distance, reads) for backend in backends]
    return found


def _check_backend(name: str, path: Path, backend: str, max_distance: int, reads: int) -> Finding:
    from moclip.errors import VideoError
    from moclip.video.vectors import read_vectors

    what = f"{name}, {backend}"
    try:
        reference = count_blocks(read_vectors(path, "pyav"))
        results = [read_vectors(path, backend) for _ in range(reads)]
    except VideoError as problem:
        return Finding(what, problem.what, PROBLEM, INSTALL_PYAV)
    blocks = [count_blocks(result) for result in results]
    different = len({frozenset(counts.items()) for counts in blocks})
    equal = min(shared_blocks(counts, reference) for counts in blocks)
    error = max(error_px(result, max_distance) for result in results)
    same = f"the same in {reads} reads" if different == 1 else f"{different} different answers in {reads} reads"
    finding = Finding(
        what,
        f"{same}, {equal:.1%} of the blocks as PyAV's, {error:.2f} px off",
        figures={"reads": reads, "answers": different, "equal_blocks": equal, "error_px": error},
    )
    if different == 1 and equal == 1 and error <= TOLERANCE:
        return finding
    if backend == "mvextractor":
        return replace(finding, state=WARNING, advice="nothing to do: such clips are always read with PyAV")
    return replace(finding, state=PROBLEM, advice=INSTALL_PYAV)


def shared_blocks(blocks: Counter[bytes], reference: Counter[bytes]) -> float:
    """Return the share of blocks that two reads of a clip have in common, relative to the read with more blocks."""
    return (blocks & reference).total() / max(blocks.total(), reference.total())


def count_blocks(vectors: Vectors) -> Counter[bytes]:
    """Return how often each block, with its frame number, occurs."""
    rows = np.ascontiguousarray(np.column_stack([vectors.frame, vectors.blocks]), np.int32)
    return Counter(rows.view(f"V{rows.shape[1] * rows.itemsize}").ravel().tolist())


def error_px(vectors: Vectors, max_distance: int) -> float:
    """Return the mean absolute error in px of the vectors' components, on blocks well inside the picture.

    Everything moves by `STEP` per frame. No file says how many frames lie between a block and its reference: up to
    `max_distance`, and the number that fits best is taken.
    """
    blocks = vectors.blocks
    past, x, y = blocks[:, 0] < 0, blocks[:, 5], blocks[:, 6]
    margin = 16 + max_distance * max(STEP)  # the reference of a block near the edge may be outside
    inside = (x > margin) & (y > margin) & (x < vectors.width - margin) & (y < vectors.height - margin)
    if not inside.any():
        return float(np.mean(STEP))  # as if nothing moved
    moved = np.where(past, -1, 1)[:, None] * blocks[:, 7:9] / blocks[:, 9:]
    known = np.arange(1, max_distance + 1)[:, None, None] * np.array(STEP)
    return float(np.abs(moved[inside] - known).mean(axis=2).min(axis=0).mean())
