"""What the training and scoring stages read in common: the index, the store of motion fields, the cached features.

Keeps to the clips that every needed feature covers, and knows the reason of each one left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import numpy as np
import pandas as pd
import torch

from moclip import dataset
from moclip.errors import ModelError, StoreError
from moclip.features import Features, normalised
from moclip.fields import Clips, Fields
from moclip.fusion_training import FusionData
from moclip.store import FieldReader
from moclip.training import LossError
from moclip.video import md5
from pipeline import console, paths
from pipeline.io import read_parquet
from pipeline.made import check_clips, check_made_from, check_made_with, clips_digest, named
from pipeline.params import Params


class Inputs:
    """Lazy: a stage that needs cached features only never opens the store of fields.

    With `shots`, train and val hold that many clips a class, drawn with the seed; with `base_to_new`, the first half of
    the classes alone.
    """

    def __init__(
        self, params: Params | None = None, shots: int | bool = False, seed: int = 0, base_to_new: bool = False
    ) -> None:
        self.params, self.shots, self.seed, self.base_to_new = params, shots, seed, base_to_new

    @classmethod
    def learning(cls, params: Params) -> Inputs:
        """As the stages see them that train: cut down as the parameters ask."""
        return cls(params, params.dataset.shots, params.seed, params.dataset.base_to_new)

    @cached_property
    def index(self) -> pd.DataFrame:
        return read_parquet(paths.INDEX, "index")

    @cached_property
    def usable(self) -> pd.DataFrame:
        """Index rows of all clips that can be used."""
        return dataset.usable(self.index)

    @cached_property
    def mv_table(self) -> pd.DataFrame:
        return read_parquet(paths.MV_TABLE, "extract_mv")

    @cached_property
    def clip_image(self) -> Features:
        return self._current(Features(paths.CLIP_IMAGE, "clip_image"))

    @cached_property
    def clip_text(self) -> Features:
        return self._current(Features(paths.CLIP_TEXT, "clip_text"))

    @cached_property
    def mv_embed(self) -> Features:
        found = self._current(Features(paths.MV_EMBED, "embed_mv", "protocol"))
        if paths.MV_TSN.exists():
            check_made_from(md5(paths.MV_TSN), found.attributes.get("model"), "another MV-TSN", found.path, "embed_mv")
        return found

    @cached_property
    def image_baseline(self) -> Features | None:
        """The image baseline's logits; None where baselines.image is false."""
        path = paths.IMAGE_BASELINE / "logits.zarr"
        return Features(path, "train_image") if path.exists() else None

    @cached_property
    def mv_views(self) -> Features:
        return Features(paths.MV_EMBED, "embed_mv", "views")

    def _current(self, found: Features) -> Features:
        """The same, unless it was made with other parameters, or from other clips, than there are now."""
        about, stage = found.attributes, found.stage
        if self.params is not None:
            check_made_with(about.get("made_with", {}), self.params, found.path, stage)
        if "clips" in about:
            check_made_from(clips_digest(self.usable), about["clips"], "other clips", found.path, stage)
        return found

    def reader(self) -> FieldReader:
        """The store of motion fields, of all clips."""
        with console.loading():  # else its first read does, and an interrupt leaves a library half imported
            import tensorstore  # noqa: F401
        return FieldReader(paths.MV_STORE, self.mv_table)

    def fields(self) -> Fields:
        """The store of motion fields. Raises MoclipError where clips or parameters have changed since it was made."""
        rows, reader = self.motion_rows(), self.reader()
        if self.params is not None:
            made = {f"mv.{name}": reader.attributes[name] for name in ("canvas", "cell", "clip", "accumulate")}
            check_made_with(made, self.params, paths.MV_STORE, "extract_mv")
            if not self.params.index.transcode:
                check_clips(rows, self.params.dataset.root)
        return Fields.of(reader, rows)

    @contextmanager
    def naming(self, rows: pd.DataFrame) -> Iterator[None]:
        """Within, a loss that is no longer a number is told with the clips of its step; `rows` are those trained on."""
        try:
            yield
        except LossError as lost:
            ids = rows["id"].iloc[list(lost.rows)]
            raise ModelError(f"{lost.what}, with {named(ids, 8)}", where=lost.where, fix=lost.fix) from None

    def motion_rows(self, *parts: str) -> pd.DataFrame:
        """Index rows of the named splits whose motion vectors are in the store, with their places in it."""
        rows = self._usable(*parts)
        ok = self.mv_table.loc[self.mv_table["status"] == "ok", ["id", "offset", "length", "slots", "shard", "md5"]]
        found = rows.merge(ok, on="id", how="inner", suffixes=("", "_read"))
        if len(stale := found.loc[found["md5"] != found.pop("md5_read"), "id"]):
            what = f"{named(stale)} changed since the motion vectors were read"
            raise StoreError(what, where=paths.MV_STORE, fix="run: dvc repro extract_mv")
        if found.empty:
            raise StoreError(f"no clip of {' or '.join(parts) or 'any split'} has motion vectors", where=paths.MV_STORE)
        return found

    def _usable(self, *parts: str) -> pd.DataFrame:
        rows = dataset.usable(self.index, *parts)
        if not parts or not set(parts) <= {"train", "val"}:
            return rows
        if self.base_to_new:
            base = dataset.base_classes(len(dataset.class_names(self.index)))
            rows = rows[rows["label"] < base].reset_index(drop=True)
        return dataset.few_shot(rows, self.shots, self.seed)

    def motion_clips(self, *parts: str) -> Clips:
        rows = self.motion_rows(*parts)
        return Clips(*(rows[name].to_numpy(np.int64) for name in ("offset", "length", "label")))

    def fused_rows(self, *parts: str) -> pd.DataFrame:
        """Index rows of the named splits that have both a motion embedding and a picture embedding."""
        rows = self._usable(*parts)
        both = rows["id"].isin(self.mv_embed.ids) & rows["id"].isin(self.clip_image.ids)
        if not both.any():
            raise StoreError(f"no clip of {' or '.join(parts)} has features of both streams", where=paths.MV_EMBED)
        return rows[both].reset_index(drop=True)

    def stills(self, ids: list[str]) -> np.ndarray:
        """The features of each clip's stills, of unit length, (n, stills, width) float32."""
        return self.clip_image.rows("features", ids)

    def picture(self, ids: list[str]) -> np.ndarray:
        """The picture feature of each clip: the mean over its stills, of unit length, (n, width) float32."""
        return normalised(self.stills(ids).mean(axis=1))

    def text(self) -> tuple[np.ndarray, float]:
        """The classes' text features in label order, (classes, width) float32, and CLIP's temperature."""
        features = self.clip_text.rows("features", dataset.class_names(self.index))
        return features, float(self.clip_text.attributes["logit_scale"])

    def fusion_data(self, part: str) -> FusionData:
        """Cached features of a split: the augmented views for train, the protocol's for the others."""
        rows = self.fused_rows(part)
        ids = list(rows["id"])
        if part == "train":
            motion = self.mv_views.rows("features", ids)
        else:
            motion = self.mv_embed.rows("features", ids)[:, None]
        return FusionData(
            torch.from_numpy(motion),
            torch.from_numpy(self.stills(ids)),
            torch.from_numpy(rows["label"].to_numpy(copy=True)),
        )

    def skipped(self, *parts: str) -> dict[str, int]:
        """How many clips of the named splits are left out of scoring, by reason."""
        rows = self.index[self.index["split"].isin(parts)]
        reasons = dict(zip(self.mv_table["id"], self.mv_table["reason"], strict=True))
        reasons |= self.clip_image.attributes["skipped"]
        used = set(self.fused_rows(*parts)["id"])
        left = [str(row.reason or reasons.get(row.id, "no feature")) for row in rows.itertuples() if row.id not in used]
        return {reason: left.count(reason) for reason in sorted(set(left))}

    def fingerprint(self, *parts: str) -> str:
        """Digest of the contents of the named splits' clips (all, where none is named) and their labels."""
        rows = dataset.usable(self.index, *parts)
        text = "\n".join(f"{row.id} {row.md5} {row.label} {row.split}" for row in rows.itertuples())
        return hashlib.sha256(text.encode()).hexdigest()[:16]
