"""The head `cache` compares a clip with the training clips: Tip-Adapter (arXiv 2111.03930, section 3) on two streams.

    cache = (1 - m) * exp(-b_p (1 - cosine(picture, keys))) @ values + m * exp(-b_m (1 - cosine(motion, keys))) @ values
    logits = temperature * picture @ text^T + alpha * cache

The first term is zero-shot CLIP; an encoder without a text tower has none. The keys are the features of the training
clips, a key of each stream per clip. As in the authors' code, a clip's key is the mean of its augmented views: they are
views of one clip, and the mean is closest to what is compared with it, a mean over segments. The values are one-hot
labels divided by the number of clips of the class, so a class with more clips has no advantage, and alpha means the
same for any number of clips.

Without training, alpha, m, b_p and b_m are chosen on validation. With `fusion.cache_tune` the keys are trained first
(Tip-Adapter-F), from `START`. An alpha of 0 is zero-shot CLIP.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from moclip.models.heads.base import Choice, Fusion, HeadInputs, Settings
from moclip.models.heads.config import FusionConfig

ALPHAS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)
SHARPNESS = (1.0, 3.0, 10.0, 30.0)
MOTION_SHARES = (0.25, 0.5, 0.75)

START: Settings = {"alpha": 10.0, "motion": 0.5, "picture_sharpness": 5.5, "motion_sharpness": 5.5}
"""Settings while the keys are trained. The paper's sharpness is 5.5."""


class CacheFusion(Fusion):
    """Head `cache`. Keys are (n, motion) and (n, picture), `labels` (n,), `text` (classes, picture) of unit length."""

    kind = "cache"
    text: Tensor | None
    labels: Tensor
    values: Tensor

    def __init__(self, config: FusionConfig, text: Tensor | None, keys: tuple[Tensor, Tensor], labels: Tensor) -> None:
        super().__init__(config)
        self.settings = dict(START)
        self.register_buffer("text", text)
        self.register_buffer("labels", labels)
        self.motion_keys, self.picture_keys = (nn.Parameter(values, requires_grad=False) for values in keys)
        one_hot = functional.one_hot(labels, config.classes).float()
        self.register_buffer("values", one_hot / one_hot.sum(0).clamp_min(1), persistent=False)

    @classmethod
    def create(cls, config: FusionConfig, inputs: HeadInputs) -> Self:
        train = inputs.train
        views = functional.normalize(train.motion, dim=-1)
        motion, pictures = (functional.normalize(features.mean(1), dim=-1) for features in (views, train.stills))
        head = cls(config, inputs.text, (motion, pictures), train.labels)
        head.settings |= {"temperature": inputs.temperature}
        if inputs.options["cache_tune"]:
            head.motion_keys.requires_grad_()
            head.picture_keys.requires_grad_()
        return head

    @classmethod
    def restore(cls, config: FusionConfig, tensors: Mapping[str, Tensor]) -> Self:
        return cls(config, tensors.get("text"), (tensors["motion_keys"], tensors["picture_keys"]), tensors["labels"])

    def score(self, motion: Tensor, picture: Tensor) -> Tensor:
        chosen = self.settings
        picture_cosines, motion_cosines = self._cosines(motion, picture)
        of_picture = self._class_scores(picture_cosines, chosen["picture_sharpness"])
        of_motion = self._class_scores(motion_cosines, chosen["motion_sharpness"])
        cache = (1 - chosen["motion"]) * of_picture + chosen["motion"] * of_motion
        return self._zero_shot(picture) + chosen["alpha"] * cache

    def choices(self, motion: Tensor, stills: Tensor) -> Iterator[Choice]:
        picture = self.pooling(motion, stills)
        zero_shot = self._zero_shot(picture)
        picture_cosines, motion_cosines = self._cosines(motion, picture)
        of_picture, of_motion = (
            {sharpness: self._class_scores(cosines, sharpness) for sharpness in SHARPNESS}
            for cosines in (picture_cosines, motion_cosines)
        )
        if self.text is not None:
            yield Choice(0.0, self.settings | {"alpha": 0.0}, zero_shot)
        for alpha, share, of_p, of_m in product(ALPHAS, MOTION_SHARES, SHARPNESS, SHARPNESS):
            settings = {"alpha": alpha, "motion": share, "picture_sharpness": of_p, "motion_sharpness": of_m}
            cache = (1 - share) * of_picture[of_p] + share * of_motion[of_m]
            yield Choice(alpha, self.settings | settings, zero_shot + alpha * cache)

    def _zero_shot(self, picture: Tensor) -> Tensor:
        if self.text is None:
            return picture.new_zeros(len(picture), self.config.classes)
        return self.settings["temperature"] * picture @ self.text.T

    def _cosines(self, motion: Tensor, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the cosines (B, n) of pictures, and of motion features, with the keys."""
        picture_keys, motion_keys = (
            functional.normalize(keys, dim=-1) for keys in (self.picture_keys, self.motion_keys)
        )
        return picture @ picture_keys.T, functional.normalize(motion, dim=-1) @ motion_keys.T

    def _class_scores(self, cosines: Tensor, sharpness: float) -> Tensor:
        """Compute the mean affinity (B, classes) with the keys of each class."""
        return torch.exp(-sharpness * (1 - cosines.float())) @ self.values
