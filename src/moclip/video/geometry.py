"""How a decoded picture relates to the coded one (cropping) and to the shown one (orientation)."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.sidedata.motionvectors import MotionVectors
from av.sidedata.sidedata import SideDataContainer, Type

from moclip.errors import VideoError
from moclip.video.h264 import packet_croppings, stream_croppings
from moclip.video.messages import re_encode_fix

MACROBLOCK = 16  # px


class Orientation(NamedTuple):
    """How a file's pictures are shown: point (x, y) of a decoded picture is shown at (xx x + xy y, yx x + yy y).

    Each number is -1, 0 or 1: quarter turns and mirror images, which cameras write into a display matrix.
    """

    xx: int = 1
    xy: int = 0
    yx: int = 0
    yy: int = 1

    @property
    def swaps(self) -> bool:
        """Whether rows are shown as columns, so that width and height swap."""
        return self.xx == 0

    def upright(self, pictures: np.ndarray, axes: tuple[int, int]) -> np.ndarray:
        """Turn pictures as they are shown. `axes` are the array's (rows, columns)."""
        if self.swaps:
            pictures = np.swapaxes(pictures, *axes)
        signs = (self.yx + self.yy, self.xx + self.xy)
        return np.flip(pictures, tuple(axis for axis, sign in zip(axes, signs, strict=True) if sign < 0))


AS_CODED = Orientation()


class Geometry(NamedTuple):
    """Size, orientation and cropping of a stream's pictures.

    width, height : a decoded picture's size in px, cropped and not yet turned.
    orientation : how it is shown.
    left, top : px of the coded picture that are cropped at these sides.
    """

    width: int
    height: int
    orientation: Orientation = AS_CODED
    left: int = 0
    top: int = 0

    @property
    def shown_size(self) -> tuple[int, int]:
        """Width and height in px, turned as shown."""
        return (self.height, self.width) if self.orientation.swaps else (self.width, self.height)


def read_cropping(path: str | Path, stream: Any, picture: Any, key_frame: bytes) -> tuple[int, int]:
    """Return how many px FFmpeg cropped at the left and top of the coded picture. Only H.264 crops there.

    At the left FFmpeg crops whole machine words, which may be less than the stream requests. So the result is computed
    from the picture's size. Where no parameter set fits the sizes, the picture must start where the coded one does:
    what is missing is less than a macroblock, the padding at the right and bottom.

    Raises
    ------
    VideoError
        No parameter set fits, and a macroblock or more is missing.
    """
    context = stream.codec_context
    extradata = context.extradata or b""
    if context.name != "h264":
        return 0, 0
    for requested in [*packet_croppings(key_frame, extradata), *stream_croppings(extradata)]:
        left = context.coded_width - requested.right - picture.width
        top = context.coded_height - requested.bottom - picture.height
        if 0 <= left <= requested.left and top == requested.top:
            return left, top
    if max(context.coded_width - picture.width, context.coded_height - picture.height) >= MACROBLOCK:
        raise VideoError("its cropping cannot be read", where=path, fix=re_encode_fix(path))
    return 0, 0


def read_side_data(picture: Any) -> tuple[Any, Orientation]:
    """Return the buffer of a picture's motion vectors (None if it has none), and its orientation.

    `picture.side_data` would put the picture into a reference cycle: hundreds would wait for the collector.
    """
    vectors, orientation = None, AS_CODED
    for data in SideDataContainer(picture):  # type: ignore[call-arg]
        if isinstance(data, MotionVectors):  # quicker than its type, an Enum
            vectors = data
        elif data.type is Type.DISPLAYMATRIX:
            orientation = _orientation_of(bytes(data))
    return vectors, orientation


def read_orientation(picture: Any) -> Orientation:
    """Return how a picture is shown, by its display matrix."""
    return read_side_data(picture)[1]


@functools.lru_cache(maxsize=16)
def _orientation_of(matrix: bytes) -> Orientation:
    """Parse a display matrix (FFmpeg: nine int32, 16.16 fixed point, by columns). Ignore slanted ones."""
    xx, yx, _, xy, yy, *_ = (round(value / 65536) for value in np.frombuffer(matrix, np.int32).tolist())
    is_quarter_turn = sorted((abs(xx), abs(xy))) == sorted((abs(yx), abs(yy))) == [0, 1] and abs(xx) == abs(yy)
    return Orientation(xx, xy, yx, yy) if is_quarter_turn else AS_CODED


def upright_picture(picture: Any) -> np.ndarray:
    """Convert a PyAV picture to an array, turned as shown: uint8 (height, width, 3), RGB."""
    return np.ascontiguousarray(
        read_orientation(picture).upright(picture.to_ndarray(format="rgb24", threads=1), (0, 1))
    )


def upright_frame(picture: Any) -> Any:
    """Turn a PyAV picture as shown."""
    if read_orientation(picture) == AS_CODED:
        return picture
    return av.VideoFrame.from_ndarray(upright_picture(picture), "rgb24")
