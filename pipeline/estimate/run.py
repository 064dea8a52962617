"""Put together what each stage takes, from what was timed and what is counted."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from moclip.errors import MoclipError
from pipeline import paths
from pipeline.clip_tables import ClipTables
from pipeline.dag import STAGES
from pipeline.estimate.clips import CountedClips, count_clips
from pipeline.estimate.counts import (
    FLOAT_BYTES,
    TrainingCount,
    embedding,
    head_trainings,
    network_trainings,
    networks_kept,
)
from pipeline.estimate.files import by_frames, scaled_sum
from pipeline.estimate.timing import NOTHING
from pipeline.params import Params

if TYPE_CHECKING:
    from pipeline.estimate.networks import TimedNetwork

FEATURE_SHARE = 0.92
"""Bytes of stored float features, which are compressed, by those in memory (docs/estimate.md)."""

TABLE_BYTES = 220
"""Bytes of a clip's row in the tables: the index, and what each stage found of it."""

GALLERY_BYTES, PAGE_BYTES = 110_000, 300_000
"""Bytes of a clip in the report's gallery, and of the rest of the page."""

NO_MOTION = 1
"""Width of what stands for the motion in the head on the still alone."""

UNKNOWN_WIDTH = 512
"""Of picture features, where the encoder is not timed: the head takes about as long with any."""

EPOCH_SECONDS = 0.02
"""Seconds of writing an epoch's row to the curves."""

LOW, HIGH = 0.75, 1.4
"""The range of an estimate that is made of timed work."""


@dataclass(frozen=True)
class Starts:
    """Seconds of starting a stage that imports nothing, reads clips, or runs networks; and of DVC for each stage."""

    bare: float
    clips: float
    networks: float
    dvc: float


@dataclass
class StageEstimate:
    """What a stage takes. `low` and `high` are the range of `seconds`; None where they are not known.

    what : how much it does, in words. runs : whether `dvc repro` runs it. key : of params.yaml, which shortens it most.
    parts : how many times its progress begins anew.
    """

    name: str
    what: str = ""
    seconds: float | None = 0.0
    low: float = 0.0
    high: float = 0.0
    bytes: int = 0
    memory: int | None = None
    runs: bool = True
    key: str = ""
    parts: int = 1


@dataclass
class Estimate:
    """The stages, how many files and steps were timed, and how much longer work takes while this machine is busy."""

    stages: list[StageEstimate]
    timed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    slowdown: float = 1.0

    @property
    def running(self) -> list[StageEstimate]:
        return [stage for stage in self.stages if stage.runs]

    @property
    def seconds(self) -> float:
        return sum(stage.seconds or 0.0 for stage in self.running)

    @property
    def range(self) -> tuple[float, float]:
        return sum(stage.low for stage in self.running), sum(stage.high for stage in self.running)

    @property
    def parts(self) -> dict[str, tuple[float, int]]:
        """The seconds of each stage that runs, and its parts."""
        return {stage.name: (stage.seconds or 0.0, stage.parts) for stage in self.running}

    @property
    def bytes(self) -> int:
        return sum(stage.bytes for stage in self.running)

    @property
    def memory(self) -> int | None:
        return max((stage.memory for stage in self.running if stage.memory), default=None)


def estimate_run(
    params: Params,
    stale: set[str],
    starts: Starts,
    workers: int,
    import_networks: Callable[[], float],
    advance: Callable[[int], object] = lambda count: None,
) -> Estimate:
    """Time a sample and return the estimate of the stages that are `stale`.

    `import_networks` imports what runs networks, and returns its seconds. `advance` is called after each of the three
    parts. Raises MoclipError where no clip can be read.
    """
    with tempfile.TemporaryDirectory(prefix="moclip-") as folder:
        clips = count_clips(params, "index" not in stale, Path(folder), workers)
        advance(1)
        run = _Run(params, clips, stale, Path(folder), workers)
        run.starts = Starts(starts.bare, starts.clips, starts.clips + import_networks(), starts.dvc)
        run.add_clip_stages()
        advance(1)
        run.add_network_stages()
        advance(1)
        return run.finished()


