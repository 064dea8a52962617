"""The index: one row per clip, with its class, split, group, and what `probe` found."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from moclip.data.class_shortages import PURPOSES, class_shortages
from moclip.data.clip_folder import ClipFolder, join_first_lines
from moclip.data.clip_weights import COLUMN as WEIGHT
from moclip.data.groups import group_of, hold_out, smallest_fraction
from moclip.data.label_sets import COLUMN, rarest_labels
from moclip.data.list_matching import MatchedLists, match_lists, require_two_classes
from moclip.data.manifest import Manifest
from moclip.data.probing import ProbeJob, failed_row, indexed_file, probe_clip, unusable_columns
from moclip.data.scene_groups import join_look_alikes, read_thumbnails
from moclip.data.spans import SPAN_COLUMNS, rows_of_clips, too_late_notes, videos_with_spans
from moclip.data.split_lists import Splits
from moclip.errors import DatasetError
from moclip.video.transcoded_folder import read_failures
from moclip.workers.processes import run_jobs_in_order

INDEX_COLUMNS = {
    "id": "str",
    "path": "str",
    "class": "str",
    "label": "int64",
    "split": "str",
    "group": "str",
    "codec": "str",
    "w": "int32",
    "h": "int32",
    "fps": "float64",
    "frames": "int64",
    "gop": "int32",
    "has_b": "bool",
    "bytes": "int64",
    "status": "str",
    "reason": "str",
    "md5": "str",
    "damage": "str",
    "seekable": "bool",
}
"""Columns of the index and their types.

split : train, val, test, none (in no list) or unknown (see `moclip.data.unknown_classes`).
status : ok, failed, or missing (listed, but not in the folder).
codec to has_b, damage : as in `moclip.video.probe.VideoInfo`. `damage` says what does not decode of a usable clip.
frames, md5 : the clip's own. If clips are spans of longer videos, there are also `spans.SPAN_COLUMNS`, and the other
    columns describe the video.
seekable : whether stills can be read by seeking in the clip's own file; false where a transcoded file is indexed.

