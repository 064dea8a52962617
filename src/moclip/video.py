"""Read compressed video: what a file holds, its codec's motion vectors, single frames.

`probe` fills a row of the index, `windows`/`read_vectors` feed the motion fields, `read_frames` feeds CLIP.
"""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import importlib.util
from collections.abc import Container, Iterable, Iterator, Sequence
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

from moclip import storage
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
MOST_PIXELS = 8192 * 8192  # of a picture: a header may claim any size, and memory is taken for it
LIMITS = {"max_pixels": str(MOST_PIXELS)}
EXPORT = LIMITS | {"flags2": "+export_mvs"}
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


@dataclass(frozen=True)
class VideoInfo:
    """What the index says of a video: sizes in px as shown, `gop` the most frames from a key frame to the next."""

    codec: str
    width: int
    height: int
    fps: float
    frames: int
    gop: int
    has_b: bool


@dataclass(frozen=True)
class Vectors:
    """The motion vectors of some consecutive frames, in display order.

    blocks : int32 (N, 10), a block a row, columns as in `COLUMNS`; px, `motion` in 1/`motion_scale` px.
    frame : int32 (N,), which of the T frames a block belongs to, never decreasing.
    frame_types : uint8 (T,), the letters I, P and B as ASCII codes.
    width, height : the coded picture's size in px.
    orientation : how the coded picture is to be shown; blocks are in coded positions.
    """

    blocks: np.ndarray
    frame: np.ndarray
    frame_types: np.ndarray
    width: int
    height: int
    orientation: Orientation = AS_CODED


class Decoded(NamedTuple):
    """A frame as it comes out of the decoder; who keeps it takes a `copy`, without the picture.

    picture : PyAV's; `shown` makes an array of it.
    kind : its type, as in `Vectors.frame_types`.
    vectors : its motion vectors as FFmpeg keeps them; `unpacked` makes arrays of them. None: it has none.
    moves : whether a frame of its type has motion vectors in this codec.
    look : the coded picture's width and height in px, and how it is to be shown.
    """

    picture: Any
    kind: int
    vectors: Any
    moves: bool
    look: tuple[int, int, Orientation]

    def copy(self) -> Decoded:
        """Without the picture, and with vectors of its own."""
        vectors = None if self.vectors is None else bytes(self.vectors)
        return Decoded(None, self.kind, vectors, self.moves, self.look)


class InexactError(MoclipError):
    """mvextractor met a stream that it does not read exactly; PyAV must read it."""


# ----------------------------------------------------------------------------------------- what a file holds


def clips_in(paths: Sequence[Path]) -> list[Path]:
    """The files named; of folders all clips within, of patterns ("clips/**/*_g01_*") all that they meet, sorted.

    Each file once. What is hidden in a folder, and what a system keeps there, is left out unless a path or a pattern
    names it. Raises DatasetError for a folder or a pattern that holds no clip.
    """
    clips: list[Path] = []
    for path in paths:
        if path.exists() or not glob.has_magic(str(path)):
            clips += _clips_below(path) if path.is_dir() else [path]
            continue
        met = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207  may be absolute
        met = [one for one in met if all(_is_asked_for(part, path) for part in one.parts)]
        if not met:
            raise DatasetError("no file is called so", where=path)
        found = clips_in([one for one in met if one.is_dir() or one.suffix.lower() in VIDEO_SUFFIXES])
        clips += found or met
    return list(dict.fromkeys(clips))


def _is_asked_for(name: str, pattern: Path) -> bool:
    """Whether a pattern may meet a file or folder: a hidden one only where a hidden part of the pattern does."""
    return not storage.is_hidden(name) or any(
        storage.is_hidden(part) and fnmatch.fnmatchcase(name, part) for part in pattern.parts
    )


def _clips_below(folder: Path) -> list[Path]:
    found = [
        inner
        for inner in sorted(folder.rglob("*"))
        if inner.suffix.lower() in VIDEO_SUFFIXES
        and not inner.is_dir()
        and not any(map(storage.is_hidden, inner.relative_to(folder).parts))
    ]
    if not found:
        raise DatasetError("no clips in this folder", where=folder, fix=f"clips end in {', '.join(VIDEO_SUFFIXES)}")
    return found


