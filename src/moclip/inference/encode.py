"""The frozen networks over many clips, part by part: how any of them does it, and CLIP over stills.

A worker holds a network and does parts (`parts`), here or as an actor on a machine of a cluster. What it computes
depends on the part alone, so every way of running gives the same bytes.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from moclip.data.sampling import still_frames
from moclip.errors import ModelError, VideoError, as_video_error
from moclip.files.folders import join_path
from moclip.files.local_copies import local_copy
from moclip.store.resumable import ResumableParts
from moclip.video.clip_files import check_unchanged
from moclip.video.frames import read_pictures
from moclip.workers.cluster import Cluster, Worker, check_seen, check_versions
from moclip.workers.processes import run_jobs_in_order
from moclip.workers.time_limit import time_limit

ACTOR_THREADS = 4  # that decode beside a GPU

Versions = dict[str, str]


def library_versions() -> Versions:
    """What the bytes of features depend on, beside clips and parameters."""
    return {name: importlib.metadata.version(name) for name in ("av", "torch", "transformers", "timm")}


@dataclass(frozen=True)
class EncodingPart:
    """Clips to encode together. `rows` has a row a clip; `view` numbers an augmented view, None means the protocol."""

    name: str
    rows: pd.DataFrame = field(repr=False)
    view: int | None = None


def encode_parts(
    make: Callable[..., Any],
    given: Any,
    waiting: Sequence[EncodingPart],
    cluster: Cluster | None,
    advance: Callable[[int], object],
) -> None:
    """Do the parts that wait with workers `make(given)`: one here, or as many as the cluster has room for."""
    if not waiting:
        return
    if cluster is None:
        for part in make(given).run(waiting):
            advance(len(part.rows))
    else:
        for number in cluster.run_actors(_there, (make, given), waiting):
            advance(len(waiting[number].rows))


def _there(make: Callable[..., Worker[EncodingPart]], given: Any) -> Worker[EncodingPart]:
    """A worker on another machine, if that sees and computes what the one does that asks for it."""
    check_versions(library_versions(), given.versions)
    check_seen(ResumableParts(given.place, given.key).seen(), given.place)
    check_seen(given.sees(), given.root)
    return make(given)


def check_numbers(ids: Sequence[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Raise ModelError where a network gave a clip what is no number; arrays have a row a clip."""
    for name, values in arrays.items():
        bad = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if bad.any():
            which, more = ids[int(bad.argmax())], int(bad.sum()) - 1
            what = f"the network gives no numbers ({name}) for {which}" + (f" and {more} more" if more else "")
            raise ModelError(what, fix="see its weights, and whether they were trained")


@dataclass(frozen=True)
class StillsTask:
    """What CLIP's image tower is to see of each clip, and where the parts go.

    `indexed` says that the clips below `root` are the files that were indexed: not if others were made of them.
    """

    model: str
    root: str
    indexed: bool
    frames: int
    choice: str
    seed: int
    batch: int
    threads: int
    place: str
    key: str
    versions: Versions
    revision: str | None = None

    def sees(self) -> bool:
        return "://" in self.root or Path(self.root).is_dir()


class ImageEncoderWorker:
    """CLIP's image tower over the stills of clips. A part's rows have columns id, path, md5, frames, seekable."""

    def __init__(self, given: StillsTask) -> None:
        from moclip.models.clip_encoder import ClipEncoder
        from moclip.models.device import pick_device

        self.given = given
        self.clip = ClipEncoder(given.model, pick_device(), given.revision)
        self.parts = ResumableParts(given.place, given.key)

    def do(self, part: EncodingPart) -> None:
        for _ in self.run([part]):
            pass

    def run(self, waiting: Sequence[EncodingPart]) -> Iterator[EncodingPart]:
        """Do parts, yielding each when it is set down; the next clips are decoded meanwhile."""
        clips = (
            _StillsJob(row.path, row.md5, int(row.frames), bool(row.seekable), self.given)
            for part in waiting
            for row in _rows(part)
        )
        decoded = run_jobs_in_order(_read_stills, clips, self.given.threads, _stills_lost)
        for part in waiting:
            self._encode(part, islice(decoded, len(part.rows)))
            yield part

    def _encode(self, part: EncodingPart, decoded: Iterator[tuple[np.ndarray, list[np.ndarray] | VideoError]]) -> None:
        numbers: list[np.ndarray] = []
        raw = [np.empty((0, self.clip.width), np.float32)]
        pictures: list[np.ndarray] = []
        skipped: dict[str, str] = {}
        for name, (frames, found) in zip(part.rows["id"], decoded, strict=True):
            if isinstance(found, VideoError):
                skipped[name] = found.what
                continue
            numbers.append(frames)
            pictures.extend(found)
            while len(pictures) >= self.given.batch:
                raw.append(self.clip.encode_images(pictures[: self.given.batch]))
                pictures = pictures[self.given.batch :]
        if pictures:
            raw.append(self.clip.encode_images(pictures))
        features = np.concatenate(raw).reshape(len(numbers), self.given.frames, self.clip.width)
        chosen = np.array(numbers, np.int32).reshape(len(numbers), self.given.frames)
        check_numbers([name for name in part.rows["id"] if name not in skipped], {"raw": features})
        notes = {"skipped": skipped, "vision": self.clip.vision}
        self.parts.write(part.name, {"raw": features, "frame": chosen}, notes)


@dataclass(frozen=True)
class _StillsJob:
    path: str
    md5: str
    frames: int
    seekable: bool
    given: StillsTask


def _rows(part: EncodingPart) -> Iterator[Any]:
    return iter(part.rows.itertuples(index=False))


def _read_stills(clip: _StillsJob) -> tuple[np.ndarray, list[np.ndarray] | VideoError]:
    """The numbers of a clip's stills and the stills, or what is wrong with the clip."""
    numbers = _numbers(clip)
    try:
        with local_copy(join_path(clip.given.root, clip.path)) as file, time_limit():
            if clip.given.indexed:
                check_unchanged(file, clip.md5)
            return numbers, read_pictures(file, numbers, clip.seekable)
    except Exception as problem:  # whatever is wrong with one clip, it costs no other
        return numbers, as_video_error(problem, clip.path)


def _numbers(clip: _StillsJob) -> np.ndarray:
    return still_frames(clip.frames, clip.given.frames, clip.given.choice, clip.given.seed, clip.md5)


def _stills_lost(clip: _StillsJob, reason: str) -> tuple[np.ndarray, list[np.ndarray] | VideoError]:
    return _numbers(clip), VideoError(reason)
