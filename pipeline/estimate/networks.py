"""Time the networks on the sample: training steps, runs without training, the heads and the probe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from moclip.data.clip_batches import SampledFields, SplitClips
from moclip.data.fusion_data import FusionData
from moclip.errors import MoclipError
from moclip.models.device import pick_device
from moclip.models.fusion import FusionConfig, HeadInputs, build_head
from moclip.models.mv_tsn import MvTsn, MvTsnConfig
from moclip.motion.extract import Output, extract
from moclip.store.reader import FieldReader
from moclip.training.distributed import World
from moclip.training.embed import embed_protocol, embed_view
from moclip.training.fusion import FusionRecipe, train_fusion_head
from moclip.training.linear_probe import LabelledFeatures, choose_linear_probe
from moclip.training.mirroring import Mirroring
from moclip.training.mv_batches import MotionData
from moclip.training.mv_recipe import MvTsnRecipe
from moclip.training.mv_training import MvTsnTraining
from pipeline.estimate.counts import TrainingCount
from pipeline.estimate.files import TimedFile, videos_table
from pipeline.estimate.timing import Took, each_of, peak_memory, timed_here
from pipeline.field_source import field_recipe
from pipeline.params import Params
from pipeline.training_recipe import recipe_from, training_recipe

FILES_IN_STORE = 8
"""Files whose fields the networks are timed on."""

STEP_BUDGET, RUN_BUDGET = 3.0, 1.5
"""Seconds of timed training steps, and of each other timed run of a network."""

LONG_STEP = 4.0
"""Seconds: where a step of the whole batch would take longer, one of fewer clips is timed."""

FEW_CLIPS, PROBED_CLIPS = 4, 512


@dataclass(frozen=True)
class TimedNetwork:
    """Seconds of a training step, and for each field of scoring, of the test protocol and of augmented views.

    width : of the features. weight_bytes : of the network's file. memory : bytes of the most that was used while it was
        trained, None if not the whole batch was tried. clips : those of the step that was timed.
    """

    step: float
    step_took: Took
    scored_field: float
    protocol_field: float
    augmented_field: float
    width: int
    weight_bytes: int
    memory: int | None
    clips: int
    steps: int


class SampleStore:
    """A small store of the timed files' motion fields, and clips of it in any number."""

    def __init__(self, params: Params, files: Sequence[TimedFile], folder: Path, workers: int) -> None:
        videos = videos_table(files).sort_values("frames").head(FILES_IN_STORE)
        if videos.empty:
            raise MoclipError(
                "no clip of the sample can be read", where=params.dataset.root, fix="run: dvc repro index"
            )
        output = Output(folder / "mv.zarr", folder / "mv.parquet")
        table = extract(videos, "", output, field_recipe(params), workers=workers)
        self.rows = videos[["id", "codec"]].merge(table[table["status"] == "ok"], on="id")
        if self.rows.empty:
            reason = str(table["reason"].iloc[0])
            raise MoclipError(f"no motion vectors in the sample: {reason}", where=params.dataset.root)
        self.reader = FieldReader(output.zarr, table)

    def fields(self, stack: int) -> SampledFields:
        return SampledFields.of(self.reader, self.rows, stack)

    def clips(self, count: int, classes: int) -> SplitClips:
        """Return so many clips: those of the store again and again, with all labels."""
        rows = self.rows.iloc[np.arange(count) % len(self.rows)].reset_index(drop=True)
        return SplitClips.of(rows.assign(label=np.arange(count) % classes))


