"""Pictures of motion vectors: fields as colours or arrows, with a legend; a clip as an animation or one still.

Called by `moclip draw`, and by the report for single pictures. A clip is decoded once for drawing, a frame at a time,
so its length does not matter.
"""

from __future__ import annotations

import errno
import functools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image, ImageChops, ImageDraw, ImageFont

from moclip import motion, processes, video
from moclip.errors import MoclipError, VideoError, clip_problem
from moclip.files import file_aside, folder_aside

Style = Literal["arrows", "hsv", "components"]
Form = Literal["mp4", "gif", "webp", "png", "mean", "max"]
Advance = Callable[[int], object]

CELL = motion.CODEC_CELL  # px of the clip, so that a cell lies on the codec's own blocks
LEAST_WIDTH = 640  # px: smaller clips are enlarged by a whole factor, or arrows and text could not be read
LEAD = 8  # frames at a clip's beginning that wait for the first motion

YELLOW, BLACK, WHITE, INK = (255, 225, 0), (0, 0, 0), (240, 240, 240), (24, 24, 28)
FRAME_DIM = 0.75  # under arrows: enough for yellow to stand out on a white wall
GREY_DIM = 0.55  # under colours: the scene stays recognisable, and is never as bright as what moves
SUPERSAMPLED = 2  # arrows are drawn so many times larger, then reduced: smooth edges
ARROWS_A_ROW = 48  # at most; more cells then share one
REACH = 2.0, 1 / 16  # how far the longest arrow spans: in spacings, and at most in widths of the picture
SHORTEST = 0.1  # of the longest: shorter arrows would be dots without a direction

_BINS_A_PX, _BINS = 8, 8 * 512  # of the histogram of lengths


# ----------------------------------------------------------------------------------------- fields as colours


def _wheel() -> np.ndarray:
    """The 360 hues, one a degree clockwise from the right: float (360, 3), 0 to 255."""
    steps = np.cumsum([0, 15, 6, 4, 11, 13, 6])  # red, yellow, green, cyan, blue, magenta, red
    corners = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1], [1, 0, 0]]) * 255.0
    at = np.arange(360) * (steps[-1] / 360)
    return np.stack([np.interp(at, steps, channel) for channel in corners.T], axis=-1)


_WHEEL = _wheel()


def hsv(fields: np.ndarray, limit: float) -> np.ndarray:
    """Colour a field by direction (hue) and length (brightness): black where nothing moves.

    The hues are those of Baker et al., "A Database and Evaluation Methodology for Optical Flow", IJCV 2011, with as
    many steps from red to yellow, green, cyan, blue and magenta as the eye tells apart: right is red, down yellow, left
    blue-green, up violet. Theirs fades to white where nothing moves; this one to black, to be laid over a picture.

    Parameters
    ----------
    fields : (..., 2, rows, columns), dx and dy in px.
    limit : px from which on a colour is at its brightest.

    Returns
    -------
    uint8 (..., rows, columns, 3), RGB.
    """
    dx, dy = np.moveaxis(fields, -3, 0)
    degrees = np.rint(np.degrees(np.arctan2(dy, dx))).astype(int) % 360
    strength = np.minimum(np.hypot(dx, dy) / limit, 1)
    return np.rint(_WHEEL[degrees] * strength[..., None]).astype(np.uint8)


def components(fields: np.ndarray, limit: float) -> np.ndarray:
    """The picture that `mv_tsn.Picture` shows to an image classifier, before ImageNet's normalisation.

    dx in red and dy in green, mid-grey where they are zero; their length in blue, black where it is zero. Parameters
    and result as for `hsv`.
    """
    scaled = np.clip(fields / limit, -1, 1)
    length = np.minimum(np.linalg.norm(scaled, axis=-3, keepdims=True), 1)
    channels = np.concatenate([(scaled + 1) / 2, length], axis=-3)
    return np.rint(np.moveaxis(channels, -3, -1) * 255).astype(np.uint8)


_COLOURS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {"hsv": hsv, "components": components}


