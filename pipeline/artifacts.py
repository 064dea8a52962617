"""Open feature stores and models, and refuse those that are stale.

An artifact is stale if parameters, clips, labels, splits, classes or models have changed since it was made.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

from moclip.models.hub_files import files_digest
from moclip.models.weights import PROVENANCE, read_config
from moclip.store.features import Features
from moclip.store.reader import FieldReader
from moclip.video.clip_files import file_md5
from pipeline import paths
from pipeline.clip_tables import ClipTables
from pipeline.console.command import while_importing
from pipeline.encoder_source import encoder_source, unused_reason
from pipeline.io import UNUSED
from pipeline.params import Params
from pipeline.provenance import (
    FIELD_KEYS,
    check_digest,
    check_made_with,
    check_training_record,
    class_difference,
    clips_digest,
    made_with,
    stale_error,
)

SELECTION_KEYS = ("dataset.shots", "dataset.base_to_new", "fit.folds", "fit.refit")
"""What decides which clips a model is trained on."""


class Artifacts:
    """The project's feature stores and models. Each is opened, and checked, when it is first needed."""

    def __init__(self, params: Params, clips: ClipTables) -> None:
        self.params = params
        self.clips = clips

    # ------------------------------------------------------------------------------------------- feature stores

    def field_reader(self) -> FieldReader:
        """Open the store of motion fields, with all clips. Raises MoclipError if parameters have changed since."""
        with while_importing():  # or the first read imports it, and an interrupt leaves it half imported
            import tensorstore  # noqa: F401
        reader = FieldReader(paths.MV_STORE, self.clips.mv_table)
        names = (key.removeprefix("mv.") for key in FIELD_KEYS if key.startswith("mv."))
        recorded = {f"mv.{name}": reader.attributes[name] for name in names}
        check_made_with(recorded, self.params, paths.MV_STORE, "extract_mv")
        return reader

    @cached_property
    def clip_image(self) -> Features | None:
        """Features of each clip's stills; None if clip.model is false."""
        if self._is_unused(paths.CLIP_IMAGE, "clip_image"):
            return None
        return self._checked_by_clip(Features(paths.CLIP_IMAGE, "clip_image"))

    @cached_property
    def clip_text(self) -> Features | None:
        """A row per class, in label order; None if clip.model is false or encodes no texts."""
        if self._is_unused(paths.CLIP_TEXT, "clip_text"):
            return None
        store = self._checked_by_clip(Features(paths.CLIP_TEXT, "clip_text"))
        if store.ids != self.clips.classes:
            difference = class_difference(store.ids, self.clips.classes)
            raise stale_error(f"it was made from {difference} than the index has now", store.path, "clip_text")
        for file, digest in store.attributes.get("files", {}).items():
            if Path(file).exists():
                check_digest(file_md5(Path(file)), digest, f"another {file}", store.path, "clip_text")
        return store

    def _is_unused(self, path: Path, stage: str) -> bool:
        """Return whether a folder holds only unused.txt. Raises StoreError if it was made for another clip.model."""
        note = path / UNUSED
        if not note.exists():
            return False
        if note.read_text(encoding="utf-8").strip() != unused_reason(self.params):
            raise stale_error("it was made with another clip.model", path, stage)
        return True

    @cached_property
    def mv_embed(self) -> Features:
        """Features and logits of every clip under the test protocol."""
        if paths.MV_TSN.exists():
            self.check_model(paths.MV_TSN, "train_mv")
        store = self._checked(Features(paths.MV_EMBED, "embed_mv", "protocol"))
        if "learnt" in store.attributes:
            check_training_record(store.attributes["learnt"], self.clips.training_record, store.path, "embed_mv")
        return _checked_by_model(store, paths.MV_TSN, "another MV-TSN")

    @cached_property
    def mv_views(self) -> Features:
        """Features of the augmented views of the training clips."""
        self.mv_embed  # noqa: B018  checks the store, of which this is another group
        return Features(paths.MV_EMBED, "embed_mv", "views")

    def fold_features(self, number: int) -> tuple[Features, Features]:
        """Return what the MV-TSN of a fold, from 1, gave: `protocol` of the clips held out, `views` of the others."""
        self.mv_embed  # noqa: B018  checks the store, of which these are other groups
        protocol, views = (
            Features(paths.MV_EMBED, "embed_mv", f"fold{number}/{name}") for name in ("protocol", "views")
        )
        return protocol, views

    @cached_property
    def image_baseline(self) -> Features | None:
        """The image baseline's logits; None if baselines.image is false."""
        if not self.params.baselines.image and not paths.IMAGE_MODEL.exists():
            return None
        self.check_model(paths.IMAGE_MODEL, "train_image")
        store = self._checked(Features(paths.IMAGE_LOGITS, "embed_image"))
        return _checked_by_model(store, paths.IMAGE_MODEL, "another image baseline")

    def image_fold(self, number: int) -> Features:
        """The image baseline's logits of the clips that a fold, from 1, holds out."""
        self.image_baseline  # noqa: B018  checks the store, of which a fold is another group
        return Features(paths.IMAGE_LOGITS, "embed_image", f"fold{number}" if self.clips.refits else "")

    def _checked(self, store: Features) -> Features:
        """Return a store. Raises StoreError if it was made with other parameters or from other clips."""
        recorded = store.attributes
        check_made_with(recorded.get("made_with", {}), self.params, store.path, store.stage)
        if "clips" in recorded:
            check_digest(clips_digest(self.clips.usable), recorded["clips"], "other clips", store.path, store.stage)
        return store

    def _checked_by_clip(self, store: Features) -> Features:
        """As `_checked`; also raises StoreError if another CLIP made it."""
        self._checked(store)
        if self.clip_digest:
            check_digest(self.clip_digest, store.attributes.get("clip"), "another CLIP", store.path, store.stage)
        return store

    # --------------------------------------------------------------------------------------------------- models

    @cached_property
    def clip_digest(self) -> str | None:
        """A digest of the encoder's files; None without an encoder, or if they are not on this machine."""
        source = encoder_source(self.params)
        return files_digest(source) if source else None

    def check_model(self, path: Path, stage: str) -> dict[str, Any]:
        """Check a trained model against the parameters and the index, and return its record (`model_record`).

        Raises MoclipError if it was trained with other parameters, or on other clips, labels, splits or classes, than
        there are now. Without an index only the parameters are compared.
        """
        config = read_config(path, stage)
        if PROVENANCE not in config:
            raise stale_error("it does not say what it was trained on: an earlier version made it", path, stage)
        recorded = dict(config[PROVENANCE])
        check_made_with(recorded["made_with"], self.params, path, stage)
        few_shot_tables = (paths.MV_TABLE, paths.CLIP_TABLE) if self.params.dataset.shots else ()
        if all(table.exists() for table in (paths.INDEX, *few_shot_tables)):
            check_training_record(recorded["learnt"], self.clips.training_record, path, stage)
        return recorded

    def model_record(self, *keys: str) -> dict[str, Any]:
        """Return what a trained model records: its training data, and the parameters that it depends on."""
        seed = ("seed",) if self.params.dataset.shots else ()  # it draws the clips
        return {
            "made_with": made_with(self.params, *SELECTION_KEYS, *seed, *keys),
            "learnt": self.clips.training_record,
        }

    def models_digest(self) -> str:
        """Return 16 hexadecimal digits for all that scores depend on: trained models and class text features."""
        return self._digest(paths.MV_TSN, paths.FUSION, paths.STILL, paths.MOTION_PROBE, paths.IMAGE_MODEL)

    def head_digest(self) -> str:
        """Return 16 hexadecimal digits for the heads, which record MV-TSN and CLIP, and the class text features."""
        return self._digest(paths.FUSION, paths.STILL, paths.MOTION_PROBE)

    def text_digest(self) -> str:
        """Return a digest of the class text features; "" if there are none."""
        text = self.clip_text
        return hashlib.sha256(text.array("features").tobytes()).hexdigest() if text else ""

    def _digest(self, *models: Path) -> str:
        digests = [file_md5(path) for path in models if path.exists()]
        return hashlib.sha256(" ".join([*digests, self.text_digest()]).encode()).hexdigest()[:16]


def _checked_by_model(store: Features, model: Path, other: str) -> Features:
    """Return a store. Raises StoreError if another model made it than the one that is there now."""
    if model.exists():
        check_digest(file_md5(model), store.attributes.get("model"), other, store.path, store.stage)
    return store