def md5(path: str | Path) -> str:
    """Return the MD5 of the file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def probe(path: str | Path) -> VideoInfo:
    """Describe a video by reading all of its packets and decoding its first pictures only.

    Raises
    ------
    VideoError
        It is no video, its codec exports no motion vectors, it is interlaced, or has fewer than two frames.
    """
    with _opened(path) as (container, stream):
        _check_codec(path, stream)
        codec, declares_b = stream.codec_context.name, stream.codec_context.has_b_frames
        rate = stream.average_rate or stream.guessed_rate or 0
        guessed = _guesses_times(container)
        packets = [(packet.pts, packet.is_keyframe) for packet in container.demux(stream) if packet.size]
    shown = [pts for pts, _ in packets if pts is not None]
    reordered = any(later < earlier for earlier, later in pairwise(shown))
    keys = [number for number, (_, key) in enumerate(packets) if key]
    _check_count(path, len(packets))
    width, height, orientation = _first_picture(path)
    ends = [*(keys or [0]), len(packets)]
    return VideoInfo(
        codec=codec,
        width=height if orientation.swaps else width,
        height=width if orientation.swaps else height,
        fps=float(rate),
        frames=len(packets),
        gop=max(after - before for before, after in pairwise(ends)),
        has_b=bool(reordered or (guessed and declares_b)),
    )


def _guesses_times(container: Any) -> bool:
    """AVI stores no time of display: what FFmpeg gives instead may be the order of decoding."""
    return bool(container.format.name == "avi")


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[Any, Any]]:
    """Open the file's main video stream for decoding on one thread (processes are the parallelism)."""
    try:
        container = av.open(str(path), metadata_errors="replace")  # titles are in whatever encoding
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
        stream.codec_context.options = LIMITS
        stream.codec_context.thread_type = "NONE"
        yield container, stream


def _check_codec(path: str | Path, stream: Any) -> None:
    codec = stream.codec_context.codec.canonical_name
    if stream.codec_context.name not in MOTION_CODECS:
        what = f"codec {codec} exports no motion vectors"
        raise VideoError(what, where=path, fix=f"transcode it to H.264 or MPEG-4: {_re_encode(path)}")


def _check_count(path: str | Path, frames: int) -> None:
    if frames == 0:
        raise VideoError("0 frames: the file holds no pictures", where=path, fix=_recheck(path))
    if frames == 1:
        what = "1 frame: a clip needs at least 2 to have motion"
        raise VideoError(what, where=path, fix="remove it, or replace it by a longer clip")


def _first_picture(path: str | Path) -> tuple[int, int, Orientation]:
    """Decode the first picture: (width, height) in px, cropping applied, and how it is to be shown."""
    with _opened(path) as (container, stream):
        frame = next(_pictures(_packets(container, stream, []), stream, []), None)
        if frame is None:
            raise VideoError("no picture in it can be decoded", where=path, fix=_recheck(path))
        _check_progressive(path, stream, frame)
        return frame.width, frame.height, _orientation(frame)


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
        It is no video, nothing in it decodes, or it is interlaced.
    """
    with _opened(path) as (container, stream):
        pictures = _pictures(_packets(container, stream, []), stream, [])
        first = next(pictures, None)
        if first is None:
            raise VideoError("no picture in it can be decoded", where=path, fix=_recheck(path))
        _check_progressive(path, stream, first)
        yield Fraction(stream.average_rate or stream.guessed_rate or 25), map(_turned, chain([first], pictures))


def _packets(container: Any, stream: Any, lost: list[str]) -> Iterator[Any]:
    """Yield the stream's packets; where the container breaks off, which is noted in `lost`, None ends them."""
    try:
        yield from container.demux(stream)
    except FFmpegError as error:  # what came before is still good
        lost.append(_plain(error))
        yield None


