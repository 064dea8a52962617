"""The demo's scenes: a textured ball that moves over a textured, static background.

Scenes are drawn in YCbCr, like a codec's pictures. A colour is an angle in the chroma plane. Luma, which an encoder's
motion search uses, is the same for every colour. The ball's place and size in the middle frame do not depend on its
motion, so a single still does not show the motion. Used by `render.py` (clips) and `train_clip.py` (stills).
"""

from dataclasses import dataclass
from typing import TypeAlias

import av
import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.floating]
Bytes: TypeAlias = npt.NDArray[np.uint8]

# The angle of each pure colour, in degrees from Cb to Cr, about 120 apart so that all contrast equally.
COLOURS = {"red": 108.6, "green": 231.6, "blue": 350.8}
# A mirror changes none of them, because training flips clips.
MOTIONS = ("rising", "falling", "swinging", "approaching")

SIZES = ((120, 160), (144, 176), (144, 192), (150, 200))  # height, width in px
CHROMA = 55.0  # of the ball, from grey
MARGIN = 4  # px of background around the picture, room for camera shake

# The second number of every seed, so that stills and clips have separate random streams.
BACKGROUNDS, CLIPS, STILLS = 1, 2, 3


@dataclass(frozen=True)
class Background:
    """Luma (h + 2 MARGIN, w + 2 MARGIN), and Cb and Cr at half its size. `shaky` means camera shake."""

    luma: Floats
    chroma: Floats
    shaky: bool

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the picture in px."""
        height, width = self.luma.shape
        return height - 2 * MARGIN, width - 2 * MARGIN


@dataclass(frozen=True)
class Scene:
    """A clip before it is drawn. Positions and radius (px) are those of the middle frame."""

    background: Background
    colour: str
    motion: str
    frames: int
    fps: int
    y: float
    x: float
    radius: float
    speed: float  # 0 (slow) to 1 (fast)
    phase: float  # of the swing
    waves: Floats  # the ball's texture
    noise: float  # standard deviation of the sensor's noise
    shake: npt.NDArray[np.int64]  # (frames, 2) px


def draw_waves(rng: np.random.Generator, count: int, low: float, high: float) -> Floats:
    """Return random plane waves (count, 3): ky and kx in radians per unit of length, and a phase.

    Their frequencies lie between `low` and `high` cycles per unit.
    """
    angle = rng.uniform(0, 2 * np.pi, count)
    k = 2 * np.pi * rng.uniform(low, high, count)
    return np.stack([k * np.sin(angle), k * np.cos(angle), rng.uniform(0, 2 * np.pi, count)], 1).astype(np.float32)


def texture(y: Floats, x: Floats, waves: Floats) -> Floats:
    """Return a sum of waves of unit variance at rows y (h,) and columns x (w,): (h, w). Exact between the pixels.

    Computed in double precision and rounded to single at the end: rounding of products depends on the processor.
    """
    rows = np.exp(1j * np.multiply.outer(y.astype(np.float64), waves[:, 0]))
    columns = np.exp(1j * (np.multiply.outer(x.astype(np.float64), waves[:, 1]) + waves[:, 2]))
    return ((rows @ columns.T).real * np.sqrt(2 / len(waves))).astype(np.float32)


def draw_background(rng: np.random.Generator) -> Background:
    """Return a random background, which sets the size of the picture."""
    height, width = SIZES[rng.integers(len(SIZES))]
    y = np.arange(height + 2 * MARGIN, dtype=np.float32) / height
    x = np.arange(width + 2 * MARGIN, dtype=np.float32) / height
    luma = rng.uniform(90, 150) + rng.uniform(14, 26) * texture(y, x, draw_waves(rng, 24, 1, 12))
    tints = [128 + rng.uniform(-12, 12) + 5 * texture(y[::2], x[::2], draw_waves(rng, 6, 0.3, 1.5)) for _ in range(2)]
    return Background(luma, np.stack(tints), shaky=bool(rng.random() < 0.25))


def draw_scene(
    rng: np.random.Generator, background: Background, colour: str, motion: str, frames: tuple[int, int]
) -> Scene:
    """Return a random scene.

    No random value depends on the motion, so the same `rng` gives each motion the same middle frame.
    """
    height, width = background.size
    length = int(rng.integers(frames[0], frames[1] + 1))
    steps = rng.choice([-1, 0, 1], size=(length, 2), p=[0.15, 0.7, 0.15]) if background.shaky else np.zeros((length, 2))
    return Scene(
        background=background,
        colour=colour,
        motion=motion,
        frames=length,
        fps=int(rng.choice([24, 25, 30])),
        y=height * rng.uniform(0.40, 0.60),
        x=width * rng.uniform(0.36, 0.64),
        radius=height * rng.uniform(0.13, 0.18),
        speed=rng.random(),
        phase=rng.uniform(0, 2 * np.pi),
        waves=draw_waves(rng, 8, 0.4, 1.4),
        noise=rng.uniform(0.5, 2.0),
        shake=np.clip(np.cumsum(steps, 0), -MARGIN, MARGIN).astype(np.int64),
    )


def ball_position(scene: Scene, frame: int) -> tuple[float, float, float]:
    """Return the ball's centre (y, x) and radius in one frame, in px."""
    height, width = scene.background.size
    y, x, radius = scene.y, scene.x, scene.radius
    from_middle = frame - scene.frames // 2
    share = from_middle / (scene.frames - 1)  # of the clip, from about -0.5 to 0.5
    if scene.motion in ("rising", "falling"):
        travel = height * (0.5 + 0.3 * scene.speed) * share
        y += travel if scene.motion == "falling" else -travel
    elif scene.motion == "swinging":
        turn = 2 * np.pi * from_middle / 22
        x += width * (0.09 + 0.05 * scene.speed) * (np.sin(turn + scene.phase) - np.sin(scene.phase))
    elif scene.motion == "approaching":
        radius *= (3.5 + 1.5 * scene.speed) ** share
    else:
        raise ValueError(f"no such motion: {scene.motion}")
    return y, x, radius


