"""Read the predictions of an experiment, from a git revision, a DVC experiment or a folder, and pair those of two."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from moclip.errors import MoclipError
from moclip.wording import counted, shorten_list
from pipeline import paths

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


@dataclass(frozen=True)
class Experiment:
    """What an experiment says of its test clips.

    predictions : the table of data/predictions.parquet.
    index : the index's rows of all its clips.
    """

    name: str
    predictions: pd.DataFrame
    index: pd.DataFrame


@dataclass(frozen=True)
class PairedPredictions:
    """What two experiments say of the test clips that both have.

    rows : the first one's rows of the index, in the order of the logits.
    first, second : logits of the streams that both have, (clips, classes) float32, in the class order of each.
    first_classes, second_classes : the class names of each, in that order.
    notes : what was left out, a sentence each.
    """

    rows: pd.DataFrame
    first: dict[str, np.ndarray]
    second: dict[str, np.ndarray]
    first_classes: list[str]
    second_classes: list[str]
    notes: list[str]


# ------------------------------------------------------------------------------------------------------------ reading


def read_experiment(name: str) -> Experiment:
    """Read an experiment: a folder if there is one of this name, else a git revision or DVC experiment.

    Raises MoclipError if its predictions or its index are missing, or are not in DVC's cache.
    """
    import pandas as pd

    from moclip.data.spans import with_span_columns

    tables = []
    for path in (paths.PREDICTIONS, paths.INDEX):
        content = _read_in_folder(Path(name), path) if Path(name).is_dir() else _read_in_revision(name, path)
        tables.append(pd.read_parquet(io.BytesIO(content)))
    return Experiment(name, tables[0], with_span_columns(tables[1]))


def _read_in_folder(folder: Path, path: Path) -> bytes:
    """Read a file of a project's folder, or of a folder with copies of these files."""
    for place in (folder / path, folder / path.name):
        if place.is_file():
            return place.read_bytes()
    raise MoclipError(
        f"no {path.name}", where=folder, fix=f"name a project in which dvc repro has run, or copy its {path} there"
    )


def _read_in_revision(revision: str, path: Path) -> bytes:
    """Read a file as it was in a commit. DVC's cache has it, or a DVC remote."""
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            folder = Path(repo.root_dir).relative_to(repo.scm.root_dir)
        files, place = DVCFileSystem(rev=revision), str(folder / path)
        files.info(place)
    except FileNotFoundError:
        fix = "name a revision in which dvc repro has run"
        raise MoclipError(f"it has no {path}", where=revision, fix=fix) from None
    except DvcException as error:
        raise MoclipError(str(error), where=revision, fix="name a revision, a DVC experiment or a folder") from None
    try:
        return bytes(files.read_bytes(place))
    except (OSError, DvcException) as error:
        fix = "run: dvc fetch --all-commits; or check that revision out and run: dvc repro"
        raise MoclipError(f"its {path} is not in DVC's cache ({error})", where=revision, fix=fix) from None


# ------------------------------------------------------------------------------------------------------------ pairing


def pair_predictions(first: Experiment, second: Experiment) -> PairedPredictions:
    """Return the predictions of both for the test clips that are the same: id, contents and label.

    Raises MoclipError if there is none, or if only one has several labels a clip.
    """
    from moclip.data.label_sets import is_multi_label
    from moclip.data.selection import class_names
    from pipeline.logits import stacked_logits

    several = [is_multi_label(one.index) for one in (first, second)]
    if several[0] != several[1]:
        one = (first, second)[several.index(True)]
        raise MoclipError("its clips have several labels, those of the other one a single label", where=one.name)
    ours, theirs = _tested(first), _tested(second)
    both = ours.index.intersection(theirs.index, sort=False)
    columns = ["md5", "labels" if several[0] else "class"]
    same = both[(ours.loc[both, columns] == theirs.loc[both, columns]).all(axis=1)]
    notes = _left_out(ours.index.difference(both), theirs.index.difference(both), both.difference(same))
    if same.empty:
        raise MoclipError("no test clip in common", where=f"{first.name}, {second.name}")
    logits = []
    for one in (first, second):
        table = one.predictions.set_index("id").loc[same]
        logits.append(stacked_logits(table))
    streams = [name for name in logits[0] if name in logits[1]]
    notes += [
        f"not compared, because only {one.name} has it: {name}"
        for one, of in zip((first, second), logits, strict=True)
        for name in of
        if name not in streams
    ]
    kept = [{name: of[name] for name in streams} for of in logits]
    rows = ours.loc[same].reset_index()
    return PairedPredictions(rows, kept[0], kept[1], class_names(first.index), class_names(second.index), notes)


def _tested(experiment: Experiment) -> pd.DataFrame:
    """Return the index's rows of the clips with a prediction, by id."""
    rows = experiment.index[experiment.index["id"].isin(experiment.predictions["id"])]
    if len(rows) < len(experiment.predictions):
        what = "its predictions are of other clips than its index"
        raise MoclipError(what, where=experiment.name, fix="run dvc repro there")
    return rows.set_index("id")


def _left_out(only_first: pd.Index, only_second: pd.Index, changed: pd.Index) -> list[str]:
    found = {
        "only in the first": only_first,
        "only in the second": only_second,
        "with other contents or another label": changed,
    }
    return [
        f"{counted(len(ids), 'test clip')} {what}, not compared: {shorten_list(ids)}"
        for what, ids in found.items()
        if len(ids)
    ]