class _Run:
    """Fills the stages one after the other."""

    starts: Starts

    def __init__(self, params: Params, clips: CountedClips, stale: set[str], folder: Path, workers: int) -> None:
        self.params, self.clips, self.stale, self.folder, self.workers = params, clips, stale, folder, workers
        self.tables = ClipTables(params, clips.index)
        self.found: dict[str, StageEstimate] = {}
        self.timed: list[str] = []
        self.notes: list[str] = []
        self.took = sum((one.took for one in clips.timed), NOTHING)
        self.picture, self.stills = 1, 1  # width and number of a clip's still features

    def finished(self) -> Estimate:
        stages = [
            self.found[name] if name in self.stale else StageEstimate(name, "up to date", runs=False) for name in STAGES
        ]
        slowdown = max(1.0, self.took.wall / self.took.alone) if self.took.alone else 1.0
        return Estimate(stages, self.timed, self.notes, slowdown)

    def needs(self, *names: str) -> bool:
        return bool(self.stale.intersection(names))

    def add(
        self,
        name: str,
        what: str,
        start: float,
        work: float,
        size: float = 0,
        memory: int | None = None,
        least: float | None = None,
        most: float | None = None,
        key: str = "",
    ) -> None:
        """Add a stage that takes `start` seconds to start, and works for `work`, of a range from `least` to `most`."""
        fixed = start + self.starts.dvc
        low = LOW * (fixed + (work if least is None else least))
        high = HIGH * (fixed + (work if most is None else most))
        self.found[name] = StageEstimate(name, what, fixed + work, low, high, round(size), memory, True, key)

    def add_unused(self, name: str, why: str, start: float) -> None:
        self.add(name, f"not used: {why}", start, 0.0)

    # ------------------------------------------------------------------------------------------------ the clips

    def add_clip_stages(self) -> None:
        params, clips, starts, workers = self.params, self.clips, self.starts, self.workers
        timed, videos, sizes = clips.timed, clips.videos, clips.sizes
        files = len(sizes)
        rows = len(clips.index)
        hashing = scaled_sum(timed, "hash_seconds", sizes) if self.needs("transcode", "index") else 0.0
        if params.index.transcode:
            seconds = scaled_sum(timed, "transcode_seconds", sizes) / workers
            read = [one for one in timed if one.is_read]
            share = sum(one.row["bytes"] for one in read) / max(1, sum(one.size for one in read))
            encoded = float(videos["bytes"].sum()) if not clips.guessed else share * float(sizes.sum())
            self.add("transcode", f"{files} files", 2 * starts.clips, hashing + seconds, encoded)
        else:
            self.add("transcode", "not used: index.transcode is false", starts.bare, hashing)
        probing = scaled_sum(timed, "probe_seconds", sizes) / workers
        self.add("index", f"{files} files", 2 * starts.clips, probing, TABLE_BYTES * rows, self._worker_memory(0))
        extracting = by_frames(timed, "extract_seconds", videos) / workers
        stored = by_frames(timed, "store_bytes", videos) + TABLE_BYTES * len(videos)
        frames = int(videos["frames"].sum())
        shard = params.mv.shard * 2 * int(np.prod(_grid(params)))
        memory = self._worker_memory(shard)
        self.add("extract_mv", f"{frames:,} frames", 2 * starts.clips, extracting, stored, memory)
        if any(not one.is_read for one in timed):
            failed = [one for one in timed if not one.is_read]
            self.notes.append(f"{len(failed)} of {len(timed)} timed files cannot be used: {failed[0].row['reason']}")
        self.timed.append(f"{len(timed)} files")

    def _worker_memory(self, buffer: int) -> int | None:
        used = max((one.worker_bytes for one in self.clips.timed), default=0)
        return self.workers * (used + buffer) if used else None

    # ---------------------------------------------------------------------------------------------- the networks

    def add_network_stages(self) -> None:
        self._add_encoder()
        self._add_image_baseline()
        self._add_heads(self._add_mv_tsn(), len(self.tables.classes))
        _free_gpu()

    def _add_encoder(self) -> None:
        from pipeline.encoder_source import unused_reason
        from pipeline.estimate.encoder import missing_encoder, time_encoders

        params, starts = self.params, self.starts
        if params.clip.model is False:
            for name in ("clip_text", "clip_image"):
                self.add_unused(name, unused_reason(params), starts.networks)
            return
        if not self.needs("clip_text", "clip_image"):
            self.stills, self.picture = _stored_shape()
            return
        clips, classes = len(self.clips.usable), self.tables.classes
        if missing := missing_encoder(params):
            self.notes.append(f"clip_text and clip_image are not in the total: {missing} is not on this machine")
            for name in ("clip_text", "clip_image"):
                self.found[name] = StageEstimate(name, f"{missing} is not here yet", None)
            self.picture = UNKNOWN_WIDTH
            return
        found = time_encoders(params, self.clips.timed, classes, self.workers)
        assert found is not None
        self.picture, self.stills = found.width, found.features
        texts = f"{len(classes)} classes" if found.texts else "not used: the encoder has no texts"
        self.add("clip_text", texts, starts.networks, found.texts, FLOAT_BYTES * len(classes) * found.width)
        of_clip = FLOAT_BYTES * found.features * found.width
        size = clips * (2 * of_clip * FEATURE_SHARE + of_clip + TABLE_BYTES)  # with data/encoded, for the next run
        what = f"{clips * params.clip.frames:,} pictures"
        key = "clip.frames" if params.clip.frames > 1 else "clip.model"
        work = found.load + clips * found.clip
        self.add("clip_image", what, starts.networks, work, size, found.memory, key=key)
        self.timed.append(f"{found.pictures} pictures")

    def _add_mv_tsn(self) -> int:
        """Add the training of MV-TSN and its runs on all clips. Return the width of its features."""
        from pipeline.estimate import networks
        from pipeline.network_fit import mv_tsn_config

        params, tables, starts = self.params, self.tables, self.starts
        classes = len(tables.classes)
        config = mv_tsn_config(params, tables.classes)
        if not self.needs("train_mv", "embed_mv"):
            return networks.feature_width(config)
        trainings = network_trainings(params, tables)
        store = networks.SampleStore(params, self.clips.timed, self.folder / "sample", self.workers)
        network = networks.time_network(params, config, params.tsn.segments, trainings, store)
        self.took += network.step_took
        self.timed.append(f"{network.steps} training step{'s' if network.steps > 1 else ''} of {network.clips} clips")
        weights = networks_kept(tables) * network.weight_bytes
        self._add_training("train_mv", trainings, network, params.tsn.segments, weights)
        count = embedding(params, tables, network.width, classes)
        work = count.protocol_fields * network.protocol_field + count.augmented_fields * network.augmented_field
        fields = f"{count.protocol_fields + count.augmented_fields:,} fields"
        views = count.augmented_fields * network.augmented_field > work / 2
        key = "embed.views" if views else "evaluate.protocol"
        size = FEATURE_SHARE * count.bytes
        self.add("embed_mv", fields, starts.networks, work, size, network.memory, key=key)
        self.found["embed_mv"].parts = len(tables.embedded())
        return network.width

    def _add_training(
        self, name: str, trainings: list[TrainingCount], network: TimedNetwork, segments: int, size: int
    ) -> None:
        def seconds(shares: Iterable[float]) -> float:
            return sum(
                share
                * training.epochs
                * (
                    training.steps_per_epoch * network.step * min(1.0, training.clips / self.params.tsn.batch)
                    + training.held_out * segments * network.scored_field
                    + EPOCH_SECONDS
                )
                for share, training in zip(shares, trainings, strict=True)
            )

        likely = seconds(one.likely_share for one in trainings)
        least = seconds(0.0 if one.may_end_early else 1.0 for one in trainings)
        most = seconds(1.0 for _ in trainings)
        steps = round(sum(one.steps * one.likely_share for one in trainings))
        what = f"{steps:,} steps in {len(trainings)} training{'s' if len(trainings) > 1 else ''}"
        self.add(name, what, self.starts.networks, likely, size, network.memory, least, most, self._training_key())
        self.found[name].parts = len(trainings)

    def _training_key(self) -> str:
        """Return the key that shortens the training most."""
        params = self.params
        if params.fit.folds:
            return "fit.folds"
        one_pass = min(one.clips for one in network_trainings(params, self.tables)) / params.tsn.batch
        return "tsn.min_steps" if params.tsn.min_steps > one_pass * params.tsn.epochs else "tsn.epochs"

    def _add_heads(self, width: int, classes: int) -> None:
        from pipeline.estimate.networks import time_head, time_probe
        from pipeline.head_fit import trains_side_by_side

        params, tables, starts = self.params, self.tables, self.starts
        side_by_side = trains_side_by_side(params.fusion.head)
        trainings = head_trainings(params, tables)
        most = max(one.clips for one in trainings)
        probe = time_probe(width, classes, most) if self.needs("train_probe") else 0.0
        probe *= len(trainings) // 2  # in each fold
        self.add("train_probe", f"{most} clips", starts.networks, probe, FLOAT_BYTES * classes * width)
        both = [(0.0, 0), (0.0, 0)]
        if self.needs("train_fusion"):
            both = [
                time_head(params, motion, self.picture, self.stills, classes, most) for motion in (width, NO_MOTION)
            ]
        steps = sum(one.steps * one.likely_share for one in trainings)
        each = [step for step, _ in both]
        a_pair = max(each) if side_by_side else sum(each)
        work = steps / 2 * a_pair + EPOCH_SECONDS * sum(one.epochs for one in trainings[::2])
        held_out = sum(one.held_out for one in trainings[::2])
        size = sum(weights for _, weights in both) + 8 * FLOAT_BYTES * held_out * classes
        what = f"{round(steps):,} steps in {len(trainings)} trainings"
        self.add("train_fusion", what, starts.networks, work, size, key="fusion.epochs")
        # one head's progress is shown where both train at the same time
        self.found["train_fusion"].parts = len(trainings) // 2 if side_by_side else len(trainings)
        test = len(tables.rows("test"))
        self.add("evaluate", f"{test} clips", starts.networks, 0.002 * test, 8 * FLOAT_BYTES * test * classes)
        shown = 3 * params.report.clips
        decode = by_frames(self.clips.timed, "probe_seconds", self.clips.videos) / max(1, len(self.clips.videos))
        work = shown * 6 * decode / self.workers
        self.add("report", f"{shown} clips shown", starts.networks, work, PAGE_BYTES + shown * GALLERY_BYTES)

    def _add_image_baseline(self) -> None:
        from pipeline.estimate import networks
        from pipeline.network_fit import image_config

        params, tables, starts = self.params, self.tables, self.starts
        backbone = params.baselines.image
        if backbone is False:
            for name in ("train_image", "embed_image"):
                self.add_unused(name, "baselines.image is false", starts.bare)
            return
        if not self.needs("train_image", "embed_image"):
            return
        trainings = network_trainings(params, tables)
        store = networks.SampleStore(params, self.clips.timed, self.folder / "sample_image", self.workers)
        network = networks.time_network(params, image_config(params, backbone, tables.classes), 1, trainings, store)
        self._add_training("train_image", trainings, network, 1, network.weight_bytes * networks_kept(tables))
        segments, crops = params.evaluate.views
        folds = tables.embedded()[1:]
        clips = len(tables.usable) + sum(len(fold.scored) for fold in folds)
        fields = clips * segments * crops
        size = FEATURE_SHARE * FLOAT_BYTES * clips * len(tables.classes)
        work = fields * network.protocol_field
        self.add("embed_image", f"{fields:,} fields", starts.networks, work, size, network.memory)
        self.found["embed_image"].parts = 1 + len(folds)


def _free_gpu() -> None:
    """Give the memory of the GPU back: in `moclip train` the stages need it next."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _stored_shape() -> tuple[int, int]:
    """Return the number and the width of a clip's stored still features."""
    import zarr

    from moclip.files.links import follow_link

    try:
        group = zarr.open_group(follow_link(paths.CLIP_IMAGE)[0].zarr_store(), mode="r")
        return group["features"].shape[1:]
    except (OSError, KeyError, MoclipError):
        return 1, UNKNOWN_WIDTH


def _grid(params: Params) -> tuple[int, int]:
    from pipeline.field_source import field_recipe

    return field_recipe(params).grid