def _pictures(packets: Iterable[Any], stream: Any, lost: list[str]) -> Iterator[Any]:
    """Yield decoded frames in display order; what does not decode is noted in `lost` and left out."""
    for packet in packets:
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
    H.264 without B-frames it reads exactly, in twice the time that PyAV takes where `windows` spares it the
    pixels.

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
    parts = list(windows(path, backend))
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
    )


def windows(path: str | Path, backend: str, *, refuse_b: bool = False, moving_only: bool = False) -> Iterator[Vectors]:
    """Yield the motion vectors of a video, a few hundred frames at most at a time.

    B-frames have none but in H.264, MPEG-1 and MPEG-2: FFmpeg does not export those of other codecs. With
    `moving_only`, blocks that PyAV reads and that `motion.fields` can do without may be left out (see `in_windows`).

    With `refuse_b`, a B-frame met by mvextractor raises `InexactError`: the index may have been wrong about
    it.

    Raises
    ------
    VideoError
        Nothing decodes, the picture's size changes midway, or no frame in the whole video has motion vectors.
    """
    return _read_mvextractor(path, refuse_b) if backend == "mvextractor" else _read_pyav(path, moving_only)


def _check_found(path: str | Path, frames: int, vectors: int) -> None:
    if frames == 0:
        raise VideoError("no picture in it can be decoded", where=path, fix=_recheck(path))
    if vectors == 0:
        raise VideoError("no motion vectors in any frame", where=path, fix=_re_encode(path))


def _read_mvextractor(path: str | Path, refuse_b: bool) -> Iterator[Vectors]:
    from mvextractor.videocap import VideoCap

    with _opened(path) as (_, stream):
        blind_b = stream.codec_context.name not in B_VECTOR_CODECS
    look = _first_picture(path)
    video = VideoCap()
    if not video.open(str(path)):
        raise VideoError("mvextractor cannot open it", where=path, fix="use the backend pyav")
    video.set_decode_frames(False)
    try:
        arrays: list[np.ndarray] = []
        types: list[int] = []
        weight = frames = vectors = 0
        while True:
            ok, _, found, letter = video.read()
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
                yield _joined(arrays, types, look)
                arrays, types, weight = [], [], 0
        if types:
            yield _joined(arrays, types, look)
        _check_found(path, frames, vectors)
    finally:
        video.release()


def _joined(arrays: list[np.ndarray], types: list[int], look: tuple[int, int, Orientation]) -> Vectors:
    counts = [len(array) for array in arrays]
    frame = np.repeat(np.arange(len(arrays), dtype=np.int32), counts)
    return Vectors(np.concatenate(arrays), frame, np.array(types, np.uint8), *look)


def _read_pyav(path: str | Path, moving_only: bool) -> Iterator[Vectors]:
    with _opened(path) as (container, stream):
        # Vectors are parsed from the bitstream, never from pixels: leaving out the work on pixels that can be
        # left out changes none of them and saves a quarter of the time.
        stream.codec_context.options = EXPORT | {"skip_loop_filter": "all", "skip_idct": "all"}
        yield from in_windows(_decoded(path, stream, _packets(container, stream, [])), moving_only)


@contextmanager
def one_pass(path: str | Path) -> Iterator[tuple[int, Iterator[Decoded]]]:
    """Open a clip to decode it once, for its motion vectors and its pictures alike.

    Yields how many frames the file says it has, which `probe` gives too, and what of them decodes, in display order.
    The file is read once where it has at most `HELD_BYTES`, else twice: its frames are counted before the first is
    decoded.

    Raises
    ------
    VideoError
        As `probe` and `windows`.
    """
    with _opened(path) as (container, stream):
        _check_codec(path, stream)
        stream.codec_context.options = EXPORT
        frames, held = _hold(_packets(container, stream, []))
        _check_count(path, frames)
        if held is not None:
            yield frames, _decoded(path, stream, held)
            return
    with _opened(path) as (container, stream):
        stream.codec_context.options = EXPORT
        yield frames, _decoded(path, stream, _packets(container, stream, []))


