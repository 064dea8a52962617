"""Which codecs FFmpeg decodes here, and which of them give motion vectors."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass
from pipeline.doctor.finding import OK, PROBLEM, WARNING, Finding
from pipeline.doctor.sample_clips import encode, panning
from pipeline.doctor.versions import PYAV

SILENT = ("hevc", "vp9", "av1")
"""Codecs of which FFmpeg decodes the pictures and exports no motion vectors."""
ENCODERS = {"mpeg4": "needed by index.transcode: mpeg4", "libx264": "needed to draw into .mp4 files"}
_MOST_USED = ("h264", "mpeg4")
_SIZE = (144, 176)  # height and width in px: H.263 has few sizes


def check_codecs() -> list[Finding]:
    """Which codecs are decoded here, and which of them give motion vectors: tried on clips encoded for it."""
    try:
        from moclip.video.decoding import MOTION_CODECS
    except ImportError:  # said among the versions
        return []
    names = (*_MOST_USED, *sorted(MOTION_CODECS.difference(_MOST_USED)), *SILENT)
    with TemporaryDirectory(prefix="moclip-") as folder:
        found = [_codec(name, Path(folder) / f"{name}.nut") for name in names]  # a container that takes all of them
    return found + [_encoder(name, advice) for name, advice in ENCODERS.items()]


def _codec(codec: str, path: Path) -> Finding:
    found = f"decoder; {_tried(codec, path)}" if _has(codec, "r") else "no decoder"
    if codec in SILENT and _has(codec, "r"):
        return Finding(codec, found, OK, "read such clips with index.transcode: mpeg4")
    if found in (f"decoder; {_EXPORTS}", f"decoder; {_NOT_TRIED}"):
        return Finding(codec, found)
    return Finding(codec, found, PROBLEM if codec in _MOST_USED else WARNING, PYAV)


_EXPORTS, _NOT_TRIED = "exports motion vectors", "not tried, there is no encoder"


def _tried(codec: str, path: Path) -> str:
    """What comes of reading the motion vectors of a clip encoded at `path`."""
    from moclip.errors import VideoError
    from moclip.video.vectors import read_vectors

    os.environ.setdefault("SVT_LOG", "1")  # of the AV1 encoder: errors only
    try:
        encode(path, panning(6, _SIZE), _has(codec, "w"), {"x265-params": "log-level=none"})
    except Exception:  # it may also be one that wants hardware
        return _NOT_TRIED
    try:
        read_vectors(path, "pyav")
    except VideoError as problem:
        return problem.what
    return _EXPORTS


def _encoder(name: str, use: str) -> Finding:
    return Finding(f"encoder {name}", "here") if _has(name, "w") else Finding(f"encoder {name}", "none", WARNING, use)


def _has(codec: str, mode: str) -> str:
    """The name of FFmpeg's decoder ("r") or encoder ("w"), empty where there is none."""
    from av.codec import Codec

    try:
        return str(Codec(codec, mode).name)
    except ValueError:  # PyAV's UnknownCodecError
        return ""


WITHOUT = "what is in its cache still works, and what is in a folder that clip.model or tsn.pretrained names"