def stabilised(fields: np.ndarray) -> np.ndarray:
    """Subtract from each frame's field its median, which is the camera's motion where most of the scene stands still.

    float (..., 2, rows, columns) in px, and so is the result. Blocks without a vector count as standing still.
    """
    return fields - np.median(fields, axis=(-2, -1), keepdims=True)


def readable_limit(lengths: np.ndarray, counts: np.ndarray | None = None) -> float:
    """The 95th percentile of the non-zero lengths in px, rounded up to 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 15...; at least 1.

    `counts` says how often each of the lengths occurs; without it each stands for itself.
    """
    moving = lengths > 0
    if counts is not None:
        moving &= counts > 0
    if not moving.any():
        return 1.0
    weights = None if counts is None else counts[moving]
    high = float(np.quantile(lengths[moving], 0.95, method="inverted_cdf", weights=weights))
    power = 10.0 ** math.floor(math.log10(max(high, 1.0)))
    return next(step * power for step in (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0) if step * power >= high)


# ------------------------------------------------------------------------------------------------- pictures


def upscaled(picture: np.ndarray, size: tuple[int, int], smooth: bool = False) -> np.ndarray:
    """Scale a picture, uint8 (rows, columns, 3), to `size` (height, width): cells stay squares, unless `smooth`."""
    how = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(picture).resize(size[::-1], how))


def over(frame: np.ndarray, colours: np.ndarray, dim: float = GREY_DIM) -> np.ndarray:
    """Lay colours, black where nothing moves, over a frame in grey, dimmed to a share `dim` of its brightness.

    Both and the result are uint8 (height, width, 3), RGB. The brighter a colour, the less of the frame is seen.
    """
    bright = Image.fromarray(colours)
    strength = functools.reduce(ImageChops.lighter, bright.split())
    grey = Image.fromarray(frame).convert("L").point([round(level * dim) for level in range(256)])
    shade = ImageChops.multiply(grey, ImageChops.invert(strength))
    return np.asarray(ImageChops.add(bright, Image.merge("RGB", [shade] * 3)))


def arrows(frame: np.ndarray, field: np.ndarray, limit: float, cell: float = CELL) -> np.ndarray:
    """Draw a field as arrows over a dimmed frame, each in the middle of the cells whose mean it shows.

    Parameters
    ----------
    frame : uint8 (height, width, 3), RGB.
    field : (2, rows, columns), dx and dy in px.
    limit : px that the longest arrow stands for, which longer vectors get too.
    cell : side of the field's cells in px of the frame.

    Returns
    -------
    uint8 (height, width, 3), RGB.
    """
    width = frame.shape[1]
    group = _cells_an_arrow(width, cell)
    ways = _grouped(field, group) / limit
    centres = (np.indices(ways.shape[1:])[::-1] + 0.5) * (group * cell)
    image = Image.fromarray(frame).point([round(level * FRAME_DIM) for level in range(256)] * 3)
    _draw_arrows(image, centres.reshape(2, -1), ways.reshape(2, -1), _longest(width, cell))
    return np.asarray(image)


def _cells_an_arrow(width: int, cell: float) -> int:
    """Cells on a side of the square that shares an arrow: whole macroblocks, which have one vector mostly."""
    return 2 * max(1, math.ceil(width / ARROWS_A_ROW / (2 * cell)))


def _longest(width: int, cell: float) -> float:
    """How long an arrow is at full strength, in px of a picture `width` px wide."""
    return min(REACH[0] * _cells_an_arrow(width, cell) * cell, REACH[1] * width)