def _hold(packets: Iterable[Any]) -> tuple[int, list[Any] | None]:
    """How many of the packets hold a picture, and all of them, unless they are too large to keep."""
    held: list[Any] = []
    frames = size = 0
    for packet in packets:
        if packet is not None:
            frames += packet.size > 0
            size += packet.size
        if size > HELD_BYTES:
            held = []
        else:
            held.append(packet)
    return frames, held if size <= HELD_BYTES else None


def _decoded(path: str | Path, stream: Any, packets: Iterable[Any]) -> Iterator[Decoded]:
    """Yield each frame that decodes, with its motion vectors. Raises VideoError, some of them only at the end."""
    blind_b = stream.codec_context.name not in B_VECTOR_CODECS
    look: tuple[int, int, Orientation] | None = None
    frames = size = 0
    for picture in _pictures(packets, stream, []):
        if look is None:
            _check_progressive(path, stream, picture)
            look = picture.width, picture.height, _orientation(picture)
        if look[:2] != (picture.width, picture.height):
            what = f"the picture's size changes from {look[0]}x{look[1]} to {picture.width}x{picture.height} midway"
            raise VideoError(what, where=path, fix=_re_encode(path))
        # `picture.side_data` would tie the picture into a cycle, and hundreds would wait for the collector.
        side = SideDataContainer(picture).get("MOTION_VECTORS")  # type: ignore[call-arg]
        kind = _PICTURE[int(picture.pict_type)]
        blind = blind_b and kind == B_FRAME
        vectors = None if blind else side
        frames += 1
        size += 0 if vectors is None else vectors.buffer_size
        yield Decoded(picture, kind, vectors, kind != I_FRAME and not blind, look)
    _check_found(path, frames, size)


def in_windows(decoded: Iterable[Decoded], moving_only: bool = False) -> Iterator[Vectors]:
    """Gather decoded frames' motion vectors, a few hundred frames' at most at a time.

    With `moving_only`, those that are zero are left out: no vector says the same. But a zero to the past stays where
    another block of its macroblock has one to the future that is not, since the past goes before it.
    """
    gathered = memoryview(bytearray(2 * WINDOW_BYTES))  # the same for all windows: it stays in the CPU's cache
    kinds: list[int] = []
    sizes: list[int] = []
    look = (0, 0, AS_CODED)
    end = 0
    for frame in decoded:
        look = frame.look
        size = 0 if frame.vectors is None else frame.vectors.buffer_size
        if end + size > len(gathered):
            gathered = memoryview(bytearray(gathered[:end]) + bytearray(size + WINDOW_BYTES))
        if size:
            gathered[end : end + size] = memoryview(frame.vectors)
        end += size
        sizes.append(size)
        kinds.append(frame.kind)
        if end > WINDOW_BYTES or len(kinds) == WINDOW_FRAMES:
            yield _columns(gathered[:end], sizes, kinds, look, moving_only)
            kinds, sizes, end = [], [], 0
    if kinds:
        yield _columns(gathered[:end], sizes, kinds, look, moving_only)


def unpacked(frames: Sequence[Decoded]) -> Vectors:
    """The motion vectors of copies of a video's frames, at least one."""
    raw: list[bytes] = [frame.vectors or b"" for frame in frames]
    sizes, kinds = [len(piece) for piece in raw], [frame.kind for frame in frames]
    return _columns(b"".join(raw), sizes, kinds, frames[0].look, moving_only=False)


