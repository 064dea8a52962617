"""Write pictures as an animation: MP4, GIF or WebP."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

from moclip.errors import MoclipError, VideoError
from moclip.files.atomic import atomic_file

CONTAINER_OPTIONS = {".mp4": {"movflags": "+faststart"}, ".gif": {"loop": "0"}, ".webp": {"loop": "0"}}  # 0: for ever
LONGEST_SIDE = {".mp4": 16_384, ".gif": 65_535, ".webp": 16_383}  # px that the encoder takes
BITEXACT = {"fflags": "+bitexact"}
H264_OPTIONS = {"crf": "18", "preset": "veryfast", "threads": "1", "flags": "+bitexact"}
WEBP_OPTIONS = {"quality": "80", "compression_level": "2"}
GIF_MAX_RATE = 50  # pictures per second: browsers slow down faster GIFs to 10
CUBE_STEPS = 5  # per channel, of the colours that every GIF has
PALETTE_SIZE = 255  # colours of a GIF; the last of 256 is transparent and means "as before"

ToFrame = Callable[[np.ndarray], Any]
"""Turns a picture into PyAV's frame in the stream's pixel format."""


def write_animation(path: str | Path, pictures: Iterable[np.ndarray], fps: float | Fraction) -> int:
    """Write pictures, uint8 (height, width, 3) all of one size, and return how many there were.

    The suffix of `path` is the format: .gif and .webp loop; .mp4 is H.264 that plays anywhere (4:2:0, an odd side gets
    one px more). A GIF has 255 colours, chosen from the first picture, and at most 50 pictures per second. Pictures are
    encoded one by one. The file is written atomically, and the same pictures give the same bytes.

    Raises
    ------
    MoclipError
        The suffix is another one, or there is no picture.
    VideoError
        The pictures are too large for the format.
    """
    path = Path(path)
    add_stream = {".mp4": _add_mp4_stream, ".gif": _add_gif_stream, ".webp": _add_webp_stream}.get(path.suffix)
    if add_stream is None:
        raise MoclipError("not the name of an animation", where=path, fix="end it in .mp4, .gif or .webp")
    pictures = iter(pictures)
    first = next(pictures, None)
    if first is None:
        raise MoclipError("there are no pictures to write", where=path)
    height, width = first.shape[:2]
    if max(height, width) > (longest := LONGEST_SIDE[path.suffix]):
        what = f"{width}x{height} px: {path.suffix[1:]} allows {longest:,} px at most on a side"
        raise VideoError(what, where=path, fix="for a picture of each frame: --as png")
    rate = Fraction(fps).limit_denominator(1001) or Fraction(1, 1001)
    if path.suffix == ".gif":
        rate = min(rate, Fraction(GIF_MAX_RATE))
    options = BITEXACT | CONTAINER_OPTIONS[path.suffix]
    with (
        atomic_file(path) as temporary,
        av.open(f"file:{temporary}", "w", path.suffix[1:], container_options=options) as container,
    ):
        stream, to_frame = add_stream(container, first, rate)
        for number, picture in enumerate(chain([first], pictures)):
            frame = to_frame(picture)
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return number + 1


def _add_mp4_stream(container: Any, first: np.ndarray, rate: Fraction) -> tuple[Any, ToFrame]:
    stream = container.add_stream("libx264", rate=rate, options=H264_OPTIONS)
    stream.height, stream.width = (side + side % 2 for side in first.shape[:2])
    stream.pix_fmt = "yuv420p"
    # colours have a meaning here, and players guess the colour space from the size if the file does not name it
    context = stream.codec_context
    context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
    context.color_primaries = context.color_trc = Colorspace.ITU709

    def to_frame(picture: np.ndarray) -> Any:
        even = np.pad(picture, [(0, side % 2) for side in picture.shape[:2]] + [(0, 0)], mode="edge")
        frame = av.VideoFrame.from_ndarray(even, "rgb24")
        return frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)

    return stream, to_frame


def _add_webp_stream(container: Any, first: np.ndarray, rate: Fraction) -> tuple[Any, ToFrame]:
    stream = container.add_stream("libwebp_anim", rate=rate, options=WEBP_OPTIONS)
    stream.height, stream.width = first.shape[:2]
    stream.pix_fmt = "bgra"
    return stream, lambda picture: av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="bgra")


def _add_gif_stream(container: Any, first: np.ndarray, rate: Fraction) -> tuple[Any, ToFrame]:
    """All pictures share one palette, so pixels that do not change keep their bytes and the encoder leaves them out."""
    stream = container.add_stream("gif", rate=rate)
    stream.height, stream.width = first.shape[:2]
    stream.pix_fmt = "pal8"
    colours = _choose_palette(first)
    palette = Image.new("P", (1, 1))
    palette.putpalette([*colours.flat, *colours[0]])
    table = np.zeros((256, 4), np.uint8)  # alpha, red, green, blue
    table[:PALETTE_SIZE, 0], table[:PALETTE_SIZE, 1:] = 255, colours

    def to_frame(picture: np.ndarray) -> Any:
        indices = Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.NONE)
        return av.VideoFrame.from_ndarray((np.asarray(indices) % PALETTE_SIZE, table), "pal8")

    return stream, to_frame


def _choose_palette(first: np.ndarray) -> np.ndarray:
    """Return a cube of colours, for later pictures, and the colours of the first picture: uint8 (PALETTE_SIZE, 3)."""
    steps = np.linspace(0, 255, CUBE_STEPS)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3).astype(np.uint8)
    quantized = Image.fromarray(first).quantize(PALETTE_SIZE - len(cube), Image.Quantize.MEDIANCUT)
    own = quantized.getpalette() or []
    colours = np.zeros((PALETTE_SIZE, 3), np.uint8)
    colours[: len(cube)] = cube
    colours[len(cube) : len(cube) + len(own) // 3] = np.array(own, np.uint8).reshape(-1, 3)
    return colours
