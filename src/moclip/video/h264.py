"""Parse what FFmpeg does not expose of an H.264 stream: its cropping, and which packets hold an IDR picture.

Source: ITU-T H.264, sections 7.3 and 7.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

_SPS, _IDR = 7, 5  # types of NAL unit (table 7-1)
_CHROMA_PROFILES = frozenset((100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135))  # section 7.3.2.1.1
_MAX_CYCLES = 255  # num_ref_frames_in_pic_order_cnt_cycle


class Cropping(NamedTuple):
    """Px of the coded picture that are not shown, at each side."""

    left: int
    right: int
    top: int
    bottom: int


def is_idr(packet: bytes, extradata: bytes) -> bool:
    """Return whether a packet holds a slice of an IDR picture. No later picture refers to one before it."""
    return any(unit[0] & 31 == _IDR for unit in _nal_units(packet, _length_size(extradata)) if unit)


def stream_croppings(extradata: bytes) -> list[Cropping]:
    """Return the cropping in each readable sequence parameter set of a stream's header, in their order.

    `extradata` is the stream's avcC box, or its parameter sets in Annex B's format.
    """
    return _read_croppings(_parameter_sets(extradata))


def packet_croppings(packet: bytes, extradata: bytes) -> list[Cropping]:
    """Return the cropping in each readable sequence parameter set of a packet, in their order."""
    return _read_croppings(_nal_units(packet, _length_size(extradata)))


def _read_croppings(units: Iterable[bytes]) -> list[Cropping]:
    found = []
    for unit in units:
        if unit and unit[0] & 31 == _SPS:
            try:
                found.append(_read_cropping(_BitReader(unit[1:].replace(b"\0\0\3", b"\0\0"))))
            except (IndexError, ValueError):  # a damaged parameter set
                continue
    return found


def _length_size(extradata: bytes) -> int:
    """Return the size in bytes of the length field before each NAL unit, 0 where start codes separate the units."""
    return (extradata[4] & 3) + 1 if len(extradata) > 4 and extradata[0] == 1 else 0


def _parameter_sets(extradata: bytes) -> Iterator[bytes]:
    if not _length_size(extradata):
        yield from _nal_units(extradata, 0)
        return
    position = 6
    for _ in range(extradata[5] & 31):
        size = int.from_bytes(extradata[position : position + 2], "big")
        yield extradata[position + 2 : position + 2 + size]
        position += 2 + size


def _nal_units(data: bytes, length_size: int) -> Iterator[bytes]:
    """Yield the NAL units of a packet."""
    if not length_size:
        yield from data.split(b"\0\0\1")[1:]
        return
    position = 0
    while position + length_size < len(data):
        size = int.from_bytes(data[position : position + length_size], "big")
        yield data[position + length_size : position + length_size + size]
        position += length_size + size


class _BitReader:
    """Reads bits, the most significant first. Raises IndexError at the end."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0

    def take(self, count: int) -> int:
        value = 0
        for _ in range(count):
            value = value << 1 | self.data[self.position >> 3] >> (7 - (self.position & 7)) & 1
            self.position += 1
        return value

    def unsigned(self) -> int:
        """Read an unsigned Exp-Golomb code, ue(v) in section 9.1."""
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > 32:
                raise ValueError("no Exp-Golomb code")
        return (1 << zeros) - 1 + self.take(zeros)

    def signed(self) -> int:
        """Read a signed Exp-Golomb code, se(v)."""
        code = self.unsigned()
        return (code + 1) // 2 if code & 1 else -(code // 2)


def _read_cropping(bits: _BitReader) -> Cropping:
    """Read a sequence parameter set up to its cropping (section 7.3.2.1.1)."""
    profile = bits.take(8)
    bits.take(16)  # constraints, level
    bits.unsigned()  # id
    chroma, separate = 1, 0
    if profile in _CHROMA_PROFILES:
        chroma = bits.unsigned()
        separate = bits.take(1) if chroma == 3 else 0
        bits.unsigned()  # bit depths
        bits.unsigned()
        bits.take(1)  # transform bypass
        if bits.take(1):
            for number in range(12 if chroma == 3 else 8):
                if bits.take(1):
                    _skip_scaling_list(bits, 16 if number < 6 else 64)
    bits.unsigned()  # log2_max_frame_num
    order = bits.unsigned()
    if order == 0:
        bits.unsigned()
    elif order == 1:
        bits.take(1)
        bits.signed()
        bits.signed()
        for _ in range(min(bits.unsigned(), _MAX_CYCLES)):
            bits.signed()
    bits.unsigned()  # reference frames
    bits.take(1)  # gaps in frame_num
    bits.unsigned()  # macroblocks a row, and rows of them
    bits.unsigned()
    frames_only = bits.take(1)
    if not frames_only:
        bits.take(1)
    bits.take(1)  # direct_8x8_inference
    if not bits.take(1):
        return Cropping(0, 0, 0, 0)
    array_type = 0 if separate else chroma
    unit_x = 2 if array_type in (1, 2) else 1
    unit_y = (2 if array_type == 1 else 1) * (2 - frames_only)
    left, right, top, bottom = (bits.unsigned() for _ in range(4))
    return Cropping(left * unit_x, right * unit_x, top * unit_y, bottom * unit_y)


def _skip_scaling_list(bits: _BitReader, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.signed()) % 256
        last = following or last
