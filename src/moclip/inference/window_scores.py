"""Score sliding windows with the trained models, from samples that overlapping windows share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch

from moclip.data.fusion_data import no_stills
from moclip.inference.frame_samples import MOTION, STILL, Sample
from moclip.inference.predictor import Predictor, Step
from moclip.inference.windows import Grid, Windows, window_grid

WINDOWS_AT_ONCE = 64
Value = TypeVar("Value")


class Scores(NamedTuple):
    """The answers for some consecutive windows.

    first : number of the first of them.
    probabilities : of each stream, float32 (n, classes).
    unknown : bool (n,), windows that have no answer: no frame was shown in them, or the predictor's rejection says so.
    """

    first: int
    probabilities: dict[str, np.ndarray]
    unknown: np.ndarray


class WindowScorer:
    """Takes the samples of a video in order, and gives the scores of each window that is complete.

    A field or still goes through its network once. Only what the open windows need is kept.
    """

    def __init__(self, predictor: Predictor, windows: Windows, step: Step = nullcontext) -> None:
        self.predictor, self.windows, self.step = predictor, windows, step
        self.motion_grid, self.still_grid = sampling_grids(predictor, windows)
        self.motion: _Placed[torch.Tensor] = _Placed()  # features (crops, D)
        self.stills: _Placed[np.ndarray] = _Placed()  # features (width,), or pictures that are encoded together
        self.done = 0

    def add(self, samples: Sequence[Sample]) -> Iterator[Scores]:
        """Take the next samples; yield the scores of the windows that are complete with them."""
        with torch.inference_mode():
            self._encode_motion([sample for sample in samples if sample.kind == MOTION])
            self._place_stills([sample for sample in samples if sample.kind == STILL])
        yield from self._score_until(self._complete())

    def finish(self, duration: float) -> Iterator[Scores]:
        """Yield the scores of the windows that the end of the video, after `duration` seconds, cuts short.

        Behind the end stands its last frame.
        """
        if self.motion.latest is not None and (self.still_grid is None or self.stills.latest is not None):
            yield from self._score_until(self.windows.count(duration))

    def _encode_motion(self, samples: Sequence[Sample]) -> None:
        if not samples:
            return
        with self.step("mv_tsn"):
            features = self.predictor.encode_fields(np.stack([sample.content for sample in samples]))
        for sample, feature in zip(samples, features, strict=True):
            self.motion.put(sample.places, feature)

    def _place_stills(self, samples: Sequence[Sample]) -> None:
        if not samples:
            return
        pictures = [sample.content for sample in samples]
        values = pictures if self._encodes_together else list(self._encode_stills(pictures))
        for sample, value in zip(samples, values, strict=True):
            self.stills.put(sample.places, value)

    def _encode_stills(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        with self.step("clip"):
            return self.predictor.encode_stills(pictures)

    @property
    def _encodes_together(self) -> bool:
        """Whether the stills of a window go through the encoder together, so that windows cannot share them."""
        encoder = self.predictor.encoder
        return encoder is not None and encoder.pictures_per_feature > 1

    def _complete(self) -> int:
        """Return how many windows have seen all of their places."""
        counts = [_complete_windows(self.motion_grid, self.motion.end)]
        if self.still_grid:
            counts.append(_complete_windows(self.still_grid, self.stills.end))
        return min(counts)

    def _score_until(self, count: int) -> Iterator[Scores]:
        while self.done < count:
            numbers = range(self.done, min(count, self.done + WINDOWS_AT_ONCE))
            yield self._score(numbers)
            self.done = numbers.stop
            self.motion.forget(self.motion_grid.places(self.done)[0])
            if self.still_grid:
                self.stills.forget(self.still_grid.places(self.done)[0])

    def _score(self, numbers: range) -> Scores:
        places = [self.motion_grid.places(number) for number in numbers]
        with torch.inference_mode():
            features = torch.stack([torch.stack(self.motion.of(taken)) for taken in places])
            stills = self._stills_of(numbers)
            with self.step("fusion"):
                motion = self.predictor.pool(features)
                logits = self.predictor.score(motion, stills)
                probabilities = self.predictor.probabilities(logits)
        unknown = np.array([not self.motion.has_any(taken) for taken in places])
        if rejection := self.predictor.rejection:
            seen = {"motion": motion.cpu().numpy(), "picture": stills}
            unknown |= rejection.unknown(logits[rejection.stream].cpu().numpy(), seen)
        return Scores(numbers.start, probabilities, unknown)

    def _stills_of(self, numbers: Sequence[int]) -> np.ndarray:
        """Return the features of the stills of windows: (n, K, width)."""
        if self.still_grid is None:
            return no_stills(len(numbers))
        found = [self.stills.of(self.still_grid.places(number)) for number in numbers]
        if self._encodes_together:
            return np.stack([self._encode_stills(pictures) for pictures in found])
        return np.stack([np.stack(features) for features in found])


def sampling_grids(predictor: Predictor, windows: Windows) -> tuple[Grid, Grid | None]:
    """Return the grids of the motion and of the stills, which are the middle ones of a window."""
    views = predictor.views
    stills = window_grid(windows, views.stills) if predictor.encoder and views.stills else None
    return window_grid(windows, views.segments), stills


def _complete_windows(grid: Grid, end: int) -> int:
    """Return how many windows have all of their places before `end`."""
    return max(0, (end - 1 - int(grid.offsets[-1])) // grid.shift + 1)


class _Placed(Generic[Value]):
    """What is known at each place of a grid that open windows take.

    end : the number of places that are decided, with a value or without.
    latest : the last value.
    """

    def __init__(self) -> None:
        self.end = 0
        self.latest: Any = None
        self._values: dict[int, Value] = {}

    def put(self, places: Sequence[int], value: Value) -> None:
        """Set the value at `places`, which come after all earlier ones."""
        self._values |= dict.fromkeys(places, value)
        self.end, self.latest = places[-1] + 1, value

    def has_any(self, places: np.ndarray) -> bool:
        """Return whether one of these places has a value."""
        return any(place in self._values for place in places.tolist())

    def of(self, places: np.ndarray) -> list[Value]:
        """Return the value at each place. Where there is none, it is that before it, or else the next one."""
        found = [self._values.get(place) for place in places.tolist()]
        latest: Any = next((value for value in found if value is not None), self.latest)
        filled = []
        for value in found:
            latest = latest if value is None else value
            filled.append(latest)
        return filled

    def forget(self, before: int) -> None:
        """Forget the values before a place."""
        for place in [place for place in self._values if place < before]:
            del self._values[place]
