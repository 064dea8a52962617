"""Small models and long videos for tests of timelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from moclip.inference.clip_input import FieldSettings, ViewSettings
from moclip.inference.predictor import Predictor
from moclip.models.class_texts import ClassTexts, text_features
from moclip.models.fusion import FusionConfig
from moclip.models.heads.concat import ConcatFusion
from moclip.models.mv_tsn import MvTsn, MvTsnConfig
from tests.test_training import sharpened
from tests.tiny_clip import load_clip, tiny_clip

CLASSES = ("left", "right", "up")


def small_predictor(
    folder: Path, network: dict[str, Any] | None = None, fields: dict[str, Any] | None = None, **views: Any
) -> Predictor:
    """Networks with random weights, whose answers differ from clip to clip."""
    clip = load_clip(str(tiny_clip(folder)))
    torch.manual_seed(0)
    config = {"backbone": "test_resnet", "classes": CLASSES, "size": 32, "dropout": 0.5} | (network or {})
    mv_tsn = sharpened(MvTsn(MvTsnConfig(**config)))
    head = ConcatFusion(FusionConfig(mv_tsn.width, clip.width, 16, len(CLASSES), 0.5)).eval()
    texts = text_features(clip, CLASSES, {name: [name] for name in CLASSES}, ["a {}"])
    settings = {"transcode": False, "canvas": (240, 320), "cell": 8, "clip": 20.0, "accumulate": False}
    shown = {"segments": 3, "crops": 1, "crop": 0.875, "stills": 1, "choice": "middle", "seed": 0}
    return Predictor(
        mv_tsn=mv_tsn,
        fusion=head,
        encoder=clip,
        classes=CLASSES,
        texts=ClassTexts(texts, 20.0, 0.0, ("a {}",)),
        fields=FieldSettings(**settings | (fields or {})),
        views=ViewSettings(**shown | {"stack": mv_tsn.config.stack} | views),
    )
