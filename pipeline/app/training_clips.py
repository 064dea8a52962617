"""The clips of the project that are nearest to a visitor's, with pictures of them."""

from __future__ import annotations

import functools
from typing import Any

from moclip.inference.predictor import Prediction
from pipeline.ask.answer import Row
from pipeline.ask.features import compared_clips, predicted_features
from pipeline.ask.nearest import nearest_rows
from pipeline.ask.page import Card, CardPictures
from pipeline.inputs import Inputs
from pipeline.params import Params

PICTURES_KEPT = 200


class TrainingClips:
    """The clips of train, val and test that have features. Raises MoclipError where there are none."""

    def __init__(self, params: Params) -> None:
        inputs = Inputs(params)
        self.compared = compared_clips(inputs, None)
        self._pictures = CardPictures(inputs)
        self._drawn = functools.lru_cache(PICTURES_KEPT)(self._draw)

    def nearest(self, answer: Prediction, count: int) -> list[Row]:
        """Return the nearest clips as `moclip similar FILE` shows them, the nearest first."""
        return nearest_rows(self.compared, predicted_features([answer], self.compared.parts), -1, count)

    def pictures(self, clip: str) -> dict[str, Any]:
        """Return a clip's still and motion as data URIs, or the reason why there are none (see `clip_pictures`)."""
        return self._drawn(clip)

    def _draw(self, clip: str) -> dict[str, Any]:
        return self._pictures.of(Card(clip, []))
