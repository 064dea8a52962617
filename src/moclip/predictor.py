"""From a video file to class probabilities of the three streams, in one go; what `moclip predict` calls."""

from __future__ import annotations

import dataclasses
import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from moclip import motion, video
from moclip.augment import pictures, protocol_crops
from moclip.clip import Clip, text_features
from moclip.errors import MoclipError, VideoError
from moclip.features import normalised
from moclip.fusion import Fusion, TextFusion
from moclip.mv_tsn import MvTsn
from moclip.sampling import pick_motion, segment_frames, still_frames
from moclip.transcode import transcoded

PARTS = ("decode", "mv_tsn", "clip", "fusion")
"""A prediction's steps: `look` decodes the file into fields and stills; `answer` runs MV-TSN, CLIP and the head."""

STREAMS = ("fusion", "mv_tsn", "zero_shot")

Part = Callable[[str], AbstractContextManager[object]]


@dataclass(frozen=True)
class FieldSettings:
    """How vectors become a field; must equal what the models were trained on."""

    transcode: bool
    canvas: tuple[int, int]
    cell: int
    clip: float
    accumulate: bool | str


@dataclass(frozen=True)
class ViewSettings:
    """How a clip is looked at: motion segments and crops, and stills."""

    segments: int
    crops: int
    crop: float
    stills: int
    choice: str
    seed: int


@dataclass(frozen=True)
class Look:
    """What the models are shown of a clip.

    levels : int8 (segments, 2, rows, columns), the motion fields as the store keeps them.
    stills : RGB pictures, each uint8 (height, width, 3).
    """

    levels: np.ndarray
    stills: list[np.ndarray]


