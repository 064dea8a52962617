"""Damaged clips, made from good ones by a seed: cut, flipped, swapped, mislabelled, oversized.

`write_mutants` writes them as `<root>/<class>/<name>`; the same sources and seed give the same bytes.
`tests.damaged_clips` says what is promised of them.
"""

from __future__ import annotations

import functools
import os
import shutil
import struct
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

from moclip.video.clip_files import VIDEO_SUFFIXES
from tests.clips import encode, moving_texture

CLASSES = ("Fall", "Walk", "Sit down,\nstand up [é]")
"""Folders; the last one is for clips whose names are odd as well."""

MOST_PER_SOURCE = 2 << 20  # bytes: larger clips are no sources, a thousand copies would fill the disk
GIANT = 100_000  # px
SIZES = (0xFFFFFFFF, 0, 1, 7, 0x7FFFFFFF, 0x80000000)
"""What a field for the size of a box may claim: none, less than its own header, more than there is, negative."""

Random = np.random.Generator
Span = tuple[int, int]


@dataclass(frozen=True)
class Mutant:
    """One of them: its id as the index has it, "Class/name", and what was `done` to which source, if to any."""

    id: str
    kind: str
    done: str
    source: Path | None

    @property
    def suffix(self) -> str:
        return Path(self.id).suffix.lower()


@dataclass(frozen=True)
class Source:
    """A good clip: its bytes, and the place and size of each of its packets of video."""

    path: Path
    content: bytes
    packets: tuple[Span, ...]

    @property
    def suffix(self) -> str:
        return self.path.suffix.lower()


@dataclass(frozen=True)
class Order:
    """What a maker is to write: `folder / (stem + suffix)`. `turn` counts the mutants of the kind, `before` all."""

    folder: Path
    stem: str
    turn: int
    rng: Random
    before: Sequence[Mutant]

    def chosen(self, variants: Sequence[Any]) -> Any:
        """The variants of a kind take turns."""
        return variants[self.turn % len(variants)]

    def write(self, suffix: str, content: bytes) -> str:
        """Write the file and return its name."""
        (self.folder / (self.stem + suffix)).write_bytes(content)
        return self.stem + suffix


Made = tuple[str, str]
"""A file's name, and what was done."""


