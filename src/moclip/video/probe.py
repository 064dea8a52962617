"""Probe a video: decode all of it once, without pixels, and describe it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from moclip.video.decoding import (
    B_FRAME,
    B_VECTOR_CODECS,
    I_FRAME,
    SIZE_LIMIT,
    SKIP_PIXELS,
    CountedPackets,
    check_codec,
    check_frame_count,
    checked_pictures,
    frame_rate,
    open_stream,
    picture_type,
    read_packets,
)
from moclip.video.times import frame_duration, shown_times


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


@dataclass(frozen=True)
class ShownFrames:
    """The frames of a video that a plain decode shows, as spans of it are cut.

    times : when each is shown, in microseconds: (frames,) int64, never decreasing (`shown_times`).
    end : when the last one is no longer shown, in microseconds.
    carries_motion : whether frames of its type have motion vectors in this codec: (frames,) bool.
    """

    times: np.ndarray
    end: float
    carries_motion: np.ndarray


@dataclass
class _Decoded:
    """What is noted while a video is decoded. `start` is the container's start time in microseconds, if it has one."""

    packets: list[_Packet] = field(default_factory=list)
    pictures: list[_Picture] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    size: tuple[int, int] = (0, 0)
    codec: str = ""
    rate: float = 0.0
    time_base: Fraction = Fraction(1)
    start: int | None = None


def probe(path: str | Path) -> VideoInfo:
    """Describe a video by decoding all of it, without pixels.

    Raises
    ------
    VideoError
        It is no video, its codec exports no motion vectors, a picture is interlaced or differs in size from the first,
        or fewer than two pictures decode.
    """
    return _describe(_decode(path))


def probe_frames(path: str | Path) -> tuple[VideoInfo, ShownFrames]:
    """Do what `probe` does, and also return what spans of the video are cut by. Raises as `probe`."""
    video = _decode(path)
    stamps = (picture.pts for picture in video.pictures)
    times = shown_times(stamps, video.time_base, video.start, video.rate)
    kinds = np.array([picture.frame_type for picture in video.pictures])
    carries_motion = (kinds != I_FRAME) & ((kinds != B_FRAME) | (video.codec in B_VECTOR_CODECS))
    return _describe(video), ShownFrames(times, times[-1] + frame_duration(video.rate), carries_motion)


def _decode(path: str | Path) -> _Decoded:
    video = _Decoded()
    with open_stream(path) as (container, stream):
        check_codec(path, stream)
        stream.codec_context.options = SIZE_LIMIT | SKIP_PIXELS
        read = _record_packets(read_packets(container, stream, video.errors), video.packets)
        for picture, geometry, _ in checked_pictures(path, stream, read, video.errors):
            video.pictures.append(_Picture(picture.pts, picture_type(picture), picture.key_frame, picture.is_corrupt))
            video.size = geometry.shown_size
        video.codec, video.rate = stream.codec_context.name, frame_rate(stream)
        video.time_base, video.start = stream.time_base, container.start_time
    check_frame_count(path, len(video.pictures))
    return video


def _describe(video: _Decoded) -> VideoInfo:
    packets, pictures = video.packets, video.pictures
    damage = _describe_damage(packets, pictures, video.errors)
    return VideoInfo(
        codec=video.codec,
        width=video.size[0],
        height=video.size[1],
        fps=video.rate,
        frames=len(pictures),
        gop=_longest_gop(pictures),
        has_b=any(picture.frame_type == B_FRAME for picture in pictures),
        damage=damage,
        seekable=not damage and _can_seek(packets, pictures),
    )


def _longest_gop(pictures: list[_Picture]) -> int:
    keys = [number for number, picture in enumerate(pictures) if picture.is_key]
    return max(after - before for before, after in pairwise([*(keys or [0]), len(pictures)]))


class PacketCount(NamedTuple):
    """How many packets of a video should give a picture, and where its container breaks off, the reason."""

    pictures: int
    error: str = ""

    def damage(self, pictures: int) -> str:
        """Return what is lost if so many pictures decode; "" for nothing."""
        lost = self.pictures - pictures
        return f"{lost} of {self.pictures} packets give no picture" if lost > 0 else self.error


def count_packets(path: Path) -> PacketCount:
    """Count the packets of a video of any codec, without decoding. Raises VideoError if it is no video."""
    errors: list[str] = []
    with open_stream(path) as (container, stream):
        packets = CountedPackets(stream, read_packets(container, stream, errors))
        for _ in packets:
            pass
    return PacketCount(packets.shown, "".join(errors[:1]))


def _describe_damage(packets: list[_Packet], pictures: list[_Picture], errors: list[str]) -> str:
    lost = PacketCount(sum(not packet.is_discarded for packet in packets)).damage(len(pictures))
    found = [lost] if lost else []
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
