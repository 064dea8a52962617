"""Probe a video: decode all of it once, without pixels, and describe it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from moclip.video.decoding import (
    B_FRAME,
    SIZE_LIMIT,
    SKIP_PIXELS,
    check_codec,
    check_frame_count,
    checked_pictures,
    frame_rate,
    open_stream,
    picture_type,
    read_packets,
)


@dataclass(frozen=True)
class VideoInfo:
    """The description of a video that the index stores.

    codec : FFmpeg's name of the codec.
    width, height : px, as shown.
    fps : average frames per second.
    frames : the number of pictures that a plain decode shows.
    gop : the largest number of frames from one key frame to the next.
    has_b : whether there are B-frames.
    damage : what does not decode, in words. Empty if everything does.
    seekable : whether decoding from any key frame gives the same pictures as decoding in order (see `read_pictures`).
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
    """A packet that holds a picture. A discarded one is decoded but not shown."""

    pts: int | None
    dts: int | None
    is_key: bool
    is_discarded: bool


class _Picture(NamedTuple):
    pts: int | None
    frame_type: int
    is_key: bool
    is_damaged: bool


def probe(path: str | Path) -> VideoInfo:
    """Describe a video by decoding all of it, without pixels.

    Raises
    ------
    VideoError
        It is no video, its codec exports no motion vectors, a picture is interlaced or differs in size from the first,
        or fewer than two pictures decode.
    """
    packets: list[_Packet] = []
    pictures: list[_Picture] = []
    errors: list[str] = []
    size = (0, 0)
    with open_stream(path) as (container, stream):
        check_codec(path, stream)
        stream.codec_context.options = SIZE_LIMIT | SKIP_PIXELS
        read = _record_packets(read_packets(container, stream, errors), packets)
        for picture, geometry in checked_pictures(path, stream, read, errors):
            pictures.append(_Picture(picture.pts, picture_type(picture), picture.key_frame, picture.is_corrupt))
            size = geometry.shown_size
        codec, rate = stream.codec_context.name, frame_rate(stream)
    check_frame_count(path, len(pictures))
    damage = _describe_damage(packets, pictures, errors)
    return VideoInfo(
        codec=codec,
        width=size[0],
        height=size[1],
        fps=rate,
        frames=len(pictures),
        gop=_longest_gop(pictures),
        has_b=any(picture.frame_type == B_FRAME for picture in pictures),
        damage=damage,
        seekable=not damage and _can_seek(packets, pictures),
    )


def _longest_gop(pictures: list[_Picture]) -> int:
    keys = [number for number, picture in enumerate(pictures) if picture.is_key]
    return max(after - before for before, after in pairwise([*(keys or [0]), len(pictures)]))


def _describe_damage(packets: list[_Packet], pictures: list[_Picture], errors: list[str]) -> str:
    found = []
    expected = sum(not packet.is_discarded for packet in packets)
    if len(pictures) < expected:
        found.append(f"{expected - len(pictures)} of {expected} packets give no picture")
    if damaged := sum(picture.is_damaged for picture in pictures):
        found.append(f"{damaged} of {len(pictures)} pictures are damaged")
    return ", ".join(found or errors[:1])


def _can_seek(packets: list[_Packet], pictures: list[_Picture]) -> bool:
    """Return whether time stamps give the number of each picture and the order of the packets in the file."""
    shown_at = [packet.pts for packet in packets if packet.pts is not None]
    decoded_at = [packet.dts for packet in packets if packet.dts is not None]
    complete = len(shown_at) == len(decoded_at) == len(packets) and not any(packet.is_discarded for packet in packets)
    in_order = [picture.pts for picture in pictures] == sorted(set(shown_at))
    return complete and in_order and packets[0].is_key and all(a < b for a, b in pairwise(decoded_at))


def _record_packets(packets: Iterable[Any], records: list[_Packet]) -> Iterator[Any]:
    """Pass packets on and add those that hold a picture to `records`."""
    for packet in packets:
        if packet is not None and packet.size:
            records.append(_Packet(packet.pts, packet.dts, packet.is_keyframe, packet.is_discard))
        yield packet