@dataclass(frozen=True)
class Prediction:
    """A clip's class probabilities: of each stream (see `STREAMS`) one a class, float32 (classes,)."""

    classes: tuple[str, ...]
    probabilities: dict[str, np.ndarray]

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
    clip: Clip
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
        return self.answer(self.look(Path(path)))

    def predict(self, paths: Iterable[str | Path], threads: int = 1) -> Iterator[Prediction | VideoError]:
        """Answer clip by clip, in their order, while `threads` read the next ones; for one that cannot be read, why."""
        waiting = iter(paths)
        with ThreadPoolExecutor(threads) as pool:  # FFmpeg releases the interpreter's lock
            ahead: deque[Future[Look]] = deque(
                pool.submit(self.look, Path(one)) for one in islice(waiting, threads + 1)
            )
            while ahead:
                try:
                    yield self.answer(ahead.popleft().result())
                except VideoError as problem:
                    yield problem
                ahead.extend(pool.submit(self.look, Path(one)) for one in islice(waiting, 1))

    def labelled(self, labels: Sequence[str]) -> Predictor:
        """The same models asked for other classes, described in words: no training, and no answer of MV-TSN alone.

        The stream "fusion" is there where the head scores classes by their text (`fusion.head: text`).
        """
        classes = tuple(dict.fromkeys(labels))
        if len(classes) < 2:
            raise MoclipError("at least two labels are needed to choose from", where=", ".join(labels) or "no label")
        text = text_features(self.clip, classes, {label: [label] for label in classes}, list(self.prompts))
        return dataclasses.replace(self, classes=classes, text=text, free=True)

    def look(self, path: Path) -> Look:
        """Read of a clip what the models are shown, decoding it once. Raises VideoError."""
        if not self.fields.transcode:
            levels, _, stills = self._read(path, lambda frames: self._still_numbers(path, frames))
            return Look(levels, stills)
        with transcoded(path) as source:
            levels, frames, _ = self._read(source, lambda frames: [])
        return Look(levels, list(video.read_frames(path, self._still_numbers(path, frames))))

    def answer(self, look: Look, part: Part = nullcontext) -> Prediction:
        """Class probabilities of what was seen. `part(name)` is entered around each step."""
        with torch.inference_mode():
            with part("mv_tsn"):
                motion_features = self._motion_features(look.levels)
            with part("clip"):
                stills = normalised(self.clip.encode_images(look.stills))
            with part("fusion"):
                logits = self._logits(motion_features, stills)
                shares = {name: torch.softmax(values, dim=0).cpu().numpy() for name, values in logits.items()}
        return Prediction(self.classes, shares)

    def _still_numbers(self, path: Path, frames: int) -> list[int]:
        views = self.views
        return [int(n) for n in still_frames(frames, views.stills, views.choice, views.seed, path.name)]

    def _read(
        self, path: Path, still_numbers: Callable[[int], list[int]], length: int | None = None
    ) -> tuple[np.ndarray, int, list[np.ndarray]]:
        """The int8 fields (segments, 2, rows, columns), how many frames the file says it has, and the stills.

        `length` is how many of them decode, where that is known to be another number.
        """
        with video.one_pass(path) as (frames, decoded):
            numbers = still_numbers(frames)
            stills: dict[int, np.ndarray] = {}
            kept = _keep_stills(decoded, frozenset(numbers), stills)
            wanted = segment_frames(np.array([length or frames]), self.views.segments)[0].tolist()
            if self.fields.accumulate:
                traced, count = pick_motion(self._traced(kept), wanted, np.copy)
                levels = [traced[n] for n in wanted if n in traced]
            else:
                picked, count = pick_motion(((frame.moves, frame) for frame in kept), wanted, video.Decoded.copy)
                levels = self._levels([picked[n] for n in wanted if n in picked])
        if count != (length or frames):
            return self._read(path, still_numbers, count)
        video.check_all_found(path, numbers, stills)
        return np.stack(levels), frames, [stills[number] for number in numbers]

    def _levels(self, frames: list[video.Decoded]) -> list[np.ndarray]:
        settings = self.fields
        field = motion.field(video.unpacked(frames), settings.canvas, settings.cell)
        return list(motion.quantise(field, settings.clip))

    def _traced(self, frames: Iterable[video.Decoded]) -> Iterator[tuple[bool, np.ndarray]]:
        """Whether a frame moves, and its accumulated field: all frames' vectors go into them."""
        settings = self.fields
        moves: list[bool] = []
        windows = video.in_windows(_note(frames, moves))
        number = 0
        for fields, _ in motion.fields(windows, settings.canvas, settings.cell, settings.accumulate):
            for level in motion.quantise(fields, settings.clip):
                yield moves[number], level
                number += 1

    def _motion_features(self, levels: np.ndarray) -> torch.Tensor:
        """The mean (1, D) of MV-TSN's features over the views."""
        crops = self.views.crops
        boxes = protocol_crops((levels.shape[-2], levels.shape[-1]), self.views.crop, crops)
        fields = torch.from_numpy(levels).to(self.device)
        if crops > 1:  # else the only box serves all fields
            fields, boxes = fields.repeat_interleave(crops, dim=0), boxes.tile(len(levels))
        shown = pictures(fields, boxes, self.mv_tsn.config.size)
        return self._frozen.encode(shown).mean(0, keepdim=True)

    def _logits(self, motion_features: torch.Tensor, stills: np.ndarray) -> dict[str, torch.Tensor]:
        """Logits (classes,) of each stream that can name these classes."""
        shown = torch.from_numpy(stills).to(self.device)[None]
        zero_shot = torch.from_numpy(self.logit_scale * self.text @ normalised(stills.mean(axis=0)))
        if not self.free:
            alone = self.mv_tsn.head(motion_features)[0]
            return {"fusion": self.fusion(motion_features, shown)[0], "mv_tsn": alone, "zero_shot": zero_shot}
        if isinstance(self.fusion, TextFusion):
            names = torch.from_numpy(self.text).to(self.device)
            picture = self.fusion.pooling(motion_features, shown)
            return {"fusion": self.fusion.fused(motion_features, picture, names)[0], "zero_shot": zero_shot}
        return {"zero_shot": zero_shot}


def _keep_stills(
    frames: Iterable[video.Decoded], numbers: frozenset[int], stills: dict[int, np.ndarray]
) -> Iterator[video.Decoded]:
    """Pass the frames on; pictures of the wanted ones go into `stills`."""
    for number, frame in enumerate(frames):
        if number in numbers:
            stills[number] = video.shown(frame.picture)
        yield frame


def _note(frames: Iterable[video.Decoded], moves: list[bool]) -> Iterator[video.Decoded]:
    for frame in frames:
        moves.append(frame.moves)
        yield frame