With weights in the manifest there is also the column `weight`. A multi-label index has the column `labels`, and its
`class` and `label` mean less (`moclip.data.label_sets`).
"""


_MORE_COLUMNS = SPAN_COLUMNS | {COLUMN: "str", WEIGHT: "float64"}
"""Columns that an index has only where the manifest needs them, and their types."""


ProbeFiles = Callable[[Sequence[ProbeJob], int], Iterable[dict[str, Any]]]
"""Gives the row of the index for each file, in their order, with so many workers."""


def probe_in_processes(jobs: Sequence[ProbeJob], workers: int) -> Iterator[dict[str, Any]]:
    """Probe files in worker processes. Yields their rows in the order of `jobs`."""
    return run_jobs_in_order(probe_clip, jobs, workers, failed_row)


def build_index(
    root: str | Path,
    folder: ClipFolder,
    splits: Splits | None,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    workers: int = 1,
    advance: Callable[[int], object] = lambda count: None,
    transcoded: Path | None = None,
    join_scenes: bool = False,
    manifest: Manifest | None = None,
    tell: Callable[[str], object] = lambda note: None,
    follow_links: bool = False,
    probe_files: ProbeFiles = probe_in_processes,
) -> pd.DataFrame:
    """Return one row per clip (`INDEX_COLUMNS`), sorted by id: clips of the folder, and listed clips without a file.

    With a `manifest`, `folder` is its `clips`, and there are no `splits`; if it `has_spans`, there are also the columns
    `SPAN_COLUMNS`. With a folder of `transcoded` clips, `codec` to `bytes` and `md5` describe the transcoded file. With
    `join_scenes`, clips that look alike are in one group. `advance` is called with the number of files newly probed,
    and newly compared, `tell` with what the user should know. With `follow_links`, files may be links that lead out of
    the root. `probe_files` gives the row of each file. Raises DatasetError where training is impossible (one
    class, no usable train or test clip, only one group), where a clip is not transcoded, and where two parts of the
    lists match the same file.
    """
    matched = match_lists(folder, splits) if splits else None
    if not (matched or manifest):
        require_two_classes(folder.classes, "dataset.root needs a folder for each of at least two classes", root)
    classes = matched.classes if matched else folder.classes
    probed = functools.partial(
        _probed_rows, root, folder.clips, transcoded, workers, advance, follow_links, probe_files
    )
    if manifest:
        table = _manifest_rows(manifest, probed, tell)
    else:
        rows = probed([None] * len(folder.clips), listed=False)
        table = pd.DataFrame([*rows, *(_missing_rows(matched) if matched else [])])
        table["class"] = table["path"].map(folder.class_of)
        table["group"] = [folder.source_of(clip, splits.group if splits else group_of) for clip in table["path"]]
    if matched:
        table["class"] = table["class"].map(matched.class_of)
        table["split"] = table["path"].map(matched.parts).fillna("none")
    elif folder.splits:
        table["split"] = table["path"].map(folder.split_of)
    if COLUMN in table:
        table["label"] = rarest_labels(list(table[COLUMN]), (table["split"] != "none").to_numpy(), classes)
    else:
        table["label"] = table["class"].map({name: label for label, name in enumerate(classes)}).fillna(-1)
    table.loc[table["label"] == -1, ["status", "reason"]] = ["failed", _unlisted_reason(splits)]
    table = table.sort_values("id", ignore_index=True)
    usable = table[table["status"] == "ok"]
    if join_scenes and len(usable):
        thumbnails = read_thumbnails(root, usable, workers, advance)
        advance((len(manifest.rows) if manifest else len(folder.clips)) - len(usable))
        table.loc[usable.index, "group"] = _scene_groups(usable["group"], thumbnails, root)
    held_out = held_out_fractions(folder, splits, manifest, val_fraction, test_fraction)
    table["split"] = _split_column(table, held_out, seed)
    columns = INDEX_COLUMNS | {name: kind for name, kind in _MORE_COLUMNS.items() if name in table}
    table = table[list(columns)].astype(columns)
    _check_splits(table, root, held_out, describe_sources(folder, manifest, join_scenes))
    return table


def held_out_fractions(
    folder: ClipFolder, splits: Splits | None, manifest: Manifest | None, val_fraction: float, test_fraction: float
) -> dict[str, float]:
    """Return the splits that are held out by group, as lists, folders and manifest do not give them, in order."""
    held_out = {"test": test_fraction, "val": val_fraction}
    if splits or folder.splits or (manifest and manifest.has_splits):
        del held_out["test"]
    if "val" in folder.splits.values() or (manifest and manifest.has_val):
        del held_out["val"]
    return held_out


def _manifest_rows(
    manifest: Manifest, probed: Callable[..., list[dict[str, Any]]], tell: Callable[[str], object]
) -> pd.DataFrame:
    """Return a row per clip of a manifest, with what it gives. `probed` probes its files, given the spans of each."""
    given = manifest.rows
    numbers, spans = videos_with_spans(given)
    rows = probed(spans, listed=True)
    cuts = [row.pop("cuts", None) for row in rows]
    table = pd.DataFrame(rows)
    if manifest.has_spans:
        table, too_late = rows_of_clips(table, numbers, cuts, given["video"].tolist())
        for note in too_late_notes(given[too_late]):
            tell(note)
    for name in ("id", "class", "group", "split"):
        table[name] = given[name].to_numpy()
    if manifest.is_multi_label:
        table[COLUMN] = table["class"]
    if WEIGHT in given:
        table[WEIGHT] = given[WEIGHT].to_numpy()
    return table


def _probed_rows(
    root: str | Path,
    clips: Sequence[str],
    transcoded: Path | None,
    workers: int,
    advance: Callable[[int], object],
    follow_links: bool,
    probe_files: ProbeFiles,
    spans: Sequence[np.ndarray | None],
    listed: bool,
) -> list[dict[str, Any]]:
    """Return a row for each file, in their order. `listed` is whether a manifest names them, `spans` those of each."""
    failures = read_failures(transcoded) if transcoded else {}
    jobs = []
    for clip, own in zip(clips, spans, strict=True):
        file = indexed_file(root, clip, transcoded, failures)
        jobs.append(ProbeJob(str(root), clip, file, failures.get(clip), listed, own, follow_links))
    rows = []
    for row in probe_files(jobs, workers):
        rows.append(row)
        advance(1)
    return rows


def _unlisted_reason(splits: Splits | None) -> str:
    """Return why a clip whose class has no label is not used."""
    if splits is None:
        return "its class has no row in train, val or test"
    return "its class is in no list" if splits.classes is None else "its class is not in classInd.txt"


def _missing_rows(matched: MatchedLists) -> list[dict[str, object]]:
    """Return a row for each listed clip that is not in the folder."""
    list_of = {"train": "train", "test": "test", "none": "unused"}
    return [
        {"id": name, "path": name, "md5": ""}
        | unusable_columns("missing", f"named in the {list_of[part]} list, not in the folder")
        for name, part in matched.missing.items()
    ]


def _scene_groups(groups: pd.Series, thumbnails: np.ndarray, root: str | Path) -> pd.Series:
    """Join the groups of clips that look alike. Raise DatasetError if only one remains."""
    joined = join_look_alikes(groups, thumbnails)
    if joined.nunique() == 1:
        what = f"all {len(groups)} clips look alike, so no scene can be held out"
        raise DatasetError(what, where=root, fix="set dataset.group=name; accuracy then holds for this scene only")
    return joined


def _split_column(table: pd.DataFrame, held_out: Mapping[str, float], seed: int) -> pd.Series:
    """Return each clip's split: the given one, in the column "split", and those of `held_out` (split -> fraction)."""
    ok = table["status"] == "ok"
    if "test" in held_out:
        column = pd.Series("train", index=table.index, dtype=object)
        held = hold_out(table["group"][ok], table["label"][ok], held_out["test"], seed)
        column[held.index[held]] = "test"
    else:
        column = table["split"].astype(object)
    if "val" in held_out:
        train = (column == "train") & ok
        held = hold_out(table["group"][train], table["label"][train], held_out["val"], seed + 1)
        column[held.index[held]] = "val"
    return column


