"""What the report page shows, worked out of predictions: who is right where, what is confused, which clips to look at.

Called by the `report` stage, which renders templates/report.html with it.
"""

from __future__ import annotations

import base64
import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from moclip import draw, metrics, video

PAPER = {"zero_shot": 0.650, "mv_tsn": 0.665, "fusion": 0.892}
"""Top-1 on UCF-101 (arXiv 2509.17084, table 1)."""
PAPER_COST = 16.9e3
"""Multiply-adds of a video there, fusion of both, in millions."""

WIDTH = 240  # px of the gallery's pictures
FRAMES = 36  # of a motion picture, at most
SECONDS = 4.0  # that it takes, at most
FADING = 0.8  # what of a vector is left a frame later, where none takes its place
QUALITY = 72  # of JPEG

KINDS = {"gain": "fusion gains most", "error": "worst errors", "random": "drawn at random"}


def classes(streams: Mapping[str, np.ndarray], labels: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each class that occurs: its clips, each stream's share right, and what each input adds to the other.

    `streams` are logits (clips, classes), with "zero_shot", "mv_tsn" and "fusion" among them. "motion" is how much more
    fusion gets right than zero-shot CLIP, "still" how much more than MV-TSN alone.
    """
    right = {name: metrics.class_accuracy(logits.argmax(axis=1), labels) for name, logits in streams.items()}
    counts = np.bincount(labels, minlength=len(names))
    return [
        {
            "name": names[label],
            "clips": int(counts[label]),
            "right": {name: shares[label] for name, shares in right.items()},
            "motion": right["fusion"][label] - right["zero_shot"][label],
            "still": right["fusion"][label] - right["mv_tsn"][label],
        }
        for label in np.unique(labels).tolist()
    ]


@dataclass(frozen=True)
class Confusion:
    """`counts` (classes, classes): clips of a row's class that were taken for a column's; `names` of both.

    `worst` are the most frequent confusions: actual, predicted, how many clips, of how many.
    """

    names: list[str]
    counts: np.ndarray
    worst: list[tuple[str, str, int, int]]


def confusion(logits: np.ndarray, labels: np.ndarray, names: Sequence[str], most: int = 8) -> Confusion:
    """Count which classes are taken for which, of those that occur or are predicted."""
    predicted = logits.argmax(axis=1)
    seen = np.union1d(labels, predicted)
    counts = np.zeros((len(seen), len(seen)), np.int64)
    np.add.at(counts, (np.searchsorted(seen, labels), np.searchsorted(seen, predicted)), 1)
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [(int(row), int(column)) for row, column in zip(*np.unravel_index(order, wrong.shape), strict=True)]
    own = [names[label] for label in seen]
    totals = counts.sum(axis=1)
    worst = [(own[a], own[b], int(wrong[a, b]), int(totals[a])) for a, b in pairs if wrong[a, b]]
    return Confusion(own, counts, worst)


@dataclass(frozen=True)
class Choice:
    """A clip of the gallery: its row, why it is there (of `KINDS`), and by how much.

    gain : how much more probable fusion makes the true class than the better stream alone does.
    error : how much more probable it makes another class than the true one; not above 0 where it is right.
    """

    row: int
    kinds: list[str]
    gain: float
    error: float


def choose(shares: Mapping[str, np.ndarray], labels: np.ndarray, count: int, seed: int) -> list[Choice]:
    """Clips to look at, `count` of each kind: where fusion gains most, where it errs worst, and a random draw.

    `shares` are probabilities (clips, classes) of "zero_shot", "mv_tsn" and "fusion". No class has a second clip of a
    kind before each that can has one. A clip may be of several kinds.
    """
    rows = np.arange(len(labels))
    true = {name: values[rows, labels] for name, values in shares.items()}
    fused = shares["fusion"]
    gain = true["fusion"] - np.maximum(true["zero_shot"], true["mv_tsn"])
    error = fused.max(axis=1) - true["fusion"]
    wrong = fused.argmax(axis=1) != labels
    gained, erred = rows[~wrong & (gain > 0)], rows[wrong]
    picked = {
        "gain": _highest(gained, gain, labels)[:count],
        "error": _highest(erred, error, labels)[:count],
        "random": np.random.default_rng(seed).permutation(rows)[:count],
    }
    kinds: dict[int, list[str]] = {}
    for kind, chosen in picked.items():
        for row in chosen.tolist():
            kinds.setdefault(row, []).append(kind)
    return [Choice(row, own, float(gain[row]), float(error[row])) for row, own in kinds.items()]


def _highest(rows: np.ndarray, score: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The rows by falling score; the best of each class first, then the second of each..."""
    ordered = rows[np.argsort(-score[rows], kind="stable")]
    earlier = np.array([np.sum(labels[ordered[:place]] == labels[row]) for place, row in enumerate(ordered)], int)
    return ordered[np.argsort(earlier, kind="stable")]


def still(path: Path, frame: int) -> str:
    """A frame of a clip as a data URI, JPEG. Raises VideoError."""
    picture = Image.fromarray(video.read_frames(path, [frame])[0])
    size = WIDTH, max(1, round(WIDTH * picture.height / picture.width))
    content = io.BytesIO()
    picture.resize(size, Image.Resampling.LANCZOS).save(content, "jpeg", quality=QUALITY)
    return _uri(content.getvalue(), "image/jpeg")


def motion_picture(path: Path, fields: np.ndarray) -> str:
    """The motion of a clip over its dimmed pictures as a data URI, animated WebP. Raises VideoError.

    `fields` (T, 2, rows, columns) are in px of their canvas. Hue tells the direction, brightness the length. Vectors
    fade over some frames: I-frames have none, and B-frames few. At most `FRAMES` pictures, evenly, so long clips play
    faster.
    """
    limit = draw.readable_limit(np.hypot(fields[:, 0], fields[:, 1]))
    step = -(-len(fields) // FRAMES)
    held = fading(fields)
    with video.decoding(path) as (rate, frames), tempfile.TemporaryDirectory() as folder:
        shown = _motion_pictures(frames, held, limit, step)
        target = Path(folder) / "motion.webp"
        draw.write_animation(target, shown, max(float(rate) / step, len(fields) / step / SECONDS))
        return _uri(target.read_bytes(), "image/webp")


def fading(fields: np.ndarray) -> np.ndarray:
    """Each cell's vector, or what is left of the one before where that is longer; same shape as `fields`."""
    faded = fields.copy()
    for before, now in pairwise(faded):
        rest = FADING * before
        longer = np.hypot(*rest) > np.hypot(*now)
        now[:, longer] = rest[:, longer]
    return faded


def _motion_pictures(frames: Iterator[Any], fields: np.ndarray, limit: float, step: int) -> Iterator[np.ndarray]:
    for number, (picture, field) in enumerate(zip(frames, fields, strict=False)):
        if number % step == 0:
            height = max(1, round(WIDTH * picture.height / picture.width))
            frame = picture.reformat(WIDTH, height, "rgb24").to_ndarray()
            yield draw.over(frame, draw.upscaled(draw.hsv(field, limit), (height, WIDTH)))


def wheel(size: int = 96) -> str:
    """The colours of a motion picture's directions as a data URI, PNG: what moves to the right has the colour there."""
    y, x = np.mgrid[:size, :size] * 2 / (size - 1) - 1
    inside = np.hypot(x, y) <= 1
    colours = draw.hsv(np.stack([x, y]) * inside, 1.0)
    content = io.BytesIO()
    Image.fromarray(np.dstack([colours, np.uint8(255) * inside])).save(content, "png")
    return _uri(content.getvalue(), "image/png")


def _uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