def draw_frame(rng: np.random.Generator, scene: Scene, frame: int) -> Bytes:
    """Return one frame as planar YCbCr 4:2:0, (3 h / 2, w) uint8: FFmpeg's `yuv420p`."""
    height, width = scene.background.size
    y, x, radius = ball_position(scene, frame)
    # Even numbers, so that chroma shifts with luma.
    dy, dx = MARGIN + 2 * (scene.shake[frame] // 2)
    luma = scene.background.luma[dy : dy + height, dx : dx + width].copy()
    chroma = scene.background.chroma[:, dy // 2 : (dy + height) // 2, dx // 2 : (dx + width) // 2].copy()

    rows = (np.arange(height, dtype=np.float32) - (y + MARGIN - dy)) / radius
    columns = (np.arange(width, dtype=np.float32) - (x + MARGIN - dx)) / radius
    r = slice(*np.searchsorted(rows, (-1.1, 1.1)))
    c = slice(*np.searchsorted(columns, (-1.1, 1.1)))
    ball = 118 + 32 * texture(rows[r], columns[c], scene.waves)
    inside = _inside(rows[r], columns[c], radius)
    luma[r, c] += inside * (ball - luma[r, c])

    angle = np.deg2rad(COLOURS[scene.colour])
    tint = np.array([np.cos(angle), np.sin(angle)], np.float32)[:, None, None] * CHROMA + 128
    chroma += _inside(rows[::2] + 0.5 / radius, columns[::2] + 0.5 / radius, radius / 2) * (tint - chroma)

    luma += scene.noise * rng.standard_normal(luma.shape, dtype=np.float32)
    planes = np.concatenate([np.clip(luma, 16, 235).ravel(), np.clip(chroma, 16, 240).ravel()])
    return planes.round().astype(np.uint8).reshape(height * 3 // 2, width)


def _inside(rows: Floats, columns: Floats, radius: float) -> Floats:
    """Return each pixel's share (h, w) that lies in the unit circle. `radius` is the circle's radius in px."""
    return np.clip((1 - np.hypot(rows[:, None], columns[None, :])) * radius + 0.5, 0, 1)


def to_rgb(planes: Bytes) -> Bytes:
    """Convert (3 h / 2, w) YCbCr to (h, w, 3) RGB with the converter that decoded clips pass through."""
    # One thread: for so small a picture, starting more takes ten times as long as the conversion.
    return av.VideoFrame.from_ndarray(planes, format="yuv420p").to_ndarray(format="rgb24", threads=1)


def class_name(colour: str, motion: str) -> str:
    """Return a class name: `red`, `rising` -> `RedBallRising`."""
    return f"{colour.capitalize()}Ball{motion.capitalize()}"
