"""How exactly each backend reads clips whose motion is known."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from moclip.video.vector_records import Vectors
from pipeline.doctor.finding import PROBLEM, WARNING, Finding
from pipeline.doctor.sample_clips import STEP, encode, panning
from pipeline.doctor.versions import PYAV, first_line

READS = 10
"""How often each reader reads each clip. Of ten reads by mvextractor, nine differed where it loses vectors."""
TOLERANCE = 0.25
"""Mean error in px, a codec's finest step, beyond which vectors are wrong."""
_LOOK = {"preset": "veryfast", "crf": "20", "threads": "1"}
_X264 = "ref=1:b-adapt=0:scenecut=0:weightp=0:"
CLIPS: dict[str, tuple[str, str, dict[str, str], int]] = {
    "MPEG-4": ("mpeg4", ".avi", {"flags": "+qscale", "global_quality": str(2 * 118), "threads": "1"}, 1),
    "H.264": ("libx264", ".mp4", _LOOK | {"x264-params": _X264 + "bframes=0"}, 1),
    # B-frames that others refer to are x264's habit, and those whose vectors frame threads lose
    "H.264, B-frames": ("libx264", ".mp4", _LOOK | {"x264-params": _X264 + "bframes=2:b-pyramid=normal"}, 3),
}
"""Encoder, container, its options, and the most frames from a block to the one it is predicted from."""


def check_exactness(reads: int = READS) -> list[Finding]:
    """How exactly each reader reads clips whose motion is known: encoded here, and read `reads` times by each.

    Of each: whether all answers are the same, how many of the blocks are equal to those of PyAV on one thread, and how
    far the vectors are from the known motion.
    """
    try:
        from moclip.video.vectors import has_mvextractor
    except ImportError:  # said among the versions
        return []
    backends = [name for name in ("pyav", "mvextractor") if name == "pyav" or has_mvextractor()]
    found = []
    with TemporaryDirectory(prefix="moclip-") as folder:
        for name, (encoder, suffix, options, reach) in CLIPS.items():
            path = Path(folder) / f"clip{suffix}"
            try:
                encode(path, panning(48, (240, 320)), encoder, options)
            except Exception as problem:
                found.append(Finding(name, f"not tried: {first_line(problem)}", WARNING, PYAV))
                continue
            found += [_exactness(name, path, backend, reach, reads) for backend in backends]
    return found


def _exactness(name: str, path: Path, backend: str, reach: int, reads: int) -> Finding:
    from moclip.errors import VideoError
    from moclip.video.vectors import read_vectors

    what = f"{name}, {backend}"
    try:
        reference = read_vectors(path, "pyav")
        answers = [read_vectors(path, backend) for _ in range(reads)]
    except VideoError as problem:
        return Finding(what, problem.what, PROBLEM, PYAV)
    different = len({frozenset(_rows(answer).items()) for answer in answers})
    equal = min(equal_blocks(answer, reference) for answer in answers)
    error = max(error_px(answer, reach) for answer in answers)
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
    return replace(finding, state=PROBLEM, advice=PYAV)


def equal_blocks(vectors: Vectors, reference: Vectors) -> float:
    """Share of blocks that two readings of a clip have in common, of those of the one that has more."""
    one, other = _rows(vectors), _rows(reference)
    return (one & other).total() / max(one.total(), other.total())


def _rows(vectors: Vectors) -> Counter[bytes]:
    """Each block with the number of its frame, and how often it occurs."""
    rows = np.ascontiguousarray(np.column_stack([vectors.frame, vectors.blocks]), np.int32)
    return Counter(rows.view(f"V{rows.shape[1] * rows.itemsize}").ravel().tolist())


def error_px(vectors: Vectors, reach: int) -> float:
    """Mean absolute difference in px of the vectors' parts from the known motion, on blocks well inside the picture.

    Everything moves by `STEP` a frame; how many frames lie between a block and its source, up to `reach`, no file says.
    """
    blocks = vectors.blocks
    past, x, y = blocks[:, 0] < 0, blocks[:, 5], blocks[:, 6]
    margin = 16 + reach * max(STEP)  # a block at the edge may have its source outside
    inside = (x > margin) & (y > margin) & (x < vectors.width - margin) & (y < vectors.height - margin)
    if not inside.any():
        return float(np.mean(STEP))  # as if nothing moved
    moved = np.where(past, -1, 1)[:, None] * blocks[:, 7:9] / blocks[:, 9:]
    known = np.arange(1, reach + 1)[:, None, None] * np.array(STEP)
    return float(np.abs(moved[inside] - known).mean(axis=2).min(axis=0).mean())
