"""From the labels of windows to events: which action from when to when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from moclip.inference.smoothing import Smoothing, smoothed_labels


class Event(NamedTuple):
    """An action: from `start` to `end` in seconds, its class, and the mean probability of its windows."""

    start: float
    end: float
    name: str
    probability: float


@dataclass(frozen=True)
class EventRules:
    """Which events are told.

    smoothing : of the windows.
    min_length : seconds; shorter events are left out.
    threshold : events of a lower probability are left out.
    background : the class of what is no action; it has no events. None where there is no such class.
    """

    smoothing: Smoothing = field(default_factory=Smoothing)
    min_length: float = 0.0
    threshold: float = 0.0
    background: str | None = None


class EventBuilder:
    """Joins windows with the same label, in order, and tells each event when it ends."""

    def __init__(self, classes: Sequence[str], rules: EventRules) -> None:
        self.classes, self.rules = classes, rules
        self._label: int | None = None
        self._start = self._end = 0.0
        self._sum, self._windows = 0.0, 0

    def add(self, label: int | None, probability: float, start: float, end: float) -> Iterator[Event]:
        """Take the next window, which stands for `start` to `end`; its label is None where nothing is known."""
        if label != self._label:
            yield from self.finish()
            self._label, self._start = label, start
            self._sum, self._windows = 0.0, 0
        self._end = end
        self._sum += probability
        self._windows += 1

    def finish(self) -> Iterator[Event]:
        """End the event that is going on, if there is one."""
        label, self._label = self._label, None
        if label is None or self.classes[label] == self.rules.background:
            return
        event = Event(self._start, self._end, self.classes[label], self._sum / self._windows)
        long_enough = event.end - event.start >= max(self.rules.min_length - 1e-6, 1e-6)
        if long_enough and event.probability >= self.rules.threshold:
            yield event


def find_events(
    probabilities: np.ndarray, unknown: np.ndarray, edges: np.ndarray, classes: Sequence[str], rules: EventRules
) -> list[Event]:
    """Return the events of one stream.

    Parameters
    ----------
    probabilities : (n, classes) of the windows.
    unknown : bool (n,), windows without an answer: nothing is told of them.
    edges : (n + 1,) seconds, where the stretch of each window begins; the last is the end.
    """
    labels = smoothed_labels(probabilities, unknown, rules.smoothing)
    builder = EventBuilder(classes, rules)
    events: list[Event] = []
    for row, label in enumerate(labels.tolist()):
        known = None if unknown[row] else label
        events += builder.add(known, float(probabilities[row, label]), float(edges[row]), float(edges[row + 1]))
    return [*events, *builder.finish()]
