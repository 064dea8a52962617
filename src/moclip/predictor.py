"""From a video file to class probabilities of the three streams, in one go; what `moclip predict` calls."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from moclip import motion, video
from moclip.augment import pictures, protocol_crops
from moclip.clip import Clip
from moclip.features import normalised
from moclip.fusion import Fusion
from moclip.mv_tsn import MvTsn
from moclip.sampling import motion_frames, segment_frames, still_frames
from moclip.transcode import transcoded

PARTS = ("read_vectors", "mv_tsn", "read_stills", "clip", "fusion")
"""The steps of a prediction: decode the vectors into fields, the network on them, decode stills, CLIP, the head."""

Part = Callable[[str], AbstractContextManager[object]]


@dataclass(frozen=True)
class FieldSettings:
    """How vectors become a field; must equal what the models were trained on."""

    transcode: bool
    canvas: tuple[int, int]
    cell: int
    clip: float
    accumulate: bool | str


@dataclass(frozen=True)
class ViewSettings:
    """How a clip is looked at: motion segments and crops, and stills."""

    segments: int
    crops: int
    crop: float
    stills: int
    choice: str
    seed: int


@dataclass
class Predictor:
    """The trained models and the text features (classes, width) with their temperature."""

    mv_tsn: MvTsn
    fusion: Fusion
    clip: Clip
    text: np.ndarray
    logit_scale: float
    fields: FieldSettings
    views: ViewSettings

    def __call__(self, path: Path, part: Part = nullcontext) -> dict[str, np.ndarray]:
        """Probabilities (classes,) float32 of "fusion", "mv_tsn" and "zero_shot". Raises VideoError.

        `part(name)` is entered around each step of the work, one of `PARTS`.
        """
        with torch.inference_mode():
            with part("read_vectors"):
                levels, frames = self._levels(path)
            with part("mv_tsn"):
                motion_features, motion_logits = self._motion(levels)
            with part("read_stills"):
                numbers = still_frames(frames, self.views.stills, self.views.choice, self.views.seed, path.name)
                pictures_of_it = list(video.read_frames(path, numbers))
            with part("clip"):
                stills = normalised(self.clip.encode_images(pictures_of_it))
            with part("fusion"):
                fused = self.fusion(motion_features, torch.from_numpy(stills)[None])
                zero_shot = torch.from_numpy(self.logit_scale * self.text @ normalised(stills.mean(axis=0)))
            logits = {"fusion": fused[0], "mv_tsn": motion_logits[0], "zero_shot": zero_shot}
            return {name: torch.softmax(values, dim=0).numpy() for name, values in logits.items()}

    def _levels(self, path: Path) -> tuple[torch.Tensor, int]:
        """The int8 fields (segments, 2, gh, gw) that the network looks at, and the clip's length in frames."""
        with transcoded(path) if self.fields.transcode else nullcontext(path) as source:
            info = video.probe(source)
            windows = video.windows(source, "pyav")  # whatever backend filled the store: its fields are the same
            made = motion.fields(windows, self.fields.canvas, self.fields.cell, self.fields.accumulate)
            field, types = (np.concatenate(parts) for parts in zip(*made, strict=True))
        length, b_vectors = np.array([len(field)]), np.array([info.codec in video.B_VECTOR_CODECS])
        target = motion_frames(types, np.array([0]), length, b_vectors)
        wanted = target[segment_frames(length, self.views.segments)[0]]
        return torch.from_numpy(motion.quantise(field[wanted], self.fields.clip)), info.frames

    def _motion(self, levels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        boxes = protocol_crops((levels.shape[-2], levels.shape[-1]), self.views.crop, self.views.crops)
        shown = pictures(
            levels.repeat_interleave(self.views.crops, dim=0),
            boxes.tile(len(levels)),
            self.mv_tsn.config.size,
        )
        features = self.mv_tsn.features(shown).mean(0, keepdim=True)
        return features, self.mv_tsn.head(features)
