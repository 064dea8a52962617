"""Predict the class of a video file by all streams; `moclip predict` and `moclip.load` use it."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import starmap
from pathlib import Path

import numpy as np
import torch

from moclip.data.crops import crop_and_resize, protocol_crops
from moclip.data.fusion_data import no_stills
from moclip.errors import MoclipError, ModelError, VideoError, as_video_error
from moclip.inference.clip_input import (
    ClipInput,
    ClipJob,
    FieldSettings,
    ViewSettings,
    read_input,
    read_or_reason,
    worker_died,
)
from moclip.inference.read_ahead import map_ahead
from moclip.inference.rejection import Rejection
from moclip.models.class_texts import ClassTexts, text_features
from moclip.models.device import one_thread_each
from moclip.models.encoders.base import Encoder, TextEncoder
from moclip.models.fusion import Fusion
from moclip.models.mv_tsn import MvTsn
from moclip.models.onnx_graph import OnnxFeatures, OnnxPictures, import_onnxruntime
from moclip.store.features import to_unit_length
from moclip.workers.processes import run_jobs_in_order

logger = logging.getLogger(__name__)

STEPS = ("decode", "mv_tsn", "clip", "fusion")
"""The steps of a prediction: `read` does the first, `classify` the others."""

STREAMS = ("fusion", "mv_tsn", "zero_shot")

Step = Callable[[str], AbstractContextManager[object]]


@dataclass(frozen=True)
class Prediction:
    """The prediction of each stream (see `STREAMS`): probabilities and logits of the classes, float32 (classes,).

    Without an encoder that encodes texts there is no stream "zero_shot".

    Probabilities are softmax(logits / T), with the stream's temperature T that was fitted on validation clips. With
    labels given as text (`Predictor.with_labels`) T is 1. `trusted` is the stream that `top` reads: the one that was
    chosen on the validation clips. `features` are what the heads saw, as the stages store them: "motion" (width,) and
    "picture" (stills, width), float32. `unknown` says whether the clip is of none of the classes, and `known_score` how
    well it is known (`Rejection`); both are None where the predictor has no rejection.

    Of models that were trained on clips with several labels, each probability is by itself, a sigmoid, and `thresholds`
    (classes,) of each stream say which labels are predicted. Otherwise there are none.

    `damage` says what of the clip does not decode; "" for nothing.
    """

    classes: tuple[str, ...]
    probabilities: dict[str, np.ndarray]
    logits: dict[str, np.ndarray]
    trusted: str = "fusion"
    features: dict[str, np.ndarray] = field(default_factory=dict)
    unknown: bool | None = None
    known_score: float | None = None
    thresholds: dict[str, np.ndarray] = field(default_factory=dict)
    damage: str = ""

    def labels(self, stream: str | None = None) -> list[tuple[str, float]]:
        """Return the predicted classes with their probabilities, the most probable first.

        They are those at or above their thresholds, perhaps none; without thresholds the most probable class.
        """
        stream = stream or self.trusted
        if stream not in self.thresholds:
            return self.top(1, stream)
        predicted = self.probabilities[stream] >= self.thresholds[stream]
        own = {name for name, is_predicted in zip(self.classes, predicted, strict=True) if is_predicted}
        return [answer for answer in self.top(len(self.classes), stream) if answer[0] in own]

    def top(self, count: int = 5, stream: str | None = None) -> list[tuple[str, float]]:
        """Return the most probable classes of a stream, by default the trusted one, with their probabilities.

        Equal logits are in label order. Raises ModelError for a stream that did not score these classes.
        """
        stream = stream or self.trusted
        if stream not in self.logits:
            raise _no_stream_error(stream, self.logits)
        order = np.argsort(-self.logits[stream], kind="stable")[:count]
        return [(self.classes[label], float(self.probabilities[stream][label])) for label in order]


def _no_stream_error(stream: str, streams: Iterable[str]) -> ModelError:
    """Return the error for a stream that is not among the `streams` of a prediction."""
    whys = {
        "zero_shot": "it needs an encoder of pictures and texts, and these models have none: set clip.model to a CLIP",
        "fusion": "this fusion head only knows the classes of its training: for labels as text, set fusion.head: text",
        "mv_tsn": "it only knows the classes of the training, not labels given as text",
    }
    what = f"no stream {stream!r} in this prediction; there are {', '.join(streams)}"
    return ModelError(what, fix=whys.get(stream, f"the streams are {', '.join(STREAMS)}"))


@dataclass(frozen=True)
class Predictor:
    """The trained models and the classes to choose from.

    encoder : of the stills; None where the models were trained on motion alone.
    texts : the classes' text features; None if the encoder has no text tower.
    own_classes : False where the classes are not those of the training but given as text (see `with_labels`).
    trusted : the stream to trust, one of `STREAMS`.
    rejection : when a clip is of none of the classes; None where that is not known.
    motion_features, picture_features : compute the features of fields and of pictures in PyTorch's place: see
        `with_runtime`.
    """

    mv_tsn: MvTsn
    fusion: Fusion
    encoder: Encoder | None
    classes: tuple[str, ...]
    texts: ClassTexts | None
    fields: FieldSettings
    views: ViewSettings
    own_classes: bool = True
    trusted: str = "fusion"
    rejection: Rejection | None = None
    motion_features: Callable[[torch.Tensor], torch.Tensor] | None = None
    picture_features: Callable[[Sequence[np.ndarray]], np.ndarray] | None = None

    @property
    def device(self) -> torch.device:
        return self.mv_tsn.head.weight.device

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams that can score these classes."""
        scores_texts = self.texts is not None and type(self.fusion).score_texts is not Fusion.score_texts
        can = {
            "fusion": self.own_classes or scores_texts,
            "mv_tsn": self.own_classes,
            "zero_shot": self.texts is not None,
        }
        return tuple(stream for stream in STREAMS if can[stream])

    @functools.cached_property
    def _frozen(self) -> MvTsn:
        return self.mv_tsn.frozen()

    def __call__(self, path: str | Path) -> Prediction:
        """Predict the class of a clip. Raises VideoError where it cannot be read."""
        return self.classify(self.read(path))

    def predict(self, paths: Iterable[str | Path], threads: int = 1) -> Iterator[Prediction | VideoError]:
        """Yield a prediction per clip, in order, while `threads` read the next clips; a reason for each bad clip."""
        with ThreadPoolExecutor(threads) as pool:  # FFmpeg releases the interpreter's lock
            read = map_ahead(pool, lambda job: (job, read_or_reason(job)), map(self._job, paths), threads)
            yield from starmap(self._classify_or_reason, read)

    def predict_in_processes(self, paths: Iterable[str | Path], workers: int) -> Iterator[Prediction | VideoError]:
        """Do what `predict` does with worker processes: a clip whose decoder crashes or hangs costs only itself.

        On a CPU, PyTorch's networks take several clips at a time, one on each thread: threads that share each operation
        wait for one another, all the longer while workers decode on the same cores.

        A script that calls this needs `if __name__ == "__main__"`, like any that starts Python processes.
        """
        jobs = [self._job(path) for path in paths]
        read = zip(jobs, run_jobs_in_order(read_or_reason, jobs, workers, worker_died), strict=True)
        threads = min(len(jobs), torch.get_num_threads()) if self.device.type == "cpu" and self._is_torch else 1
        if threads <= 1:
            yield from starmap(self._classify_or_reason, read)
            return
        with one_thread_each(), ThreadPoolExecutor(threads) as pool:
            yield from map_ahead(pool, lambda clip: self._classify_or_reason(*clip), read, threads)

    @property
    def _is_torch(self) -> bool:
        """Whether no network runs on onnxruntime, whose threads were set when it was loaded."""
        return self.motion_features is None and self.picture_features is None

    def _job(self, path: str | Path) -> ClipJob:
        return ClipJob(Path(path), self.fields, self.views)

    def _classify_or_reason(self, job: ClipJob, result: ClipInput | VideoError) -> Prediction | VideoError:
        if isinstance(result, VideoError):
            return result
        try:
            return self.classify(result)
        except Exception as problem:  # such as pictures that CLIP's processor cannot take
            return as_video_error(problem, job.path)

    def with_labels(self, labels: Sequence[str]) -> Predictor:
        """Return a predictor with the same models for other classes, described in words, without training.

        Its predictions have no stream "mv_tsn". They have "fusion" if the head scores classes by their text
        (`fusion.head: text`). If they lack the trusted stream, `top` reads "zero_shot". Raises MoclipError for fewer
        than two labels, and ModelError if the encoder has no text tower.
        """
        if self.texts is None or not isinstance(self.encoder, TextEncoder):
            what = "labels in words need an encoder of texts, but these models were trained without one"
            raise ModelError(what, fix="set clip.model to a CLIP, and train again")
        classes = tuple(dict.fromkeys(labels))
        if len(classes) < 2:
            raise MoclipError("at least two labels are needed to choose from", where=", ".join(labels) or "no label")
        features = text_features(self.encoder, classes, {label: [label] for label in classes}, list(self.texts.prompts))
        texts = dataclasses.replace(self.texts, features=features)
        return dataclasses.replace(self, classes=classes, texts=texts, own_classes=False, rejection=None)

    def with_runtime(self, runtime: str) -> Predictor:
        """Return a predictor whose MV-TSN and encoder run on "torch" or "onnxruntime".

        onnxruntime takes about half the time on a CPU, and gives the same features to 1e-4. It takes some seconds to
        start. An encoder that cannot be converted, or has another precision than float32, stays on PyTorch; the log
        says so. Raises ModelError for another runtime, on a GPU, or where onnxruntime is not installed.
        """
        if runtime == "torch":
            return dataclasses.replace(self, motion_features=None, picture_features=None)
        if runtime != "onnxruntime":
            raise ModelError(f"no such runtime: {runtime}", fix="use torch or onnxruntime")
        if self.device.type != "cpu":
            what = f"onnxruntime runs MV-TSN on the CPU, but the models are on {self.device.type}"
            raise ModelError(what, fix="use the runtime torch, or load the models on the cpu")
        pictures = None if self.encoder is None else _converted(self.encoder)
        return dataclasses.replace(self, motion_features=OnnxFeatures(self.mv_tsn), picture_features=pictures)

    def read(self, path: str | Path) -> ClipInput:
        """Read the models' input from a clip, decoding it once. Raises VideoError."""
        return read_input(self._job(path))

    def classify(self, clip_input: ClipInput, step: Step = nullcontext) -> Prediction:
        """Compute the class probabilities of a clip. `step(name)` is entered around each of the `STEPS`."""
        with torch.inference_mode():
            with step("mv_tsn"):
                motion_features = self.pool(self.encode_fields(clip_input.levels)[None])
            with step("clip"):
                stills = self.encode_stills(clip_input.stills)
            with step("fusion"):
                logits = {name: values[0] for name, values in self.score(motion_features, stills[None]).items()}
                probabilities = self.probabilities(logits)
        on_cpu = {name: values.cpu().numpy() for name, values in logits.items()}
        trusted = self.trusted if self.trusted in on_cpu else "zero_shot"
        features = {"motion": motion_features[0].cpu().numpy(), "picture": stills}
        answer = Prediction(
            self.classes,
            probabilities,
            on_cpu,
            trusted,
            features,
            thresholds=self._thresholds,
            damage=clip_input.damage,
        )
        return answer if self.rejection is None else _with_rejection(answer, self.rejection)

    def encode_stills(self, stills: Sequence[np.ndarray]) -> np.ndarray:
        """Compute the features (K, width) of pictures, of unit length; one 0 without an encoder."""
        if self.encoder is None:
            return no_stills(1)[0]
        encode = self.picture_features or self.encoder.encode_images
        return to_unit_length(encode(stills))

    @functools.cached_property
    def _thresholds(self) -> dict[str, np.ndarray]:
        """The thresholds of each stream, (classes,), with several labels a clip."""
        kept = self.fusion.config.label_thresholds if self.own_classes else {}
        return {stream: np.array(kept[stream], np.float32) for stream in STREAMS if stream in kept}

    def encode_fields(self, levels: np.ndarray) -> torch.Tensor:
        """Compute MV-TSN's features of fields, in each crop: int8 (n, 2 * stack, rows, columns) -> (n, crops, D)."""
        crops = self.views.crops
        boxes = protocol_crops((levels.shape[-2], levels.shape[-1]), self.views.crop, crops)
        fields = torch.from_numpy(levels).to(self.device)
        if crops > 1:  # a single box applies to all fields as it is
            fields, boxes = fields.repeat_interleave(crops, dim=0), boxes.tile(len(levels))
        views = crop_and_resize(fields, boxes, self.mv_tsn.config.size, self.mv_tsn.config.stabilise)
        encode = self.motion_features or self._frozen.encode
        return encode(views).unflatten(0, (-1, crops))

    def pool(self, features: torch.Tensor) -> torch.Tensor:
        """Return the motion feature of each clip from those of its segments: (n, segments, crops, D) -> (n, width)."""
        return self._frozen.pool(features)

    def score(self, motion_features: torch.Tensor, stills: np.ndarray) -> dict[str, torch.Tensor]:
        """Return the logits (n, classes) of each stream that can score these classes.

        `motion_features` are (n, width), `stills` (n, K, picture) of unit length.
        """
        still_features = torch.from_numpy(stills).to(self.device)
        logits = {}
        if self.texts:
            logits["zero_shot"] = torch.from_numpy(self.texts.scores(to_unit_length(stills.mean(axis=1))))
        if self.own_classes:
            fusion = self.fusion(motion_features, still_features)
            return {"fusion": fusion, "mv_tsn": self.mv_tsn.head(motion_features)} | logits
        if self.texts is None:
            return logits
        text = torch.from_numpy(self.texts.features).to(self.device)
        fused = self.fusion.score_texts(motion_features, still_features, text)
        return logits if fused is None else {"fusion": fused} | logits

    def probabilities(self, logits: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
        """Return each stream's calibrated probabilities over the last axis; of classes given as text, the softmax."""
        return {
            name: (self.fusion.probabilities(name, values) if self.own_classes else torch.softmax(values, dim=-1))
            .cpu()
            .numpy()
            for name, values in logits.items()
        }


def _converted(encoder: Encoder) -> OnnxPictures | None:
    """Return the encoder on onnxruntime; None where it cannot be converted."""
    import_onnxruntime()  # raises ModelError
    if encoder.dtype != torch.float32:
        logger.warning("the encoder %s stays on PyTorch: it has the precision %s", encoder.source.model, encoder.dtype)
        return None
    try:
        return OnnxPictures(encoder)
    except Exception as problem:  # the exporter raises many kinds
        reason = str(problem).strip().partition("\n")[0]
        logger.warning("the encoder %s stays on PyTorch: %s", encoder.source.model, reason)
        return None


def _with_rejection(answer: Prediction, rejection: Rejection) -> Prediction:
    """Return a prediction that says whether the clip is unknown."""
    logits = answer.logits[rejection.stream][None]
    features = {kind: values[None] for kind, values in answer.features.items()}
    scores = rejection.scores(logits, features)
    unknown = rejection.unknown_by(scores, logits)
    return dataclasses.replace(answer, unknown=bool(unknown[0]), known_score=float(scores[0]))
