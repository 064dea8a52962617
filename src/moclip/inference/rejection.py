"""Decide whether a clip is of none of the classes: `moclip predict --reject` then answers "unknown"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moclip.errors import ModelError
from moclip.evaluation.open_set import highest_probability, negative_distance, negative_energy
from moclip.models.weights import load_weights, save_weights

SCORES = ("probability", "energy", "distance")
"""The scores to choose from, the simplest first: see `moclip.evaluation.open_set`."""

UNKNOWN = "unknown"
"""What is shown in place of a class."""


@dataclass(frozen=True)
class Rejection:
    """A score of how well the models know a clip, and the threshold below which it is unknown.

    score : one of `SCORES`.
    threshold : lowest score of a clip that is answered.
    stream : the stream whose answers are rejected, and whose logits are scored.
    temperature : that of the stream, for the score "probability".
    background : label of the class that means none of the others; clips for which it wins are unknown. None: no class.
    kinds : kinds of features ("motion", "picture") that the score "distance" compares.
    neighbour : which training clip the distance is to; 1: the nearest.
    known : features of training clips, (m, width) float16, of unit length (`joined_features`); None for other scores.
    """

    score: str
    threshold: float
    stream: str
    temperature: float = 1.0
    background: int | None = None
    kinds: tuple[str, ...] = ()
    neighbour: int = 1
    known: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.score not in SCORES:
            raise ModelError(f"unknown score {self.score!r}: there are {', '.join(SCORES)}")
        if self.score == "distance" and (self.known is None or not len(self.known) or not self.kinds):
            raise ModelError("the score 'distance' needs features of training clips, but there are none")

    def scores(self, logits: np.ndarray, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the score of each clip, (n,) float64; higher is better known.

        `logits` are (n, classes) float32, of the stream. `features` are "motion" (n, width) and "picture"
        (n, stills, width), as in `Prediction.features`; only the score "distance" reads them.
        """
        if self.score == "probability":
            return highest_probability(logits, self.temperature)
        if self.score == "energy":
            return negative_energy(logits)
        assert self.known is not None  # see __post_init__
        return negative_distance(joined_features(features, self.kinds), self.known, self.neighbour)

    def unknown(self, logits: np.ndarray, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return whether each clip is unknown, (n,) bool. The arguments are those of `scores`."""
        return self.unknown_by(self.scores(logits, features), logits)

    def unknown_by(self, scores: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """Return what `unknown` does, where the `scores` (n,) are known."""
        return (scores < self.threshold) | self.is_background(logits)

    def is_background(self, logits: np.ndarray) -> np.ndarray:
        """Return whether the background class wins, (n,) bool."""
        if self.background is None:
            return np.zeros(len(logits), bool)
        return np.asarray(logits.argmax(axis=1) == self.background)


def joined_features(features: Mapping[str, np.ndarray], kinds: Sequence[str]) -> np.ndarray:
    """Return the features of several kinds side by side, (n, width) float32 of unit length.

    Each kind counts the same. Of a clip's stills, (n, stills, width), it is the mean.
    """
    parts = []
    for kind in kinds:
        values = np.asarray(features[kind], np.float32)
        values = values.mean(axis=1) if values.ndim == 3 else values
        lengths = np.linalg.norm(values, axis=1, keepdims=True)
        parts.append(values / np.where(lengths > 0, lengths, 1))
    return np.concatenate(parts, axis=1) / np.float32(np.sqrt(len(kinds)))


def save_rejection(path: Path, rejection: Rejection, record: Mapping[str, Any] | None = None) -> None:
    """Write a rejection. `record` says what it was chosen with; the same values give the same bytes."""
    config = {field.name: getattr(rejection, field.name) for field in fields(rejection) if field.name != "known"}
    known = rejection.known
    tensors = {} if known is None else {"known": torch.from_numpy(np.ascontiguousarray(known, np.float16))}
    save_weights(path, tensors, {"kind": "rejection", **config, **(record or {})})


def load_rejection(path: Path, stage: str = "evaluate") -> Rejection:
    """Read what `save_rejection` wrote. Raises ModelError."""
    tensors, config = load_weights(path, stage)
    values = {field.name: config[field.name] for field in fields(Rejection) if field.name in config}
    known = tensors.get("known")
    values |= {"kinds": tuple(config["kinds"]), "known": None if known is None else known.numpy()}
    return Rejection(**values)
