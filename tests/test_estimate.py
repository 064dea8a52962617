"""`moclip estimate` counts what the stages do: steps, fields, bytes, and which stages run."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from moclip.data.selection import usable_clips
from moclip.training.distributed import World
from moclip.video.probe import probe
from moclip.wording import time_text
from pipeline import params as parameters
from pipeline.baselines import load_motion_probe
from pipeline.clip_tables import ClipTables
from pipeline.dag import STAGES
from pipeline.estimate.answer import bytes_text
from pipeline.estimate.clips import count_clips
from pipeline.estimate.counts import embedding, head_trainings, network_trainings, networks_kept
from pipeline.estimate.files import TimedFile, by_frames, scaled_sum
from pipeline.estimate.sample import choose_files, shorten
from pipeline.head_fit import fit_heads
from pipeline.index_file import read_index
from pipeline.inputs import Inputs
from pipeline.network_fit import NetworkFit, mv_tsn_config
from pipeline.params import Params
from pipeline.whole_progress import WholeProgress
from tests.clips import encode, moving_texture
from tests.conftest import run, set_keys


@pytest.fixture
def made_steps() -> Iterator[list[int]]:
    """Counts the steps that optimisers make, in its only element."""
    count = [0]

    def add(*_: Any) -> None:
        count[0] += 1

    hook = register_optimizer_step_post_hook(add)
    yield count
    hook.remove()


def params_with(**overrides: Any) -> Params:
    return parameters.load(Path("params.yaml"), {key.replace("__", "."): value for key, value in overrides.items()})


# -------------------------------------------------------------------------------------------------------- steps


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"fit__refit": True},
        {"fit__folds": 2},
        {"tsn__min_steps": 13, "tsn__batch": 7, "tsn__epochs": 3, "fit__refit": True},
        {"tsn__batch": 5},  # one clip is left, and joins the batch before
        {"dataset__shots": 2, "fit__folds": 2},
    ],
)
def test_as_many_steps_are_counted_as_the_training_makes(
    settings: dict[str, Any], in_project: Path, made_steps: list[int]
) -> None:
    params = params_with(**settings)
    inputs = Inputs(params)
    counted = network_trainings(params, ClipTables(params, read_index(params)))
    config = mv_tsn_config(params, inputs.clips.classes)
    fit = NetworkFit("train_mv", inputs, config, False, params.tsn.segments, World(torch.device("cpu")), Path("curves"))
    fitted = fit.run()
    last = fitted.best["epoch"] + 1  # of a training on all clips
    epochs = [last if one.may_end_early else one.epochs for one in counted]
    prepared = len(counted)  # each training makes a step that changes nothing
    assert made_steps[0] == prepared + sum(e * one.steps_per_epoch for e, one in zip(epochs, counted, strict=True))
    assert [one.may_end_early for one in counted] == [False] * max(1, len(fitted.folds)) + [True] * bool(fitted.folds)
    assert networks_kept(inputs.clips) == 1 + len(fitted.folds)


def test_as_many_steps_of_the_heads_are_counted_as_are_made(in_project: Path, made_steps: list[int]) -> None:
    params = params_with(fusion__batch=10)
    inputs = Inputs(params)
    counted = head_trainings(params, ClipTables(params, read_index(params)))
    fit_heads(inputs, load_motion_probe(inputs))
    assert made_steps[0] == sum(one.steps for one in counted)


@pytest.mark.parametrize("settings", [{}, {"fit__refit": True}, {"fit__folds": 3}])
def test_the_networks_are_run_on_each_clip_as_often_as_counted(settings: dict[str, Any], in_project: Path) -> None:
    params = params_with(**settings, embed__views=3, evaluate__protocol="5x10")
    tables = ClipTables(params, read_index(params))
    count = embedding(params, tables, 100, 4)
    clips = len(tables.usable)
    fitted = len(tables.rows("train", "val"))
    folds = params.fit.folds or 1
    val = len(tables.rows("val"))
    if not settings:
        scored, augmented = clips, fitted - val
    elif params.fit.folds:
        scored, augmented = clips + fitted, fitted + (folds - 1) * fitted
    else:
        scored, augmented = clips + val, fitted + (fitted - val)
    assert count.protocol_fields == scored * 50
    assert count.augmented_fields == 3 * augmented * 5
    assert count.bytes == 4 * (scored * (100 + 4) + 3 * augmented * 100)


# -------------------------------------------------------------------------------------------------- the command


def size_of(*paths: Path) -> int:
    files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])]
    return sum(file.stat().st_size for file in files if file.is_file())


def estimated(project: Path) -> tuple[dict[str, dict[str, Any]], str]:
    """The stages of `moclip estimate --json`, and what it prints."""
    printed = run("moclip", "estimate", "--json-file", "found.json", cwd=project).stdout
    found = json.loads((project / "found.json").read_text())
    assert found["seconds"] == pytest.approx(sum(stage["seconds"] or 0 for stage in found["stages"]), abs=0.01)
    assert found["bytes"] == sum(stage["bytes"] for stage in found["stages"])
    assert found["seconds_low"] <= found["seconds"] <= found["seconds_high"]
    return {stage["stage"]: stage for stage in found["stages"]}, printed


def test_of_a_new_project_the_bytes_are_those_that_the_stages_write(project: Path) -> None:
    before = size_of(project / "data")
    (project / "dvc.lock").unlink()
    shutil.move(project / "data/index.parquet", project / "index.parquet")
    found, printed = estimated(project)
    shutil.move(project / "index.parquet", project / "data/index.parquet")
    assert size_of(project / "data") == before, "it writes nothing"
    assert list(found) == list(STAGES)
    assert all(stage["runs"] for stage in found.values())
    assert max(map(len, printed.splitlines()[: 3 + len(STAGES)])) <= 80
    assert re.search(r"^dvc repro takes about \d+ s \(\d+ s to \d+ s\) and \d.* MB; most memory: ", printed, re.M)
    features, models = project / "data/features", project / "data/models"
    for name, written in (
        ("extract_mv", (features / "mv.zarr", features / "mv.parquet")),
        ("embed_mv", (features / "mv_embed.zarr",)),
        ("train_mv", (models / "mv_tsn.safetensors",)),
        ("clip_image", (features / "clip_image.zarr", features / "clip_image.parquet", project / "data/encoded")),
        ("train_fusion", (models / "fusion.safetensors", models / "still.safetensors")),
    ):
        assert found[name]["bytes"] == pytest.approx(size_of(*written), rel=0.3, abs=20_000), name
    frames = int(pd.read_parquet(features / "mv.parquet")["length"].sum())
    assert int(found["extract_mv"]["what"].split()[0].replace(",", "")) == pytest.approx(frames, rel=0.05)
    assert found["embed_mv"]["memory"] >= found["clip_image"]["memory"] > 10_000_000


def test_only_the_stages_that_would_run_take_time(project: Path) -> None:
    found, printed = estimated(project)
    assert {name for name, stage in found.items() if stage["runs"]} == set()
    assert "dvc repro has nothing to do: all stages are up to date" in printed
    set_keys(project / "params.yaml", {"fusion.lr": 0.02})
    found, printed = estimated(project)
    assert {name for name, stage in found.items() if stage["runs"]} == {"train_fusion", "evaluate", "report"}
    assert all(stage["seconds"] == 0 and stage["bytes"] == 0 for stage in found.values() if not stage["runs"])
    assert found["train_fusion"]["seconds"] > 0
    heads = [project / f"data/models/{name}.safetensors" for name in ("fusion", "still")]
    assert found["train_fusion"]["bytes"] == pytest.approx(size_of(*heads), rel=0.1)
    assert re.search(r"^train_mv +up to date +0 s$", printed, re.MULTILINE)


def test_an_encoder_that_is_not_here_is_not_loaded_and_said(project: Path) -> None:
    set_keys(project / "params.yaml", {"clip.model": "some/model", "clip.files": "data/none"})
    found, printed = estimated(project)
    assert found["clip_image"]["seconds"] is None
    assert "clip_text and clip_image are not in the total: some/model is not on this machine" in printed
    assert re.search(r"^clip_image +some/model is not here yet +unknown$", printed, re.MULTILINE)


def test_where_no_clip_can_be_used_it_is_the_error_of_index(project: Path) -> None:
    (project / "dvc.lock").unlink()
    for clip in (project / "data/demo/videos").glob("*/*"):
        clip.write_bytes(b"no video")
    done = run("moclip", "estimate", cwd=project, code=1)
    assert re.match(r"(?s).*error: data/demo/videos: no usable clip to train on", done.stderr)
    assert "Traceback" not in done.stderr
    done = run("moclip", "estimate", cwd=project.parent, code=1)
    assert "params.yaml" in done.stderr


# ------------------------------------------------------------------------------------------------ the guessed index


def test_a_guessed_index_has_the_splits_of_the_real_one(in_project: Path, tmp_path: Path) -> None:
    params = params_with()
    guessed, real = count_clips(params, False, tmp_path, 1), read_index(params)
    assert guessed.guessed
    for name in ("id", "class", "label", "split", "group", "status"):
        assert guessed.index[name].tolist() == real[name].tolist(), name
    wanted, found = usable_clips(real)["frames"].sum(), guessed.usable["frames"].sum()
    assert found == pytest.approx(wanted, rel=0.1)
    assert 0 < len(guessed.timed) < len(real)
    assert not count_clips(params, True, tmp_path / "second", 1).guessed


def test_spans_of_a_video_that_is_not_timed_are_counted(tmp_path: Path, in_project: Path) -> None:
    root = tmp_path / "videos"
    root.mkdir()
    lines = ["path,label,start,end"]
    for number in range(40):
        encode(root / f"v{number:02d}.avi", moving_texture(16, (48, 64), (2.0, 0.5), seed=number % 4))
        lines += [f"v{number:02d}.avi,A,0,0.2", f"v{number:02d}.avi,B,0.2,0.4"]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(lines))
    given = {"dataset__manifest": str(table), "dataset__root": str(root), "dataset__splits": "data/none"}
    found = count_clips(params_with(**given), False, tmp_path / "copies", 1)
    assert len(found.timed) < 40
    assert len(found.usable) == 80
    assert len(found.videos) == 40
    assert found.videos["frames"].sum() == pytest.approx(40 * 16, rel=0.1)


def test_what_all_clips_take_follows_from_the_clips_of_their_codec_and_size() -> None:
    def file(codec: str, width: int, height: int, frames: int, seconds: float, size: int) -> TimedFile:
        row = {"status": "ok", "codec": codec, "w": width, "h": height, "frames": frames}
        return TimedFile("c", row, "c", "c", extract_seconds=seconds, size=size)

    timed = [file("h264", 100, 100, 10, 1.0, 50), file("mpeg4", 200, 100, 20, 4.0, 150)]
    rows = [("h264", 100, 100, 60), ("h264", 100, 100, 40), ("mpeg4", 200, 100, 30), ("vp9", 100, 200, 10)]
    videos = pd.DataFrame(rows, columns=["codec", "w", "h", "frames"])
    of_other_kind = 5.0 / (10 * 10_000 + 20 * 20_000) * 10 * 20_000  # by pixels
    assert by_frames(timed, "extract_seconds", videos) == pytest.approx(10.0 + 6.0 + of_other_kind)
    assert scaled_sum(timed, "extract_seconds", np.array([100, 300])) == pytest.approx(10.0)


def test_each_kind_is_in_the_sample_and_large_kinds_have_more_of_it() -> None:
    kinds = ["a"] * 90 + ["b"] * 9 + ["c"]
    sizes = np.array([100] * 90 + [10] * 9 + [1])
    chosen = choose_files(kinds, sizes, 20)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    of_kinds = [kinds[number] for number in chosen]
    assert of_kinds.count("b") == of_kinds.count("c") == 1
    assert of_kinds.count("a") == 20
    assert choose_files(["a"], np.array([0]), 20).tolist() == [0]


def test_of_a_long_file_the_beginning_is_timed(tmp_path: Path) -> None:
    clip = encode(tmp_path / "long.avi", moving_texture(60, (48, 64), (2.0, 0.5), seed=1))
    assert shorten(clip, tmp_path / "short.mkv") == (clip, 1.0)
    short, share = shorten(clip, tmp_path / "short.mkv", clip.stat().st_size // 3)
    assert 0.25 < share < 0.6
    assert probe(short).frames / share == pytest.approx(60, rel=0.25)
    (tmp_path / "broken.avi").write_bytes(b"no video" * 100)
    assert shorten(tmp_path / "broken.avi", tmp_path / "other.mkv", 10)[1] == 1.0


# ----------------------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (89, "89 s"), (150, "2.5 min"), (1500, "25 min"), (3 * 3600, "3.0 h"), (4 * 86400, "4.0 days")],
)
def test_times_have_two_digits(seconds: float, text: str) -> None:
    assert time_text(seconds) == text
    assert bytes_text(3_340_000) == "3.3 MB"
    assert bytes_text(120e9) == "120 GB"


def test_the_bar_of_a_whole_run_follows_the_stages_own_progress() -> None:
    progress = WholeProgress({"index": (10.0, 1), "train_mv": (80.0, 2), "report": (10.0, 1)})
    progress.start("index")
    assert progress.percent == 0
    assert progress.read("index: 1,250/2,500 clips, 2.0/s, 3 s left")
    assert progress.percent == 5
    progress.start("train_mv")
    assert progress.percent == 10
    assert not progress.read("error: data/x: no such file")
    assert progress.read("train_mv: 30/30 epochs, 7 s")
    assert progress.percent == 50
    assert progress.read("train_mv, all clips: 5/10 epochs, 2.0/s, 3 s left")
    assert progress.percent == 70
    progress.start("report")
    assert progress.percent == 90
