"""Time the encoder of pictures and texts on the sample, if it is on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from moclip.errors import ModelError, VideoError
from moclip.inference.encode import library_versions
from moclip.inference.prepare_stills import Prepared, StillsJob, StillsTask, prepare_stills
from moclip.models.class_texts import read_phrases, read_prompts, text_features
from moclip.models.device import pick_device
from moclip.models.encoders.registry import has_text, load_encoder
from moclip.models.encoders.source import EncoderSource
from moclip.models.hub_files import files_digest
from pipeline.encoder_source import encoder_source
from pipeline.estimate.files import TimedFile
from pipeline.estimate.timing import Took, each_of, peak_memory, timed, timed_here
from pipeline.params import NO_FILE, Params

FILES, BUDGET = 8, 2.0
"""Files whose stills are read, and seconds of timed forward passes."""

LONG_PASS = 4.0
"""Seconds: where a forward pass of a whole batch would take longer, fewer pictures are timed."""


@dataclass(frozen=True)
class TimedEncoder:
    """Seconds of loading the encoders, of each clip's stills, and of all class texts.

    width, features : of a clip's features, and their number. pictures : those of the timed pass. memory : bytes, or
        None if not a whole batch was tried.
    """

    load: float
    clip: float
    texts: float
    width: int
    features: int
    pictures: int
    memory: int | None


def missing_encoder(params: Params) -> str | None:
    """Return the name of an encoder that is not on this machine, so that it cannot be timed; None if all are."""
    source = encoder_source(params)
    for one in source.each if source else ():
        local = one.weights or Path(one.model).is_dir()
        if not local and not files_digest(one):
            return one.model
    return None


def time_encoders(
    params: Params, files: Sequence[TimedFile], classes: Sequence[str], workers: int
) -> TimedEncoder | None:
    """Encode stills of some clips, and one class's texts. None without an encoder. All must be on this machine."""
    source = encoder_source(params)
    if source is None:
        return None
    found = [_time_pictures(params, one, files, workers) for one in source.each]
    load, texts = _time_texts(params, source, classes) if has_text(source) else (0.0, 0.0)
    return TimedEncoder(
        sum(one.load for one in found),
        sum(one.clip for one in found),
        load + texts,
        sum(one.width for one in found),
        found[0].features,
        found[0].pictures,
        None if any(one.memory is None for one in found) else peak_memory(),
    )


def _time_pictures(params: Params, source: EncoderSource, files: Sequence[TimedFile], workers: int) -> TimedEncoder:
    """Read and prepare the stills of some clips, then run the encoder on them."""
    clip, device = params.clip, pick_device()
    load, encoder = timed_here(lambda: load_encoder(source, device))
    task = StillsTask(
        source, "", False, clip.frames, clip.choice, params.seed, clip.batch, workers, "", "", library_versions()
    )
    reading: list[Took] = []
    prepared: list[Prepared] = []
    for found in [one for one in files if one.is_read][:FILES]:
        plan = found.plan
        given = (found.still_path, plan["md5"], plan["frames"], plan["seekable"])
        took, [(_, stills)] = timed(prepare_stills, [StillsJob(*given, task, encoder.preparer)])
        if not isinstance(stills, VideoError):
            reading.append(took)
            prepared.append(stills)
    if not prepared:
        raise ModelError("no still of the sample can be read", where=source.model)
    decode = sum(one.alone for one in reading) / len(reading)
    features = clip.frames // encoder.pictures_per_feature
    batch = max(1, clip.batch // encoder.pictures_per_feature)
    each, count = _pass_seconds(encoder, prepared, batch)
    # with a GPU the clips are read meanwhile, else both share the processors
    both = max(each * features, decode / workers) if device.type == "cuda" else each * features + decode / workers
    memory = peak_memory() if count == batch else None
    return TimedEncoder(load.alone, both, 0.0, encoder.width, features, count, memory)


def _pass_seconds(encoder: object, prepared: Sequence[Prepared], batch: int) -> tuple[float, int]:
    """Return the seconds that the encoder takes for each feature, and the features of the timed pass."""
    names = list(prepared[0])
    rows = {name: np.concatenate([one[name] for one in prepared]) for name in names}

    def run(count: int) -> Took:
        some = {name: torch.from_numpy(np.resize(values, (count, *values.shape[1:]))) for name, values in rows.items()}
        return timed_here(lambda: encoder.encode_prepared(some))[0]  # type: ignore[attr-defined]

    run(1)
    count = batch if run(1).alone * batch <= LONG_PASS else min(batch, 2)
    each, _ = each_of(lambda: run(count), BUDGET, most=5)
    return each.alone / count, count


def _time_texts(params: Params, source: EncoderSource, classes: Sequence[str]) -> tuple[float, float]:
    """Return the seconds of loading the encoder, and of encoding all class texts, from those of one class."""
    load, encoder = timed_here(lambda: load_encoder(source, pick_device()))
    file = params.dataset.phrases
    phrases = read_phrases(None if file == NO_FILE else Path(file), list(classes))
    templates = read_prompts(Path(params.clip.prompts))
    took, _ = timed_here(lambda: text_features(encoder, list(classes)[:1], phrases, templates))
    return load.alone, took.alone * len(classes)