def describe_sources(folder: ClipFolder, manifest: Manifest | None, join_scenes: bool) -> str:
    """Say what a source is in a data set, after "a source is"."""
    what = "the group in the manifest, the gNN in a name, or else the file" if manifest else folder.describe_sources()
    return f"{what}; clips that look alike are of one source" if join_scenes else what


def _check_splits(table: pd.DataFrame, root: str | Path, fractions: Mapping[str, float], source: str) -> None:
    """Raise DatasetError where a split has no clip, or only one class has clips.

    `fractions` has the splits that are held out by group, `source` says what a source is.
    """
    ok = table[table["status"] == "ok"]
    reasons = join_first_lines(f"{row.id}: {row.reason}" for row in table.itertuples() if row.status != "ok")
    known = ok.loc[ok["split"] != "none", "class"].unique()
    if COLUMN not in table and len(known) == 1:
        what = f"only one class ({known[0]}) has usable clips: training needs at least two"
        raise DatasetError(what, where=root, fix="\n  ".join([*class_shortages(table, fractions, source), reasons]))
    for split in ("train", "test", "val"):
        if not (ok["split"] == split).any():
            candidates = ok[ok["split"].isin(("train", "val"))]
            why, advice = _explain_no_held_out(split, fractions[split], candidates) if split in fractions else ("", [])
            shortages = class_shortages(table, fractions, source) if len(ok) else []
            fix = "\n  ".join([*advice, *shortages, *([reasons] if reasons else [])])
            what = f"no usable clip {PURPOSES[split]} among {len(table)} clips{why}"
            raise DatasetError(what, where=root, fix=fix or None)


def _explain_no_held_out(split: str, fraction: float, candidates: pd.DataFrame) -> tuple[str, list[str]]:
    """Return why no group is held out for a split, and what to do."""
    enough = smallest_fraction(candidates["group"], candidates["label"])
    if enough is None:
        return "; no group can be held out: there is only one source, or one per class", []
    key = f"dataset.{split}_fraction"
    return f"; {key} = {fraction:g} is too small to hold out a group", [f"set {key} to {enough:g} or more"]