def _columns(
    raw: bytes | memoryview,
    sizes: Sequence[int],
    kinds: Sequence[int],
    look: tuple[int, int, Orientation],
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
    return Vectors(blocks, frame, np.array(kinds, np.uint8), *look)


def _macroblocks(records: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """A number (N,) of the macroblock that each block lies in, of its frame; the same for two only if one holds both.

    `dst` is a block's centre; streams that are cropped have some beyond the picture.
    """
    x, y = records["dst_x"] >> 4, records["dst_y"] >> 4
    columns, rows = int(x.max(initial=0)) + 1, int(y.max(initial=0)) + 1
    return (frame * rows + y) * columns + x


# ---------------------------------------------------------------------------------------------------- frames


def read_frames(path: str | Path, indices: Sequence[int] | np.ndarray) -> np.ndarray:
    """Decode the frames at `indices` (display order, from 0), turned as shown: uint8 (K, height, width, 3), RGB.

    Seeks to the key frame before each wanted one where the container's time stamps allow it, and decodes from
    the start where they do not; either way these are the frames that decoding everything would give.

    Raises
    ------
    VideoError
        It cannot be decoded, or an index lies outside the video.
    """
    wanted = sorted({int(index) for index in indices})
    if wanted and wanted[0] < 0:
        raise VideoError(f"frame {wanted[0]} does not exist: frames count from 0", where=path)
    found = _read_seeking(path, wanted)
    if found is None:
        found = _read_in_order(path, wanted)
    check_all_found(path, wanted, found)
    return np.stack([found[int(index)] for index in indices])


def check_all_found(path: str | Path, wanted: Iterable[int], found: Container[int]) -> None:
    """Raise VideoError where a wanted frame is not among those found."""
    missing = [index for index in wanted if index not in found]
    if missing:
        what = f"frame {missing[0]} is beyond the video's end"
        raise VideoError(what, where=path, fix="check the file, then index it again")


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
    """Read by seeking, or return None where that might give other frames than reading in order."""
    found: dict[int, np.ndarray] = {}
    with _opened(path) as (container, stream):
        if _guesses_times(container) and stream.codec_context.has_b_frames:
            return None
        packets = [(p.pts, p.dts, p.is_keyframe) for p in container.demux(stream) if p.size]
        if not _can_seek(packets) or (wanted and wanted[-1] >= len(packets)):
            return None
        shown = sorted(pts for pts, _, _ in packets)
        keys = sorted((pts, dts) for pts, dts, key in packets if key)
        for key, group in _by_key_frame([shown[index] for index in wanted], keys):
            at = _decode_from(container, stream, key, set(group))
            if at is None:
                return None
            found.update(at)
        rank = {pts: number for number, pts in enumerate(shown)}
    return {rank[pts]: picture for pts, picture in found.items()}


def shown(picture: Any) -> np.ndarray:
    """One of PyAV's pictures as it is to be shown: uint8 (height, width, 3), RGB."""
    return _orientation(picture).upright(picture.to_ndarray(format="rgb24", threads=1), (0, 1))


def _turned(picture: Any) -> Any:
    """The same as a picture of PyAV's."""
    if _orientation(picture) == AS_CODED:
        return picture
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(shown(picture)), "rgb24")


def _can_seek(packets: list[tuple[int | None, int | None, bool]]) -> bool:
    """Only distinct time stamps and a first key frame that is shown first tie an index to a time stamp."""
    stamps = [pts for pts, dts, _ in packets if pts is not None and dts is not None]
    complete = len(stamps) == len(packets) == len(set(stamps))
    return complete and bool(packets) and packets[0][2] and stamps[0] == min(stamps)


def _by_key_frame(stamps: list[int], keys: list[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], list[int]]]:
    """Group sorted time stamps by the last key frame shown no later: (key's pts and dts, stamps)."""
    position = np.searchsorted([pts for pts, _ in keys], stamps, side="right") - 1
    for number in np.unique(position):
        yield keys[number], [stamp for stamp, at in zip(stamps, position, strict=True) if at == number]


def _decode_from(container: Any, stream: Any, key: tuple[int, int], stamps: set[int]) -> dict[int, np.ndarray] | None:
    """Decode from a key frame until all `stamps` are there; None if seeking led elsewhere."""
    found: dict[int, np.ndarray] = {}
    container.seek(key[1], stream=stream, backward=True)
    lost: list[str] = []
    for number, picture in enumerate(_pictures(_packets(container, stream, lost), stream, lost)):
        if lost or (number == 0 and (picture.pts is None or picture.pts > min(stamps))):
            return None
        if picture.pts in stamps:
            found[picture.pts] = shown(picture)
            if len(found) == len(stamps):
                return found
    return None