def write_mutants(sources: Sequence[Path], root: Path, count: int, seed: int) -> list[Mutant]:
    """Write `count` mutants of the source clips below `root`, all kinds in turn."""
    given = [source_of(path) for path in sources]
    made: list[Mutant] = []
    for number in range(count):
        kind = list(KINDS)[number % len(KINDS)]
        rng = np.random.default_rng([seed, number])
        odd = kind == "name" and bool(number // len(KINDS) % 2)
        folder = root / (CLASSES[2] if odd else CLASSES[rng.integers(2)])
        folder.mkdir(parents=True, exist_ok=True)
        source = given[rng.integers(len(given))]
        order = Order(folder, f"m{number:04d}", number // len(KINDS), rng, made)
        name, done = KINDS[kind](source, order)
        made.append(Mutant(f"{folder.name}/{name}", kind, done, None if kind in UNSOURCED else source.path))
    return made


def is_clip(root: Path, mutant: Mutant) -> bool:
    """Whether the index owes it a row; other files are counted as ignored."""
    leads_out = (mutant.kind, mutant.done) == ("link", "to a clip outside")
    return mutant.suffix in VIDEO_SUFFIXES and (root / mutant.id).is_file() and not leads_out


@functools.cache
def source_of(path: Path) -> Source:
    with av.open(str(path)) as container:
        spans = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    assert all(at is not None for at, _ in spans), path
    return Source(path, path.read_bytes(), tuple((int(at or 0), size) for at, size in spans))


def rendered(folder: Path) -> list[Path]:
    """Encode clips of every container and several codecs, to make mutants of."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = [
        ("mpeg4", 0, ".avi", {}),
        ("mpeg4", 2, ".avi", {}),
        ("libx264", 2, ".mp4", {}),
        ("libx264", 0, ".mov", {}),
        ("libx264", 2, ".mkv", {}),
        ("libx264", 2, ".avi", {}),
        ("mpeg4", 0, ".mp4", {}),
        ("mpeg2video", 2, ".mkv", {"b_strategy": "0"}),
        ("msmpeg4", 0, ".avi", {}),
    ]
    made = []
    for number, (codec, b_frames, suffix, options) in enumerate(kinds):
        film = moving_texture(24 + number, (64, 80 + 16 * number), (3, 1), seed=number)
        encoded = encode(folder / f"as{number}{suffix}", film, codec, b_frames=b_frames, options=options)
        made.append(_again(encoded, folder / f"r{number}{suffix}"))
        encoded.unlink()
    return made


def _again(source: Path, target: Path) -> Path:
    """The same packets written without what a muxer draws by lot."""
    _remux([source], target, FORMATS[target.suffix])
    return target


def small_enough(paths: Sequence[Path], most: int) -> list[Path]:
    """At most so many of the clips, drawn from all that are not too large."""
    fits = [path for path in sorted(paths) if path.stat().st_size <= MOST_PER_SOURCE]
    drawn = np.random.default_rng(0).permutation(len(fits))[:most]
    return [fits[number] for number in sorted(drawn)]


# ----------------------------------------------------------------------------------------------- flipped and cut


def _untouched(source: Source, order: Order) -> Made:
    return order.write(source.suffix, source.content), "nothing"


def _cut_short(source: Source, order: Order) -> Made:
    """Files of the MP4 family have their header at the end; every second one has it in front before it is cut."""
    content, how = source.content, ""
    if source.suffix in (".mp4", ".mov") and order.turn % 2:
        flags = "faststart" if order.turn % 4 == 1 else "frag_keyframe+empty_moov"
        content, how = _with_flags(source, order, flags), f", {flags}"
    size = len(content)
    low, high = {"anywhere": (1, size), "early": (1, min(size, 600)), "late": (max(1, size - 64), size)}[
        order.chosen(("anywhere", "anywhere", "late", "early"))
    ]
    end = int(order.rng.integers(low, high))
    return order.write(source.suffix, content[:end]), f"{end} of {size} bytes{how}"


def _with_flags(source: Source, order: Order, flags: str) -> bytes:
    aside = order.folder / f".{order.stem}.aside"
    _remux([source.path], aside, FORMATS[source.suffix], {"movflags": flags})
    content = aside.read_bytes()
    aside.unlink()
    return content


def _header_bytes(source: Source, order: Order) -> Made:
    return _flipped(source, order, "header")


def _packet_bytes(source: Source, order: Order) -> Made:
    return _flipped(source, order, "packets")


def _index_bytes(source: Source, order: Order) -> Made:
    return _flipped(source, order, "index")


def _flipped(source: Source, order: Order, part: str) -> Made:
    spans = regions(source)[part] or regions(source)["header"]
    places = np.concatenate([np.arange(start, end) for start, end in spans])
    count = min(len(places), int(order.chosen((1, 4, 16, 64))))
    content = bytearray(source.content)
    chosen = np.sort(order.rng.choice(places, count, replace=False))
    for at in chosen:
        content[at] ^= int(order.rng.integers(1, 256))
    return order.write(source.suffix, bytes(content)), f"{count} bytes of the {part}, from {chosen[0]}"


def regions(source: Source) -> dict[str, list[Span]]:
    """Where a clip's header, packets and index lie, in bytes."""
    content, packets = source.content, [(at, min(at + size, len(source.content))) for at, size in source.packets]
    first, last = min(at for at, _ in packets), max(end for _, end in packets)
    if source.suffix in (".mp4", ".mov"):
        found = [box for box in boxes(content) if box.name not in (b"mdat", b"free")]
        index = [(box.body, box.end) for box in found if box.name in TABLES]
        header = [(box.start, box.body) for box in found if box.name in BRANCHES]
        header += [(box.start, box.end) for box in found if box.name not in BRANCHES and box.name not in TABLES]
    elif source.suffix == ".avi":
        index = [(box.body, box.end) for box in chunks(content) if box.name == b"idx1"]
        header = [(0, content.index(b"movi"))]
    else:  # Matroska: cues, tags
        index, header = [(last, len(content))], [(0, first)]
    return {"header": header, "packets": packets, "index": [span for span in index if span[1] > span[0]]}


# --------------------------------------------------------------------------------------------- boxes and chunks

BRANCHES = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"udta", b"dinf"}
TABLES = {b"stts", b"stss", b"ctts", b"stsc", b"stsz", b"stco", b"co64", b"sdtp", b"sgpd", b"sbgp"}


@dataclass(frozen=True)
class Box:
    """A part of a container: its name, and where its header, its body and the next part begin."""

    name: bytes
    start: int
    body: int
    end: int


def boxes(content: bytes, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """The boxes of MP4 and MOV, those within after the one around them."""
    end = len(content) if end is None else end
    while start + 8 <= end:
        size = struct.unpack_from(">I", content, start)[0]
        box = Box(content[start + 4 : start + 8], start, start + 8, start + max(8, size))
        yield box
        if box.name in BRANCHES:
            yield from boxes(content, box.body, box.end)
        start = box.end


def chunks(content: bytes, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """The chunks of AVI, those within a list after it."""
    end = len(content) if end is None else end
    while start + 8 <= end:
        size = struct.unpack_from("<I", content, start + 4)[0]
        box = Box(content[start : start + 4], start, start + 8, min(end, start + 8 + size))
        yield box
        if box.name in (b"RIFF", b"LIST"):
            yield from chunks(content, box.body + 4, box.end)
        start = box.end + size % 2


def _endless_sizes(source: Source, order: Order) -> Made:
    content, value = bytearray(source.content), int(order.chosen(SIZES))
    if source.suffix in (".mp4", ".mov"):
        every = [*boxes(source.content)]
        box = every[order.rng.integers(len(every))]
        counts = box.name in TABLES and bool(order.turn % 2)  # of its entries, not of its bytes
        at = box.body + (8 if box.name == b"stsz" else 4) if counts else box.start
        struct.pack_into(">I", content, at, value)
        return order.write(source.suffix, bytes(content)), f"{_text(box.name)} at {at} claims {value:#x}"
    if source.suffix == ".avi":
        lists = [box for box in chunks(source.content) if not box.name[:2].isdigit()]  # not the packets
        some = [*lists, *islice((box for box in chunks(source.content) if box.name[:2].isdigit()), 3)]
        box = some[order.rng.integers(len(some))]
        struct.pack_into("<I", content, box.start + 4, value)
        return order.write(source.suffix, bytes(content)), f"{_text(box.name)} at {box.start} claims {value:#x}"
    places = [at for at in _ebml(source.content) if at < source.packets[0][0]]
    at = places[order.rng.integers(len(places))]
    length = 9 - content[at].bit_length()
    largest = (1 << (7 * length)) - (1 if order.turn % 2 else 2)  # all ones: unknown
    size = largest | 1 << (7 * length)
    content[at : at + length] = size.to_bytes(length, "big")
    return order.write(source.suffix, bytes(content)), f"an element at {at} claims {largest:#x}"


def _text(name: bytes) -> str:
    return name.decode("latin-1")


EBML_BRANCHES = (0x18538067, 0x1654AE6B, 0xAE, 0xE0, 0x1549A966, 0x114D9B74)
"""Segment, Tracks, TrackEntry, Video, Info, SeekHead."""


def _ebml(content: bytes, start: int = 0, end: int | None = None) -> Iterator[int]:
    """Where the sizes of Matroska's elements stand."""
    end = len(content) if end is None else end
    while start + 2 <= end and content[start]:
        name = 9 - content[start].bit_length()
        at = start + name
        if at >= end or not content[at]:
            return
        length = 9 - content[at].bit_length()
        size = int.from_bytes(content[at : at + length], "big") & ((1 << 7 * length) - 1)
        yield at
        body = at + length
        if int.from_bytes(content[start:at], "big") in EBML_BRANCHES:
            yield from _ebml(content, body, min(end, body + size))
        start = body + size


# ------------------------------------------------------------------------------------------------ giant pictures


def _giant_picture(source: Source, order: Order) -> Made:
    """The container claims a giant picture, or the codec's own header does, which the decoder believes."""
    by_codec = _giant_in_codec(source.content) if order.turn % 2 else None
    if by_codec is not None:
        return order.write(source.suffix, by_codec[0]), by_codec[1]
    content = bytearray(source.content)
    side = int(order.chosen((GIANT, GIANT, 0x7FFFFFFF, 0xFFFFFFFF, 0, 16_384)))
    if source.suffix in (".mp4", ".mov"):
        for box in boxes(source.content):
            if box.name == b"tkhd":
                struct.pack_into(">II", content, box.end - 8, *2 * [min(side << 16, 0xFFFFFFFF)])
            elif box.name == b"stsd":
                struct.pack_into(">HH", content, box.body + 8 + 32, *2 * [min(side, 0xFFFF)])
    elif source.suffix == ".avi":
        for box in chunks(source.content):
            if box.name in (b"avih", b"strf"):
                struct.pack_into("<II", content, box.body + (32 if box.name == b"avih" else 4), side, side)
    else:
        for name in (b"\xb0", b"\xba"):  # PixelWidth, PixelHeight
            for length in (1, 2):
                at = source.content.find(name + bytes([0x80 | length]), 0, source.packets[0][0])
                if at >= 0:
                    content[at + 2 : at + 2 + length] = min(side, 256**length - 1).to_bytes(length, "big")
    return order.write(source.suffix, bytes(content)), f"the container claims {side}x{side} px"


def _giant_in_codec(content: bytes) -> tuple[bytes, str] | None:
    """The same file with a giant picture in H.264's or MPEG-4's own header; None where there is none to change."""
    patched = bytearray(content)
    found = 0
    for at in _all(content, b"\x00\x00\x01\x20"):  # MPEG-4's video object layer
        if volume := _giant_volume(content[at + 4 : at + 40]):
            patched[at + 4 : at + 4 + len(volume)] = volume
            found += 1
    if found:
        return bytes(patched), "MPEG-4 claims 8191x8191 px"
    for first in (b"\x67", b"\x27"):  # H.264's sequence parameter set, behind its length in 16 or 32 bits
        for at in _all(content, first):
            size = int.from_bytes(content[at - 2 : at], "big")
            if 10 <= size <= 64 and (sps := _giant_sps(content[at : at + size])):
                patched[at : at + size] = sps
                found += 1
        if found:
            return bytes(patched), f"H.264 claims {GIANT}x{GIANT} px"
    return None


def _all(content: bytes, pattern: bytes) -> Iterator[int]:
    at = content.find(pattern)
    while at >= 0:
        yield at
        at = content.find(pattern, at + 1)


class _Bits:
    """A text of 0 and 1 to read from, and what has been read."""

    def __init__(self, content: bytes) -> None:
        self.text, self.at = "".join(f"{byte:08b}" for byte in content), 0

    def fixed(self, length: int) -> int:
        self.at += length
        return int(self.text[self.at - length : self.at] or "0", 2)

    def golomb(self) -> int:
        zeros = self.text.index("1", self.at) - self.at
        self.at += zeros
        return self.fixed(zeros + 1) - 1


def _golomb(value: int) -> str:
    digits = f"{value + 1:b}"
    return "0" * (len(digits) - 1) + digits


def _as_bytes(bits: str) -> bytes:
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


HIGH_PROFILES = (100, 110, 122, 244, 44, 83, 86, 118, 128)


def _giant_sps(sps: bytes) -> bytes | None:
    """A sequence parameter set of the same length with pictures of `GIANT` px; None where that is beyond this."""
    bits = _Bits(sps.replace(b"\x00\x00\x03", b"\x00\x00"))
    try:
        bits.fixed(8)
        profile = bits.fixed(8)
        bits.fixed(16)
        bits.golomb()
        if profile in HIGH_PROFILES:
            if bits.golomb() == 3 or (bits.golomb(), bits.golomb()) != (0, 0) or bits.fixed(2):
                return None
        elif profile not in (66, 77, 88):
            return None
        bits.golomb()
        order = bits.golomb()
        if order == 1:
            return None
        if order == 0:
            bits.golomb()
        bits.golomb()
        bits.fixed(1)
        begin = bits.at
        if bits.golomb() > 255 or bits.golomb() > 255:
            return None
        frames = bits.fixed(1)
    except (ValueError, IndexError):
        return None
    side = _golomb(-(-GIANT // 16) - 1)
    # frames alone, direct_8x8_inference, no cropping, no more about the use of it; the end
    text = bits.text[:begin] + 2 * side + f"{frames}1001"
    text = text.ljust(-(-len(text) // 8) * 8, "0")
    made = _as_bytes(text)
    made = made.replace(b"\x00\x00\x00", b"\x00\x00\x03\x00").replace(b"\x00\x00\x01", b"\x00\x00\x03\x01")
    return made.ljust(len(sps), b"\x00") if len(made) <= len(sps) else None


def _giant_volume(layer: bytes) -> bytes | None:
    """MPEG-4's video object layer with the largest picture that it can tell; None where that is beyond this."""
    bits = _Bits(layer)
    bits.fixed(9)
    if bits.fixed(1):
        bits.fixed(7)
    if bits.fixed(4) == 15:
        bits.fixed(16)
    if bits.fixed(1):
        bits.fixed(3)
        if bits.fixed(1):
            return None
    if bits.fixed(2):
        return None
    bits.fixed(1)
    ticks = bits.fixed(16)
    bits.fixed(1)
    if bits.fixed(1):
        bits.fixed(max(1, (ticks - 1).bit_length()))
    bits.fixed(1)
    at = bits.at
    return _as_bytes(f"{bits.text[:at]}{8191:013b}1{8191:013b}{bits.text[at + 27 :]}")


# ------------------------------------------------------------------------------------------------------- streams

FORMATS = {".avi": "avi", ".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}


def _remux(
    videos: Sequence[Path],
    target: Path,
    format_name: str,
    options: Mapping[str, str] | None = None,
    *,
    sound: bool = False,
    keep: Container[int] | None = None,
) -> None:
    """Write the packets of videos, all or those to keep, as the streams of a file, behind one of sound if asked for."""
    exact = {"fflags": "+bitexact", **(options or {})}
    with av.open(str(target), "w", format=format_name, container_options=exact) as made:
        audio: Any = _sound_stream(made) if sound else None
        opened = [av.open(str(path)) for path in videos]
        streams = [made.add_stream_from_template(given.streams.video[0]) for given in opened]
        if audio:
            _add_noise(made, audio)
        for given, stream in zip(opened, streams, strict=True):
            with given:
                for number, packet in enumerate(_stamped([packet for packet in given.demux(video=0) if packet.size])):
                    if keep is None or number in keep:
                        packet.stream = stream
                        made.mux(packet)


def _stamped(packets: list[Any]) -> list[Any]:
    """Give each packet the times that its container left out and another one wants to know."""
    known = next((number for number, packet in enumerate(packets) if packet.dts is not None), 0)
    start = packets[known].dts or 0
    for number, packet in enumerate(packets):
        if packet.dts is None:
            packet.dts = start + number - known
        if packet.pts is None:
            packet.pts = packet.dts
    return packets


def _sound_stream(container: Any) -> Any:
    audio = container.add_stream("mp2", rate=44100)
    audio.codec_context.flags |= 1 << 23  # bitexact
    return audio


def _add_noise(container: Any, audio: Any) -> None:
    noise = np.random.default_rng(0).integers(-9000, 9000, (1, 2 * 44100), np.int16)
    frame = av.AudioFrame.from_ndarray(noise, format="s16", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = 44100, 0, Fraction(1, 44100)
    container.mux(audio.encode(frame))
    container.mux(audio.encode(None))


def _into_any(order: Order, source: Source, formats: Sequence[str], suffix: str, **more: Any) -> Made:
    """Remux into the first of the formats that takes the stream."""
    target = order.folder / (order.stem + suffix)
    others = more.pop("others", [])
    for name in formats:
        try:
            _remux([source.path, *others], target, name, **more)
        except (FFmpegError, ValueError):
            continue
        return target.name, name
    return order.write(suffix, source.content), "as it was: no container takes it"


def _sound_first(source: Source, order: Order) -> Made:
    name, container = _into_any(order, source, [FORMATS[source.suffix], "matroska"], source.suffix, sound=True)
    return name, f"a stream of sound in front, {container}"


def _two_videos(source: Source, order: Order) -> Made:
    """The same twice, the second one shorter; or the shorter one first."""
    shorter = order.folder / f".{order.stem}.aside"
    _remux([source.path], shorter, "matroska", keep=range(max(1, len(source.packets) // 2)))
    target = order.folder / (order.stem + source.suffix)
    videos = [source.path, shorter] if order.turn % 2 else [shorter, source.path]
    _remux(videos, target, "matroska")
    shorter.unlink()
    return target.name, f"two streams of video, the {'second' if order.turn % 2 else 'first'} one cut by half"


def _other_suffix(source: Source, order: Order) -> Made:
    others = [suffix for suffix in VIDEO_SUFFIXES if suffix != source.suffix]
    suffix = others[order.rng.integers(len(others))]
    return order.write(suffix, source.content), f"{source.suffix} named {suffix}"


def _other_container(source: Source, order: Order) -> Made:
    names = ["matroska", "mp4", "avi", "mov", "mpegts", "flv", "nut"]
    own = FORMATS[source.suffix]
    turned = [name for name in names[order.turn % len(names) :] + names if name != own]
    name, container = _into_any(order, source, turned, source.suffix)
    return name, f"{container} named {source.suffix}"


def _lost_packets(source: Source, order: Order) -> Made:
    count = len(source.packets)
    lost = set(order.rng.choice(count, min(count - 2, int(order.chosen((1, 2, 5)))), replace=False).tolist())
    if order.turn % 3 == 2:
        lost.add(0)
    keep = [number for number in range(count) if number not in lost]
    name, _ = _into_any(order, source, [FORMATS[source.suffix], "matroska"], source.suffix, keep=keep)
    return name, f"without packets {', '.join(map(str, sorted(lost)))} of {count}"


def _one_frame(source: Source, order: Order) -> Made:
    name, _ = _into_any(order, source, [FORMATS[source.suffix], "matroska"], source.suffix, keep=[0])
    return name, "the first packet alone"


def _sound_alone(source: Source, order: Order) -> Made:
    suffix = order.chosen((".avi", ".mp4", ".mkv"))
    target = order.folder / (order.stem + suffix)
    with av.open(str(target), "w", format=FORMATS[suffix], container_options={"fflags": "+bitexact"}) as made:
        _add_noise(made, _sound_stream(made))
    return target.name, f"sound in {suffix}"


# ------------------------------------------------------------------------------------------- pictures of any shape


def _shaped(order: Order, size: tuple[int, int]) -> Made:
    codec, suffix = order.chosen((("libx264", ".mp4"), ("mpeg4", ".avi"), ("libx264", ".mov"), ("mpeg2video", ".avi")))
    if max(size) > 8191:
        codec = "libx264"
    film = moving_texture(12, size, (2, 1), seed=int(order.rng.integers(1 << 30)))
    target = order.folder / (order.stem + suffix)
    encode(target, film, codec)
    return target.name, f"{codec}, {size[1]}x{size[0]} px"


def _tiny_picture(source: Source, order: Order) -> Made:
    return _shaped(order, (16, 16))


def _wide_picture(source: Source, order: Order) -> Made:
    return _shaped(order, (64, 8192) if order.turn % 2 == 0 else (4080, 16))


# ------------------------------------------------------------------------------------------------ no clips at all

TEXTS = ("prose", "playlist", "concat", "session", "subtitles", "manifest", "noise", "zeros", "program")


def _text_file(source: Source, order: Order) -> Made:
    """Some of them name another file, which a player would go on to read."""
    what = order.chosen(TEXTS)
    other = source.path.absolute()
    content = {
        "prose": b"This is no video.\n" * 200,
        "playlist": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{other}\n#EXT-X-ENDLIST\n".encode(),
        "concat": f"ffconcat version 1.0\nfile '{other}'\n".encode(),
        "session": b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
        b"m=video 9 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n",
        "subtitles": b"1\n00:00:01,000 --> 00:00:02,000\nHello.\n\n2\n00:00:03,000 --> 00:00:04,000\nBye.\n",
        "manifest": b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
        b'<AdaptationSet><Representation id="1" bandwidth="1"><BaseURL>' + f"file://{other}".encode() + b"</BaseURL>"
        b"</Representation></AdaptationSet></Period></MPD>",
        "noise": order.rng.bytes(50_000),
        "zeros": bytes(200_000),
        "program": b"#!/bin/sh\ntouch ran\n",
    }[what]
    return order.write(order.chosen(VIDEO_SUFFIXES), content), what


def _empty(source: Source, order: Order) -> Made:
    return order.write(order.chosen(VIDEO_SUFFIXES), b""), "0 bytes"


LINKS = ("to itself", "in a circle", "to nothing", "to a clip inside", "to a clip outside", "a folder", "a pipe")


def _link(source: Source, order: Order) -> Made:
    """Links, and what else a name may stand for that is no file."""
    what, path = order.chosen(LINKS), order.folder / (order.stem + source.suffix)
    if what == "to itself":
        path.symlink_to(path.name)
    elif what == "in a circle":
        path.symlink_to(f"../{path.parent.name}/./{path.name}")
    elif what == "to nothing":
        path.symlink_to("nowhere.mp4")
    elif what == "to a clip inside":
        clean = next(mutant for mutant in reversed(order.before) if mutant.kind == "untouched")
        path = path.with_suffix(clean.suffix)
        path.symlink_to(f"../{clean.id}")
    elif what == "to a clip outside":
        path.symlink_to(source.path.absolute())
    elif what == "a folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    return path.name, what


def _no_permission(source: Source, order: Order) -> Made:
    name = order.write(source.suffix, source.content)
    (order.folder / name).chmod(0)
    return name, "nobody may read it; root may all the same"


NAMES = {
    "spaces": "  a  b {} ",
    "a newline": "a\nb{}",
    "unicode": "Ünïcode 走る 🏃 e\u0301 {}",
    "a dash in front": "-rf {}",
    "255 bytes": "",
    "quotes": "'\"`$(touch ran)\\ {}",
    "brackets": "[bold]{} <b>&",
    "a pattern": "%d %s * ? {}",
    "a protocol": "concat:a|b{}",
    "dots": "a..{}. .",
    "capitals": "UPPER{}",
}


def _odd_name(source: Source, order: Order) -> Made:
    what = order.chosen(list(NAMES))
    suffix = source.suffix.upper() if what == "capitals" else source.suffix
    stem = NAMES[what].format(order.stem) if NAMES[what] else order.stem.ljust(255 - len(suffix), "n")
    (order.folder / (stem + suffix)).write_bytes(source.content)
    return stem + suffix, what


KINDS: dict[str, Callable[[Source, Order], Made]] = {
    "untouched": _untouched,
    "cut short": _cut_short,
    "header bytes": _header_bytes,
    "packet bytes": _packet_bytes,
    "index bytes": _index_bytes,
    "sound first": _sound_first,
    "two videos": _two_videos,
    "empty": _empty,
    "other suffix": _other_suffix,
    "other container": _other_container,
    "endless sizes": _endless_sizes,
    "giant picture": _giant_picture,
    "lost packets": _lost_packets,
    "one frame": _one_frame,
    "tiny picture": _tiny_picture,
    "wide picture": _wide_picture,
    "sound alone": _sound_alone,
    "text": _text_file,
    "link": _link,
    "no permission": _no_permission,
    "name": _odd_name,
}
"""What each kind does, by name."""

UNSOURCED = ("empty", "tiny picture", "wide picture", "sound alone", "text", "link")
"""Kinds that no good clip lies behind, to compare with."""


def remove_all(root: Path) -> None:
    """Remove what `write_mutants` wrote."""
    shutil.rmtree(root)
