"""X-CLIP (arXiv 2208.02816), a CLIP of videos: the frames of a clip go through it together and give one feature.

Its own zero-shot score also changes the texts by what the video shows. Here a class has one text feature, whatever the
video, as the feature store needs it; the fusion heads learn the rest.
"""

from __future__ import annotations

import torch
from torch import Tensor

from moclip.errors import ModelError
from moclip.models.encoders.image_text import ImageTextEncoder
from moclip.models.encoders.preparing import Preparer, ProcessedVideos
from moclip.models.encoders.source import EncoderSource


class XClipEncoder(ImageTextEncoder):
    """X-CLIP. `clip.pool` must be clip, and `clip.frames` the number of frames that it was trained with."""

    text_parts = (*ImageTextEncoder.text_parts, "prompts_generator.", "prompts_visual_")

    def __init__(self, source: EncoderSource, device: torch.device) -> None:
        super().__init__(source, device)
        if source.pool != "clip":
            what = f"it encodes {self.pictures_per_feature} frames of a clip together"
            fix = f"set clip.pool=clip and clip.frames={self.pictures_per_feature}"
            raise ModelError(what, where=source.model, fix=fix)

    @property
    def pictures_per_feature(self) -> int:  # type: ignore[override]
        return int(self.model.config.vision_config.num_frames)

    def _make_preparer(self) -> Preparer:
        return ProcessedVideos(self.processor, self.pixels, self.pictures_per_feature)

    def picture_features(self, prepared: dict[str, Tensor]) -> Tensor:
        return self.model.get_video_features(**prepared).pooler_output
