"""Read compressed video: what a file holds, its codec's motion vectors, single frames.

`probe` fills a row of the index, `windows`/`read_vectors` feed the motion fields, `read_frames` feeds CLIP, `one_pass`
feeds predictions. Frame k of a clip is, for all of them, the k-th picture that a plain decode on one thread shows.
"""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import importlib.util
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.error import FFmpegError
from av.sidedata.sidedata import SideDataContainer

from moclip import h264, processes, storage
from moclip.errors import DatasetError, MoclipError, VideoError

VIDEO_SUFFIXES = (".avi", ".mp4", ".mkv", ".mov", ".webm")
MOTION_CODECS = frozenset(
    ("h264", "mpeg4", "mpeg1video", "mpeg2video", "h263", "flv", "msmpeg4", "msmpeg4v2", "wmv1", "wmv2")
)
# FFmpeg fills in the vectors of B-frames for these codecs only; for others it exports zeros, or leftovers.
B_VECTOR_CODECS = frozenset(("h264", "mpeg1video", "mpeg2video"))
BACKENDS = ("mvextractor", "pyav")
I_FRAME, P_FRAME, B_FRAME = (ord(letter) for letter in "IPB")

WINDOW_BYTES = 1 << 20  # of raw vectors: small enough to stay in the CPU's cache, large enough to vectorise
WINDOW_FRAMES = 64  # twice as many as 32 take a tenth less time at 320x240, in one process and in two
HELD_BYTES = 64 << 20  # of a file's packets, kept between counting and decoding them
HASHED_BYTES = 1 << 20  # of a file, read at once
MACROBLOCK = 16  # px
MOST_PIXELS = 8192 * 8192  # of a picture: a header may claim any size, and memory is taken for it
LIMITS = {"max_pixels": str(MOST_PIXELS)}
EXPORT = LIMITS | {"flags2": "+export_mvs"}
WITHOUT_PIXELS = {"skip_loop_filter": "all", "skip_idct": "all"}
"""Decoder options that leave out work on pixels. Vectors are parsed from the bitstream, so those of intact pictures
stay the same, and so does which pictures there are. For damaged ones see `DamagedError`."""
RE_ENCODE = "re-encode the file, for example: ffmpeg -i {name} -c:v mpeg4 -q:v 1 -g 12 -bf 0 out.avi"

# FFmpeg's AVMotionVector, 40 bytes with padding; the backend's columns follow in mvextractor's order.
_RAW = np.dtype(
    [
        ("source", "i4"), ("w", "u1"), ("h", "u1"), ("src_x", "i2"), ("src_y", "i2"), ("dst_x", "i2"),
        ("dst_y", "i2"), ("flags", "u8"), ("motion_x", "i4"), ("motion_y", "i4"), ("motion_scale", "u2"),
    ],
    align=True,
)  # fmt: skip
_WORD = np.dtype("i8")
_WORDS = _RAW.itemsize // _WORD.itemsize  # those of a record
_MOTION_WORD = dict(_RAW.fields or {})["motion_x"][1] // _WORD.itemsize  # motion_x and motion_y together
COLUMNS = ("source", "w", "h", "src_x", "src_y", "dst_x", "dst_y", "motion_x", "motion_y", "motion_scale")
_PICTURE = tuple(b"PIPBPIPI")  # FFmpeg's picture types: none, I, P, B, S, SI, SP, BI
_LETTER = {"I": I_FRAME, "i": I_FRAME, "b": I_FRAME, "B": B_FRAME}  # everything else predicts from the past


class Orientation(NamedTuple):
    """How the file asks for its pictures to be shown: what is (x, y) in them is shown at (xx x + xy y, yx x + yy y).

    Each number is -1, 0 or 1: quarter turns and mirror images, as cameras note them in a display matrix.
    """

    xx: int = 1
    xy: int = 0
    yx: int = 0
    yy: int = 1

    @property
    def swaps(self) -> bool:
        """Whether rows are shown as columns."""
        return self.xx == 0

    def upright(self, pictures: np.ndarray, axes: tuple[int, int]) -> np.ndarray:
        """Turn arrays whose `axes` are (rows, columns) of pictures as coded to pictures as shown."""
        if self.swaps:
            pictures = np.swapaxes(pictures, *axes)
        signs = (self.yx + self.yy, self.xx + self.xy)
        return np.flip(pictures, tuple(axis for axis, sign in zip(axes, signs, strict=True) if sign < 0))


AS_CODED = Orientation()


class Geometry(NamedTuple):
    """How a stream's pictures lie in the coded ones.

    width, height : a decoded picture's size in px, cropped and not yet turned.
    orientation : how it is to be shown.
    left, top : px of the coded picture that are cropped away at these sides.
    """

    width: int
    height: int
    orientation: Orientation = AS_CODED
    left: int = 0
    top: int = 0

    @property
    def shown(self) -> tuple[int, int]:
        """Width and height in px once it is turned."""
        return (self.height, self.width) if self.orientation.swaps else (self.width, self.height)


