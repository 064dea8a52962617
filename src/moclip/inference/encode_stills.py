"""Encode stills of many clips with an encoder, in parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from moclip.errors import ModelError, VideoError
from moclip.inference.encode import EncodingPart, check_finite
from moclip.inference.prepare_stills import CLIPS_PER_JOB, Prepared, Stills, StillsJob, StillsTask, prepare_in_order
from moclip.models.encoders.registry import family_module, load_encoder
from moclip.store.resumable import ResumableParts
from moclip.workers.processes import start_fork_server

if TYPE_CHECKING:
    from torch import Tensor

    from moclip.models.encoders.base import Encoder


class ImageEncoderWorker:
    """Encodes stills.

    A part's rows have columns id, path, video_md5, md5, frames, first and seekable; clips of one video are together.
    """

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
        clips = (self._job(row) for part in parts for row in _rows_of(part))
        ahead = self.task.batch // self.task.frames  # workers prepare a batch while the encoder takes another
        if any(part.rows["path"].duplicated().any() for part in parts):
            ahead //= CLIPS_PER_JOB
        prepared = prepare_in_order(clips, self.task.workers, ahead)
        for part in parts:
            self._encode(part, islice(prepared, len(part.rows)))
            yield part

    def _job(self, row: Any) -> StillsJob:
        clip = (row.path, row.video_md5, int(row.frames), bool(row.seekable))
        return StillsJob(*clip, self.task, self.encoder.preparer, int(row.first), row.md5)

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


def _rows_of(part: EncodingPart) -> Iterator[Any]:
    return iter(part.rows.itertuples(index=False))
