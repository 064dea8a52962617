"""`probe`: decode a whole file once, without pixels, and say what is in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from moclip.video.decoding import (
    B_FRAME,
    LIMITS,
    PICTURE_TYPES,
    SKIP_PIXELS,
    check_codec,
    check_count,
    checked_pictures,
    open_stream,
    read_packets,
)


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


class _Packet(NamedTuple):
    """A packet that holds a picture: its time stamps, and whether it is a key frame, or decoded and not shown."""

    pts: int | None
    dts: int | None
    is_key: bool
    is_discarded: bool


class _Picture(NamedTuple):
    """What `probe` keeps of a decoded picture; `kind` as in `Vectors.frame_types`."""

    pts: int | None
    kind: int
    is_key: bool
    is_damaged: bool


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
    with open_stream(path) as (container, stream):
        check_codec(path, stream)
        stream.codec_context.options = LIMITS | SKIP_PIXELS
        read = _noted(read_packets(container, stream, lost), packets)
        for picture, geometry in checked_pictures(path, stream, read, lost):
            kind = PICTURE_TYPES[int(picture.pict_type)]
            pictures.append(_Picture(picture.pts, kind, picture.key_frame, picture.is_corrupt))
            size = geometry.shown
        codec, rate = stream.codec_context.name, stream.average_rate or stream.guessed_rate or 0
    check_count(path, len(pictures))
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


def _noted(packets: Iterable[Any], notes: list[_Packet]) -> Iterator[Any]:
    """Pass packets on; what is to be known of those that hold a picture is added to `notes`."""
    for packet in packets:
        if packet is not None and packet.size:
            notes.append(_Packet(packet.pts, packet.dts, packet.is_keyframe, packet.is_discard))
        yield packet
