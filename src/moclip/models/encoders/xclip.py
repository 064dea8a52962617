"""X-CLIP (arXiv 2208.02816), a CLIP of videos: the frames of a clip go through it together and give one feature.

Its own zero-shot score also changes the texts by what the video shows. Here a class has one text feature, whatever the
video, as the feature store needs it; the fusion heads learn the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from moclip.errors import ModelError
from moclip.models.encoders.base import picture_tensors
from moclip.models.encoders.image_text import ImageTextEncoder
from moclip.models.encoders.source import EncoderSource


class XClipEncoder(ImageTextEncoder):
    """X-CLIP. `clip.pool` must be clip, and `clip.frames` the number of frames that it was trained with."""

    text_parts = (*ImageTextEncoder.text_parts, "prompts_generator.")

    def __init__(self, source: EncoderSource, device: torch.device) -> None:
        super().__init__(source, device)
        if source.pool != "clip":
            what = f"it encodes {self.pictures_per_feature} frames of a clip together"
            fix = f"set clip.pool=clip and clip.frames={self.pictures_per_feature}"
            raise ModelError(what, where=source.model, fix=fix)

    @property
    def pictures_per_feature(self) -> int:  # type: ignore[override]
        return int(self.model.config.vision_config.num_frames)

    def prepare(self, pictures: Sequence[np.ndarray]) -> dict[str, Tensor]:
        count = self.pictures_per_feature
        tensors = picture_tensors(pictures)
        videos = [tensors[start : start + count] for start in range(0, len(tensors), count)]
        # one video at a time: the processor stacks the frames of a video, which may differ in size between videos
        parts = [self.processor(images=video, return_tensors="pt")[self.pixels] for video in videos]
        return {self.pixels: torch.cat([part.reshape(1, count, *part.shape[-3:]) for part in parts])}

    def picture_features(self, prepared: dict[str, Tensor]) -> Tensor:
        return self.model.get_video_features(**prepared).pooler_output
