"""Which action happens when: windows of a long video have the answers of clips, and events are told from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moclip.inference.timeline import read_timeline
from moclip.inference.windows import Windows
from tests.clips import encode, moving_texture
from tests.timelines import small_predictor

VARIANTS: list[dict[str, Any]] = [
    {},
    {"network": {"channels": 6, "moments": 3}, "segments": 8, "stills": 4},
    {"network": {"channels": 4}, "crops": 5, "segments": 4},
    {"fields": {"accumulate": "grid"}},
    {"fields": {"accumulate": "pixel"}},
    {"fields": {"per": "second"}},
    {"fields": {"transcode": True}},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_a_short_clip_has_the_answer_of_predict(tmp_path: Path, variant: dict[str, Any], codec: str) -> None:
    predictor = small_predictor(tmp_path / "clip", **variant)
    path = encode(tmp_path / "a.mp4", moving_texture(19, (64, 80)), codec, b_frames=2 if codec == "libx264" else 0)
    expected = predictor(path)
    for length in (19 / 25, 3.0):
        timeline = read_timeline(predictor, path, Windows(length, 0.5))
        assert len(timeline.unknown) == 1
        for stream, probabilities in expected.probabilities.items():
            np.testing.assert_allclose(timeline.probabilities[stream][0], probabilities, atol=1e-5, err_msg=stream)
