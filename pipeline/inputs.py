"""What the training and scoring stages read in common: the index, the store of motion fields, the cached features.

Keeps to the clips that every needed feature covers, and knows the reason of each one left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from moclip.data.clip_batches import SampledFields, SplitClips
from moclip.data.fusion_data import FusionData
from moclip.data.selection import base_classes, class_names, few_shot, usable_clips
from moclip.errors import ModelError, StoreError
from moclip.models.hub_files import files_digest
from moclip.models.weights import PROVENANCE, read_config
from moclip.store.features import Features, to_unit_length
from moclip.store.reader import FieldReader
from moclip.training.common import LossError
from moclip.video.clip_files import file_md5
from pipeline import paths
from pipeline.console.command import while_importing
from pipeline.index_file import read_index
from pipeline.io import read_parquet
from pipeline.params import Params
from pipeline.provenance import (
    FIELD_KEYS,
    check_clips,
    check_learnt,
    check_made_from,
    check_made_with,
    clips_digest,
    learnt_from,
    made_with,
    name_some,
    stale_error,
)


class Inputs:
    """Lazy: a stage that needs cached features only never opens the store of fields.

    With `shots`, train and val hold that many clips a class, drawn with the seed among those that both streams can
    read, so that every stage has the same; with `base_to_new`, the first half of the classes alone.
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
        return read_index(self.params) if self.params else read_parquet(paths.INDEX, "index")

    @cached_property
    def usable(self) -> pd.DataFrame:
        """Index rows of all clips that can be used."""
        return usable_clips(self.index)

    @cached_property
    def mv_table(self) -> pd.DataFrame:
        return read_parquet(paths.MV_TABLE, "extract_mv")

    @cached_property
    def clip_table(self) -> pd.DataFrame:
        """Of which clips the stills could be read. Raises StoreError where it is of other clips than the index."""
        found = read_parquet(paths.CLIP_TABLE, "clip_image")
        both = self.usable[["id", "md5"]].merge(found[["id", "md5"]], on=["id", "md5"])
        if len(both) < len(self.usable):
            raise stale_error("it was made from other clips", paths.CLIP_TABLE, "clip_image")
        return found

    @cached_property
    def clip_image(self) -> Features:
        return self._of_clip(self._current(Features(paths.CLIP_IMAGE, "clip_image")))

    @cached_property
    def clip_text(self) -> Features:
        """A row a class, in label order. Raises StoreError where it has other classes than the index."""
        found = self._of_clip(self._current(Features(paths.CLIP_TEXT, "clip_text")))
        if found.ids != (classes := self.classes):
            what = "another class order" if sorted(found.ids) == sorted(classes) else "other classes"
            raise stale_error(f"it was made from {what} than the index has now", found.path, "clip_text")
        for file, content in found.attributes.get("files", {}).items():
            if Path(file).exists():
                check_made_from(file_md5(Path(file)), content, f"another {file}", found.path, "clip_text")
        return found

    @cached_property
    def mv_embed(self) -> Features:
        """Under the protocol, of a network that was trained on what the index has now."""
        if paths.MV_TSN.exists():
            self.check_model(paths.MV_TSN, "train_mv")
        found = self._current(Features(paths.MV_EMBED, "embed_mv", "protocol"))
        if self.params and "learnt" in found.attributes:
            check_learnt(found.attributes["learnt"], self.learnt(), found.path, "embed_mv")
        return self._of_model(found, paths.MV_TSN)

    @cached_property
    def mv_views(self) -> Features:
        self.mv_embed  # noqa: B018  which checks both
        return Features(paths.MV_EMBED, "embed_mv", "views")

    @cached_property
    def image_baseline(self) -> Features | None:
        """The image baseline's logits; None where baselines.image is false."""
        wanted = self.params.baselines.image if self.params else False
        if not wanted and not paths.IMAGE_MODEL.exists():
            return None
        self.check_model(paths.IMAGE_MODEL, "train_image")
        return self._of_model(self._current(Features(paths.IMAGE_LOGITS, "embed_image")), paths.IMAGE_MODEL)

    @cached_property
    def classes(self) -> list[str]:
        """Names in label order: the index's, or MV-TSN's where there is no index any more."""
        if paths.INDEX.exists() or not paths.MV_TSN.exists():
            return class_names(self.index)
        return list(read_config(paths.MV_TSN, "train_mv")["classes"])

    def learnt(self) -> dict[str, Any]:
        """What a training learns from, as a model keeps it (`pipeline.made.learnt_from`)."""
        rows = pd.concat([self._usable("train"), self._usable("val")])
        return learnt_from(rows, self.usable, class_names(self.index))

    def trained_with(self, params: Params, *keys: str) -> dict[str, Any]:
        """What the model of a training keeps: what it learnt from, and the parameters that go with it."""
        drawn = ("seed",) if params.dataset.shots else ()
        made = made_with(params, "dataset.shots", "dataset.base_to_new", *drawn, *keys)
        return {"made_with": made, "learnt": self.learnt()}

    def check_model(self, path: Path, stage: str) -> dict[str, Any]:
        """What a trained model keeps of its making.

        Raises MoclipError where it was trained with other parameters, or on other clips, labels, splits or classes,
        than there are now. Without an index it is compared with the parameters alone.
        """
        config = read_config(path, stage)
        if PROVENANCE not in config:
            raise stale_error("it does not say what it was trained on: an earlier version made it", path, stage)
        made = dict(config[PROVENANCE])
        if self.params is not None:
            check_made_with(made["made_with"], self.params, path, stage)
            tables = (paths.MV_TABLE, paths.CLIP_TABLE) if self.shots else ()
            if all(table.exists() for table in (paths.INDEX, *tables)):
                check_learnt(made["learnt"], self.learnt(), path, stage)
        return made

    def models(self) -> str:
        """16 hexadecimal digits for the trained models and the features of class names, which scores depend on."""
        trained = [file_md5(path) for path in (paths.MV_TSN, paths.FUSION, paths.IMAGE_MODEL) if path.exists()]
        text = hashlib.sha256(self.clip_text.array("features").tobytes()).hexdigest()
        return hashlib.sha256(" ".join([*trained, text]).encode()).hexdigest()[:16]

    @cached_property
    def clip_here(self) -> str | None:
        """What stands for the files of the CLIP that params.yaml names; None where they are not here."""
        return files_digest(self.params.clip.model, self.params.clip.revision or None) if self.params else None

    def _of_clip(self, found: Features) -> Features:
        """The same, unless another CLIP made it than the one that is here."""
        if self.clip_here:
            check_made_from(self.clip_here, found.attributes.get("clip"), "another CLIP", found.path, found.stage)
        return found

    def _of_model(self, found: Features, model: Path) -> Features:
        """The same, unless another model made it than the one that is here."""
        if not model.exists():
            return found
        what = "another MV-TSN" if model == paths.MV_TSN else "another image baseline"
        check_made_from(file_md5(model), found.attributes.get("model"), what, found.path, found.stage)
        return found

    def _current(self, found: Features) -> Features:
        """The same, unless it was made with other parameters, or from other clips, than there are now."""
        about, stage = found.attributes, found.stage
        if self.params is not None:
            check_made_with(about.get("made_with", {}), self.params, found.path, stage)
        if "clips" in about:
            check_made_from(clips_digest(self.usable), about["clips"], "other clips", found.path, stage)
        return found

    def reader(self) -> FieldReader:
        """The store of motion fields, of all clips. Raises MoclipError where parameters have changed since."""
        with while_importing():  # else its first read does, and an interrupt leaves a library half imported
            import tensorstore  # noqa: F401
        reader = FieldReader(paths.MV_STORE, self.mv_table)
        if self.params is not None:
            names = (key.removeprefix("mv.") for key in FIELD_KEYS if key.startswith("mv."))
            made = {f"mv.{name}": reader.attributes[name] for name in names}
            check_made_with(made, self.params, paths.MV_STORE, "extract_mv")
        return reader

    def fields(self) -> SampledFields:
        """The store of motion fields. Raises MoclipError where clips or parameters have changed since it was made."""
        return SampledFields.of(self.reader(), self.motion_rows())

    @cached_property
    def _checked_clips(self) -> pd.DataFrame:
        """`usable`, unless clips have changed since they were indexed."""
        if self.params is not None and not self.params.index.transcode:
            check_clips(self.usable, self.params.dataset.root)
        return self.usable

    @contextmanager
    def naming(self, rows: pd.DataFrame) -> Iterator[None]:
        """Within, a loss that is no longer a number is told with the clips of its step; `rows` are those trained on."""
        try:
            yield
        except LossError as lost:
            ids = rows["id"].iloc[list(lost.rows)]
            raise ModelError(f"{lost.what}, with {name_some(ids, 8)}", where=lost.where, fix=lost.fix) from None

    def motion_rows(self, *parts: str) -> pd.DataFrame:
        """Index rows of the named splits whose motion vectors are in the store, with their places in it."""
        self._checked_clips  # noqa: B018  raises
        rows = self._usable(*parts)
        ok = self.mv_table.loc[self.mv_table["status"] == "ok", ["id", "offset", "length", "slots", "shard", "md5"]]
        found = rows.merge(ok, on="id", how="inner", suffixes=("", "_read"))
        if len(changed := found.loc[found["md5"] != found.pop("md5_read"), "id"]):
            what = f"{name_some(changed)} changed since the motion vectors were read"
            fix = "run: dvc repro extract_mv (or: python -m stages.extract_mv)"
            raise StoreError(what, where=paths.MV_STORE, fix=fix)
        if found.empty:
            raise StoreError(f"no clip of {' or '.join(parts) or 'any split'} has motion vectors", where=paths.MV_STORE)
        return found

    def _usable(self, *parts: str) -> pd.DataFrame:
        rows = usable_clips(self.index, *parts)
        if not parts or not set(parts) <= {"train", "val"}:
            return rows
        if self.base_to_new:
            base = base_classes(len(class_names(self.index)))
            rows = rows[rows["label"] < base].reset_index(drop=True)
        if self.shots is False:
            return rows
        return few_shot(rows[rows["id"].isin(self._readable)], self.shots, self.seed)

    @cached_property
    def _readable(self) -> set[str]:
        """Clips that both streams could read."""
        tables = (self.mv_table, self.clip_table)
        motion, stills = (set(table.loc[table["status"] == "ok", "id"]) for table in tables)
        return motion & stills

    def motion_clips(self, *parts: str) -> SplitClips:
        rows = self.motion_rows(*parts)
        return SplitClips(*(rows[name].to_numpy(np.int64) for name in ("offset", "length", "label")))

    def fused_rows(self, *parts: str) -> pd.DataFrame:
        """Index rows of the named splits that have both a motion embedding and a picture embedding."""
        self._checked_clips  # noqa: B018  raises
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
        return to_unit_length(self.stills(ids).mean(axis=1))

    def text(self) -> tuple[np.ndarray, float]:
        """The classes' text features in label order, (classes, width) float32, and CLIP's temperature."""
        return self.clip_text.array("features"), float(self.clip_text.attributes["logit_scale"])

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
        tables = [table[table["status"] != "ok"] for table in (self.mv_table, self.clip_table)]
        reasons = {row.id: row.reason for table in tables for row in table.itertuples()}
        used = set(self.fused_rows(*parts)["id"])
        left = [str(row.reason or reasons.get(row.id, "no feature")) for row in rows.itertuples() if row.id not in used]
        return {reason: left.count(reason) for reason in sorted(set(left))}

    def fingerprint(self, *parts: str) -> str:
        """Digest of the contents of the named splits' clips (all, where none is named) and their labels."""
        rows = usable_clips(self.index, *parts)
        text = "\n".join(f"{row.id} {row.md5} {row.label} {row.split}" for row in rows.itertuples())
        return hashlib.sha256(text.encode()).hexdigest()[:16]
