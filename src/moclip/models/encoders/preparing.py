"""Prepare pictures for an image tower. These objects hold no network, so worker processes can have them, too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor


class Preparer(Protocol):
    """Turns RGB pictures, each (h, w, 3) uint8 of any size, into what the image tower takes. On the CPU.

    Every tensor has a row for each feature: for each picture, or for all pictures of a clip that go through together.
    """

    def __call__(self, pictures: Sequence[np.ndarray]) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class ProcessedPictures:
    """By an image processor of `transformers`. `inputs` are those of its results that the tower takes; None: all."""

    processor: Any
    inputs: tuple[str, ...] | None = None

    def __call__(self, pictures: Sequence[np.ndarray]) -> dict[str, Tensor]:
        found = self.processor(images=_channels_first(pictures), return_tensors="pt")
        return {name: values for name, values in found.items() if self.inputs is None or name in self.inputs}


@dataclass(frozen=True)
class ProcessedVideos:
    """By an image processor of `transformers`, `frames` pictures at a time. `pixels` is the name of its result."""

    processor: Any
    pixels: str
    frames: int

    def __call__(self, pictures: Sequence[np.ndarray]) -> dict[str, Tensor]:
        tensors = _channels_first(pictures)
        videos = [tensors[start : start + self.frames] for start in range(0, len(tensors), self.frames)]
        # one video at a time: the processor stacks the frames of a video, which may differ in size between videos
        parts = [self.processor(images=video, return_tensors="pt")[self.pixels] for video in videos]
        return {self.pixels: torch.cat([part.reshape(1, self.frames, *part.shape[-3:]) for part in parts])}


@dataclass(frozen=True)
class TransformedPictures:
    """By a transform of PIL images, as timm and open_clip have them."""

    transform: Callable[[Image.Image], Tensor]

    def __call__(self, pictures: Sequence[np.ndarray]) -> dict[str, Tensor]:
        return {"pixels": torch.stack([self.transform(Image.fromarray(picture)) for picture in pictures])}


def _channels_first(pictures: Sequence[np.ndarray]) -> list[Tensor]:
    return [torch.from_numpy(picture).permute(2, 0, 1) for picture in pictures]
