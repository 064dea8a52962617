"""Check which codecs FFmpeg decodes here, and which of them export motion vectors."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.doctor.finding import OK, PROBLEM, WARNING, Finding
from pipeline.doctor.sample_clips import encode, panning_pictures
from pipeline.doctor.versions import INSTALL_PYAV

WITHOUT_VECTORS = ("hevc", "vp9", "av1")
"""Codecs that FFmpeg decodes without exporting motion vectors."""
ENCODERS = {"mpeg4": "needed by index.transcode: mpeg4", "libx264": "needed to draw into .mp4 files"}
_MOST_USED = ("h264", "mpeg4")
_SIZE = (144, 176)  # height and width in px; H.263 allows few sizes


def check_codecs() -> list[Finding]:
    """Encode a clip with each codec, and check whether it is decoded and exports motion vectors."""
    try:
        from moclip.video.decoding import MOTION_CODECS
    except ImportError:  # the findings on versions say so
        return []
    names = (*_MOST_USED, *sorted(MOTION_CODECS.difference(_MOST_USED)), *WITHOUT_VECTORS)
    with TemporaryDirectory(prefix="moclip-") as folder:
        # the NUT container takes every codec
        found = [_check_decoder(name, Path(folder) / f"{name}.nut") for name in names]
    return found + [_check_encoder(name, advice) for name, advice in ENCODERS.items()]


def _check_decoder(codec: str, path: Path) -> Finding:
    found = f"decoder; {_try_vectors(codec, path)}" if _implementation(codec, "r") else "no decoder"
    if codec in WITHOUT_VECTORS and _implementation(codec, "r"):
        return Finding(codec, found, OK, "read such clips with index.transcode: mpeg4")
    if found in (f"decoder; {_EXPORTS}", f"decoder; {_NOT_TRIED}"):
        return Finding(codec, found)
    return Finding(codec, found, PROBLEM if codec in _MOST_USED else WARNING, INSTALL_PYAV)


_EXPORTS, _NOT_TRIED = "exports motion vectors", "not tried, there is no encoder"


def _try_vectors(codec: str, path: Path) -> str:
    """Encode a clip at `path`, read its motion vectors, and return what happened."""
    from moclip.errors import VideoError
    from moclip.video.vectors import read_vectors

    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder prints errors only
    try:
        encode(path, panning_pictures(6, _SIZE), _implementation(codec, "w"), {"x265-params": "log-level=none"})
    except Exception:  # no encoder, or one that needs hardware
        return _NOT_TRIED
    try:
        read_vectors(path, "pyav")
    except VideoError as problem:
        return problem.what
    return _EXPORTS


def _check_encoder(name: str, use: str) -> Finding:
    if _implementation(name, "w"):
        return Finding(f"encoder {name}", "available")
    return Finding(f"encoder {name}", "none", WARNING, use)


def _implementation(codec: str, mode: str) -> str:
    """Return the name of FFmpeg's decoder ("r") or encoder ("w"), "" if there is none."""
    from av.codec import Codec

    try:
        return str(Codec(codec, mode).name)
    except ValueError:  # PyAV's UnknownCodecError
        return ""
