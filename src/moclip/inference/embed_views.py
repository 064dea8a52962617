"""The trained MV-TSN, or the image baseline, over the motion fields of many clips, part by part (`encoding`)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from moclip.inference.encode import EncodingPart, Versions, check_numbers
from moclip.store.resumable import ResumableParts

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Views:
    """How MV-TSN is to see each clip, and where the parts go. `model` is the content of its file."""

    model: bytes = field(repr=False)
    store: str
    segments: int
    crops: int
    crop: float
    scales: tuple[float, ...]
    flip: bool
    batch: int
    seed: int
    place: str
    key: str
    versions: Versions

    @property
    def root(self) -> str:
        return self.store

    def sees(self) -> bool:
        from moclip.files.folders import Folder
        from moclip.store.layout import DESCRIPTION_FILE

        return Folder(self.store).exists(DESCRIPTION_FILE)


class ViewsWorker:
    """The trained MV-TSN over motion fields. A part's rows have columns id, offset, length, slots, shard, codec."""

    def __init__(self, given: Views) -> None:
        from moclip.models.device import pick_device
        from moclip.models.mv_tsn import load_mv_tsn
        from moclip.store.reader import FieldReader
        from moclip.store.table import as_table

        self.given = given
        self.device: torch.device = pick_device()
        with tempfile.TemporaryDirectory() as folder:  # the model travels by content: nothing but the store is shared
            file = Path(folder) / "mv_tsn.safetensors"
            file.write_bytes(given.model)
            self.model = load_mv_tsn(file).frozen()
        self.reader = FieldReader(given.store, as_table(pd.DataFrame()))
        self.parts = ResumableParts(given.place, given.key)

    def do(self, part: EncodingPart) -> None:
        for _ in self.run([part]):
            pass

    def run(self, waiting: Sequence[EncodingPart]) -> Iterator[EncodingPart]:
        """Do parts, yielding each when it is set down."""
        from moclip.data.clip_batches import SampledFields, SplitClips
        from moclip.training.embed import embed_protocol, embed_view

        given = self.given
        for part in waiting:
            fields = SampledFields.of(self.reader.with_table(part.rows), part.rows)
            clips = SplitClips(*(part.rows[name].to_numpy(np.int64) for name in ("offset", "length", "label")))
            if part.view is None:
                features, logits = embed_protocol(
                    self.model, fields, clips, given.segments, given.crops, given.crop, given.batch, self.device
                )
                arrays = {"features": features, "logits": logits}
            else:
                number = int(part.name.rsplit("-", 1)[1])
                generator = np.random.default_rng([given.seed, part.view, number])
                features = embed_view(
                    self.model,
                    fields,
                    clips,
                    given.segments,
                    given.scales,
                    given.flip,
                    given.batch,
                    self.device,
                    generator,
                )
                arrays = {"features": features}
            check_numbers(list(part.rows["id"]), arrays)
            self.parts.write(part.name, arrays, {})
            yield part
