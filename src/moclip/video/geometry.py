"""How a decoded picture lies in the coded one: size, cropping, and the orientation in which it is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer

from moclip.errors import VideoError
from moclip.video.h264 import croppings, croppings_in
from moclip.video.messages import re_encode_fix

MACROBLOCK = 16  # px


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


def read_cropping(path: str | Path, stream: Any, picture: Any, key_frame: bytes) -> tuple[int, int]:
    """How many px of the coded picture were cropped away at its left and top; of the codecs here, H.264 does so.

    FFmpeg crops whole machine words at the left, perhaps less than the stream asks for, and the rest stays in the
    picture: so what was cropped follows from the sizes. Where no parameter set fits, the picture must begin where the
    coded one does: what lacks is less than a macroblock, the padding at the right and bottom.
    """
    context = stream.codec_context
    extradata = context.extradata or b""
    if context.name != "h264":
        return 0, 0
    for asked in [*croppings_in(key_frame, extradata), *croppings(extradata)]:
        left = context.coded_width - asked.right - picture.width
        top = context.coded_height - asked.bottom - picture.height
        if 0 <= left <= asked.left and top == asked.top:
            return left, top
    if max(context.coded_width - picture.width, context.coded_height - picture.height) >= MACROBLOCK:
        raise VideoError("its cropping cannot be read", where=path, fix=re_encode_fix(path))
    return 0, 0


def read_orientation(picture: Any) -> Orientation:
    """Read the display matrix (FFmpeg: nine int32, 16.16 fixed point, by columns); slanted ones count as none."""
    side = SideDataContainer(picture).get("DISPLAYMATRIX")  # type: ignore[call-arg]
    if side is None:
        return AS_CODED
    xx, yx, _, xy, yy, *_ = (round(value / 65536) for value in np.frombuffer(bytes(side), np.int32).tolist())
    whole = sorted((abs(xx), abs(xy))) == sorted((abs(yx), abs(yy))) == [0, 1] and abs(xx) == abs(yy)
    return Orientation(xx, xy, yx, yy) if whole else AS_CODED


def upright_picture(picture: Any) -> np.ndarray:
    """One of PyAV's pictures as it is to be shown: uint8 (height, width, 3), RGB."""
    return np.ascontiguousarray(
        read_orientation(picture).upright(picture.to_ndarray(format="rgb24", threads=1), (0, 1))
    )


def upright_frame(picture: Any) -> Any:
    """The same as a picture of PyAV's."""
    if read_orientation(picture) == AS_CODED:
        return picture
    return av.VideoFrame.from_ndarray(upright_picture(picture), "rgb24")