@dataclass(frozen=True)
class VideoInfo:
    """What the index says of a video.

    codec : FFmpeg's name of it.
    width, height : px, as shown.
    fps : frames a second on average.
    frames : how many pictures a plain decode shows.
    gop : the most frames from a key frame to the next.
    has_b : whether there are B-frames.
    damage : what of it does not decode, in words; empty where all does.
    seekable : whether decoding from a key frame on is known to give what decoding in order gives (see `read_frames`).
    """

    codec: str
    width: int
    height: int
    fps: float
    frames: int
    gop: int
    has_b: bool
    damage: str = ""
    seekable: bool = False


@dataclass(frozen=True)
class Vectors:
    """The motion vectors of some consecutive frames, in display order.

    blocks : int32 (N, 10), a block a row, columns as in `COLUMNS`; px, `motion` in 1/`motion_scale` px.
    frame : int32 (N,), which of the T frames a block belongs to, never decreasing.
    frame_types : uint8 (T,), the letters I, P and B as ASCII codes.
    width, height, orientation, left, top : as in `Geometry`. Blocks are in px of the cropped picture, not yet turned;
        the codec's macroblocks begin at (-left, -top).
    """

    blocks: np.ndarray
    frame: np.ndarray
    frame_types: np.ndarray
    width: int
    height: int
    orientation: Orientation = AS_CODED
    left: int = 0
    top: int = 0


class Decoded(NamedTuple):
    """A frame as it comes out of the decoder; who keeps it takes a `copy`, without the picture.

    picture : PyAV's; `shown` makes an array of it.
    kind : its type, as in `Vectors.frame_types`.
    vectors : its motion vectors as FFmpeg keeps them; `unpacked` makes arrays of them. None: it has none.
    moves : whether a frame of its type has motion vectors in this codec.
    geometry : how it lies in the coded picture.
    """

    picture: Any
    kind: int
    vectors: Any
    moves: bool
    geometry: Geometry

    def copy(self) -> Decoded:
        """Without the picture, and with vectors of its own."""
        vectors = None if self.vectors is None else bytes(self.vectors)
        return Decoded(None, self.kind, vectors, self.moves, self.geometry)


class InexactError(MoclipError):
    """mvextractor met a stream that it does not read exactly; PyAV must read it."""


class DamagedError(MoclipError):
    """A damaged picture was met while the work on pixels was left out.

    FFmpeg makes up the vectors of damaged blocks from what the pixels around them look like (error concealment), so
    the file must be read again with that work done.
    """


class _Packet(NamedTuple):
    """A packet that holds a picture: its time stamps, and whether it is a key frame, or decoded and not shown."""

    pts: int | None
    dts: int | None
    is_key: bool
    is_discarded: bool


class _Start(NamedTuple):
    """A key frame's packet: when it is decoded, and where it lies in the file."""

    dts: int | None
    pos: int | None
    size: int


class _Picture(NamedTuple):
    """What `probe` keeps of a decoded picture; `kind` as in `Vectors.frame_types`."""

    pts: int | None
    kind: int
    is_key: bool
    is_damaged: bool


# ----------------------------------------------------------------------------------------- what a file holds


def clips_in(paths: Sequence[Path]) -> list[Path]:
    """The files named; of folders all clips within, of patterns ("clips/**/*_g01_*") all that they meet, sorted.

    Each file once. What is hidden in a folder, and what a system keeps there, is left out unless a path or a pattern
    names it. Raises DatasetError for a folder or a pattern that holds no clip.
    """
    clips: list[Path] = []
    for path in paths:
        if os.path.isdir(path):  # noqa: PTH112  false for a name that is too long, where Path's method raises
            found = _clips_below(path)
            if not found:
                fix = f"clips end in {', '.join(VIDEO_SUFFIXES)}"
                raise DatasetError("no clips in this folder", where=path, fix=fix)
            clips += found
        elif os.path.lexists(path) or not glob.has_magic(str(path)):
            clips.append(path)
        else:
            clips += _clips_met(path)
    return list(dict.fromkeys(clips))


def _clips_met(pattern: Path) -> list[Path]:
    """The clips that a pattern meets, and those in folders that it meets; where it meets no clip, all other files."""
    met = [Path(name) for name in sorted(glob.glob(str(pattern), recursive=True))]  # noqa: PTH207  may be absolute
    met = [one for one in met if all(_is_asked_for(part, pattern) for part in one.parts)]
    if not met:
        raise DatasetError("no file is called so", where=pattern)
    clips: list[Path] = []
    for one in met:
        if one.is_dir():
            clips += _clips_below(one)
        elif one.suffix.lower() in VIDEO_SUFFIXES:
            clips.append(one)
    if not clips and all(one.is_dir() for one in met):
        raise DatasetError("no clips in these folders", where=pattern, fix=f"clips end in {', '.join(VIDEO_SUFFIXES)}")
    return clips or [one for one in met if not one.is_dir()]


