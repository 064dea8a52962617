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

from moclip.errors import MoclipError
from moclip.files.atomic import atomic_file

CONTAINER = {".mp4": {"movflags": "+faststart"}, ".gif": {"loop": "0"}, ".webp": {"loop": "0"}}  # 0: for ever
BITEXACT = {"fflags": "+bitexact"}
H264 = {"crf": "18", "preset": "veryfast", "threads": "1", "flags": "+bitexact"}
WEBP = {"quality": "80", "compression_level": "2"}
GIF_RATE = 50  # pictures a second: browsers slow down faster ones to 10
CUBE = 5  # steps a channel of the colours that every GIF has
PALETTE = 255  # colours of a GIF; the last of 256 stands for "as before"

Framed = Callable[[np.ndarray], Any]


def write_animation(path: str | Path, pictures: Iterable[np.ndarray], fps: float | Fraction) -> int:
    """Write pictures, uint8 (height, width, 3) all of one size, as they come, and return how many they were.

    By the suffix of `path`: .gif and .webp, which loop, or .mp4, H.264 that plays anywhere (4:2:0, an odd side gets
    one px more). GIF has 255 colours, chosen by the first picture, and at most 50 pictures a second. The file is there
    in whole or not at all, and the same pictures give the same bytes.

    Raises
    ------
    MoclipError
        The suffix is another one, or there is no picture.
    """
    path = Path(path)
    begin = {".mp4": _begin_mp4, ".gif": _begin_gif, ".webp": _begin_webp}.get(path.suffix)
    if begin is None:
        raise MoclipError("no animation is called so", where=path, fix="end it in .mp4, .gif or .webp")
    pictures = iter(pictures)
    first = next(pictures, None)
    if first is None:
        raise MoclipError("there are no pictures to write", where=path)
    rate = Fraction(fps).limit_denominator(1001) or Fraction(1, 1001)
    if path.suffix == ".gif":
        rate = min(rate, Fraction(GIF_RATE))
    options = BITEXACT | CONTAINER[path.suffix]
    with (
        atomic_file(path) as aside,
        av.open(f"file:{aside}", "w", path.suffix[1:], container_options=options) as container,
    ):
        stream, framed = begin(container, first, rate)
        for number, picture in enumerate(chain([first], pictures)):
            frame = framed(picture)
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return number + 1


def _begin_mp4(container: Any, first: np.ndarray, rate: Fraction) -> tuple[Any, Framed]:
    stream = container.add_stream("libx264", rate=rate, options=H264)
    stream.height, stream.width = (side + side % 2 for side in first.shape[:2])
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context  # said in the file: players guess by the size else, and colours have a meaning here
    context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
    context.color_primaries = context.color_trc = Colorspace.ITU709

    def framed(picture: np.ndarray) -> Any:
        even = np.pad(picture, [(0, side % 2) for side in picture.shape[:2]] + [(0, 0)], mode="edge")
        frame = av.VideoFrame.from_ndarray(even, "rgb24")
        return frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)

    return stream, framed


def _begin_webp(container: Any, first: np.ndarray, rate: Fraction) -> tuple[Any, Framed]:
    stream = container.add_stream("libwebp_anim", rate=rate, options=WEBP)
    stream.height, stream.width = first.shape[:2]
    stream.pix_fmt = "bgra"
    return stream, lambda picture: av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="bgra")


def _begin_gif(container: Any, first: np.ndarray, rate: Fraction) -> tuple[Any, Framed]:
    """One palette throughout: what stands still is then the same bytes in every picture, and is left out."""
    stream = container.add_stream("gif", rate=rate)
    stream.height, stream.width = first.shape[:2]
    stream.pix_fmt = "pal8"
    colours = _palette(first)
    chosen = Image.new("P", (1, 1))
    chosen.putpalette([*colours.flat, *colours[0]])
    table = np.zeros((256, 4), np.uint8)  # alpha, red, green, blue
    table[:PALETTE, 0], table[:PALETTE, 1:] = 255, colours

    def framed(picture: np.ndarray) -> Any:
        indices = Image.fromarray(picture).quantize(palette=chosen, dither=Image.Dither.NONE)
        return av.VideoFrame.from_ndarray((np.asarray(indices) % PALETTE, table), "pal8")

    return stream, framed


def _palette(first: np.ndarray) -> np.ndarray:
    """The colours of a picture, and a cube of all colours for those that come later: uint8 (PALETTE, 3)."""
    steps = np.linspace(0, 255, CUBE)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3).astype(np.uint8)
    own = Image.fromarray(first).quantize(PALETTE - len(cube), Image.Quantize.MEDIANCUT).getpalette() or []
    colours = np.zeros((PALETTE, 3), np.uint8)
    colours[: len(cube)] = cube
    colours[len(cube) : len(cube) + len(own) // 3] = np.array(own, np.uint8).reshape(-1, 3)
    return colours
