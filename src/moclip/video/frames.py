"""Read single frames of a file as shown, decoding from the start or from the key frame before each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from av.error import FFmpegError

from moclip.errors import VideoError
from moclip.video.decoding import I_FRAME, MOTION_CODECS, decode_pictures, open_stream, picture_type, read_packets
from moclip.video.geometry import upright_picture
from moclip.video.h264 import is_idr


class _KeyPacket(NamedTuple):
    """The packet of a key frame: its decoding time, and its position and size in the file."""

    dts: int | None
    pos: int | None
    size: int


def read_frames(path: str | Path, indices: Sequence[int] | np.ndarray, seekable: bool = False) -> np.ndarray:
    """Read frames as `read_pictures` does, stacked: uint8 (K, height, width, 3), RGB."""
    return np.stack(read_pictures(path, indices, seekable))


def read_pictures(path: str | Path, indices: Sequence[int] | np.ndarray, seekable: bool = False) -> list[np.ndarray]:
    """Read the frames `indices` (display order, from 0), turned as shown: each uint8 (height, width, 3), RGB.

    Decodes in order from the start. For a video that `probe` found `seekable`, decodes from the key frame before each
    requested frame. If the file then differs from what `probe` found, decodes in order after all.

    Raises
    ------
    VideoError
        The video cannot be decoded, or an index lies outside it.
    """
    found = dict(each_picture(path, indices, seekable))
    return [found[int(index)] for index in indices]


def each_picture(
    path: str | Path,
    indices: Iterable[int] | np.ndarray,
    seekable: bool = False,
    convert: Callable[[Any], Any] = upright_picture,
) -> Iterator[tuple[int, Any]]:
    """Yield what `read_pictures` reads, one after the other: each of the frames `indices` once, in ascending order.

    Few pictures are in memory at a time, however many there are. `convert` turns PyAV's picture into what is yielded.
    Raises as `read_pictures`.
    """
    wanted = sorted({int(index) for index in indices})
    if wanted and wanted[0] < 0:
        raise VideoError(f"frame {wanted[0]} does not exist: frames count from 0", where=path)
    done = 0
    for found in _read_seeking(path, wanted, convert) if seekable else ():
        yield found
        done += 1
    if done == len(wanted):
        return
    for found in _read_in_order(path, wanted[done:], convert):
        yield found
        done += 1
    if done < len(wanted):
        what = f"frame {wanted[done]} is beyond the video's end"
        raise VideoError(what, where=path, fix="check the file, then index it again")


def _read_in_order(path: str | Path, wanted: Sequence[int], convert: Callable[[Any], Any]) -> Iterator[tuple[int, Any]]:
    """Yield the frames `wanted`, ascending, as far as there are."""
    missing = deque(wanted)
    with open_stream(path) as (container, stream):
        for number, picture in enumerate(decode_pictures(stream, read_packets(container, stream))):
            if number == missing[0]:
                yield missing.popleft(), convert(picture)
                if not missing:
                    return


def _read_seeking(path: str | Path, wanted: Sequence[int], convert: Callable[[Any], Any]) -> Iterator[tuple[int, Any]]:
    """Yield the frames `wanted`, ascending, decoded from key frames, until that may give others than reading in order.

    Nothing, or no more, is yielded from where the file is not as a seekable one is.
    """
    stamps: list[int] = []
    key_packets: dict[int, _KeyPacket] = {}
    with open_stream(path) as (container, stream):
        try:
            for packet in read_packets(container, stream):
                if packet is not None and packet.size and packet.pts is not None:
                    stamps.append(packet.pts)
                    if packet.is_keyframe and _is_clean_start(packet, stream):
                        key_packets[packet.pts] = _KeyPacket(packet.dts, packet.pos, packet.size)
            stamps.sort()
            if not wanted or wanted[-1] >= len(stamps) or not key_packets or min(key_packets) > stamps[wanted[0]]:
                return
            number_of = {stamps[index]: index for index in wanted}
            if len(number_of) < len(wanted):
                return
            for start, group in _group_by_key_frame(list(number_of), sorted(key_packets)):
                container.seek(key_packets[start].dts, stream=stream, backward=True)
                pictures = _decode_from_key_frame(container, stream, key_packets, set(group), convert)
                if pictures is None:
                    return
                yield from ((number_of[stamp], pictures[stamp]) for stamp in group)
        except FFmpegError:
            return


def _is_clean_start(packet: Any, stream: Any) -> bool:
    """Return whether no picture shown after this key frame refers to one before it, by the codec's rules."""
    context = stream.codec_context
    if (
        context.name == "h264"
    ):  # other key frames may be recovery points, and pictures after them may refer to earlier ones
        return is_idr(bytes(packet), context.extradata or b"")
    return context.name in MOTION_CODECS


def _group_by_key_frame(stamps: list[int], key_stamps: list[int]) -> Iterator[tuple[int, list[int]]]:
    """Group sorted time stamps by the last key frame that is shown no later."""
    positions = np.searchsorted(key_stamps, stamps, side="right") - 1
    for number, pairs in groupby(zip(positions.tolist(), stamps, strict=True), key=itemgetter(0)):
        yield key_stamps[number], [stamp for _, stamp in pairs]


def _decode_from_key_frame(
    container: Any,
    stream: Any,
    key_packets: Mapping[int, _KeyPacket],
    stamps: set[int],
    convert: Callable[[Any], Any],
) -> dict[int, Any] | None:
    """Decode from the key frame at the container's position until all `stamps` are found. Return None on any doubt."""
    found: dict[int, Any] = {}
    errors: list[str] = []
    packets = read_packets(container, stream, errors)
    first = next(packets, None)
    if first is None or first.pts not in key_packets or first.pts > min(stamps):
        return None
    if key_packets[first.pts] != (first.dts, first.pos, first.size):  # not the bytes that reading in order gives
        return None
    for number, picture in enumerate(decode_pictures(stream, chain([first], packets), errors)):
        starts_clean = picture.pts == first.pts and picture_type(picture) == I_FRAME
        if errors or picture.is_corrupt or (number == 0 and not starts_clean):
            return None
        if picture.pts in stamps:
            found[picture.pts] = convert(picture)
            if len(found) == len(stamps):
                return found
    return None