def _is_asked_for(name: str, pattern: Path) -> bool:
    """Whether a pattern may meet a file or folder: a hidden one only where a hidden part of the pattern does."""
    return not storage.is_hidden(name) or any(
        storage.is_hidden(part) and fnmatch.fnmatchcase(name, part) for part in pattern.parts
    )


def _clips_below(folder: Path) -> list[Path]:
    return [
        inner
        for inner in sorted(folder.rglob("*"))
        if inner.suffix.lower() in VIDEO_SUFFIXES
        and not inner.is_dir()
        and not any(map(storage.is_hidden, inner.relative_to(folder).parts))
    ]


def md5(path: str | Path) -> str:
    """Return the MD5 of the file's bytes, in hexadecimal."""
    whole = hashlib.md5()
    with Path(path).open("rb") as file:
        while piece := file.read(HASHED_BYTES):
            processes.still_alive()  # a large file on a slow disk
            whole.update(piece)
    return whole.hexdigest()


def check_unchanged(path: Path, content: str) -> None:
    """Raise VideoError where the file's MD5 is not `content`; what is missing, decoding will say."""
    if path.exists() and md5(path) != content:
        raise VideoError("it has changed since it was indexed", where=path, fix="run: dvc repro")


def probe(path: str | Path) -> VideoInfo:
    """Describe a video by decoding all of it, with the work on pixels left out.

    Raises
    ------
    VideoError
        It is no video, its codec exports no motion vectors, a picture of it is interlaced or of another size than the
        first, or fewer than two pictures decode.
    """
    packets: list[_Packet] = []
    pictures: list[_Picture] = []
    lost: list[str] = []
    size = (0, 0)
    with _opened(path) as (container, stream):
        _check_codec(path, stream)
        stream.codec_context.options = LIMITS | WITHOUT_PIXELS
        read = _noted(_packets(container, stream, lost), packets)
        for picture, geometry in _checked_pictures(path, stream, read, lost):
            kind = _PICTURE[int(picture.pict_type)]
            pictures.append(_Picture(picture.pts, kind, picture.key_frame, picture.is_corrupt))
            size = geometry.shown
        codec, rate = stream.codec_context.name, stream.average_rate or stream.guessed_rate or 0
    _check_count(path, len(pictures))
    damage = _damage(packets, pictures, lost)
    return VideoInfo(
        codec=codec,
        width=size[0],
        height=size[1],
        fps=float(rate),
        frames=len(pictures),
        gop=_longest_gop(pictures),
        has_b=any(picture.kind == B_FRAME for picture in pictures),
        damage=damage,
        seekable=not damage and _can_seek(packets, pictures),
    )


def _longest_gop(pictures: list[_Picture]) -> int:
    keys = [number for number, picture in enumerate(pictures) if picture.is_key]
    return max(after - before for before, after in pairwise([*(keys or [0]), len(pictures)]))


def _damage(packets: list[_Packet], pictures: list[_Picture], lost: list[str]) -> str:
    """What of a file does not decode, in words."""
    found = []
    wanted = sum(not packet.is_discarded for packet in packets)
    if len(pictures) < wanted:
        found.append(f"{wanted - len(pictures)} of {wanted} packets give no picture")
    if damaged := sum(picture.is_damaged for picture in pictures):
        found.append(f"{damaged} of {len(pictures)} pictures are damaged")
    return ", ".join(found or lost[:1])


def _can_seek(packets: list[_Packet], pictures: list[_Picture]) -> bool:
    """Whether time stamps tell the number of each picture, and the order of the packets in the file."""
    stamps = [packet.pts for packet in packets if packet.pts is not None]
    decoded = [packet.dts for packet in packets if packet.dts is not None]
    complete = len(stamps) == len(decoded) == len(packets) and not any(packet.is_discarded for packet in packets)
    in_order = [picture.pts for picture in pictures] == sorted(set(stamps))
    return complete and in_order and packets[0].is_key and all(a < b for a, b in pairwise(decoded))


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[Any, Any]]:
    """Open the file's main video stream for decoding on one thread (processes are the parallelism)."""
    try:
        # "file:", or what stands before a colon in a name would be taken for a protocol; titles have any encoding
        container = av.open(f"file:{path}", metadata_errors="replace")
    except FileNotFoundError as error:
        raise VideoError("no such file", where=path) from error
    except (FFmpegError, OSError, ValueError) as error:
        raise VideoError(f"not a video file ({_plain(error)})", where=path, fix=_recheck(path)) from error
    with container:
        stream: Any = container.streams.best("video")
        if stream is None:
            raise VideoError("no video stream in the file", where=path, fix="remove it, or replace it by a video")
        if stream.codec_context is None:
            raise VideoError("its video codec is unknown", where=path, fix=_re_encode(path))
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > MOST_PIXELS:
            what = f"pictures of {width}x{height} px, more than {MOST_PIXELS:,} px"
            raise VideoError(what, where=path, fix=_re_encode(path))
        # the same for all ways to read: where vectors are exported, damaged MPEG-1 and -2 is concealed otherwise
        stream.codec_context.options = EXPORT
        stream.codec_context.thread_type = "NONE"
        yield container, stream