def _grouped(field: np.ndarray, group: int) -> np.ndarray:
    """The means over squares of `group` cells: (2, rows, columns); the last ones are filled up with the edge."""
    _, rows, columns = field.shape
    filled = np.pad(field, ((0, 0), (0, -rows % group), (0, -columns % group)), mode="edge")
    return filled.reshape(2, filled.shape[1] // group, group, -1, group).mean(axis=(2, 4))


def _draw_arrows(image: Image.Image, centres: np.ndarray, ways: np.ndarray, longest: float) -> None:
    """Draw arrows with `centres` (2, N) in px; a way (2, N) of length 1 or more makes one of `longest` px."""
    lengths = np.hypot(*ways)
    seen = lengths >= SHORTEST
    lengths, centres, ways = lengths[seen], centres[:, seen], ways[:, seen] / lengths[seen]
    spans = np.minimum(lengths, 1) * longest
    thick = image.width / 320
    for colour, rim in ((BLACK, thick / 2), (YELLOW, 0.0)):  # the rim keeps it visible on bright ground
        mask = Image.new("L", (image.width * SUPERSAMPLED, image.height * SUPERSAMPLED))
        pen = ImageDraw.Draw(mask)
        for outline in (_outlines(centres, ways, spans, thick, rim) * SUPERSAMPLED).tolist():
            pen.polygon(outline, fill=255)
        image.paste(colour, mask=mask.reduce(SUPERSAMPLED))


def _outlines(centres: np.ndarray, ways: np.ndarray, spans: np.ndarray, thick: float, rim: float) -> np.ndarray:
    """Arrows as polygons of seven corners, x and y in turn, (N, 14); `rim` px wider than they are on all sides."""
    head = np.minimum(0.6 * spans, 5 * thick)
    half = np.minimum(thick / 2, head / 4) + rim
    across = np.stack([-ways[1], ways[0]])
    tail, tip = centres - ways * (spans / 2 + rim), centres + ways * (spans / 2 + 1.6 * rim)
    neck = centres + ways * (spans / 2 - head - rim)
    wing = across * (0.5 * head + 1.2 * rim)
    side = across * half
    corners = [tail + side, neck + side, neck + wing, tip, neck - wing, neck - side, tail - side]
    return np.stack(corners).transpose(2, 0, 1).reshape(-1, 14)


def painted(
    style: Style, frame: np.ndarray | None, field: np.ndarray, limit: float, size: tuple[int, int]
) -> np.ndarray:
    """Draw a field in a style, over a frame or alone on black.

    Parameters
    ----------
    frame : uint8 (height, width, 3) of the clip, or None; the style "components" takes none.
    field : (2, rows, columns) in px, a cell `CELL` px of the clip.
    limit : px at full strength.
    size : (height, width) of the clip in px.

    Returns
    -------
    uint8 (height, width, 3), enlarged as `enlargement` says.
    """
    times = enlargement(size[1])
    height, width = (side * times for side in size)
    ground = None if frame is None else upscaled(frame, (height, width), smooth=True)
    if style == "arrows":
        black = np.zeros((height, width, 3), np.uint8)
        return arrows(black if ground is None else ground, field, limit, CELL * times)
    colours = _COLOURS[style](field, limit)
    rows, columns = (cells * CELL * times for cells in colours.shape[:2])
    colours = upscaled(colours, (rows, columns))[:height, :width]  # the last cells may reach over the edge
    return colours if ground is None else over(ground, colours)


def enlargement(width: int) -> int:
    """How many times larger a clip is drawn."""
    return -(-LEAST_WIDTH // width)


# --------------------------------------------------------------------------------------------------- legends


def legend(style: Style, limit: float, width: int, cell: float = CELL, aside: Sequence[str] = ()) -> np.ndarray:
    """A strip to be put below a picture, `width` px wide, of this style, limit and cell (in px of the picture).

    It shows the colours, or an arrow, with the px a frame that they stand for, and `aside`, lines of text, at the
    right. uint8 (height, width, 3); the height follows from the width, and is even.
    """
    image = _scale(style, limit, width, cell).copy()
    _write(image, aside, (width - 8 * _unit(width), image.height / 2), "rm")
    return np.asarray(image)


def _unit(width: int) -> float:
    """The px that lengths in a legend are multiples of."""
    return width / 480


@functools.lru_cache(maxsize=8)
def _scale(style: Style, limit: float, width: int, cell: float) -> Image.Image:
    unit = _unit(width)
    high = 2 * round(21 * unit)
    image = Image.new("RGB", (width, high), INK)
    key = _arrow_picture(width, cell, high) if style == "arrows" else _disc(style, high - round(6 * unit))
    image.paste(Image.fromarray(key), (round(8 * unit), (high - len(key)) // 2))
    left = 16 * unit + key.shape[1]
    if style == "components":
        _paste_bars(image, left, limit)
    else:
        said = f"{limit:g} px a frame, or more"
        _write(image, (f"colour: where to; brightest: {said}" if style == "hsv" else said,), (left, high / 2), "lm")
    return image


def _write(image: Image.Image, lines: Sequence[str], at: tuple[float, float], anchor: str) -> None:
    """Lines of text above each other, `at` being the left or right end of their middle."""
    size = 12 * _unit(image.width)
    pen = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        y = at[1] + (number - (len(lines) - 1) / 2) * size * 1.3
        pen.text((at[0], y), line, WHITE, _font(round(size)), anchor)


@functools.lru_cache(maxsize=8)
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def _disc(style: Style, side: int) -> np.ndarray:
    """The colours of motion in all directions, uint8 (side, side, 3): none in the middle, to the right at the right."""
    at = (np.arange(side) + 0.5) * 2 / side - 1
    field = np.stack(np.meshgrid(at, at))
    disc = np.hypot(*field) <= 1
    return np.where(disc[..., None], _COLOURS[style](field, 1), np.array(INK, np.uint8))


def _arrow_picture(width: int, cell: float, height: int) -> np.ndarray:
    """The longest arrow of a picture as wide, pointing right: uint8 (height, its length, 3)."""
    longest = _longest(width, cell)
    image = Image.new("RGB", (width, height), INK)
    _draw_arrows(image, np.array([[width / 2], [height / 2]]), np.array([[1.0], [0.0]]), longest)
    half = math.ceil(longest / 2 + 2 * _unit(width))
    return np.asarray(image)[:, width // 2 - half : width // 2 + half]


def _paste_bars(image: Image.Image, left: float, limit: float) -> None:
    """The scales of the three components, red, green and blue, from `left` on."""
    unit = _unit(image.width)
    wide, high = round(68 * unit), round(9 * unit)
    for channel, name in enumerate((f"dx ±{limit:g} px", f"dy ±{limit:g} px", f"length {limit:g} px")):
        bar = np.zeros((high, wide, 3), np.uint8)
        bar[..., channel] = np.linspace(0, 255, wide)
        image.paste(Image.fromarray(bar), (round(left), round(25 * unit)))
        _write(image, (name,), (left, 14 * unit), "lm")
        left += 80 * unit


# ------------------------------------------------------------------------------------------------ animations

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
        file_aside(path) as aside,
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


# ---------------------------------------------------------------------------------------------------- a clip

COLLAPSED = ("mean", "max")


@dataclass(frozen=True)
class Drawing:
    """How a clip is drawn.

    limit : px at full strength; None: what `readable_limit` says of the frames drawn.
    start, stop : the part to draw, as in a slice; None: to the end.
    over : whether the frame is seen below; the style "components" takes none.
    stabilise : draw what moves against the camera's motion.
    """

    style: Style = "arrows"
    form: Form = "mp4"
    over: bool = True
    stabilise: bool = False
    limit: float | None = None
    start: int = 0
    stop: int | None = None


class Frame(NamedTuple):
    """A frame as it is drawn.

    number : from 0, in display order.
    kind : I, P or B.
    moves : whether its type has motion vectors in this codec.
    picture : uint8 (height, width, 3).
    field : float (2, rows, columns), px.
    of : the frame whose motion `field` is.
    """

    number: int
    kind: str
    moves: bool
    picture: np.ndarray
    field: np.ndarray
    of: int


class Drawn(NamedTuple):
    """What `draw_clip` wrote: a file or folder, of how many frames, and the px at full strength."""

    path: Path
    frames: int
    limit: float


def draw_clip(path: Path, target: Path, drawing: Drawing, advance: Advance = lambda count: None) -> Drawn:
    """Draw a clip into `target`, to which the suffix is added: nothing for "png", which makes a folder.

    `advance` is called with the number of frames newly drawn. What is there already is replaced, at the end.

    Raises
    ------
    VideoError
        The clip cannot be read, has no motion vectors, or has no such frames.
    MoclipError
        The result cannot be written.
    """
    info = video.probe(path)
    if drawing.start >= info.frames:
        raise VideoError(f"it has {info.frames} frames, none from {drawing.start} on", where=path)
    draw = _draw_still if drawing.form in COLLAPSED else _draw_frames
    try:
        return draw(path, target, drawing, info, advance)
    except OSError as problem:  # of reading, it would be a VideoError
        if problem.errno == errno.ENAMETOOLONG:
            raise VideoError("its name is too long for that of a drawing", where=path) from problem
        raise MoclipError(f"cannot be written: {problem.strerror or problem}", where=target) from problem


def length(path: Path, drawing: Drawing) -> int:
    """How many frames there are to draw, by what the file says. Raises VideoError."""
    return len(range(video.probe(path).frames)[drawing.start : drawing.stop])


def _draw_frames(path: Path, target: Path, drawing: Drawing, info: video.VideoInfo, advance: Advance) -> Drawn:
    limit = drawing.limit or _limit(path, drawing, info)
    frames = _told(read(path, drawing, info), advance)
    paint = functools.partial(_picture, drawing=drawing, limit=limit, info=info)
    if drawing.form == "png":
        with folder_aside(target) as aside:
            aside.mkdir()
            digits = max(4, len(str(info.frames - 1)))
            names = [_save_png(aside / f"{frame.number:0{digits}d}_{frame.kind}.png", paint(frame)) for frame in frames]
        return Drawn(target, len(names), limit)
    target = target.with_name(f"{target.name}.{drawing.form}")
    count = write_animation(target, map(paint, held(frames)), Fraction(info.fps) or 25)
    return Drawn(target, count, limit)


def _told(frames: Iterable[Frame], advance: Advance) -> Iterator[Frame]:
    for frame in frames:
        yield frame
        advance(1)


def _draw_still(path: Path, target: Path, drawing: Drawing, info: video.VideoInfo, advance: Advance) -> Drawn:
    picture, field, count = collapsed(_told(read(path, drawing, info), advance), longest=drawing.form == "max")
    limit = drawing.limit or readable_limit(np.hypot(*field))
    said = f"{'longest' if drawing.form == 'max' else 'mean'} of {count} frames"
    target = target.with_name(f"{target.name}.{drawing.form}.png")
    with file_aside(target) as aside:
        _save_png(aside, _finished(picture, field, drawing, limit, info, said))
    return Drawn(target, count, limit)


def _save_png(path: Path, picture: np.ndarray) -> str:
    Image.fromarray(picture).save(path, "PNG", compress_level=4)
    return path.name


def _picture(frame: Frame, drawing: Drawing, limit: float, info: video.VideoInfo) -> np.ndarray:
    said = f"frame {frame.number}, {frame.kind}"
    if not frame.moves:
        said += ", no vectors" if frame.of == frame.number else f", vectors of {frame.of}"
    return _finished(frame.picture, frame.field, drawing, limit, info, said)


def _finished(
    frame: np.ndarray, field: np.ndarray, drawing: Drawing, limit: float, info: video.VideoInfo, said: str
) -> np.ndarray:
    ground = frame if drawing.over and drawing.style != "components" else None
    picture = painted(drawing.style, ground, field, limit, (info.height, info.width))
    aside = (said, "less the camera's motion") if drawing.stabilise else (said,)
    return np.concatenate(
        [picture, legend(drawing.style, limit, picture.shape[1], CELL * enlargement(info.width), aside)]
    )


def read(path: Path, drawing: Drawing, info: video.VideoInfo) -> Iterator[Frame]:
    """Yield the frames to draw, each with its own motion: zero where its type has none. Raises VideoError."""
    size = info.height, info.width
    number = -1
    with video.one_pass(path) as (_, decoded):
        for number, one in enumerate(islice(decoded, drawing.stop)):
            if number >= drawing.start:
                field = motion.field(video.unpacked([one.copy()]), size, CELL)[0]
                field = stabilised(field) if drawing.stabilise else field
                yield Frame(number, chr(one.kind), one.moves, video.shown(one.picture), field, number)
    if number < drawing.start:
        raise VideoError(f"{number + 1} frames of it decode, none from {drawing.start} on", where=path)


def held(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Give frames whose type has no vectors the motion before them, the first ones the first there is.

    As `sampling.motion_frames` does for the networks: without it an animation goes dark at every I-frame.
    """
    frames = iter(frames)
    lead: list[Frame] = []
    for frame in frames:
        lead.append(frame)
        if frame.moves or len(lead) == LEAD:
            break
    latest = lead[-1] if lead and lead[-1].moves else None
    for frame in chain(lead, frames):
        if frame.moves:
            latest = frame
        yield frame if latest is None else frame._replace(field=latest.field, of=latest.number)


def collapsed(frames: Iterable[Frame], longest: bool) -> tuple[np.ndarray, np.ndarray, int]:
    """Frames as one: their mean picture; each cell's mean or longest vector; and of how many frames.

    Vectors are taken from frames whose type has some. Raises VideoError where there is none.
    """
    pictures: Any = 0
    field: Any = 0
    shown = moving = 0
    for frame in frames:
        pictures = pictures + frame.picture.astype(np.float32)
        shown += 1
        if frame.moves:
            field = _longer(field, frame.field) if longest and moving else field + frame.field
            moving += 1
    if not moving:
        raise VideoError("no frame of this part has motion vectors", fix="draw more of the clip")
    return np.rint(pictures / shown).astype(np.uint8), field if longest else field / moving, moving


def _longer(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The longer vector of the two in each cell of fields (2, rows, columns)."""
    return np.where(np.hypot(*one) >= np.hypot(*other), one, other)


def _limit(path: Path, drawing: Drawing, info: video.VideoInfo) -> float:
    """`readable_limit` of the frames to draw, from a histogram: the lengths of a long clip would fill the memory."""
    size = info.height, info.width
    windows = motion.fields(video.windows(path, "pyav", damaged=bool(info.damage)), size, CELL, accumulate=False)
    counts = np.zeros(_BINS, np.int64)
    for field in islice(chain.from_iterable(fields for fields, _ in windows), drawing.start, drawing.stop):
        lengths = np.hypot(*(stabilised(field) if drawing.stabilise else field))
        bins = np.maximum(np.rint(lengths * _BINS_A_PX), lengths > 0)  # what moves at all is in none of the zeros
        counts += np.bincount(np.minimum(bins, _BINS - 1).astype(int).reshape(-1), minlength=_BINS)
    return readable_limit(np.arange(_BINS) / _BINS_A_PX, counts)


# ---------------------------------------------------------------------------------------------------- clips


def targets(clips: Sequence[Path], folder: Path, style: Style) -> list[Path]:
    """Where each clip's drawing goes, without the suffix: `folder`/Class/clip.avi.arrows.

    They lie in `folder` as the clips do in the folder that holds them all, whose own name comes first: clips of the
    same name keep apart, also when each is drawn by a call of its own.
    """
    whole = [Path(os.path.abspath(clip)) for clip in clips]  # noqa: PTH100  resolving would follow links
    shared = Path(os.path.commonpath([clip.parent for clip in whole])).parent
    return [folder / clip.parent.relative_to(shared) / f"{clip.name}.{style}" for clip in whole]


Job = tuple[Path, Path, Drawing]


def draw(jobs: Sequence[Job], workers: int) -> Iterator[tuple[Job, Drawn | VideoError]]:
    """Draw clips (path, target, how) on processes: each with what came of it, in the order of completion.

    A process that a clip takes with it costs that clip alone. Raises MoclipError where nothing can be written.
    """
    yield from processes.run(
        draw_or_reason, list(jobs)[::-1], workers, lambda job, reason: VideoError(reason, where=job[0])
    )


def draw_or_reason(job: Job, advance: Advance = lambda count: None) -> Drawn | VideoError:
    """Draw a clip; what is wrong with it, whatever it is, is returned and not raised.

    Raises MoclipError where nothing can be written.
    """
    try:
        with processes.limited():
            return draw_clip(*job, advance)
    except Exception as problem:  # whatever is wrong with one clip, it costs no other
        return clip_problem(problem, job[0])
