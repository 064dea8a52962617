"""Re-encode a clip to MPEG-4 Part 2 as CoViAR did: 340 x 256 px, a key frame every 12 frames, no B-frames, qscale 1.

`transcoded_folder` does so for a whole data set.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from hashlib import sha256
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import av
from av.error import FFmpegError
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from moclip.errors import MoclipError, VideoError
from moclip.files.atomic import atomic_file
from moclip.files.folders import is_absolute
from moclip.video.clip_files import file_md5
from moclip.video.decoding import open_pictures
from moclip.video.messages import error_text

WIDTH, HEIGHT = 340, 256  # px, whatever the source's aspect ratio
KEY_FRAME_INTERVAL = 12  # frames
QSCALE = 1  # as `ffmpeg -q:v 1`; the encoder's qmin is 2, so it uses 2
CODEC_OPTIONS = {
    "flags": "+qscale+bitexact",
    "global_quality": str(QSCALE * 118),  # FFmpeg's FF_QP2LAMBDA
    "g": str(KEY_FRAME_INTERVAL),
    "bf": "0",
    "sc_threshold": "1000000000",  # no extra key frame at a scene cut: each GOP has its 12 frames
    "threads": "1",
}
CONTAINER_OPTIONS = {"fflags": "+bitexact"}
SCALING: dict[str, Any] = {"interpolation": Interpolation.BICUBIC, "dst_color_range": ColorRange.MPEG}  # as `ffmpeg`
TRANSCODE_REVISION = 1  # raise it when this code writes other bytes: all clips are then transcoded again

_TRANSCODED_SUFFIX = ".avi"
_MAX_TICKS = 65535  # per second, in MPEG-4 Part 2
_HEADER_BYTES = 8192  # contain the key


def transcoded_name(clip: str) -> str:
    """Return the name of a clip's transcoded file: "Class/a.mp4" becomes "Class/a.mp4.avi".

    A clip at an absolute path or a URL gets a name of its own: "elsewhere/<digest>/a.mp4.avi".
    """
    if is_absolute(clip):
        clip = f"elsewhere/{sha256(clip.encode()).hexdigest()[:16]}/{PurePosixPath(clip).name}"
    return clip + _TRANSCODED_SUFFIX


def transcode_clip(source: str | Path, target: str | Path, key: str = "") -> None:
    """Re-encode a video into the AVI file `target`, atomically.

    The result has every picture that decodes, turned as shown, at the source's average rate, without sound. The same
    source gives the same bytes. `key` is stored as the file's comment (see `has_key`).

    Raises
    ------
    VideoError
        The source is no video, is interlaced, or nothing in it decodes.
    MoclipError
        `target` cannot be written.
    """
    with open_pictures(source) as (rate, pictures), atomic_file(target) as temporary:
        try:
            _encode(temporary, pictures, frame_duration(rate), key)
        except (FFmpegError, ValueError) as error:
            if isinstance(error, OSError):
                what = f"cannot be written: {error_text(error)}"
                raise MoclipError(what, where=target, fix="make room for it") from error
            raise VideoError(f"its pictures cannot be re-encoded ({error_text(error)})", where=source) from error


def _encode(path: Path, pictures: Iterator[Any], duration: Fraction, key: str) -> None:
    with av.open(f"file:{path}", "w", format="avi", container_options=CONTAINER_OPTIONS) as container:
        container.metadata["comment"] = key
        stream: Any = container.add_stream("mpeg4", rate=1 / duration)
        set_encoding(stream, stream.codec_context, duration)
        for scaled in scaled_pictures(pictures, duration):
            container.mux(stream.encode(scaled))
        container.mux(stream.encode(None))


def set_encoding(stream: Any, context: Any, duration: Fraction) -> None:
    """Set size, rate and options of an encoder: PyAV's stream, or its codec context alone."""
    stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    stream.sample_aspect_ratio = Fraction(1)
    context.time_base = duration
    stream.options = dict(CODEC_OPTIONS)


def scaled_pictures(pictures: Iterable[Any], duration: Fraction) -> Iterator[Any]:
    """Yield pictures as the encoder gets them: scaled, each `duration` seconds after the one before."""
    scaler = VideoReformatter()
    for number, picture in enumerate(pictures):
        scaled = scaler.reformat(picture, WIDTH, HEIGHT, "yuv420p", threads=1, **SCALING)
        scaled.pts, scaled.time_base = number, duration
        scaled.pict_type = 0  # the encoder chooses; otherwise it would keep the source's type
        yield scaled


def frame_duration(rate: Fraction) -> Fraction:
    """Return a frame's duration in seconds, as precisely as MPEG-4 Part 2 can store it."""
    return (1 / rate).limit_denominator(_MAX_TICKS) or Fraction(1, _MAX_TICKS)


@contextmanager
def transcoded_copy(source: Path) -> Iterator[Path]:
    """Yield a temporary transcoded copy, the bytes that the stage `transcode` writes. Raises as `transcode_clip`."""
    with TemporaryDirectory(prefix="moclip-") as folder:
        target = Path(folder) / transcoded_name(source.name)
        transcode_clip(source, target, transcode_key(source))
        yield target


def transcode_key(source: Path) -> str:
    """Return a digest of everything that the transcoded file depends on: source, settings, library versions."""
    scaling = sorted((name, int(value)) for name, value in SCALING.items())
    settings = (WIDTH, HEIGHT, CODEC_OPTIONS, CONTAINER_OPTIONS, scaling, TRANSCODE_REVISION)
    versions = (av.__version__, str(av.ffmpeg_version_info))
    return "moclip " + sha256(repr((file_md5(source), settings, versions)).encode()).hexdigest()


def has_key(path: Path, key: str) -> bool:
    """Return whether a transcoded file exists and was made with this `transcode_key`."""
    try:
        with path.open("rb") as file:
            return key.encode() in file.read(_HEADER_BYTES)
    except OSError:
        return False