def _check_codec(path: str | Path, stream: Any) -> None:
    codec = stream.codec_context.codec.canonical_name
    if stream.codec_context.name not in MOTION_CODECS:
        what = f"codec {codec} exports no motion vectors"
        raise VideoError(what, where=path, fix=f"transcode it to H.264 or MPEG-4: {_re_encode(path)}")


def _check_count(path: str | Path, frames: int) -> None:
    if frames == 0:
        raise VideoError("no picture in it can be decoded", where=path, fix=_recheck(path))
    if frames == 1:
        what = "1 frame: a clip needs at least 2 to have motion"
        raise VideoError(what, where=path, fix="remove it, or replace it by a longer clip")


def _checked_pictures(
    path: str | Path, stream: Any, packets: Iterable[Any], lost: list[str]
) -> Iterator[tuple[Any, Geometry]]:
    """Yield decoded pictures in display order, with how they lie in the coded ones.

    Raises VideoError at the first that is interlaced, or has another size or orientation than those before; and at the
    end where the cropping has changed.
    """
    keys: list[bytes] = []
    croppings: list[list[h264.Cropping]] = []
    geometry: Geometry | None = None
    for picture in _pictures(_with_key_frames(stream, packets, keys, croppings), stream, lost):
        _check_progressive(path, stream, picture)
        if geometry is None:
            cropped = _cropped(path, stream, picture, keys[0] if keys else b"")
            geometry = Geometry(picture.width, picture.height, _orientation(picture), *cropped)
        if geometry[:2] != (picture.width, picture.height):
            sizes = f"{geometry.width}x{geometry.height} to {picture.width}x{picture.height}"
            raise VideoError(f"the picture's size changes from {sizes} midway", where=path, fix=_re_encode(path))
        if geometry.orientation != _orientation(picture):
            raise VideoError("the picture's orientation changes midway", where=path, fix=_re_encode(path))
        yield picture, geometry
    if len(croppings) > 1:  # at the end: pictures that are interlaced, or of another size, are told as such
        raise VideoError("the picture's cropping changes midway", where=path, fix=_re_encode(path))


def _with_key_frames(
    stream: Any, packets: Iterable[Any], keys: list[bytes], croppings: list[list[h264.Cropping]]
) -> Iterator[Any]:
    """Pass packets on; the content of the first key frame is put into `keys`.

    Where key frames of H.264 bring a cropping with them, each that differs from the one before is put into `croppings`.
    """
    is_h264, extradata = stream.codec_context.name == "h264", stream.codec_context.extradata or b""
    for packet in packets:
        if packet is not None and packet.is_keyframe and (is_h264 or not keys):
            content = bytes(packet)
            keys[:] = keys or [content]
            brought = h264.croppings_in(content, extradata) if is_h264 else []
            if brought and croppings[-1:] != [brought]:
                croppings.append(brought)
        yield packet


def _noted(packets: Iterable[Any], notes: list[_Packet]) -> Iterator[Any]:
    """Pass packets on; what is to be known of those that hold a picture is added to `notes`."""
    for packet in packets:
        if packet is not None and packet.size:
            notes.append(_Packet(packet.pts, packet.dts, packet.is_keyframe, packet.is_discard))
        yield packet


def _cropped(path: str | Path, stream: Any, picture: Any, key_frame: bytes) -> tuple[int, int]:
    """How many px of the coded picture were cropped away at its left and top; of the codecs here, H.264 does so.

    FFmpeg crops whole machine words at the left, perhaps less than the stream asks for, and the rest stays in the
    picture: so what was cropped follows from the sizes. Where no parameter set fits, the picture must begin where the
    coded one does: what lacks is less than a macroblock, the padding at the right and bottom.
    """
    context = stream.codec_context
    extradata = context.extradata or b""
    if context.name != "h264":
        return 0, 0
    for asked in [*h264.croppings_in(key_frame, extradata), *h264.croppings(extradata)]:
        left = context.coded_width - asked.right - picture.width
        top = context.coded_height - asked.bottom - picture.height
        if 0 <= left <= asked.left and top == asked.top:
            return left, top
    if max(context.coded_width - picture.width, context.coded_height - picture.height) >= MACROBLOCK:
        raise VideoError("its cropping cannot be read", where=path, fix=_re_encode(path))
    return 0, 0


def _check_progressive(path: str | Path, stream: Any, picture: Any) -> None:
    if picture.interlaced_frame or stream.codec_context.field_order > 1:
        what = "interlaced video: its blocks belong to fields, not to frames"
        raise VideoError(what, where=path, fix=f"deinterlace it: ffmpeg -i {Path(path).name} -vf yadif out.mp4")


