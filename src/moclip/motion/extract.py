"""Fill the motion-field store: every video once, shard by shard, on as many processes or machines as asked for.

The unit of work is a shard. `extract_plan` decides what must be done, `extract_workers` does it. What a killed run has
finished stays.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from moclip.errors import MoclipError, StoreError
from moclip.files.folders import Folder, absolute_path, is_url, join_path
from moclip.files.links import write_link
from moclip.motion.accumulate import ACCUMULATE
from moclip.motion.extract_plan import (
    FieldRecipe,
    Plan,
    Stored,
    job_of,
    jobs_to_do,
    make_plan,
    part_name,
    part_numbers,
    read_stored,
)
from moclip.motion.extract_workers import MARK, versions, write_shard, write_shard_by_clip, write_shard_on_cluster
from moclip.motion.quantise import LEVELS
from moclip.store.layout import (
    DESCRIPTION_FILE,
    PARTS_FOLDER,
    SHARDS_FOLDER,
    drop_store,
    read_frame_types,
    shard_name,
    write_metadata,
)
from moclip.store.slots import Planned
from moclip.store.table import as_table, contents_digest, read_table, rows_of, write_table
from moclip.video.vectors import choose_backend
from moclip.workers.cluster import Cluster
from moclip.workers.processes import run_jobs_on_pool, single_threaded_workers

TABLE = "table.parquet"  # in a store elsewhere: its table, for whoever extracts into it next
ROWS = 4096  # of parts, held as Python objects at a time

Advance = Callable[[int], object]


@dataclass(frozen=True)
class Output:
    """Where the store goes.

    Parameters
    ----------
    zarr : the store's folder; a link to it where the store is elsewhere.
    table : the table's Parquet file.
    elsewhere : URL of a folder that gets one store for each recipe.
    """

    zarr: Path
    table: Path
    elsewhere: str | None = None

    def folder(self, recipe: FieldRecipe) -> Folder:
        name = f"mv-{recipe.digest}.zarr"
        return Folder(join_path(self.elsewhere, name) if self.elsewhere else self.zarr.absolute())

    def tables(self, folder: Folder) -> list[str | Path]:
        """The files that hold the table; what is stored is read by the first."""
        return [join_path(folder.url, TABLE), self.table] if self.elsewhere else [self.table]


def extract(
    videos: pd.DataFrame,
    root: str | Path,
    output: Output,
    recipe: FieldRecipe,
    *,
    workers: int = 0,
    cluster: Cluster | None = None,
    rebuild: bool = False,
    advance: Advance = lambda count: None,
) -> pd.DataFrame:
    """Extract the motion fields of all videos into the store, and return (and write) its table.

    Only shards whose videos or places changed are written, and in those only new or changed videos are read.
    Another recipe or other versions mean another store: everything is extracted again. The bytes of the store and
    of the table depend on the videos, the recipe and the store's history of places, and neither on
    `workers`, the machines and the store's place, nor on the order of rows or of completion.

    Parameters
    ----------
    videos : columns id, path (absolute, or relative to `root`), md5, frames, codec, has_b.
    workers : processes; 0 works in this one, which a decoder that crashes takes with it.
    cluster : machines that do the work; they must see the videos and the store under the same names.
    rebuild : begin anew, with the videos laid out afresh.
    advance : called with the number of videos whenever a shard of them is finished.

    Returns
    -------
    The table (`store.TABLE_COLUMNS`), a row a video, sorted by id; a video that cannot be extracted has
    status "failed" and a reason.

    Raises
    ------
    MoclipError
        The recipe has an unknown option. A machine of the cluster has other versions, or does not see the videos or
        the store.
    """
    recipe = _checked(recipe)
    folder = output.folder(recipe)
    if rebuild:
        drop_store(folder.url)
    stored = _read_or_drop(folder, output.tables(folder)[0], recipe)
    plan = make_plan(videos, absolute_path(root), folder, recipe, stored)
    todo = jobs_to_do(plan)
    if finished := len(videos) - sum(len(planned.rows) for planned in todo):
        advance(finished)
    folder.write(MARK, recipe.digest.encode())  # readers keep off from here on
    for planned in _run(plan, todo, workers, cluster):
        advance(len(planned.rows))
    return _finish(plan, output)


def _checked(recipe: FieldRecipe) -> FieldRecipe:
    """The recipe with the versions of this machine. Raises MoclipError where it has an unknown option."""
    choose_backend("h264", True, recipe.backend)
    if recipe.accumulate not in ACCUMULATE:
        raise MoclipError(f"unknown way to accumulate: {recipe.accumulate!r}", fix="use false, grid or pixel")
    return replace(recipe, clip=float(recipe.clip), versions=versions(recipe.backend))


def _read_or_drop(folder: Folder, table_path: str | Path, recipe: FieldRecipe) -> Stored:
    """Read what is stored under the same recipe; what is stored under another one is removed."""
    try:
        if json.loads(folder.read(DESCRIPTION_FILE))["attributes"]["recipe"] != recipe.digest:
            raise StoreError("made by another recipe", where=folder.url)
        table, types = read_table(table_path), read_frame_types(folder)
    except (OSError, ValueError, KeyError, StoreError):
        if not is_url(table_path):
            Path(table_path).unlink(missing_ok=True)
        if not folder.exists(MARK) or folder.read(MARK) != recipe.digest.encode():
            drop_store(folder.url)  # but not the unfinished work of a killed run with this recipe
        table, types = as_table(pd.DataFrame()), np.zeros(0, np.uint8)
    return read_stored(folder, table, types)


def _run(plan: Plan, todo: list[Planned], workers: int, cluster: Cluster | None) -> Iterator[Planned]:
    """Do jobs, yielding each when its shard is in place; the longest are begun first."""
    frames = plan.clips["frames"].to_numpy()
    todo = sorted(todo, key=lambda planned: -frames[planned.rows].sum())
    if cluster is not None:
        jobs = (job_of(plan, planned) for planned in todo)
        for number in cluster.run(write_shard_on_cluster, jobs):
            yield todo[number]
    elif workers:
        yield from _run_processes(plan, todo, workers)
    else:
        for planned in todo:
            write_shard(job_of(plan, planned))
            yield planned


def _run_processes(plan: Plan, todo: list[Planned], workers: int) -> Iterator[Planned]:
    """The same in worker processes; a job whose process died is done again, a clip at a time."""
    waiting = todo[::-1]  # worked off from the end
    suspects: list[Planned] = []

    def load(planned: Planned) -> Any:
        return job_of(plan, planned)

    with single_threaded_workers():
        while waiting:  # a new pool after each one that broke
            for planned, _ in run_jobs_on_pool(write_shard, waiting, suspects, workers, load):
                yield planned
        for planned in suspects:
            write_shard_by_clip(job_of(plan, planned))
            yield planned


def _finish(plan: Plan, output: Output) -> pd.DataFrame:
    """Fold the parts into the table and the frame types, and remove what no video uses any more."""
    folder, recipe, stored = plan.folder, plan.recipe, plan.stored
    types = np.zeros(max((job.first + job.count for job in plan.jobs), default=0) * recipe.shard_frames, np.uint8)
    written = {job.first for job in plan.jobs} & part_numbers(folder)
    kept = np.concatenate([np.arange(0), *(job.rows for job in plan.jobs if job.first not in written)])
    old = stored.table.iloc[plan.clips["stored"].to_numpy()[kept]]
    for row in rows_of(old[["offset", "length"]]):
        types[row.offset : row.offset + row.length] = stored.types[row.offset : row.offset + row.length]
    table = pd.concat([old, *_fold(folder, sorted(written), types)])
    table = as_table(table.sort_values("id"))
    contents = contents_digest(table)
    _remove_unused(folder, {number for job in plan.jobs for number in range(job.first, job.first + job.count)})
    write_metadata(folder, types, recipe.grid, recipe.shard_frames, _attributes(recipe) | {"contents": contents})
    for path in output.tables(folder):
        write_table(path, table)
    (folder / PARTS_FOLDER).clear()
    if output.elsewhere:
        write_link(output.zarr, folder.url, contents)
    return table


def _fold(folder: Folder, written: Sequence[int], types: np.ndarray) -> Iterator[pd.DataFrame]:
    """The rows of the parts, some at a time; their frames' types go into `types`."""
    rows: list[dict[str, Any]] = []
    for text in folder.read_many([part_name(first) for first in written]):
        for row in json.loads(text)["rows"]:
            letters = np.frombuffer(row.pop("types").encode(), np.uint8)
            types[row["offset"] : row["offset"] + len(letters)] = letters
            rows.append(row)
        if len(rows) >= ROWS:
            yield as_table(pd.DataFrame(rows))
            rows = []
    yield as_table(pd.DataFrame(rows))


def _remove_unused(folder: Folder, used: set[int]) -> None:
    """Remove shards that no video lies in, and what a killed run left aside."""
    names = {shard_name(number) for number in used}
    for name in folder.sizes(SHARDS_FOLDER):
        if name not in names:
            folder.remove(name)


def _attributes(recipe: FieldRecipe) -> dict[str, Any]:
    return {
        "units": "px",
        "scale": recipe.clip / LEVELS,
        "clip": recipe.clip,
        "canvas": list(recipe.canvas),
        "cell": recipe.cell,
        "components": ["dx", "dy"],
        "accumulate": recipe.accumulate,
        "backend": recipe.backend,
        "versions": dict(recipe.versions),
        "recipe": recipe.digest,
    }
