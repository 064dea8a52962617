"""Encode stills of many clips with an encoder, in parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moclip.data.sampling import still_frames
from moclip.errors import ModelError, VideoError, as_video_error
from moclip.files.folders import is_url, join_path
from moclip.files.local_copies import local_copy
from moclip.inference.encode import EncodingPart, Versions, check_finite
from moclip.models.encoders.registry import family_module, load_encoder
from moclip.models.encoders.source import EncoderSource
from moclip.store.resumable import ResumableParts
from moclip.video.clip_files import check_unchanged
from moclip.video.frames import read_pictures
from moclip.workers.cluster import check_visible
from moclip.workers.processes import run_jobs_in_order, start_fork_server
from moclip.workers.time_limit import time_limit

if TYPE_CHECKING:
    from torch import Tensor

    from moclip.models.encoders.base import Encoder
    from moclip.models.encoders.preparing import Preparer

Prepared = dict[str, np.ndarray]
"""What an image tower takes, a row for each feature."""

Stills = tuple[np.ndarray, Prepared | VideoError]
"""The frame numbers of a clip's stills, and the prepared stills or the reason why they cannot be read."""


@dataclass(frozen=True)
class StillsTask:
    """Which frames of each clip the encoder gets, and where the parts are written.

    `indexed` is true if the index describes the files below `root`, and false if it describes transcoded copies.
    `parts_folder` and `key` are those of `ResumableParts`.
    """

    source: EncoderSource
    root: str
    indexed: bool
    frames: int
    choice: str
    seed: int
    batch: int
    workers: int
    parts_folder: str
    key: str
    versions: Versions

    def check_input_visible(self) -> None:
        check_visible(is_url(self.root) or Path(self.root).is_dir(), self.root)


class ImageEncoderWorker:
    """Encodes stills. A part's rows have columns id, path, md5, frames and seekable."""

    def __init__(self, task: StillsTask) -> None:
        from moclip.models.device import pick_device

        self.task = task
        start_fork_server(family_module(task.source))  # it imports `preparing`, while the encoder is loaded
        self.encoder = load_encoder(task.source, pick_device())
        self.per_feature = self.encoder.pictures_per_feature
        check_frames(self.encoder, task.frames)
        self.cost = self.encoder.cost()
        self.parts = ResumableParts(task.parts_folder, task.key)

    def run_job(self, part: EncodingPart) -> None:
        for _ in self.run([part]):
            pass

    def run(self, parts: Sequence[EncodingPart]) -> Iterator[EncodingPart]:
        """Encode parts. Yields each when it is written. The next clips are decoded at the same time."""
        clips = (
            _StillsJob(row.path, row.md5, int(row.frames), bool(row.seekable), self.task, self.encoder.preparer)
            for part in parts
            for row in _rows_of(part)
        )
        ahead = self.task.batch // self.task.frames  # workers prepare a batch while the encoder takes another
        prepared = run_jobs_in_order(_prepare_stills, clips, self.task.workers, _worker_died, ahead)
        for part in parts:
            self._encode(part, islice(prepared, len(part.rows)))
            yield part

    def _encode(self, part: EncodingPart, clips: Iterator[Stills]) -> None:
        numbers: list[np.ndarray] = []
        skipped: dict[str, str] = {}

        def kept() -> Iterator[Prepared]:
            for name, (frames, found) in zip(part.rows["id"], clips, strict=True):
                if isinstance(found, VideoError):
                    skipped[name] = found.what
                else:
                    numbers.append(frames)
                    yield found

        batch = max(1, self.task.batch // self.per_feature)  # features
        raw = [np.empty((0, self.encoder.width), np.float32)]
        raw += [self.encoder.encode_prepared(_tensors(some)) for some in in_batches(kept(), batch)]
        per_clip = self.task.frames // self.per_feature
        features = np.concatenate(raw).reshape(len(numbers), per_clip, self.encoder.width)
        frame_numbers = np.array(numbers, np.int32).reshape(len(numbers), self.task.frames)
        check_finite([name for name in part.rows["id"] if name not in skipped], {"raw": features})
        notes = {"skipped": skipped, "cost": self.cost}
        self.parts.write(part.name, {"raw": features, "frame": frame_numbers}, notes)


def in_batches(prepared: Iterable[Prepared], size: int) -> Iterator[Prepared]:
    """Join what was prepared, and divide it into batches of `size` rows; the last one may be smaller."""
    waiting: list[Prepared] = []
    count = 0
    for found in prepared:
        waiting.append(found)
        count += len(next(iter(found.values())))
        while count >= size:
            joined = _joined(waiting)
            yield {name: rows[:size] for name, rows in joined.items()}
            waiting = [{name: rows[size:] for name, rows in joined.items()}]
            count -= size
    if count:
        yield _joined(waiting)


def _joined(parts: list[Prepared]) -> Prepared:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _tensors(prepared: Prepared) -> dict[str, Tensor]:
    import torch

    return {name: torch.from_numpy(rows) for name, rows in prepared.items()}


def check_frames(encoder: Encoder, frames: int) -> None:
    """Raise ModelError if `clip.pool` or `clip.frames` do not fit the encoder."""
    together, source = encoder.pictures_per_feature, encoder.source
    if source.pool == "clip" and together == 1:
        raise ModelError("it encodes single pictures", where=source.model, fix="set clip.pool=frames")
    if frames % together or (together > 1 and frames != together):
        what = f"it encodes {together} frames of a clip together, but clip.frames is {frames}"
        raise ModelError(what, where=source.model, fix=f"set clip.frames={together}")


@dataclass(frozen=True)
class _StillsJob:
    path: str
    md5: str
    frames: int
    seekable: bool
    task: StillsTask
    preparer: Preparer


def _rows_of(part: EncodingPart) -> Iterator[Any]:
    return iter(part.rows.itertuples(index=False))


def _prepare_stills(clip: _StillsJob) -> Stills:
    """Read a clip's stills and prepare them for the encoder, so that large pictures stay in this process."""
    numbers = _still_numbers(clip)
    try:
        with local_copy(join_path(clip.task.root, clip.path)) as file, time_limit():
            if clip.task.indexed:
                check_unchanged(file, clip.md5)
            prepared = clip.preparer(read_pictures(file, numbers, clip.seekable))
            return numbers, {name: rows.numpy() for name, rows in prepared.items()}
    except Exception as problem:  # one bad clip must not stop the run
        return numbers, as_video_error(problem, clip.path)


def _still_numbers(clip: _StillsJob) -> np.ndarray:
    return still_frames(clip.frames, clip.task.frames, clip.task.choice, clip.task.seed, clip.md5)


def _worker_died(clip: _StillsJob, reason: str) -> Stills:
    return _still_numbers(clip), VideoError(reason)