def time_network(
    params: Params, config: MvTsnConfig, segments: int, trainings: Sequence[TrainingCount], store: SampleStore
) -> TimedNetwork:
    """Train a network of this kind for some steps, and run it on some clips."""
    device = pick_device()
    classes, fields = len(config.classes), store.fields(config.stack)
    recipe = training_recipe(params, segments, Mirroring(bool(params.tsn.flip)))
    recipe = replace(recipe, min_steps=0, compile=False, balance="none", epochs=1000, schedule="cosine")
    most = max(2, min(recipe.batch, max(training.clips for training in trainings)))
    step, count, steps, memory = _time_steps(config, recipe, fields, store, most)
    network = MvTsn(config).to(device).to(memory_format=torch.channels_last).eval()
    scored = _field_seconds(
        lambda clips: embed_protocol(
            network, fields, clips, segments, 1, recipe.test_crop, recipe.batch * segments, device
        ),
        lambda fields_count: store.clips(max(1, fields_count // segments), classes),
        segments,
        recipe.batch * segments,
    )
    frozen = network.frozen()
    views, crops = params.evaluate.views
    batch, crop, scales = params.embed.batch, params.evaluate.crop, tuple(params.tsn.crops)
    protocol = _field_seconds(
        lambda clips: embed_protocol(frozen, fields, clips, views, crops, crop, batch, device),
        lambda fields_count: store.clips(max(1, fields_count // (views * crops)), classes),
        views * crops,
        batch,
    )
    generator = np.random.default_rng(0)
    augmented = _field_seconds(
        lambda clips: embed_view(frozen, fields, clips, views, scales, recipe.flip, batch, device, generator),
        lambda fields_count: store.clips(max(1, fields_count // views), classes),
        views,
        batch,
    )
    weights = weight_bytes(network)
    return TimedNetwork(step.alone, step, scored, protocol, augmented, network.width, weights, memory, count, steps)


def _time_steps(
    config: MvTsnConfig, recipe: MvTsnRecipe, fields: SampledFields, store: SampleStore, most: int
) -> tuple[Took, int, int, int | None]:
    """Return the seconds of a step of `most` clips, how many the timed steps had, their number, and the peak memory."""
    count = min(most, FEW_CLIPS)
    run = _one_epoch(config, recipe, fields, store, count)
    run()  # the first one prepares the others
    seconds = timed_here(run)[0].alone
    if count < most and seconds * most / count <= LONG_STEP:
        count = most
        run = _one_epoch(config, recipe, fields, store, most)
        run()
    each, steps = each_of(lambda: timed_here(run)[0], STEP_BUDGET)
    memory = _used_memory() if count == most else None
    return Took(each.wall * most / count, each.alone * most / count), count, steps, memory


def _one_epoch(
    config: MvTsnConfig, recipe: MvTsnRecipe, fields: SampledFields, store: SampleStore, clips: int
) -> Callable[[], object]:
    """Return what makes an epoch of one step, with no clips to score."""
    of_classes = len(config.classes)
    data = MotionData(fields, store.clips(clips, of_classes), store.clips(0, of_classes))
    training = MvTsnTraining(MvTsn(config), data, recipe, World(pick_device()))
    numbers = iter(range(1000))
    return lambda: training.train_epoch(next(numbers))


def _used_memory() -> int:
    """Return the bytes of the most memory used so far: the GPU's if there is one."""
    return int(torch.cuda.max_memory_allocated()) if pick_device().type == "cuda" else peak_memory()


def _field_seconds(
    run: Callable[[SplitClips], object], clips: Callable[[int], SplitClips], fields_of_clip: int, batch: int
) -> float:
    """Return the seconds of a field: of a batch of so many fields, or of fewer if that would take long."""
    few = clips(1)
    run(few)
    one = timed_here(lambda: run(few))[0].alone
    fields = max(fields_of_clip, min(batch, int(batch * RUN_BUDGET / max(one * batch / fields_of_clip, 1e-6))))
    chosen = clips(fields)
    each, _ = each_of(lambda: timed_here(lambda: run(chosen))[0], RUN_BUDGET)
    return each.alone / (len(chosen) * fields_of_clip)


def feature_width(config: MvTsnConfig) -> int:
    return MvTsn(config).width


def weight_bytes(network: torch.nn.Module) -> int:
    """Return the bytes of a network's file, less those of its configuration."""
    return sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())


def time_head(params: Params, motion: int, picture: int, stills: int, classes: int, clips: int) -> tuple[float, int]:
    """Return the seconds of a training step of the fusion head, with features of these widths, and the head's bytes."""
    fusion, device = params.fusion, pick_device()
    count = max(2, min(clips, 4 * fusion.batch))
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % classes
    data = FusionData(
        torch.randn(count, params.embed.views, motion, generator=generator),
        torch.nn.functional.normalize(torch.randn(count, stills, picture, generator=generator), dim=-1),
        labels,
    )
    config = FusionConfig(
        motion=motion,
        picture=picture,
        hidden=fusion.hidden,
        classes=classes,
        dropout=fusion.dropout,
        pooling=fusion.pooling,
        frames=stills,
    )
    text = torch.nn.functional.normalize(torch.randn(classes, picture, generator=generator), dim=-1)
    head = build_head(fusion.head, config, HeadInputs(text, 100.0, data, fusion.model_dump() | {"blend": False}))
    recipe: FusionRecipe = recipe_from(FusionRecipe, fusion, seed=0, balance="none")
    recipe = replace(recipe, epochs=1)
    steps = -(-count // fusion.batch)

    def epoch() -> None:
        train_fusion_head(head, data, data[: max(1, count // 4)], recipe, device, lambda row: None)

    epoch()
    each, _ = each_of(lambda: timed_here(epoch)[0], RUN_BUDGET / 2)
    return each.alone / steps, weight_bytes(head)


def time_probe(width: int, classes: int, clips: int) -> float:
    """Return the seconds of choosing a linear probe on so many clips."""
    count = max(2 * classes, min(clips, PROBED_CLIPS))
    generator = np.random.default_rng(0)
    labels = np.arange(count) % classes
    centres = generator.normal(size=(classes, width))
    features = (centres[labels] + 3 * generator.normal(size=(count, width))).astype(np.float32)
    train = LabelledFeatures(features, labels)
    val = LabelledFeatures(features[: max(classes, count // 4)], labels[: max(classes, count // 4)])
    return timed_here(lambda: choose_linear_probe([(train, val)], classes))[0].alone * clips / count
