"""Fill the store of motion fields, on one or many processes or machines.

The unit of work is a shard. `extract_plan` decides which shards must be written, `extract_workers` writes them. A
killed run resumes: its finished shards stay.
"""

from __future__ import annotations

import functools
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
    StoredState,
    find_unfinished_jobs,
    make_plan,
    make_shard_job,
    part_name,
    part_numbers,
    read_stored_state,
)
from moclip.motion.extract_workers import field_versions, write_shard, write_shard_by_clip, write_shard_on_cluster
from moclip.motion.quantise import LEVELS, PER
from moclip.store.layout import (
    DESCRIPTION_FILE,
    PARTS_FOLDER,
    SHARDS_FOLDER,
    UNFINISHED_FILE,
    drop_store,
    read_frame_types,
    shard_name,
    write_metadata,
)
from moclip.store.slots import PlannedJob
from moclip.store.table import as_table, contents_digest, read_table, rows_of, write_table
from moclip.video.vectors import choose_backend
from moclip.workers.cluster import Cluster
from moclip.workers.processes import run_jobs_on_pool, single_threaded_workers

CODE_FILE = "code"  # in a store at a URL: which code made it
REMOTE_TABLE = "table.parquet"  # in a store at a URL: a copy of its table, which the next extraction starts from
ROWS_IN_MEMORY = 4096  # rows of parts that are Python objects at a time

Advance = Callable[[int], object]


@dataclass(frozen=True)
class Output:
    """Where the store and its table are written.

    Parameters
    ----------
    zarr : the store's folder. With `storage` it becomes a link to the store.
    table : the table's Parquet file.
    storage : URL of a folder that gets one store per recipe. None: the store is written to `zarr`.
    """

    zarr: Path
    table: Path
    storage: str | None = None

    def folder(self, recipe: FieldRecipe) -> Folder:
        name = f"mv-{recipe.digest}.zarr"
        return Folder(join_path(self.storage, name) if self.storage else self.zarr.absolute())

    def tables(self, folder: Folder) -> list[str | Path]:
        """Return the files to write the table to. The first belongs to what the store holds now."""
        return [join_path(folder.url, REMOTE_TABLE), self.table] if self.storage else [self.table]

    def code_record(self, folder: Folder) -> tuple[Folder, str]:
        """Return the folder and the name of the file that says which code made the store with which contents.

        Beside a local store, because the store's own bytes do not depend on comments in the code.
        """
        return (folder, CODE_FILE) if self.storage else (Folder(self.zarr.absolute().parent), f"{self.zarr.stem}.code")


def extract(
    videos: pd.DataFrame,
    root: str | Path,
    output: Output,
    recipe: FieldRecipe,
    *,
    workers: int = 0,
    cluster: Cluster | None = None,
    rebuild: bool = False,
    code: str = "",
    advance: Advance = lambda count: None,
) -> pd.DataFrame:
    """Extract the motion fields of all videos into the store. Write its table and return it.

    Only shards whose videos or slots changed are written, and only new or changed videos are read. With another recipe
    or other library versions, everything is extracted again. The bytes of the store and the table depend on the
    videos, the recipe, and the slots that the store had before. They do not depend on `workers`, the machines, the
    place of the store, or the order of rows and of completion.

    Parameters
    ----------
    videos : columns id, path (absolute, or relative to `root`), md5, frames, codec, has_b, and damage as in the index.
        Without damage, every video is searched for it, which is slower.
    workers : the number of processes. 0: work in this process, which ends if a decoder crashes.
    cluster : the machines to work on. They must see the videos and the store at the same paths.
    rebuild : remove the store first and plan all slots from scratch.
    code : stands for the code that runs. What a killed run with other code has left is removed.
    advance : called with the number of videos newly finished.

    Returns
    -------
    The table (`TABLE_COLUMNS`): a row per video, sorted by id. A video that cannot be extracted has status "failed" and
    a reason.

    Raises
    ------
    MoclipError
        The recipe has an unknown option. A machine of the cluster has other versions, or does not see the videos or
        the store.
    """
    recipe = _with_versions(recipe)
    folder = output.folder(recipe)
    if rebuild:
        drop_store(folder.url)
    stored = _read_or_drop(folder, output.tables(folder)[0], recipe, code)
    plan = make_plan(videos, absolute_path(root), folder, recipe, stored)
    unfinished = find_unfinished_jobs(plan)
    if finished := len(videos) - sum(len(planned.rows) for planned in unfinished):
        advance(finished)
    folder.write(UNFINISHED_FILE, _run_name(recipe, code))  # from now on readers refuse the store
    for planned in _run(plan, unfinished, workers, cluster):
        advance(len(planned.rows))
    return _finish(plan, output, code)


def code_of_store(output: Output, recipe: FieldRecipe) -> str | None:
    """Return the `code` that a store was made with, or an unfinished one begun with; None if nothing says so."""
    folder = output.folder(_with_versions(recipe))
    try:
        if folder.exists(UNFINISHED_FILE):
            return folder.read(UNFINISHED_FILE).decode().partition(" ")[2]
        place, name = output.code_record(folder)
        recorded = json.loads(place.read(name))
        contents = json.loads(folder.read(DESCRIPTION_FILE))["attributes"]["contents"]
        return str(recorded["code"]) if recorded["contents"] == contents else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_unfinished(folder: Folder, recipe: FieldRecipe, code: str) -> bool:
    return folder.exists(UNFINISHED_FILE) and folder.read(UNFINISHED_FILE) == _run_name(recipe, code)


