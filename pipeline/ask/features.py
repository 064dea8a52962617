"""The stored features of the clips, as the commands compare them; the clips without; and the features of a file."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from moclip.data.clip_folder import printable_name
from moclip.data.spans import are_cut
from moclip.data.unknown_classes import UNKNOWN
from moclip.errors import DatasetError, MoclipError, StoreError
from moclip.store.features import Features, to_unit_length
from moclip.store.neighbours import FeatureRows, open_array
from moclip.wording import counted, shorten_list
from pipeline import paths
from pipeline.console.output import print_note
from pipeline.inputs import Inputs
from pipeline.io import read_parquet

if TYPE_CHECKING:
    from moclip.inference.predictor import Prediction


@dataclass(frozen=True)
class Compared:
    """Clips with features, and those features.

    clips : rows of the index.
    parts : kind ("picture", "motion") -> a row of features per clip.
    """

    clips: pd.DataFrame
    parts: dict[str, FeatureRows]

    @cached_property
    def row_of(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.clips["id"])}

    @property
    def kinds(self) -> str:
        return " and ".join(self.parts)

    def query(self, row: int) -> list[np.ndarray]:
        """Return the features of a clip, (1, width) for each kind."""
        return [part.read(row, row + 1) for part in self.parts.values()]


def compared_clips(inputs: Inputs, by: str | None) -> Compared:
    """Return the usable clips of the classes that have the features to compare them `by`.

    None stands for both; for one of them where the other does not exist.

    Raises MoclipError if a store is missing or stale, or has no clip.
    """
    inputs.clips.check_files_unchanged()
    stores = {kind: (path, group, store) for kind, path, group, store in _stores(inputs, by)}
    usable = inputs.clips.rows("train", "val", "test")  # those of dataset.unknown have no label
    there = usable["id"].isin(set.intersection(*(set(store.ids) for _, _, store in stores.values())))
    if not there.any():
        raise StoreError(f"no clip has features of {' and '.join(stores)}", where=next(iter(stores.values()))[0])
    clips = usable[there].reset_index(drop=True)
    parts = {
        kind: FeatureRows(open_array(path, group, "features"), _rows_of(store, clips["id"]), path)
        for kind, (path, group, store) in stores.items()
    }
    return Compared(clips, parts)


def _stores(inputs: Inputs, by: str | None) -> Iterable[tuple[str, Path, str, Features]]:
    artifacts = inputs.artifacts
    if by in ("picture", "both") and artifacts.clip_image is None:
        fix = "compare by motion, or set clip.model to an encoder"
        raise MoclipError("there are no picture features: clip.model is false", where=f"--by {by}", fix=fix)
    pictures = None if by == "motion" else artifacts.clip_image
    if pictures:
        yield "picture", paths.CLIP_IMAGE, "", pictures
    if by is None and pictures and not paths.MV_EMBED.exists():
        print_note("compared by picture alone: there are no motion features yet; run: dvc repro embed_mv")
    elif by != "picture":
        yield "motion", paths.MV_EMBED, "protocol", artifacts.mv_embed


def _rows_of(store: Features, ids: Iterable[str]) -> np.ndarray:
    number = {name: row for row, name in enumerate(store.ids)}
    return np.array([number[name] for name in ids], np.int64)


def note_left_out(command: str, inputs: Inputs, ids: Iterable[str]) -> None:
    """Print how many clips of the splits are not among `ids`, by reason, in one note."""
    index = inputs.clips.index
    left = index[~index["split"].isin(("none", UNKNOWN)) & ~index["id"].isin(set(ids))]
    if left.empty:
        return
    tables = [read_parquet(paths.CLIP_TABLE, "clip_image")] if paths.CLIP_TABLE.exists() else []
    tables += [inputs.clips.mv_table] if paths.MV_TABLE.exists() else []
    unread = {row.id: row.reason for table in tables for row in table.itertuples() if row.status != "ok"}
    reasons = pd.Series([str(row.reason or unread.get(row.id, "no features")) for row in left.itertuples()])
    why = shorten_list(f"{count} x {reason}" for reason, count in reasons.value_counts().items())
    print_note(f"{command}: {len(left):,} of {counted(len(index), 'clip')} left out, without features: {why}")


def find_clip(inputs: Inputs, clip: str, compared: Compared) -> int | Path:
    """Return the row of the clip with an id of the index, or of a file in dataset.root; for other files their path.

    Raises DatasetError if there is none, if its name is not UTF-8, and if the id is of a clip without features.
    """
    if clip != printable_name(clip):
        raise DatasetError("its name is not UTF-8", where=printable_name(clip), fix="rename it, or give it by a link")
    index = inputs.clips.index
    name = clip if (index["id"] == clip).any() else _id_of_file(inputs, clip)
    if name in compared.row_of:
        return compared.row_of[name]
    if Path(clip).is_file():
        return Path(clip)
    if name:
        row = index[index["id"] == name].iloc[0]
        reason = row["reason"] or _why_not_compared(str(row["split"]))
        fix = "name the path of its file, to read it anew"
        raise DatasetError(f"this clip has no features: {reason}", where=name, fix=fix)
    closest = difflib.get_close_matches(clip, index["id"].to_list(), n=1, cutoff=0.0)
    raise DatasetError("no clip has this id, and no file this name", where=clip, fix=f"did you mean {closest[0]}?")


def _why_not_compared(split: str) -> str:
    return {"none": "it is in no list", UNKNOWN: "its class is in dataset.unknown"}.get(split, "see: moclip advise")


def _id_of_file(inputs: Inputs, clip: str) -> str:
    """Return the id of the clip whose file in dataset.root `clip` is; "" if it is none, or spans of it are clips."""
    file, root = Path(clip), Path(inputs.params.dataset.root)
    if not file.is_file() or not file.resolve().is_relative_to(root.resolve()):
        return ""
    path = file.resolve().relative_to(root.resolve()).as_posix()
    index = inputs.clips.index
    found = index.loc[(index["path"] == path) & ~are_cut(index), "id"]
    return str(found.iloc[0]) if len(found) else ""


def predicted_features(answers: Sequence[Prediction], kinds: Iterable[str]) -> list[np.ndarray]:
    """Return the features that predictions were made from, (n, width) of unit length for each kind."""
    named = {
        "picture": lambda answer: to_unit_length(answer.features["picture"].mean(axis=0)),
        "motion": lambda answer: to_unit_length(answer.features["motion"]),
    }
    return [np.stack([named[kind](answer) for answer in answers]) for kind in kinds]
