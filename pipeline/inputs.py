"""The clips and arrays that a stage trains on or scores: only clips that every needed artifact covers."""

from __future__ import annotations

import numpy as np
import pandas as pd

from moclip.data.clip_batches import SampledFields, SplitClips
from moclip.data.clip_weights import weights_of
from moclip.data.fusion_data import FusionData, no_stills
from moclip.data.label_sets import is_multi_label, targets
from moclip.errors import StoreError
from moclip.models.class_texts import ClassTexts
from moclip.store.features import Features, to_unit_length
from moclip.wording import shorten_list
from pipeline import paths
from pipeline.artifacts import Artifacts
from pipeline.clip_tables import ClipTables, Fold
from pipeline.params import Params


class Inputs:
    """What stages read. Everything is opened when it is first needed.

    `clips` are the tables of clips, `artifacts` the feature stores and models.
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        self.clips = ClipTables(params)
        self.artifacts = Artifacts(params, self.clips)

    # ---------------------------------------------------------------------------------------------------- labels

    @property
    def multi_label(self) -> bool:
        """Whether clips have several labels."""
        return is_multi_label(self.clips.index)

    def targets(self, rows: pd.DataFrame) -> np.ndarray:
        """Return the labels of rows of the index, (n,) int64; with several labels a clip (n, classes) float32."""
        return targets(rows, self.clips.classes)

    # --------------------------------------------------------------------------------------------- motion fields

    def motion_rows(self, *splits: str) -> pd.DataFrame:
        """Return the index's rows of the clips in the named splits that the store of motion fields holds.

        Columns say where in the store each clip is.
        """
        self.clips.check_files_unchanged()
        table = self.clips.mv_table
        stored = table.loc[table["status"] == "ok", ["id", "offset", "length", "slots", "shard", "md5"]]
        rows = self.clips.rows(*splits).merge(stored, on="id", how="inner", suffixes=("", "_read"))
        if len(changed := rows.loc[rows["video_md5"] != rows.pop("md5_read"), "id"]):
            what = f"{shorten_list(changed)} changed since the motion vectors were read"
            fix = "run: dvc repro extract_mv (or: moclip extract_mv)"
            raise StoreError(what, where=paths.MV_STORE, fix=fix)
        if rows.empty:
            what = f"no clip of {' or '.join(splits) or 'any split'} has motion vectors"
            raise StoreError(what, where=paths.MV_STORE)
        return rows

    def motion_clips(self, *splits: str) -> SplitClips:
        """Return the places in the store and the labels of `motion_rows`."""
        return self.split_clips(self.motion_rows(*splits))

    def split_clips(self, rows: pd.DataFrame) -> SplitClips:
        """Return the places in the store and the labels of clips; `rows` are of `motion_rows`."""
        return SplitClips.of(rows, self.targets(rows))

    def sampled_fields(self, stack: int = 1) -> SampledFields:
        """Open the store of motion fields, to read `stack` neighbouring ones at once.

        Raises MoclipError if clips or parameters have changed since it was made.
        """
        return SampledFields.of(self.artifacts.field_reader(), self.motion_rows(), stack)

    # ------------------------------------------------------------------------------------------- cached features

    def fused_rows(self, *splits: str) -> pd.DataFrame:
        """Return the index's rows of the clips in the named splits that have features of both streams.

        Without an encoder, features of the motion suffice.
        """
        self.clips.check_files_unchanged()
        rows = self.clips.rows(*splits)
        both = rows["id"].isin(self.artifacts.mv_embed.ids)
        if pictures := self.artifacts.clip_image:
            both &= rows["id"].isin(pictures.ids)
        if not both.any():
            raise StoreError(f"no clip of {' or '.join(splits)} has features of both streams", where=paths.MV_EMBED)
        return rows[both].reset_index(drop=True)

    def still_features(self, ids: list[str]) -> np.ndarray:
        """Return the features of each clip's stills, of unit length, (n, stills, width) float32.

        Without an encoder there is one, of width 1, which is 0.
        """
        pictures = self.artifacts.clip_image
        return pictures.rows("features", ids) if pictures else no_stills(len(ids))

    def mean_still_features(self, ids: list[str]) -> np.ndarray:
        """Return the mean of each clip's still features, of unit length, (n, width) float32."""
        return to_unit_length(self.still_features(ids).mean(axis=1))

    def text_features(self) -> ClassTexts | None:
        """Return the classes' text features in label order; None if the encoder has no text tower."""
        text = self.artifacts.clip_text
        if text is None:
            return None
        scale, bias = (float(text.attributes.get(name, 0.0)) for name in ("logit_scale", "logit_bias"))
        return ClassTexts(text.array("features"), scale, bias, tuple(text.attributes["prompts"]))

    def final_data(self) -> FusionData:
        """Return the cached features of the clips that the final head is trained on: augmented views."""
        return self._fusion_data(self.fused_rows(*self.clips.final_splits), self.artifacts.mv_views)

    def fold_features(self, number: int) -> tuple[Features, Features]:
        """Return MV-TSN's features for a fold, from 1: under the test protocol, and of augmented views."""
        if self.clips.refits:
            return self.artifacts.fold_features(number)
        return self.artifacts.mv_embed, self.artifacts.mv_views

    def fold_rows(self, fold: Fold) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the index's rows of a fold's clips that have features of both streams: to train on, and held out.

        Raises StoreError if there are none of either.
        """
        rows = self.fused_rows("train", "val")
        parts = [rows[rows["id"].isin(ids)].reset_index(drop=True) for ids in (fold.train, fold.held_out)]
        for part, name in zip(parts, ("to train on", "to choose the epoch on"), strict=True):
            if part.empty:
                raise StoreError(f"no clip {name} has features of both streams", where=paths.MV_EMBED)
        return parts[0], parts[1]

    def fold_data(self, number: int, fold: Fold) -> tuple[FusionData, FusionData]:
        """Return the cached features of a fold, from 1: views of the clips to train on, one view of those held out."""
        train, held_out = self.fold_rows(fold)
        protocol, views = self.fold_features(number)
        return self._fusion_data(train, views), self._fusion_data(held_out, protocol)

    def _fusion_data(self, rows: pd.DataFrame, motion: Features) -> FusionData:
        import torch  # see moclip.data.fusion_data

        ids = list(rows["id"])
        features = motion.rows("features", ids)
        weights = weights_of(rows)
        return FusionData(
            torch.from_numpy(features if features.ndim == 3 else features[:, None]),
            torch.from_numpy(self.still_features(ids)),
            torch.from_numpy(self.targets(rows).copy()),
            None if weights is None else torch.from_numpy(weights),
        )

    def skipped_counts(self, split: str) -> dict[str, int]:
        """Return how many clips of a split have no features, by reason."""
        index = self.clips.index
        tables = [table[table["status"] != "ok"] for table in (self.clips.mv_table, self.clips.clip_table)]
        unread = {row.id: row.reason for table in tables for row in table.itertuples()}
        scored = set(self.fused_rows(split)["id"])
        skipped = index[(index["split"] == split) & ~index["id"].isin(scored)]
        reasons = [str(row.reason or unread.get(row.id, "no feature")) for row in skipped.itertuples()]
        return {reason: reasons.count(reason) for reason in sorted(set(reasons))}
