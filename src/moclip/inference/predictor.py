"""From a video file to class probabilities of the three streams, in one go; what `moclip predict` calls."""

from __future__ import annotations

import dataclasses
import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from moclip.data.crops import crop_and_resize, protocol_crops
from moclip.errors import MoclipError, VideoError, clip_problem
from moclip.inference.clip_input import (
    ClipInput,
    ClipJob,
    FieldSettings,
    ViewSettings,
    clip_lost,
    read_input,
    read_or_reason,
)
from moclip.models.class_texts import text_features
from moclip.models.clip_encoder import ClipEncoder
from moclip.models.fusion import Fusion, TextFusion
from moclip.models.mv_tsn import MvTsn
from moclip.store.features import to_unit_length
from moclip.workers.processes import run_jobs_in_order

PARTS = ("decode", "mv_tsn", "clip", "fusion")
"""A prediction's steps: `read` decodes the file into fields and stills; `answer` runs MV-TSN, CLIP and the head."""

STREAMS = ("fusion", "mv_tsn", "zero_shot")

Part = Callable[[str], AbstractContextManager[object]]


@dataclass(frozen=True)
class Prediction:
    """What each stream (see `STREAMS`) says of a clip: probabilities and logits of the classes, float32 (classes,)."""

    classes: tuple[str, ...]
    probabilities: dict[str, np.ndarray]
    logits: dict[str, np.ndarray]

    def top(self, count: int = 5, stream: str = "fusion") -> list[tuple[str, float]]:
        """The most probable classes of a stream, with their probabilities; of equals the first."""
        values = self.probabilities[stream]
        return [(self.classes[label], float(values[label])) for label in np.argsort(-values, kind="stable")[:count]]


@dataclass(frozen=True)
class Predictor:
    """The trained models, and the text features (classes, width) of the classes with their temperature.

    `free` says that the classes are not those of the training but given as text (see `labelled`).
    """

    mv_tsn: MvTsn
    fusion: Fusion
    clip: ClipEncoder
    classes: tuple[str, ...]
    text: np.ndarray
    logit_scale: float
    prompts: tuple[str, ...]
    fields: FieldSettings
    views: ViewSettings
    free: bool = False

    @property
    def device(self) -> torch.device:
        return self.clip.device

    @functools.cached_property
    def _frozen(self) -> MvTsn:
        return self.mv_tsn.frozen()

    def __call__(self, path: str | Path) -> Prediction:
        """Say which class a clip shows. Raises VideoError where it cannot be read."""
        return self.answer(self.read(path))

    def predict(self, paths: Iterable[str | Path], threads: int = 1) -> Iterator[Prediction | VideoError]:
        """Answer clip by clip, in their order, while `threads` read the next ones; for one that cannot be read, why."""
        jobs = map(self._job, paths)
        with ThreadPoolExecutor(threads) as pool:  # FFmpeg releases the interpreter's lock
            ahead = deque((job, pool.submit(read_or_reason, job)) for job in islice(jobs, threads + 1))
            while ahead:
                job, read = ahead.popleft()
                yield self._answered(job, read.result())
                ahead.extend((job, pool.submit(read_or_reason, job)) for job in islice(jobs, 1))

    def predict_apart(self, paths: Iterable[str | Path], workers: int) -> Iterator[Prediction | VideoError]:
        """The same with worker processes: a clip whose decoder crashes or never ends costs itself alone.

        As with all of Python's processes, a script that calls this needs its `if __name__ == "__main__"`.
        """
        jobs = [self._job(path) for path in paths]
        for job, read in zip(jobs, run_jobs_in_order(read_or_reason, jobs, workers, clip_lost), strict=True):
            yield self._answered(job, read)

    def _job(self, path: str | Path) -> ClipJob:
        return ClipJob(Path(path), self.fields, self.views)

    def _answered(self, job: ClipJob, read: ClipInput | VideoError) -> Prediction | VideoError:
        if isinstance(read, VideoError):
            return read
        try:
            return self.answer(read)
        except Exception as problem:  # pictures that CLIP's processor cannot take, say
            return clip_problem(problem, job.path)

    def labelled(self, labels: Sequence[str]) -> Predictor:
        """The same models asked for other classes, described in words: no training, and no answer of MV-TSN alone.

        The stream "fusion" is there where the head scores classes by their text (`fusion.head: text`).
        """
        classes = tuple(dict.fromkeys(labels))
        if len(classes) < 2:
            raise MoclipError("at least two labels are needed to choose from", where=", ".join(labels) or "no label")
        text = text_features(self.clip, classes, {label: [label] for label in classes}, list(self.prompts))
        return dataclasses.replace(self, classes=classes, text=text, free=True)

    def read(self, path: str | Path) -> ClipInput:
        """Read what the models are given of a clip, decoding it once. Raises VideoError."""
        return read_input(self._job(path))

    def answer(self, read: ClipInput, part: Part = nullcontext) -> Prediction:
        """Class probabilities of what was read of a clip. `part(name)` is entered around each step."""
        with torch.inference_mode():
            with part("mv_tsn"):
                motion_features = self._motion_features(read.levels)
            with part("clip"):
                stills = to_unit_length(self.clip.encode_images(read.stills))
            with part("fusion"):
                logits = self._logits(motion_features, stills)
                shares = {name: torch.softmax(values, dim=0).cpu().numpy() for name, values in logits.items()}
        return Prediction(self.classes, shares, {name: values.cpu().numpy() for name, values in logits.items()})

    def _motion_features(self, levels: np.ndarray) -> torch.Tensor:
        """The mean (1, D) of MV-TSN's features over the views."""
        crops = self.views.crops
        boxes = protocol_crops((levels.shape[-2], levels.shape[-1]), self.views.crop, crops)
        fields = torch.from_numpy(levels).to(self.device)
        if crops > 1:  # else the only box serves all fields
            fields, boxes = fields.repeat_interleave(crops, dim=0), boxes.tile(len(levels))
        shown = crop_and_resize(fields, boxes, self.mv_tsn.config.size)
        return self._frozen.encode(shown).mean(0, keepdim=True)

    def _logits(self, motion_features: torch.Tensor, stills: np.ndarray) -> dict[str, torch.Tensor]:
        """Logits (classes,) of each stream that can name these classes."""
        shown = torch.from_numpy(stills).to(self.device)[None]
        zero_shot = torch.from_numpy(self.logit_scale * self.text @ to_unit_length(stills.mean(axis=0)))
        if not self.free:
            alone = self.mv_tsn.head(motion_features)[0]
            return {"fusion": self.fusion(motion_features, shown)[0], "mv_tsn": alone, "zero_shot": zero_shot}
        if isinstance(self.fusion, TextFusion):
            names = torch.from_numpy(self.text).to(self.device)
            picture = self.fusion.pooling(motion_features, shown)
            return {"fusion": self.fusion.score(motion_features, picture, names)[0], "zero_shot": zero_shot}
        return {"zero_shot": zero_shot}
