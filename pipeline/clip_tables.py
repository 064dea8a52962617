"""The tables with a row per clip, refused if stale, and the choice of rows that a stage works on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from moclip.data.clip_weights import weights_of
from moclip.data.groups import divide_into_folds
from moclip.data.label_sets import COLUMN, is_multi_label
from moclip.data.selection import base_classes, class_names, few_shot, usable_clips
from moclip.data.spans import fields_of_clips, has_spans
from moclip.errors import DatasetError
from moclip.models.weights import read_config
from pipeline import paths
from pipeline.index_file import read_index
from pipeline.io import read_parquet
from pipeline.multi_label_limits import check_supported
from pipeline.params import Params
from pipeline.provenance import check_clips_unchanged, stale_error, training_record


@dataclass(frozen=True)
class Fold:
    """The ids of the clips to train on, and of those held out to choose epochs on."""

    train: frozenset[str]
    held_out: frozenset[str]


@dataclass(frozen=True)
class EmbeddedClips:
    """The ids of the clips that a trained MV-TSN is run on: under the test protocol, and on augmented views.

    group : the group of data/features/mv_embed.zarr that gets them; "" is the store itself.
    """

    group: str
    scored: frozenset[str]
    augmented: frozenset[str]


class ClipTables:
    """The index, and the tables of `extract_mv` and `clip_image` that say which clips they could read.

    Each table is read when it is first needed. With a `planned` index, which is not written yet, that is used in place
    of the project's, and all its usable clips count as readable.
    """

    def __init__(self, params: Params, planned: pd.DataFrame | None = None) -> None:
        self.params = params
        self.planned = planned
        self._files_checked = False

    @cached_property
    def index(self) -> pd.DataFrame:
        table = read_index(self.params) if self.planned is None else self.planned
        if is_multi_label(table):
            check_supported(self.params)
        return table

    @cached_property
    def usable(self) -> pd.DataFrame:
        """The index's rows of all usable clips."""
        return usable_clips(self.index)

    @cached_property
    def classes(self) -> list[str]:
        """Class names in label order: the index's, or MV-TSN's if the index is gone."""
        if self.planned is not None or paths.INDEX.exists() or not paths.MV_TSN.exists():
            return class_names(self.index)
        return list(read_config(paths.MV_TSN, "train_mv")["classes"])

    @cached_property
    def mv_table(self) -> pd.DataFrame:
        """The clips whose motion vectors could be read, and the others with the reason.

        If clips are spans of longer videos, each has a row with the place of its own frames in the store, which has a
        row per video. `md5` is then the video's.
        """
        table = read_parquet(paths.MV_TABLE, "extract_mv")
        if not paths.INDEX.exists() or not has_spans(self.index):
            return table
        return fields_of_clips(self.index, table)

    @cached_property
    def clip_table(self) -> pd.DataFrame:
        """The clips whose stills could be read, and the others with the reason.

        Raises StoreError if the table is of other clips than the index.
        """
        table = read_parquet(paths.CLIP_TABLE, "clip_image")
        both = self.usable[["id", "md5"]].merge(table[["id", "md5"]], on=["id", "md5"])
        if len(both) < len(self.usable):
            raise stale_error("it was made from other clips", paths.CLIP_TABLE, "clip_image")
        return table

    def rows(self, *splits: str) -> pd.DataFrame:
        """Return the index's rows of the usable clips in the named splits, or in all splits if none is named.

        For train and val, dataset.base_to_new keeps the first half of the classes, and dataset.shots that many clips
        per class. The seed draws those among the clips that both streams can read, so every stage gets the same clips.
        """
        rows = usable_clips(self.index, *splits)
        if not splits or not set(splits) <= {"train", "val"}:
            return rows
        dataset = self.params.dataset
        if dataset.base_to_new:
            rows = rows[rows["label"] < base_classes(len(class_names(self.index)))].reset_index(drop=True)
        if dataset.shots is False:
            return rows
        return few_shot(rows[rows["id"].isin(self._readable_by_both)], dataset.shots, self.params.seed)

    @property
    def refits(self) -> bool:
        """Whether the final networks are trained on train and val together, once the epochs are chosen.

        Few-shot runs are not: they are about so many clips per class.
        """
        fit, shots = self.params.fit, self.params.dataset.shots
        return (fit.refit or bool(fit.folds)) and shots is False

    @property
    def final_splits(self) -> tuple[str, ...]:
        """The splits that the final networks are trained on."""
        return ("train", "val") if self.refits else ("train",)

    def folds(self) -> list[Fold]:
        """Return the folds that epochs are chosen on: one, which holds out val, or as many as fit.folds says.

        Raises DatasetError if there are fewer sources than folds.
        """
        folds = self.params.fit.folds
        if not folds or not self.refits:
            return [Fold(frozenset(self.rows("train")["id"]), frozenset(self.rows("val")["id"]))]
        rows = self.rows("train", "val")
        numbers = divide_into_folds(rows["group"], rows["label"], folds, self.params.seed)
        if numbers.nunique() < folds:
            what = f"the sources of {len(rows)} clips do not fill {folds} folds, so that each class keeps a source"
            raise DatasetError(what, where="fit.folds", fix=f"set fit.folds to {max(2, numbers.nunique())} or less")
        return [Fold(frozenset(rows["id"][numbers != n]), frozenset(rows["id"][numbers == n])) for n in range(folds)]

    def everything(self) -> Fold | None:
        """Return all clips to train on and none held out, for the training that follows the folds; None without one."""
        if not self.refits:
            return None
        return Fold(frozenset(self.rows("train", "val")["id"]), frozenset())

    def embedded(self) -> list[EmbeddedClips]:
        """Return what each trained MV-TSN is run on: the final one, then those of the folds if it is trained again."""
        final = EmbeddedClips("", frozenset(self.usable["id"]), frozenset(self.rows(*self.final_splits)["id"]))
        folds = self.folds() if self.refits else []
        return [final, *(EmbeddedClips(f"fold{n}", fold.held_out, fold.train) for n, fold in enumerate(folds, start=1))]

    @cached_property
    def _readable_by_both(self) -> set[str]:
        if self.planned is not None:
            return set(self.usable["id"])
        motion, stills = (set(table.loc[table["status"] == "ok", "id"]) for table in (self.mv_table, self.clip_table))
        return motion & stills

    def check_files_unchanged(self) -> None:
        """Raise MoclipError if the files of clips have changed since they were indexed. They are checked once."""
        if not self._files_checked and not self.params.index.transcode:
            check_clips_unchanged(self.usable, self.params.dataset.root)
        self._files_checked = True

    @cached_property
    def training_record(self) -> dict[str, Any]:
        """What a model records of its training data (`pipeline.provenance.training_record`)."""
        rows = pd.concat([self.rows("train"), self.rows("val")])
        return training_record(rows, self.usable, class_names(self.index))

    def weights_record(self) -> dict[str, Any]:
        """Return the weights of the clips, by the name `weights`; nothing if they have none."""
        weights = weights_of(self.rows("train", "val"))
        return {} if weights is None else {"weights": weights.tolist()}

    def fingerprint(self, *splits: str) -> str:
        """Return a digest of the contents and labels of the clips in the named splits, or all if none is named."""
        rows = usable_clips(self.index, *splits)
        labels = rows[COLUMN if is_multi_label(rows) else "label"]
        text = "\n".join(
            f"{row.id} {row.md5} {label} {row.split}" for row, label in zip(rows.itertuples(), labels, strict=True)
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]