def _run_name(recipe: FieldRecipe, code: str) -> bytes:
    return f"{recipe.digest} {code}".encode()


def _with_versions(recipe: FieldRecipe) -> FieldRecipe:
    """Check the recipe and add the library versions of this machine. Raises MoclipError for an unknown option."""
    choose_backend("h264", True, recipe.backend)
    if recipe.accumulate not in ACCUMULATE:
        raise MoclipError(f"unknown way to accumulate: {recipe.accumulate!r}", fix="use false, grid or pixel")
    if recipe.per not in PER:
        raise MoclipError(f"unknown unit of time: {recipe.per!r}", fix="use frame or second")
    return replace(recipe, clip=float(recipe.clip), versions=field_versions(recipe.backend))


def _read_or_drop(folder: Folder, table_path: str | Path, recipe: FieldRecipe, code: str) -> StoredState:
    """Read the state of a store that was made with this recipe. Remove a store that was made with another one."""
    try:
        if json.loads(folder.read(DESCRIPTION_FILE))["attributes"]["recipe"] != recipe.digest:
            raise StoreError("made by another recipe", where=folder.url)
        table, types = read_table(table_path), read_frame_types(folder)
    except (OSError, ValueError, KeyError, StoreError):
        if not is_url(table_path):
            Path(table_path).unlink(missing_ok=True)
        if not _is_unfinished(folder, recipe, code):  # else a killed run with the same recipe and code goes on
            drop_store(folder.url)
        table, types = as_table(pd.DataFrame()), np.zeros(0, np.uint8)
    return read_stored_state(folder, table, types)


def _run(plan: Plan, jobs: list[PlannedJob], workers: int, cluster: Cluster | None) -> Iterator[PlannedJob]:
    """Run jobs, the longest first. Yield each when its shards are written."""
    frames = plan.clips["frames"].to_numpy()
    jobs = sorted(jobs, key=lambda planned: -frames[planned.rows].sum())
    if cluster is not None:
        for number in cluster.run(write_shard_on_cluster, (make_shard_job(plan, planned) for planned in jobs)):
            yield jobs[number]
    elif workers:
        yield from _run_in_processes(plan, jobs, workers)
    else:
        for planned in jobs:
            write_shard(make_shard_job(plan, planned))
            yield planned


def _run_in_processes(plan: Plan, jobs: list[PlannedJob], workers: int) -> Iterator[PlannedJob]:
    """Run jobs in worker processes. A job whose process died runs again, one clip at a time."""
    waiting = jobs[::-1]  # taken from the end
    ended: list[PlannedJob] = []
    make_job = functools.partial(make_shard_job, plan)
    with single_threaded_workers():
        for planned, _ in run_jobs_on_pool(write_shard, waiting, ended, workers, make_job):
            yield planned
        for planned in ended:
            write_shard_by_clip(make_shard_job(plan, planned))
            yield planned


def _finish(plan: Plan, output: Output, code: str) -> pd.DataFrame:
    """Merge the parts into the table and the frame types, write both, and remove shards that no video uses."""
    folder, recipe, stored = plan.folder, plan.recipe, plan.stored
    types = np.zeros(max((job.first + job.count for job in plan.jobs), default=0) * recipe.shard_frames, np.uint8)
    written = {job.first for job in plan.jobs} & part_numbers(folder)
    unchanged = np.concatenate([np.arange(0), *(job.rows for job in plan.jobs if job.first not in written)])
    old_rows = stored.table.iloc[plan.clips["stored"].to_numpy()[unchanged]]
    for row in rows_of(old_rows[["offset", "length"]]):
        types[row.offset : row.offset + row.length] = stored.types[row.offset : row.offset + row.length]
    table = pd.concat([old_rows, *_read_parts(folder, sorted(written), types)])
    table = as_table(table.sort_values("id"))
    contents = contents_digest(table)
    _remove_unused(folder, {number for job in plan.jobs for number in range(job.first, job.first + job.count)})
    write_metadata(folder, types, recipe.grid, recipe.shard_frames, _attributes(recipe) | {"contents": contents})
    for path in output.tables(folder):
        write_table(path, table)
    if code:
        place, name = output.code_record(folder)
        place.write(name, json.dumps({"contents": contents, "code": code}).encode())
    (folder / PARTS_FOLDER).clear()
    if output.storage:
        write_link(output.zarr, folder.url, contents)
    return table


def _read_parts(folder: Folder, first_shards: Sequence[int], types: np.ndarray) -> Iterator[pd.DataFrame]:
    """Yield the rows of parts as tables of limited size, and put the types of their frames into `types`."""
    rows: list[dict[str, Any]] = []
    for text in folder.read_many([part_name(first) for first in first_shards]):
        for row in json.loads(text)["rows"]:
            letters = np.frombuffer(row.pop("types").encode(), np.uint8)
            types[row["offset"] : row["offset"] + len(letters)] = letters
            rows.append(row)
        if len(rows) >= ROWS_IN_MEMORY:
            yield as_table(pd.DataFrame(rows))
            rows = []
    if rows:
        yield as_table(pd.DataFrame(rows))


def _remove_unused(folder: Folder, used: set[int]) -> None:
    """Remove the files of shards without videos, and temporary files of killed runs."""
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
        "per": recipe.per,
        "components": ["dx", "dy"],
        "accumulate": recipe.accumulate,
        "backend": recipe.backend,
        "versions": dict(recipe.versions),
        "recipe": recipe.digest,
    }