def _orientation(picture: Any) -> Orientation:
    """Read the display matrix (FFmpeg: nine int32, 16.16 fixed point, by columns); slanted ones count as none."""
    side = SideDataContainer(picture).get("DISPLAYMATRIX")  # type: ignore[call-arg]
    if side is None:
        return AS_CODED
    xx, yx, _, xy, yy, *_ = (round(value / 65536) for value in np.frombuffer(bytes(side), np.int32).tolist())
    whole = sorted((abs(xx), abs(xy))) == sorted((abs(yx), abs(yy))) == [0, 1] and abs(xx) == abs(yy)
    return Orientation(xx, xy, yx, yy) if whole else AS_CODED


@contextmanager
def decoding(path: str | Path) -> Iterator[tuple[Fraction, Iterator[Any]]]:
    """Open a video of any codec: frames a second on average, and its pictures (PyAV's) as shown, in display order.

    Pictures that do not decode are left out.

    Raises
    ------
    VideoError
        It is no video, nothing in it decodes, or a picture is interlaced (which may show midway).
    """
    with _opened(path) as (container, stream):
        pictures = _progressive(path, stream, _pictures(_packets(container, stream, []), stream, []))
        first = next(pictures, None)
        if first is None:
            raise VideoError("no picture in it can be decoded", where=path, fix=_recheck(path))
        yield Fraction(stream.average_rate or stream.guessed_rate or 25), map(_turned, chain([first], pictures))


def _progressive(path: str | Path, stream: Any, pictures: Iterable[Any]) -> Iterator[Any]:
    for picture in pictures:
        _check_progressive(path, stream, picture)
        yield picture


def _packets(container: Any, stream: Any, lost: list[str]) -> Iterator[Any]:
    """Yield the stream's packets; where the container breaks off, which is noted in `lost`, None ends them."""
    try:
        for packet in container.demux(stream):
            processes.still_alive()
            yield packet
    except FFmpegError as error:  # what came before is still good
        lost.append(_plain(error))
        yield None


def _pictures(packets: Iterable[Any], stream: Any, lost: list[str]) -> Iterator[Any]:
    """Yield decoded frames in display order; what does not decode is noted in `lost` and left out."""
    for packet in packets:
        processes.still_alive()
        try:
            yield from stream.codec_context.decode(packet) if packet is None else packet.decode()
        except FFmpegError as error:
            lost.append(_plain(error))


def _plain(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)


def _recheck(path: str | Path) -> str:
    return f"check that {Path(path).name} plays; copy it again if it was cut short"


def _re_encode(path: str | Path) -> str:
    return RE_ENCODE.format(name=Path(path).name)


# -------------------------------------------------------------------------------------------- motion vectors


def choose_backend(info_codec: str, has_b: bool, requested: str = "auto") -> str:
    """Name the backend that reads a stream exactly: PyAV, or mvextractor where it is asked for and exact.

    mvextractor decodes on frame threads and loses vectors of H.264 B-frames, at random. MPEG-4 Part 2 and
    H.264 without B-frames it reads exactly, unless they are damaged, in twice the time that PyAV takes where
    `windows` spares it the pixels.

    Raises
    ------
    MoclipError
        `requested` is no backend, or is not installed.
    """
    if requested not in ("auto", *BACKENDS):
        raise MoclipError(f"unknown backend {requested!r}", fix=f"use auto, {' or '.join(BACKENDS)}")
    if requested == "mvextractor" and not has_mvextractor():
        fix = "pip install motion-vector-extractor (x86-64 Linux), or use the backend auto"
        raise MoclipError("the backend mvextractor is not installed", fix=fix)
    exact = info_codec == "mpeg4" or (info_codec == "h264" and not has_b)
    return "mvextractor" if requested == "mvextractor" and exact else "pyav"


def has_mvextractor() -> bool:
    """Say whether that backend is installed (it is built for x86-64 Linux only)."""
    return importlib.util.find_spec("mvextractor") is not None


def read_vectors(path: str | Path, backend: str) -> Vectors:
    """Read all motion vectors of a video; `windows` does the same in bounded memory.

    Raises
    ------
    VideoError
        Nothing decodes, or no frame has motion vectors.
    """
    try:
        parts = list(windows(path, backend))
    except DamagedError:
        parts = list(windows(path, backend, damaged=True))
    starts = np.cumsum([0, *(len(part.frame_types) for part in parts[:-1])])
    return Vectors(
        blocks=np.concatenate([part.blocks for part in parts]),
        frame=np.concatenate(
            [part.frame + np.int32(start) for part, start in zip(parts, starts, strict=True)], dtype=np.int32
        ),
        frame_types=np.concatenate([part.frame_types for part in parts]),
        width=parts[0].width,
        height=parts[0].height,
        orientation=parts[0].orientation,
        left=parts[0].left,
        top=parts[0].top,
    )


