"""Single frames of a file, as shown: decoded from the start, or from the key frame before each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from av.error import FFmpegError

from moclip.errors import VideoError
from moclip.video.decoding import I_FRAME, MOTION_CODECS, PICTURE_TYPES, decode_pictures, open_stream, read_packets
from moclip.video.geometry import upright_picture
from moclip.video.h264 import is_idr


class _Start(NamedTuple):
    """A key frame's packet: when it is decoded, and where it lies in the file."""

    dts: int | None
    pos: int | None
    size: int


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
    with open_stream(path) as (container, stream):
        for number, picture in enumerate(decode_pictures(read_packets(container, stream, []), stream, [])):
            if number in left:
                found[number] = upright_picture(picture)
                left.remove(number)
                if not left:
                    break
    return found


def _read_seeking(path: str | Path, wanted: list[int]) -> dict[int, np.ndarray] | None:
    """Read from key frames on, or return None where that might give other frames than reading in order."""
    found: dict[int, np.ndarray] = {}
    stamps: list[int] = []
    starts: dict[int, _Start] = {}
    with open_stream(path) as (container, stream):
        try:
            for packet in read_packets(container, stream, []):
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
        return is_idr(bytes(packet), context.extradata or b"")
    return context.name in MOTION_CODECS


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
    packets = read_packets(container, stream, lost)
    first = next(packets, None)
    if first is None or first.pts not in starts or first.pts > min(stamps):
        return None
    if starts[first.pts] != (first.dts, first.pos, first.size):  # the seek led to other bytes than reading in order
        return None
    for number, picture in enumerate(decode_pictures(chain([first], packets), stream, lost)):
        starts_clean = picture.pts == first.pts and PICTURE_TYPES[int(picture.pict_type)] == I_FRAME
        if lost or picture.is_corrupt or (number == 0 and not starts_clean):
            return None
        if picture.pts in stamps:
            found[picture.pts] = upright_picture(picture)
            if len(found) == len(stamps):
                return found
    return None
