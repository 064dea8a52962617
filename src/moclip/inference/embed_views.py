"""Run a trained MV-TSN, or the image baseline, on the motion fields of many clips in parts (see `encode`)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from moclip.files.folders import Folder
from moclip.inference.encode import EncodingPart, Versions, check_finite
from moclip.store.layout import DESCRIPTION_FILE
from moclip.store.resumable import ResumableParts
from moclip.workers.cluster import check_visible

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ViewsTask:
    """Which views of each clip MV-TSN embeds, and where the parts are written.

    `model` is the content of the model's file, so that machines of a cluster only need to share the store. `segments`,
    `crops` and `crop` are the test protocol; `scales` and `flip` are for augmented views. `parts_folder` and `key` are
    those of `ResumableParts`.
    """

    model: bytes = field(repr=False)
    store: str
    segments: int
    crops: int
    crop: float
    scales: tuple[float, ...]
    flip: bool
    batch: int
    seed: int
    parts_folder: str
    key: str
    versions: Versions

    def check_input_visible(self) -> None:
        check_visible(Folder(self.store).exists(DESCRIPTION_FILE), self.store)


class ViewsWorker:
    """Embeds clips with a trained MV-TSN.

    A part's rows have columns id, offset, length, slots, shard, codec, label and status.
    """

    def __init__(self, task: ViewsTask) -> None:
        from moclip.models.device import pick_device
        from moclip.models.mv_tsn import load_mv_tsn
        from moclip.store.reader import FieldReader
        from moclip.store.table import as_table

        self.task = task
        self.device: torch.device = pick_device()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "mv_tsn.safetensors"
            file.write_bytes(task.model)
            self.model = load_mv_tsn(file).frozen()
        self.reader = FieldReader(task.store, as_table(pd.DataFrame()))
        self.parts = ResumableParts(task.parts_folder, task.key)

    def run_job(self, part: EncodingPart) -> None:
        arrays = self._embed(part)
        check_finite(list(part.rows["id"]), arrays)
        self.parts.write(part.name, arrays, {})

    def run(self, parts: Sequence[EncodingPart]) -> Iterator[EncodingPart]:
        """Embed parts. Yields each when it is written."""
        for part in parts:
            self.run_job(part)
            yield part

    def _embed(self, part: EncodingPart) -> dict[str, np.ndarray]:
        """Return the features of an augmented view, or features and logits under the test protocol."""
        from moclip.data.clip_batches import SampledFields, SplitClips
        from moclip.training.embed import embed_protocol, embed_view

        task, model, device = self.task, self.model, self.device
        fields = SampledFields.of(self.reader.with_table(part.rows), part.rows, model.config.stack)
        clips = SplitClips.of(part.rows)
        if part.view is None:
            features, logits = embed_protocol(
                model, fields, clips, task.segments, task.crops, task.crop, task.batch, device
            )
            return {"features": features, "logits": logits}
        part_number = int(part.name.rsplit("-", 1)[1])
        generator = np.random.default_rng([task.seed, part.view, part_number])
        features = embed_view(
            model, fields, clips, task.segments, task.scales, task.flip, task.batch, device, generator
        )
        return {"features": features}