def windows(
    path: str | Path, backend: str, *, refuse_b: bool = False, moving_only: bool = False, damaged: bool = False
) -> Iterator[Vectors]:
    """Yield the motion vectors of a video, a few hundred frames at most at a time.

    PyAV leaves out the work on pixels, a quarter of the time, unless the video is said to be `damaged`: then vectors of
    damaged blocks are needed that FFmpeg makes up from pixels.

    B-frames have none but in H.264, MPEG-1 and MPEG-2: FFmpeg does not export those of other codecs. With
    `moving_only`, blocks that PyAV reads and that `motion.fields` can do without may be left out (see `in_windows`).

    With `refuse_b`, a B-frame met by mvextractor raises `InexactError`: the index may have been wrong about
    it.

    Raises
    ------
    VideoError
        Fewer than two pictures decode, one is interlaced or of another size, or none has motion vectors.
    DamagedError
        A picture is damaged, which was not said.
    """
    if backend == "mvextractor":
        return _read_mvextractor(path, refuse_b)
    return _read_pyav(path, moving_only, damaged)


def _check_found(path: str | Path, frames: int, vectors: int) -> None:
    _check_count(path, frames)
    if vectors == 0:
        raise VideoError("no motion vectors in any frame", where=path, fix=_re_encode(path))


def _read_mvextractor(path: str | Path, refuse_b: bool) -> Iterator[Vectors]:
    from mvextractor.videocap import VideoCap

    with _opened(path) as (_, stream):
        blind_b = stream.codec_context.name not in B_VECTOR_CODECS
    geometry = _geometry(path)
    video = VideoCap()
    if not video.open(str(Path(path).absolute())):  # else a colon in the name makes it a protocol
        raise VideoError("mvextractor cannot open it", where=path, fix="use the backend pyav")
    video.set_decode_frames(False)
    try:
        arrays: list[np.ndarray] = []
        types: list[int] = []
        weight = frames = vectors = 0
        while True:
            ok, _, found, letter = video.read()
            processes.still_alive()
            if not ok:
                break
            kind = _LETTER.get(letter, P_FRAME)
            if refuse_b and kind == B_FRAME:
                raise InexactError("mvextractor met a B-frame", where=path, fix="use the backend pyav")
            arrays.append(found[:0] if blind_b and kind == B_FRAME else found)
            types.append(kind)
            frames += 1
            vectors += len(arrays[-1])
            weight += found.nbytes
            if weight > WINDOW_BYTES or len(types) == WINDOW_FRAMES:
                yield _joined(arrays, types, geometry)
                arrays, types, weight = [], [], 0
        if types:
            yield _joined(arrays, types, geometry)
        _check_found(path, frames, vectors)
    finally:
        video.release()


def _geometry(path: str | Path) -> Geometry:
    with _opened(path) as (container, stream):
        stream.codec_context.options = LIMITS | WITHOUT_PIXELS
        for _, geometry in _checked_pictures(path, stream, _packets(container, stream, []), []):
            return geometry
    raise VideoError("no picture in it can be decoded", where=path, fix=_recheck(path))


def _joined(arrays: list[np.ndarray], types: list[int], geometry: Geometry) -> Vectors:
    counts = [len(array) for array in arrays]
    frame = np.repeat(np.arange(len(arrays), dtype=np.int32), counts)
    blocks = _in_the_picture(np.concatenate(arrays).astype(np.int32), geometry)
    return Vectors(blocks, frame, np.array(types, np.uint8), *geometry)


