"""Run a trained MV-TSN on clips: features and logits under the test protocol, and features of augmented views."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from moclip.data.clip_batches import SampledFields, SplitClips
from moclip.data.crops import crop_and_resize, protocol_crops, random_crops
from moclip.models.mv_tsn import MvTsn
from moclip.training.mv_batches import read_ahead, slice_batches


@torch.inference_mode()
def embed_protocol(
    model: MvTsn,
    fields: SampledFields,
    clips: SplitClips,
    segments: int,
    crops: int,
    crop: float,
    batch: int,
    device: torch.device,
    advance: Callable[[int], object] = lambda count: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute features (n, D) and logits (n, classes) under a test protocol: means over `segments` x `crops` views.

    The model runs in eval mode, on about `batch` views at once. `advance` is called with the number of clips done.
    """
    model.to(device).eval()
    boxes = protocol_crops(fields.grid, crop, crops)
    parts = [clips[rows] for rows in slice_batches(len(clips), max(1, batch // (segments * crops)))]
    features = []
    for part, read in read_ahead(fields, parts, segments):
        grids = torch.from_numpy(read).to(device).repeat_interleave(crops, dim=0)
        views = crop_and_resize(grids, boxes.tile(len(part) * segments), model.config.size, model.config.stabilise)
        features.append(model.pool(model.encode(views).float().unflatten(0, (len(part), segments, crops))))
        advance(len(part))
    pooled = torch.cat(features)
    return pooled.cpu().numpy(), model.head(pooled).cpu().numpy()


@torch.inference_mode()
def embed_view(
    model: MvTsn,
    fields: SampledFields,
    clips: SplitClips,
    segments: int,
    scales: tuple[float, ...],
    flip: bool,
    batch: int,
    device: torch.device,
    generator: np.random.Generator,
    advance: Callable[[int], object] = lambda count: None,
) -> np.ndarray:
    """Compute features (n, D) of one augmented view: a random frame per segment, one random crop and flip per clip."""
    model.to(device).eval()
    parts = [clips[rows] for rows in slice_batches(len(clips), max(1, batch // segments))]
    features = []
    for part, read in read_ahead(fields, parts, segments, generator):
        boxes = random_crops(len(part), fields.grid, scales, flip, generator).repeat(segments)
        views = crop_and_resize(torch.from_numpy(read).to(device), boxes, model.config.size, model.config.stabilise)
        features.append(model.pool(model.encode(views).float().unflatten(0, (len(part), segments, 1))))
        advance(len(part))
    return torch.cat(features).cpu().numpy()
