"""Sliding windows over a long video, and the times at which they look at it.

A window is read like a clip: one frame from the middle of each of its equal parts. The times of all windows lie on one
grid, so that what overlapping windows share is computed once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

SMALLEST = 1e-6
"""Seconds: times that differ by less are the same. Containers keep times in milliseconds at best."""


@dataclass(frozen=True)
class Windows:
    """Windows of `length` seconds, one `every` so many seconds, from the video's first frame on."""

    length: float
    every: float

    def count(self, duration: float) -> int:
        """Return how many windows a video has: the last one reaches its end. A short video has one."""
        begun = math.ceil((duration - SMALLEST) / self.every)
        needed = 1 + math.ceil((duration - self.length - SMALLEST) / self.every)
        return max(1, min(begun, needed))

    def edges(self, count: int, duration: float) -> np.ndarray:
        """Return where the stretch of each window begins, and last where the video ends: (count + 1,) in seconds.

        A window stands for the time around its middle that is nearer to it than to the middle of another one.
        """
        edges = np.append(self.first_edge + self.every * np.arange(count), duration)
        edges[0] = 0.0
        return np.minimum(edges, duration)

    def stretch(self, number: int) -> tuple[float, float]:
        """Return the stretch of a window that others follow, in seconds: see `edges`."""
        start = self.first_edge + self.every * number
        return (start if number else 0.0), start + self.every

    @property
    def first_edge(self) -> float:
        """Where the stretch of the first window would begin, were there windows before it."""
        return (self.length - self.every) / 2


@dataclass(frozen=True)
class Grid:
    """The places at which windows take a frame: place j is `first + j * step` s after the first frame.

    Window k takes the places `k * shift + offsets`.

    tolerance : seconds by which a frame may come after its place, where none is shown at the place.
    """

    first: float
    step: float
    shift: int
    offsets: np.ndarray
    tolerance: float

    def places(self, window: int) -> np.ndarray:
        """Return the places of a window: (parts,) int64."""
        return window * self.shift + self.offsets

    def is_used(self, place: int) -> bool:
        """Return whether any window takes this place: windows with gaps between them leave some out."""
        return place % self.shift in self._residues

    @property
    def _residues(self) -> frozenset[int]:
        return frozenset((self.offsets % self.shift).tolist())


def window_grid(windows: Windows, parts: int) -> Grid:
    """Return the grid of windows with so many equal parts.

    A place is the middle of a part where the parts of all windows coincide (`every` is a multiple of their length, or
    the other way round). Elsewhere it is the nearest point of a grid whose step is at most the length of a part, so at
    most half a part away.
    """
    part = windows.length / parts
    shift = max(1, math.ceil(windows.every / part - SMALLEST))
    step = windows.every / shift
    offsets = np.floor(np.arange(parts) * part / step + 0.5 + SMALLEST).astype(np.int64)
    return Grid(part / 2, step, shift, offsets, part)


class GridCursor:
    """Gives each place of a grid its frame, while the frames go by in order.

    It is the frame that is shown at that time: the first that ends after it, where a frame lasts `frame_seconds`.
    """

    def __init__(self, grid: Grid, frame_seconds: float) -> None:
        self.grid, self.frame_seconds = grid, frame_seconds
        self._next = 0

    def take(self, time: float) -> list[int]:
        """Return the places of the frame at `time`, in seconds after the first frame.

        Places before it that are further away than the grid's tolerance get no frame.
        """
        grid = self.grid
        stop = math.ceil((time + self.frame_seconds - SMALLEST - grid.first) / grid.step)
        start = max(self._next, math.ceil((time - grid.tolerance - grid.first) / grid.step))
        self._next = max(self._next, stop)
        return [place for place in range(start, stop) if grid.is_used(place)]