def _in_the_picture(blocks: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Blocks (N, 10) in px of the coded picture, in place moved to px of the cropped one."""
    if geometry.left or geometry.top:
        for name, cropped in (("src_x", geometry.left), ("dst_x", geometry.left)):
            blocks[:, COLUMNS.index(name)] -= cropped
        for name, cropped in (("src_y", geometry.top), ("dst_y", geometry.top)):
            blocks[:, COLUMNS.index(name)] -= cropped
    return blocks


def _read_pyav(path: str | Path, moving_only: bool, damaged: bool) -> Iterator[Vectors]:
    with _opened(path) as (container, stream):
        if not damaged:
            stream.codec_context.options = EXPORT | WITHOUT_PIXELS
        decoded = _decoded(path, stream, _packets(container, stream, []))
        yield from in_windows(decoded if damaged else _refused_where_damaged(path, decoded), moving_only)


def _refused_where_damaged(path: str | Path, decoded: Iterable[Decoded]) -> Iterator[Decoded]:
    for number, frame in enumerate(decoded):
        if frame.picture.is_corrupt:
            raise DamagedError(f"frame {number} is damaged", where=path, fix="index the videos again")
        yield frame


@contextmanager
def one_pass(path: str | Path) -> Iterator[tuple[int, Iterator[Decoded]]]:
    """Open a clip to decode it once, for its motion vectors and its pictures alike.

    Yields how many frames there are if every packet gives one, as in an intact file, and the frames that decode, in
    display order. The file is read once where it has at most `HELD_BYTES`, else twice: its packets are counted before
    the first is decoded.

    Raises
    ------
    VideoError
        As `probe` and `windows`.
    """
    with _opened(path) as (container, stream):
        _check_codec(path, stream)
        frames, held = _hold(_packets(container, stream, []))
        if held is not None:
            yield frames, _decoded(path, stream, held)
            return
    with _opened(path) as (container, stream):
        yield frames, _decoded(path, stream, _packets(container, stream, []))


def _hold(packets: Iterable[Any]) -> tuple[int, list[Any] | None]:
    """How many of the packets hold a picture that is shown, and all of them, unless they are too large to keep."""
    held: list[Any] = []
    frames = size = 0
    for packet in packets:
        if packet is not None:
            frames += packet.size > 0 and not packet.is_discard
            size += packet.size
        if size > HELD_BYTES:
            held = []
        else:
            held.append(packet)
    return frames, held if size <= HELD_BYTES else None


def _decoded(path: str | Path, stream: Any, packets: Iterable[Any]) -> Iterator[Decoded]:
    """Yield each frame that decodes, with its motion vectors. Raises VideoError, some of them only at the end."""
    blind_b = stream.codec_context.name not in B_VECTOR_CODECS
    frames = size = 0
    for picture, geometry in _checked_pictures(path, stream, packets, []):
        # `picture.side_data` would tie the picture into a cycle, and hundreds would wait for the collector.
        side = SideDataContainer(picture).get("MOTION_VECTORS")  # type: ignore[call-arg]
        kind = _PICTURE[int(picture.pict_type)]
        blind = blind_b and kind == B_FRAME
        vectors = None if blind else side
        frames += 1
        size += 0 if vectors is None else vectors.buffer_size
        yield Decoded(picture, kind, vectors, kind != I_FRAME and not blind, geometry)
    _check_found(path, frames, size)


def in_windows(decoded: Iterable[Decoded], moving_only: bool = False) -> Iterator[Vectors]:
    """Gather decoded frames' motion vectors, a few hundred frames' at most at a time.

    With `moving_only`, those that are zero are left out: no vector says the same. But a zero to the past stays where
    another block of its macroblock has one to the future that is not, since the past goes before it.
    """
    gathered = memoryview(bytearray(2 * WINDOW_BYTES))  # the same for all windows: it stays in the CPU's cache
    kinds: list[int] = []
    sizes: list[int] = []
    geometry = Geometry(0, 0)
    end = 0
    for frame in decoded:
        geometry = frame.geometry
        size = 0 if frame.vectors is None else frame.vectors.buffer_size
        if end + size > len(gathered):
            gathered = memoryview(bytearray(gathered[:end]) + bytearray(size + WINDOW_BYTES))
        if size:
            gathered[end : end + size] = memoryview(frame.vectors)
        end += size
        sizes.append(size)
        kinds.append(frame.kind)
        if end > WINDOW_BYTES or len(kinds) == WINDOW_FRAMES:
            yield _columns(gathered[:end], sizes, kinds, geometry, moving_only)
            kinds, sizes, end = [], [], 0
    if kinds:
        yield _columns(gathered[:end], sizes, kinds, geometry, moving_only)


def unpacked(frames: Sequence[Decoded]) -> Vectors:
    """The motion vectors of copies of a video's frames, at least one."""
    raw: list[bytes] = [frame.vectors or b"" for frame in frames]
    sizes, kinds = [len(piece) for piece in raw], [frame.kind for frame in frames]
    return _columns(b"".join(raw), sizes, kinds, frames[0].geometry, moving_only=False)


def _columns(
    raw: bytes | memoryview,
    sizes: Sequence[int],
    kinds: Sequence[int],
    geometry: Geometry,
    moving_only: bool,
) -> Vectors:
    """Copy FFmpeg's records out of `raw`, `sizes` bytes of each frame."""
    words = np.frombuffer(raw, _WORD).reshape(-1, _WORDS)
    records = words.view(_RAW)[:, 0]
    frame = np.repeat(np.arange(len(kinds), dtype=np.int32), [size // _RAW.itemsize for size in sizes])
    if moving_only:
        needed = words[:, _MOTION_WORD] != 0
        future = records["source"] > 0
        if future.any():
            place = _macroblocks(records, frame)
            reached = np.zeros(place.max() + 1, bool)
            reached[place[needed & future]] = True
            needed |= reached[place] & ~future
        moving = np.flatnonzero(needed)
        records, frame = words.take(moving, axis=0).view(_RAW)[:, 0], frame[moving]
    blocks = np.empty((len(records), len(COLUMNS)), np.int32, order="F")  # it is read by columns
    for column, name in enumerate(COLUMNS):
        blocks[:, column] = records[name]
    return Vectors(_in_the_picture(blocks, geometry), frame, np.array(kinds, np.uint8), *geometry)


def _macroblocks(records: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """A number (N,) of the macroblock that each block lies in, of its frame; the same for two only if one holds both.

    `dst` is a block's centre; streams that are cropped have some beyond the picture.
    """
    x, y = records["dst_x"] >> 4, records["dst_y"] >> 4
    columns, rows = int(x.max(initial=0)) + 1, int(y.max(initial=0)) + 1
    return (frame * rows + y) * columns + x


# ---------------------------------------------------------------------------------------------------- frames


def read_frames(path: str | Path, indices: Sequence[int] | np.ndarray, seekable: bool = False) -> np.ndarray:
    """The frames that `read_pictures` gives of a video whose size stays the same: uint8 (K, height, width, 3), RGB."""
    return np.stack(read_pictures(path, indices, seekable))


def read_pictures(path: str | Path, indices: Sequence[int] | np.ndarray, seekable: bool = False) -> list[np.ndarray]:
    """Decode the frames at `indices` (display order, from 0), turned as shown: each uint8 (height, width, 3), RGB.

    Decodes in order from the start, or, where `probe` found the video `seekable`, from the key frame before each wanted
    one. Where anything then looks otherwise than `probe` found it, they are decoded in order after all.

    Raises
    ------
    VideoError
        It cannot be decoded, or an index lies outside the video.
    """
    wanted = sorted({int(index) for index in indices})
    if wanted and wanted[0] < 0:
        raise VideoError(f"frame {wanted[0]} does not exist: frames count from 0", where=path)
    found = _read_seeking(path, wanted) if seekable else None
    if found is None:
        found = _read_in_order(path, wanted)
    if missing := [index for index in wanted if index not in found]:
        what = f"frame {missing[0]} is beyond the video's end"
        raise VideoError(what, where=path, fix="check the file, then index it again")
    return [found[int(index)] for index in indices]


def _read_in_order(path: str | Path, wanted: list[int]) -> dict[int, np.ndarray]:
    found: dict[int, np.ndarray] = {}
    left = set(wanted)
    with _opened(path) as (container, stream):
        for number, picture in enumerate(_pictures(_packets(container, stream, []), stream, [])):
            if number in left:
                found[number] = shown(picture)
                left.remove(number)
                if not left:
                    break
    return found


def _read_seeking(path: str | Path, wanted: list[int]) -> dict[int, np.ndarray] | None:
    """Read from key frames on, or return None where that might give other frames than reading in order."""
    found: dict[int, np.ndarray] = {}
    stamps: list[int] = []
    starts: dict[int, _Start] = {}
    with _opened(path) as (container, stream):
        try:
            for packet in _packets(container, stream, []):
                if packet is not None and packet.size and packet.pts is not None:
                    stamps.append(packet.pts)
                    if packet.is_keyframe and _is_clean_start(packet, stream):
                        starts[packet.pts] = _Start(packet.dts, packet.pos, packet.size)
            stamps.sort()
            if not wanted or wanted[-1] >= len(stamps) or not starts or min(starts) > stamps[wanted[0]]:
                return None
            for start, group in _by_start([stamps[index] for index in wanted], sorted(starts)):
                container.seek(starts[start].dts, stream=stream, backward=True)
                at = _decode_from(container, stream, starts, set(group))
                if at is None:
                    return None
                found.update(at)
        except FFmpegError:
            return None
    rank = {pts: number for number, pts in enumerate(stamps)}
    return {rank[pts]: picture for pts, picture in found.items()}


def _is_clean_start(packet: Any, stream: Any) -> bool:
    """Whether pictures shown after this key frame refer to nothing before it, as far as the codec promises that."""
    context = stream.codec_context
    if context.name == "h264":  # other key frames may be points of recovery, with pictures that refer to earlier ones
        return h264.is_idr(bytes(packet), context.extradata or b"")
    return context.name in MOTION_CODECS


def shown(picture: Any) -> np.ndarray:
    """One of PyAV's pictures as it is to be shown: uint8 (height, width, 3), RGB."""
    return np.ascontiguousarray(_orientation(picture).upright(picture.to_ndarray(format="rgb24", threads=1), (0, 1)))


def _turned(picture: Any) -> Any:
    """The same as a picture of PyAV's."""
    if _orientation(picture) == AS_CODED:
        return picture
    return av.VideoFrame.from_ndarray(shown(picture), "rgb24")


def _by_start(stamps: list[int], starts: list[int]) -> Iterator[tuple[int, list[int]]]:
    """Group sorted time stamps by the last start that is shown no later."""
    position = np.searchsorted(starts, stamps, side="right") - 1
    for number in np.unique(position):
        yield starts[number], [stamp for stamp, at in zip(stamps, position, strict=True) if at == number]


def _decode_from(
    container: Any, stream: Any, starts: Mapping[int, _Start], stamps: set[int]
) -> dict[int, np.ndarray] | None:
    """Decode from one of the key frames `starts` on until all `stamps` are there; None if that goes wrong."""
    found: dict[int, np.ndarray] = {}
    lost: list[str] = []
    packets = _packets(container, stream, lost)
    first = next(packets, None)
    if first is None or first.pts not in starts or first.pts > min(stamps):
        return None
    if starts[first.pts] != (first.dts, first.pos, first.size):  # the seek led to other bytes than reading in order
        return None
    for number, picture in enumerate(_pictures(chain([first], packets), stream, lost)):
        starts_clean = picture.pts == first.pts and _PICTURE[int(picture.pict_type)] == I_FRAME
        if lost or picture.is_corrupt or (number == 0 and not starts_clean):
            return None
        if picture.pts in stamps:
            found[picture.pts] = shown(picture)
            if len(found) == len(stamps):
                return found
    return None
