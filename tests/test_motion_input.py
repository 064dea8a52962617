"""What MV-TSN sees: neighbouring fields, fields without the camera's motion, motion per second, mirrored clips."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from moclip.data.balance import spread_rows
from moclip.data.clip_batches import SampledFields, SplitClips
from moclip.data.crops import Crops, crop_and_resize, random_crops
from moclip.data.groups import divide_into_folds
from moclip.data.sampling import motion_frames, neighbours
from moclip.data.stabilise import stabilise
from moclip.errors import VideoError
from moclip.inference.clip_input import ClipJob, FieldSettings, ViewSettings, read_input
from moclip.models.mv_tsn import MvTsn, MvTsnConfig
from moclip.motion.extract import Output, extract
from moclip.motion.extract_plan import FieldRecipe
from moclip.motion.quantise import clip_of
from moclip.store.layout import read_frame_types
from moclip.store.reader import FieldReader
from moclip.training.epochs import BestEpoch, best_of_folds
from moclip.training.mirroring import (
    READ_AT_ONCE,
    Mirroring,
    field_features,
    mirrored_pairs,
    plan_mirroring,
)
from moclip.video.clip_files import file_md5
from moclip.video.probe import probe
from tests.clips import encode, moving_texture

FRAMES = 12
STEPS = {"left": (-4.0, 0.0), "right": (4.0, 0.0), "up": (0.0, -4.0)}


@dataclasses.dataclass(frozen=True)
class Project:
    """Clips of textures that move left, right and up, and their fields."""

    files: list[Path]
    fields: SampledFields
    clips: SplitClips
    stored: np.ndarray


def extracted(files: list[Path], folder: Path, **recipe: object) -> tuple[FieldReader, pd.DataFrame]:
    rows = []
    for path in files:
        about = probe(path)
        row = {"id": path.name, "path": path.name, "md5": file_md5(path), "frames": about.frames}
        rows.append(row | {"codec": about.codec, "has_b": about.has_b})
    output = Output(folder / "mv.zarr", folder / "mv.parquet")
    table = extract(pd.DataFrame(rows), files[0].parent, output, FieldRecipe(shard_frames=64, **recipe))  # type: ignore[arg-type]
    return FieldReader(folder / "mv.zarr", table), table


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    root = tmp_path_factory.mktemp("clips")
    files, labels = [], []
    for number in range(18):
        way = list(STEPS)[number % 3]
        files.append(encode(root / f"{number:02d}.avi", moving_texture(FRAMES, (64, 80), STEPS[way], seed=number)))
        labels.append(number % 3)
    reader, table = extracted(files, root)
    offsets, lengths = table["offset"].to_numpy(), table["length"].to_numpy()
    target = motion_frames(read_frame_types(root / "mv.zarr"), offsets, lengths, np.zeros(len(files), bool))
    clips = SplitClips(offsets, lengths, np.array(labels))
    return Project(files, SampledFields(reader, target), clips, reader.read_all())


# ------------------------------------------------------------------------------------------- neighbouring fields


@pytest.mark.parametrize("stack", [1, 2, 3, 9])
def test_neighbours_are_the_frames_around_and_stay_in_the_clip(stack: int) -> None:
    frames, lengths = np.array([[0, 4], [1, 2]]), np.array([5, 3])
    found = neighbours(frames, lengths, stack)
    for clip in range(2):
        for segment in range(2):
            first = frames[clip, segment] - stack // 2
            plain = [min(max(first + n, 0), lengths[clip] - 1) for n in range(stack)]
            assert found[clip, segment].tolist() == plain


def test_a_stack_is_the_fields_of_the_frames_around_side_by_side(project: Project) -> None:
    fields = project.fields
    stacked = SampledFields(fields.reader, fields.motion_frame, fields.first, stack=3)
    read = stacked.read_async(project.clips, 2)()
    assert read.shape == (2 * len(project.files), 6, *fields.grid)
    for clip, offset in enumerate(project.clips.offsets.tolist()):
        for segment, middle in enumerate((3, 9)):
            plain = [project.stored[fields.motion_frame[offset + frame]] for frame in range(middle - 1, middle + 2)]
            np.testing.assert_array_equal(read[2 * clip + segment], np.concatenate(plain))


def test_each_field_of_a_stack_is_cropped_and_mirrored_like_a_single_one(project: Project) -> None:
    grids = torch.from_numpy(project.stored[:6])
    boxes = random_crops(2, project.fields.grid, (1, 0.75), True, np.random.default_rng(0))
    boxes = dataclasses.replace(boxes, flip=np.array([False, True]))
    stacked = crop_and_resize(grids.reshape(2, 6, *grids.shape[2:]), boxes, 24)
    single = crop_and_resize(grids, boxes.repeat(3), 24)
    assert torch.equal(stacked, single.reshape(2, 6, 24, 24))


@pytest.mark.parametrize("per", ["frame", "second"])
def test_predict_reads_the_same_stacks_as_the_pipeline(project: Project, tmp_path: Path, per: str) -> None:
    path = project.files[4]
    reader, table = extracted([path], tmp_path, per=per)
    target = motion_frames(
        read_frame_types(tmp_path / "mv.zarr"), np.array([0]), table["length"].to_numpy(), np.array([0])
    )
    clips = SplitClips(np.array([0]), table["length"].to_numpy(), np.array([0]))
    stored = SampledFields(reader, target, stack=3).read_async(clips, 5)()
    views = ViewSettings(5, 1, 1, 1, "middle", 0, stack=3)
    read = read_input(ClipJob(path, FieldSettings(False, (240, 320), 8, 20.0, False, per), views))
    assert stored.any()
    np.testing.assert_array_equal(read.levels, stored)


# --------------------------------------------------------------------------------------------------- order in time


def network(moments: int) -> MvTsn:
    torch.manual_seed(1)
    model = MvTsn(MvTsnConfig("test_resnet", ("left", "right"), 32, 0.5, moments=moments))
    torch.nn.init.normal_(model.head.weight)
    return model.eval()


@pytest.mark.parametrize("moments", [1, 2, 4])
def test_moments_are_the_first_coefficients_of_the_cosine_transform(moments: int) -> None:
    model, features = network(moments), torch.randn(3, 7, 5, 11)
    found = model.pool(features).unflatten(1, (moments, 11))
    mean = features.mean(2).numpy()
    for k in range(moments):
        weights = [(2**0.5 if k else 1) * math.cos(math.pi * k * (s + 0.5) / 7) for s in range(7)]
        plain = sum(weight * mean[:, s] for s, weight in enumerate(weights)) / 7
        np.testing.assert_allclose(found[:, k], plain, atol=1e-6)


@pytest.mark.parametrize("moments", [1, 3])
def test_a_clip_that_runs_backwards_is_another_one_only_to_later_moments(moments: int) -> None:
    model, clip = network(moments), torch.randn(2, 6, 2, 32, 32)
    with torch.inference_mode():
        forwards, backwards = model(clip), model(clip.flip(1))
        pooled = model.head(model.pool(model.features(clip.flatten(0, 1)).unflatten(0, (2, 6, 1))))
    torch.testing.assert_close(forwards, pooled, msg="the features that are stored give the network's logits")
    assert torch.allclose(forwards, backwards, atol=1e-5) == (moments == 1)


# ------------------------------------------------------------------------------------------------ camera motion


def moving_camera(generator: np.random.Generator, object_share: float) -> tuple[np.ndarray, np.ndarray]:
    """Fields of a camera that pans, zooms and rolls, with an object on a share of the picture; and the object alone."""
    rows, columns = 30, 40
    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    pan, zoom, roll = generator.uniform(-0.3, 0.3, (3, 5, 2, 1, 1))
    camera = pan + zoom[:, :1] * np.stack([x, y]) + roll[:, :1] * np.stack([-y, x])
    alone = np.zeros_like(camera)
    alone[:, :, : int(rows * object_share), : columns // 2] = 0.5
    return (camera + alone).astype(np.float32), alone.astype(np.float32)


def test_affine_takes_out_pan_zoom_and_roll_and_leaves_the_object() -> None:
    fields, alone = moving_camera(np.random.default_rng(0), 0.5)
    steady = stabilise(torch.from_numpy(fields), "affine").numpy()
    assert np.abs(steady - alone).max() < 0.01
    assert np.abs(fields - alone).max() > 0.3


def test_affine_on_a_camera_alone_is_a_plain_least_squares_fit() -> None:
    generator = np.random.default_rng(1)
    fields = moving_camera(generator, 0)[0]
    fields += generator.normal(0, 0.001, fields.shape).astype(np.float32)
    steady = stabilise(torch.from_numpy(fields), "affine").numpy()
    y, x = np.meshgrid(np.linspace(-1, 1, 30), np.linspace(-1, 1, 40), indexing="ij")
    basis = np.stack([np.ones(x.size), x.ravel(), y.ravel()], axis=1)
    for one, found in zip(fields.reshape(10, -1), steady.reshape(10, -1), strict=True):
        fit = basis @ np.linalg.lstsq(basis, one, rcond=None)[0]
        np.testing.assert_allclose(found, one - fit, atol=1e-3)


def test_median_takes_out_the_median_of_each_component() -> None:
    fields = np.random.default_rng(2).normal(size=(4, 2, 5, 7)).astype(np.float32)
    found = stabilise(torch.from_numpy(fields), "median").numpy()
    np.testing.assert_allclose(found, fields - np.median(fields, axis=(2, 3), keepdims=True), atol=1e-6)


@pytest.mark.parametrize("method", ["median", "affine"])
def test_fields_without_motion_stay_without(method: str) -> None:
    assert not stabilise(torch.zeros(3, 2, 30, 40), method).any()


def test_views_are_stabilised_before_they_are_cropped() -> None:
    levels = np.zeros((1, 2, 30, 40), np.int8)
    levels[:] = 64  # a pan
    levels[0, 0, :5, :5] = 100
    whole = Crops(*(np.array([value]) for value in (0.0, 0.0, 10.0, 10.0, False)))
    view = crop_and_resize(torch.from_numpy(levels), whole, 10, "median")[0].numpy()
    assert view[0, 0, 0] == pytest.approx(36 / 127)
    assert not view[1].any()


# ---------------------------------------------------------------------------------------------- motion per second


def test_per_second_a_frame_rate_does_not_change_the_fields(tmp_path: Path) -> None:
    slow = encode(tmp_path / "slow.avi", moving_texture(8, (64, 80), (4.0, 0.0), seed=1), fps=15)
    fast = encode(tmp_path / "fast.avi", moving_texture(8, (64, 80), (1.0, 0.0), seed=1), fps=60)
    found = {}
    for per in ("frame", "second"):
        reader, _ = extracted([slow, fast], tmp_path / per, per=per)
        found[per] = [np.median(reader.read_video(path.name)[1:, 0]) for path in (slow, fast)]
        assert reader.attributes["per"] == per
    assert found["frame"][0] == pytest.approx(4 * found["frame"][1], abs=2)
    assert found["second"][0] == pytest.approx(found["second"][1], abs=2)
    assert found["second"][0] == pytest.approx(found["frame"][0] / 2, abs=2)


def test_a_clip_without_a_sensible_frame_rate_is_refused_per_second(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", moving_texture(4, (64, 80)), "libx264", fps=1200)
    with pytest.raises(VideoError, match=r"1200 frames a second(?s:.*)mv\.per"):
        clip_of(path, 20.0, "second")
    assert clip_of(path, 20.0, "frame") == 20.0


# ------------------------------------------------------------------------------------------------ mirrored clips


def test_mirrored_clips_get_the_label_of_the_class_that_mirrors_theirs(project: Project) -> None:
    plan = plan_mirroring("auto", ["left", "right", "up"], project.fields, project.clips, groups(project))
    assert (plan.flip, plan.labels, plan.views) == (True, (1, 0, 2), False)
    assert "left and right" in plan.note


def test_classes_whose_mirror_image_is_left_out_are_not_mirrored(project: Project) -> None:
    given = (project.fields, project.clips, groups(project))
    plan = plan_mirroring("auto", ["roll left", "left", "right"], *given, left_out=["roll right"])
    assert (plan.flip, plan.labels, plan.views) == (True, (-1, 2, 1), False)
    assert plan.note.endswith("counts as the other class, or is not used if that is left out")
    plan = plan_mirroring("auto", ["left", "up", "down"], *given, left_out=["right"])
    assert plan.labels == (-1, 1, 2)
    plan = plan_mirroring("auto", ["left", "right", "up"], *given, left_out=["roll left", "roll right"])
    assert plan.labels == (1, 0, 2)
    assert "set tsn.flip to auto" in plan_mirroring(True, ["left", "up", "down"], *given, left_out=["right"]).note


def test_classes_that_mirror_each_other_without_saying_so_are_not_mirrored(project: Project) -> None:
    plan = plan_mirroring("auto", ["one", "two", "three"], project.fields, project.clips, groups(project))
    assert (plan.flip, plan.views) == (False, False)
    assert "one and two" in plan.note


def test_other_classes_are_mirrored(project: Project) -> None:
    rows = project.clips.labels != 0
    clips = project.clips[np.flatnonzero(rows)]
    labels = SplitClips(clips.offsets, clips.lengths, clips.labels - 1)
    names = [name for name, kept in zip(groups(project), rows, strict=True) if kept]
    assert plan_mirroring("auto", ["two", "three"], project.fields, labels, names) == Mirroring(True)


def test_true_and_false_are_obeyed_and_true_warns_of_classes_that_mirror_each_other(project: Project) -> None:
    given = (["left", "right", "up"], project.fields, project.clips, groups(project))
    assert plan_mirroring(False, *given) == Mirroring(False)
    plan = plan_mirroring(True, *given)
    assert (plan.flip, plan.labels, plan.views) == (True, (), True)
    assert "set tsn.flip to auto" in plan.note


def test_a_large_class_is_represented_by_some_of_its_clips_and_they_are_read_in_parts(project: Project) -> None:
    rows = spread_rows(np.repeat([0, 1, 2], [1000, 5, 101]), 300)
    assert np.bincount(np.digitize(rows, [1000, 1005])).tolist() == [100, 5, 100]
    assert rows.tolist() == sorted(set(rows))
    assert (rows[0], rows[99], rows[-1]) == (0, 999, 1105)
    many = np.arange(2 * READ_AT_ONCE + 1) % len(project.clips)
    for whole, parts in zip(
        field_features(project.fields, project.clips),
        field_features(project.fields, project.clips[many]),
        strict=True,
    ):
        np.testing.assert_array_equal(parts, whole[many])


def test_classes_that_cannot_be_told_apart_say_nothing_about_mirroring() -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(60, 20)).astype(np.float32)
    labels = np.arange(60) % 3
    assert mirrored_pairs(features, -features, labels, [str(number) for number in range(60)]) == []


def groups(project: Project) -> list[str]:
    return [path.stem for path in project.files]


# --------------------------------------------------------------------------------------------------------- folds


def test_folds_keep_sources_together_and_classes_in_proportion() -> None:
    sources = pd.Series([f"g{number // 3}" for number in range(120)])
    labels = pd.Series([number % 2 for number in range(120)])
    part = divide_into_folds(sources, labels, 5, seed=0)
    assert (part.groupby(sources).nunique() == 1).all()
    assert sorted(part.unique()) == [0, 1, 2, 3, 4]
    assert all(21 <= count <= 27 for count in part.value_counts())
    assert part.equals(divide_into_folds(sources, labels, 5, seed=0))
    assert not part.equals(divide_into_folds(sources, labels, 5, seed=1))


def test_the_epoch_is_the_best_of_the_folds_mean() -> None:
    tops = [[0.5, 0.9, 0.8], [0.6, 0.2, 0.8]]
    histories = [
        [{"epoch": epoch, "val_top1": top1, "val_loss": 1.0} for epoch, top1 in enumerate(row)] for row in tops
    ]
    best = best_of_folds(histories)
    assert best["epoch"] == 2
    assert best["val_top1"] == pytest.approx(0.8)
    for row in histories[1]:
        row["val_top1"] = 1.4 - [0.5, 0.9, 0.8][int(row["epoch"])]
        row["val_loss"] = 2.0 - row["epoch"] / 2
    assert best_of_folds(histories)["epoch"] == 2, "of equal ones the lower loss"


def test_without_validation_clips_the_last_epoch_is_kept() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    keeper = BestEpoch(model)
    for epoch in range(3):
        torch.nn.init.constant_(model.weight, epoch)
        keeper.offer({"epoch": epoch, "train_loss": float(epoch)})
    torch.nn.init.zeros_(model.weight)
    keeper.restore_into(model)
    assert (keeper.row["epoch"], model.weight.item()) == (2, 2)
