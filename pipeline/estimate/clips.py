"""The index that the estimate counts with: the project's own, or one guessed from a sample of the files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from moclip.data.clip_folder import printable_name
from moclip.data.index import build_index
from moclip.data.probing import ProbeJob
from moclip.data.selection import usable_clips
from moclip.data.spans import cut_frames, videos_of, with_span_columns
from moclip.data.unknown_classes import leave_out
from moclip.errors import MoclipError
from moclip.video.probe import ShownFrames
from pipeline.clip_source import find_clips
from pipeline.estimate.files import FileJob, TimedFile, absolute, file_size, time_files
from pipeline.estimate.sample import choose_files
from pipeline.field_source import field_recipe
from pipeline.index_file import read_index
from pipeline.params import Params
from pipeline.split_source import read_lists

SAMPLE = 24
"""Files that are timed."""


@dataclass(frozen=True)
class CountedClips:
    """The index, and the files that were timed.

    guessed : whether the index is not the project's, but has guessed rows for the files that were not timed.
    sizes : the bytes of all files, (files,).
    """

    index: pd.DataFrame
    guessed: bool
    timed: list[TimedFile]
    sizes: np.ndarray

    @property
    def usable(self) -> pd.DataFrame:
        return usable_clips(self.index)

    @property
    def videos(self) -> pd.DataFrame:
        """A row for each usable video, of which several clips may be spans."""
        return videos_of(self.usable)


def count_clips(params: Params, index_is_current: bool, folder: Path, workers: int) -> CountedClips:
    """Time a sample of the files, with copies in `folder`, and return it with the index.

    Raises MoclipError as the stage `index` does: no clips, one class, no clip to test on.
    """
    if index_is_current:
        try:
            return _of_index(params, read_index(params), folder, workers)
        except MoclipError:
            pass  # it is missing or stale, whatever DVC says
    return _guess(params, folder, workers)


def _of_index(params: Params, index: pd.DataFrame, folder: Path, workers: int) -> CountedClips:
    videos = videos_of(usable_clips(index))
    sizes = videos["bytes"].to_numpy(np.int64)
    kinds = [f"{row.codec} {row.w}x{row.h}" for row in videos.itertuples()]
    chosen = [str(videos["path"].iloc[number]) for number in choose_files(kinds, sizes, SAMPLE)]
    return CountedClips(index, False, _time(params, chosen, folder, workers), sizes)


def _time(params: Params, clips: Iterable[str], folder: Path, workers: int) -> list[TimedFile]:
    root, transcode = params.dataset.root, bool(params.index.transcode)
    jobs = [FileJob(clip, absolute(root, clip), folder / str(number), transcode) for number, clip in enumerate(clips)]
    return time_files(jobs, field_recipe(params), workers)


def _guess(params: Params, folder: Path, workers: int) -> CountedClips:
    """Build the index as the stage `index` does, but with guessed rows for the files that are not timed."""
    dataset = params.dataset
    clips, manifest = find_clips(dataset)
    probes = _SampledProbes(params, folder)
    index = build_index(
        dataset.root,
        clips,
        read_lists(dataset, clips, manifest),
        dataset.val_fraction,
        dataset.test_fraction,
        params.seed,
        workers,
        manifest=manifest,
        follow_links=dataset.follow_links,
        probe_files=probes,
    )
    if dataset.unknown:
        index = leave_out(index, dataset.unknown)
    return CountedClips(with_span_columns(index), True, probes.timed, probes.sizes)


class _SampledProbes:
    """Gives rows of the index: of a sample of files as they are, of the others like that of a similar file."""

    def __init__(self, params: Params, folder: Path) -> None:
        self.params, self.folder = params, folder
        self.timed: list[TimedFile] = []
        self.sizes = np.zeros(0, np.int64)

    def __call__(self, jobs: Sequence[ProbeJob], workers: int) -> list[dict[str, Any]]:
        self.sizes = np.array([file_size(job.indexed_file) for job in jobs], np.int64)
        kinds = [Path(job.clip).suffix.lower() for job in jobs]
        chosen = choose_files(kinds, self.sizes, SAMPLE)
        self.timed = _time(self.params, [jobs[number].clip for number in chosen], self.folder, workers)
        return [
            _row(job, kind, size, self.timed) for job, kind, size in zip(jobs, kinds, self.sizes.tolist(), strict=True)
        ]


def _row(job: ProbeJob, kind: str, size: int, timed: Sequence[TimedFile]) -> dict[str, Any]:
    """Return the row of a file: its own, or that of the timed file of its kind that has the most similar size."""
    name = printable_name(job.clip)
    of_kind = [found for found in timed if Path(found.clip).suffix.lower() == kind] or list(timed)
    like = min(of_kind, key=lambda found: (found.clip != job.clip, abs(found.size - size)))
    row = like.row | {"id": name, "path": name}
    if like.clip != job.clip:
        scale = size / max(1, like.size)
        row |= {"frames": round(like.row["frames"] * scale), "bytes": size, "md5": ""}
    if job.spans is not None and row["status"] == "ok":
        row["cuts"] = cut_frames(_even_frames(row), job.spans[:, 0], job.spans[:, 1])
    return row


def _even_frames(row: dict[str, Any]) -> ShownFrames:
    """Return frames that follow each other evenly, each with motion."""
    frames, step = max(2, int(row["frames"])), 1e6 / max(1.0, row["fps"])
    return ShownFrames((np.arange(frames) * step).astype(np.int64), frames * step, np.ones(frames, bool))
