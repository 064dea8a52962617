"""The pipeline as DVC runs it: what is written, what runs again and what does not, and that bytes repeat."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr

from moclip.data.selection import few_shot, usable_clips
from moclip.evaluation.calibration import fit_temperature
from moclip.models.flops import fusion_cost, segment_cost
from moclip.models.fusion import load_fusion
from moclip.models.mv_tsn import load_mv_tsn
from moclip.models.weights import PROVENANCE, read_config
from moclip.motion.extract import Output, extract
from moclip.store.features import Features
from pipeline import params as parameters
from pipeline import paths
from pipeline.code_digests import running_code
from pipeline.embedding import embedding_task
from pipeline.encoder_source import encoder_source
from pipeline.field_source import field_recipe
from pipeline.index_file import read_index
from pipeline.inputs import Inputs
from stages.clip_image import _stills_task
from tests.conftest import run, run_stages, set_keys, stages_from, surroundings

STAGES = [
    "transcode",
    "index",
    "extract_mv",
    "clip_text",
    "clip_image",
    "train_mv",
    "train_image",
    "embed_mv",
    "embed_image",
    "train_probe",
    "train_fusion",
    "evaluate",
    "report",
]


def ran(output: str) -> list[str]:
    """The stages that DVC says it ran."""
    return re.findall(r"Running stage '([^']+)'", output)


def digests(folder: Path, *names: str) -> dict[str, str]:
    """md5 of every file below the named paths."""
    found = {}
    for name in names:
        path = folder / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                found[file.relative_to(folder).as_posix()] = hashlib.md5(file.read_bytes()).hexdigest()
    assert found
    return found


def test_metrics_say_what_was_scored_and_how(finished: Path) -> None:
    for name in ("zero_shot", "mv_tsn", "score_sum", "fusion"):
        text = (finished / f"metrics/{name}.json").read_text()
        scores = json.loads(text)
        assert list(scores) == sorted(scores)
        assert scores["n"] == 12
        assert scores["skipped"] == {}
        assert 0 <= scores["top1"] <= scores["top5"] <= 1
        assert re.fullmatch(r"[0-9a-f]{16}", scores["fingerprint"])
        assert not re.search(r"\d\.\d{5,}", text), "rounded to 4 decimals"
    cost = json.loads((finished / "metrics/cost.json").read_text())
    video = cost["multiply_adds_m"]["video"]
    assert video["fusion"] > video["mv_tsn"] > 0
    assert cost["parameters"]["trained"] < cost["parameters"]["total"]


def test_metrics_agree_with_the_predictions(finished: Path) -> None:
    predictions = pd.read_parquet(finished / "data/predictions.parquet")
    labels = predictions["label"].to_numpy()
    for name in ("zero_shot", "mv_tsn", "score_sum", "fusion"):
        chosen = np.stack(predictions[name].to_list()).argmax(axis=1)
        stated = json.loads((finished / f"metrics/{name}.json").read_text())["top1"]
        assert stated == pytest.approx(float((chosen == labels).mean()), abs=1e-4)


def test_validation_logits_are_those_of_the_trained_head(finished: Path) -> None:
    validation = pd.read_parquet(finished / "data/validation.parquet").set_index("id")
    index = pd.read_parquet(finished / "data/index.parquet").set_index("id")
    assert list(validation.index) == list(index.index[index["split"] == "val"])
    assert validation["label"].equals(index["label"][validation.index])
    streams = ["majority", "zero_shot", "still", "motion_probe", "mv_tsn", "score_sum", "fusion"]
    assert [*validation] == ["class", "label", "fold", *streams]
    chosen = np.stack(validation["fusion"].to_list()).argmax(axis=1)
    log = finished / "metrics/train_fusion/plots/metrics"
    curves = pd.concat([pd.read_csv(log / f"{name}.tsv", sep="\t")[name] for name in ("val_top1", "val_loss")], axis=1)
    best = curves.sort_values(["val_top1", "val_loss"], ascending=[False, True]).iloc[0]
    assert (chosen == validation["label"]).mean() == pytest.approx(best["val_top1"])
    store = zarr.open_group(finished / "data/features/mv_embed.zarr/protocol", mode="r")
    rows = {str(name): row for row, name in enumerate(store["id"][:])}
    expected = store["logits"][:][[rows[name] for name in validation.index]]
    np.testing.assert_array_equal(np.stack(validation["mv_tsn"].to_list()), expected)


def test_features_cover_every_clip_with_real_values(finished: Path) -> None:
    index = pd.read_parquet(finished / "data/index.parquet")
    image = zarr.open_group(finished / "data/features/clip_image.zarr", mode="r")
    assert sorted(str(name) for name in image["id"][:]) == sorted(index["id"])
    lengths = np.linalg.norm(image["features"][:], axis=-1)
    np.testing.assert_allclose(lengths, 1, atol=1e-5)
    assert len(np.unique(image["raw"][:].round(6), axis=0)) > len(index) // 2, "clips differ in their features"
    views = zarr.open_group(finished / "data/features/mv_embed.zarr/views", mode="r")
    assert views["features"].shape[:2] == ((index["split"] == "train").sum(), 2)
    assert not np.allclose(views["features"][:, 0], views["features"][:, 1]), "views are augmented, each anew"


def test_validation_shares_no_group_with_train_or_test(finished: Path) -> None:
    index = pd.read_parquet(finished / "data/index.parquet")
    groups = {part: set(rows["group"]) for part, rows in index.groupby("split")}
    assert all(groups[part] for part in ("train", "val", "test"))
    assert not groups["train"] & groups["val"]
    assert not (groups["train"] | groups["val"]) & groups["test"]


def test_a_second_repro_does_nothing_and_git_is_clean(finished: Path) -> None:
    again = run("dvc", "repro", cwd=finished)
    assert ran(again.stdout) == []
    assert "up to date" in again.stdout
    assert run("git", "status", "--porcelain", cwd=finished).stdout == ""


def test_exp_run_with_another_head_reruns_the_head_and_what_follows(project: Path) -> None:
    done = run("dvc", "exp", "run", "-S", "fusion.lr=1e-4", cwd=project)
    assert ran(done.stdout) == ["train_fusion", "evaluate", "report"]
    assert "lr: 0.0001" in (project / "params.yaml").read_text()
    difference = run("dvc", "metrics", "diff", cwd=project).stdout
    changed = [line.split()[1] for line in difference.splitlines()[1:]]
    assert changed
    metrics = {"mean_class.fusion", "macro_f1.fusion", "calibration_error.fusion"}
    assert set(changed) <= {"top1.still", "top1.fusion"} | metrics
    shown = run("dvc", "exp", "show", "--csv", cwd=project).stdout
    assert "fusion.lr" in shown
    assert "top1.fusion" in shown.splitlines()[0].split(",")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("tsn.lr", 0.001, {"train_mv", "train_image"}),
        ("clip.frames", 2, {"clip_image", "evaluate"}),
        ("dataset.shots", 2, {*STAGES[5:]}),
        ("mv.clip", 10, {"extract_mv"}),
        ("embed.views", 1, {"embed_mv"}),
        ("evaluate.protocol", "2x1", {"embed_mv", "embed_image", "evaluate", "report"}),
    ],
)
def test_a_changed_parameter_reruns_only_the_stages_that_read_it(
    project: Path, key: str, value: object, expected: set[str]
) -> None:
    set_keys(project / "params.yaml", {key: value})
    assert set(json.loads(run("dvc", "status", "--json", cwd=project).stdout)) == expected


def test_a_change_of_code_reruns_only_the_stages_that_use_it(project: Path) -> None:
    for name, expected in (("pipeline/commands/draw", ["code"]), ("src/moclip/drawing/animation", ["code", "report"])):
        with (project / f"{name}.py").open("a") as file:
            file.write("# edited\n")
        assert ran(run("dvc", "repro", cwd=project).stdout) == expected, name
    assert run("git", "diff", "--name-only", cwd=project).stdout.split() == [
        "data/code.json",
        "dvc.lock",
        "pipeline/commands/draw.py",
        "src/moclip/drawing/animation.py",
    ]
    assert json.loads(run("dvc", "status", "--json", cwd=project).stdout) == {}


@pytest.mark.slow
def test_every_stage_runs_alone_and_leaves_the_same_bytes(project: Path) -> None:
    outputs = (
        "data/features",
        "data/models",
        "metrics",
        "data/index.parquet",
        "data/validation.parquet",
        "data/predictions.parquet",
        "data/report",
    )
    before = digests(project, *outputs)
    for name in STAGES:
        done = run("python", "-m", f"stages.{name}", cwd=project)
        assert "Traceback" not in done.stderr
    assert digests(project, *outputs) == before


def test_rebuild_writes_a_new_store(project: Path) -> None:
    before = digests(project, "data/features/mv.zarr", "data/features/mv.parquet")
    shard = next(file for file in (project / "data/features/mv.zarr/field/c").rglob("*") if file.is_file())
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    run("python", "-m", "stages.extract_mv", "--rebuild", cwd=project)
    assert digests(project, "data/features/mv.zarr", "data/features/mv.parquet") == before


@pytest.mark.slow
def test_a_stage_takes_what_a_killed_run_left_unless_its_code_has_changed(in_project: Path) -> None:
    """The run after a change of the code begins anew, and if it is killed the next one resumes."""
    store, before = in_project / "data/features/mv.zarr", digests(in_project, "data/features/mv.zarr")
    with (in_project / "pipeline/field_source.py").open("a") as file:
        file.write("# edited\n")
    params = parameters.load(paths.PARAMS)
    clips = usable_clips(read_index(params))
    output, recipe = Output(paths.MV_STORE, paths.MV_TABLE), field_recipe(params)
    running_code.cache_clear()
    code = running_code()["extract_mv"]
    with pytest.raises(InterruptedError):
        extract(clips, params.dataset.root, output, recipe, rebuild=True, code=code, advance=_interrupt)
    left = {path: path.stat().st_mtime_ns for path in (store / "field").rglob("*") if path.is_file()}
    assert left
    run("python", "-m", "stages.extract_mv", cwd=in_project)
    assert {path: path.stat().st_mtime_ns for path in left} == left
    assert digests(in_project, "data/features/mv.zarr") == before
    run("python", "-m", "stages.extract_mv", cwd=in_project)
    assert {path: path.stat().st_mtime_ns for path in left} == left, "though dvc.lock still names the earlier code"
    run("git", "checkout", "pipeline", cwd=in_project)
    assert ran(run("dvc", "repro", "--force", "-s", "extract_mv", cwd=in_project).stdout) == ["extract_mv"]
    assert all(path.stat().st_mtime_ns != left[path] for path in left), "dvc.lock does not say what lies there"
    assert digests(in_project, "data/features/mv.zarr") == before


def _interrupt(count: int) -> None:
    if count:
        raise InterruptedError


@pytest.mark.parametrize("stage", ["clip_image", "embed_mv"])
def test_finished_parts_are_of_the_code_that_runs(in_project: Path, stage: str) -> None:
    def key() -> str:
        running_code.cache_clear()
        params = parameters.load(paths.PARAMS)
        if stage == "clip_image":
            clips = usable_clips(read_index(params))
            source = encoder_source(params)
            assert source is not None
            return _stills_task(params, source, None, clips, 1).key
        inputs = Inputs(params)
        reader = inputs.artifacts.field_reader()
        return embedding_task(params, paths.MV_TSN, stage, "", reader, [inputs.motion_rows()]).key

    before = key()
    assert key() == before
    with (in_project / f"stages/{stage}.py").open("a") as file:
        file.write("# edited\n")
    assert key() != before


@pytest.mark.slow
def test_help_of_every_stage_shows_the_values_of_params_yaml(finished: Path) -> None:
    help_of_all = """if True:
        import contextlib, sys
        from pipeline.cli import main
        for name in sys.argv[1:]:
            sys.argv = ["moclip", name, "--help"]
            with contextlib.suppress(SystemExit):
                main()
    """
    pages = run("python", "-c", help_of_all, *STAGES, cwd=finished).stdout.split("Usage: ")[1:]
    for name, text in zip(STAGES, pages, strict=True):
        assert text.startswith(f"moclip {name} ")
        assert "[params.yaml: " in " ".join(text.split())
    shown = " ".join(run("python", "-m", "stages.train_mv", "--help", cwd=finished).stdout.split())
    assert "--tsn-backbone" in shown
    assert "[params.yaml: test_resnet]" in shown


def test_an_option_overrides_params_yaml(project: Path) -> None:
    run("python", "-m", "stages.train_fusion", "--fusion-epochs", "3", cwd=project)
    curve = (project / "metrics/train_fusion/plots/metrics/train_loss.tsv").read_text().splitlines()
    assert len(curve) == 1 + 3


@pytest.mark.slow
def test_base_to_new_trains_on_half_of_the_classes_and_scores_both(project: Path) -> None:
    settings = {"dataset.base_to_new": True, "fusion.head": "text", "fusion.pooling": "attention", "clip.frames": 2}
    set_keys(project / "params.yaml", settings)
    stages = ("clip_image", "train_mv", "embed_mv", "train_probe", "train_fusion", "evaluate")
    printed = run_stages(*stages, cwd=project)
    assert re.search(r"train_mv: .*, 8 clips, 4 to choose the epoch on", printed), "half of 16 and of 8"
    assert re.search(r"train_fusion: .*, 8 clips;", printed)
    for stream in ("zero_shot", "mv_tsn", "score_sum", "fusion"):
        scores = json.loads((project / f"metrics/{stream}.json").read_text())
        assert set(scores["base_to_new"]) == {"base", "new", "harmonic_mean"}
        assert scores["n"] == 12, "both halves are scored"
    predicted = run("moclip", "predict", "--json", next((project / "data/demo/videos").rglob("v_*")), cwd=project)
    assert len(json.loads(predicted.stdout)[0]["fusion"]) == 3


def test_unused_output_folders_hold_the_reason(project: Path) -> None:
    stages = ("transcode", "index", "train_image", "embed_image")
    done = run("dvc", "repro", "--force", "--single-item", *stages, cwd=project)
    assert sorted(ran(done.stdout)) == sorted(stages)
    assert "WARNING" not in done.stdout + done.stderr
    for name in ("transcoded", "baselines/image", "baselines/image_logits"):
        assert [path.name for path in (project / "data" / name).iterdir()] == ["unused.txt"]
    assert "index.transcode is false" in (project / "data/transcoded/unused.txt").read_text()
    assert run("git", "status", "--porcelain", cwd=project).stdout == "", "and its bytes repeat"


@pytest.mark.slow
def test_few_shots_and_the_image_baseline(project: Path) -> None:
    """A clip of each of two classes is not usable, one for each stream: the class gets as many clips as the others."""
    assert json.loads((project / "metrics/mv_image.json").read_text()) == {}
    index = pd.read_parquet(project / "data/index.parquet")
    drawn = few_shot(usable_clips(index, "train"), 2, 0)
    lost = {"mv": drawn["id"][drawn["label"] == 0].iloc[0], "clip_image": drawn["id"][drawn["label"] == 1].iloc[0]}
    for name, clip in lost.items():
        path = project / f"data/features/{name}.parquet"
        table = pd.read_parquet(path)
        table.loc[table["id"] == clip, ["status", "reason"]] = ["failed", "cannot be read"]
        table.to_parquet(path, index=False)
    set_keys(project / "params.yaml", {"dataset.shots": 2, "baselines.image": "test_resnet"})
    printed = run_stages(*stages_from("train_mv", "report"), cwd=project)
    for stage in ("train_mv", "train_image", "train_fusion"):
        assert re.search(rf"{stage}: .*, 8 clips[,;]", printed), printed
    assert re.search(r"train_mv: .*, 8 clips, [1-8] to choose the epoch on", printed)
    assert re.search(r"train_fusion: .*, 8 clips;.*; weight [01]", printed), "zero-shot CLIP is mixed in"
    views = zarr.open_group(project / "data/features/mv_embed.zarr/views", mode="r")
    learnt = sorted(str(name) for name in views["id"][:])
    assert index.set_index("id").loc[learnt, "label"].value_counts().tolist() == [2, 2, 2, 2]
    assert not set(learnt) & set(lost.values())
    assert json.loads((project / "metrics/fusion.json").read_text())["n"] == 12
    scores = json.loads((project / "metrics/mv_image.json").read_text())
    cost = json.loads((project / "metrics/cost.json").read_text())
    assert (scores["n"], scores["protocol"]) == (12, "3x1")
    validation = pd.read_parquet(project / "data/validation.parquet")
    logits = Features(project / "data/baselines/image_logits", "embed_image").rows("logits", list(validation["id"]))
    expected = fit_temperature(logits, validation["label"].to_numpy())
    assert scores["temperature"] == pytest.approx(expected, abs=1e-4), "of the validation clips"
    assert cost["multiply_adds_m"]["video"]["mv_image"] == pytest.approx(
        3 * cost["multiply_adds_m"]["image_segment"], rel=1e-3
    )
    assert "pictures of motion alone" in printed
    assert "pictures of motion alone" in (project / "data/report/index.html").read_text()


def test_recorded_costs_are_those_of_the_networks(project: Path) -> None:
    recorded = Features(project / "data/features/mv_embed.zarr", "embed_mv", "protocol").attributes["cost"]
    assert recorded == segment_cost(load_mv_tsn(project / paths.MV_TSN))
    for file in (project / paths.FUSION, project / paths.STILL):
        assert read_config(file, "train_fusion")[PROVENANCE]["cost"] == fusion_cost(load_fusion(file))
    del zarr.open_group(project / "data/features/mv_embed.zarr/protocol", mode="r+").attrs["cost"]
    refused = run("moclip", "evaluate", cwd=project, code=1).stderr
    assert "mv_embed.zarr/protocol: it has no cost: an earlier version made it\n  run: dvc repro embed_mv" in refused


def test_cost_says_what_a_video_reads(finished: Path) -> None:
    cost = json.loads((finished / "metrics/cost.json").read_text())
    index = pd.read_parquet(finished / "data/index.parquet")
    rows = index[index["split"] == "test"]
    sizes = [(finished / "data/demo/videos" / path).stat().st_size for path in rows["path"]]
    assert cost["bytes_read"]["file"] == pytest.approx(np.mean(sizes), abs=1e-3)
    assert cost["bytes_read"]["fields"] == 3 * 2 * 30 * 40


@pytest.mark.slow
def test_timing_says_where_the_time_goes(project: Path) -> None:
    run("moclip", "timing", "--clips", "3", cwd=project)
    found = json.loads((project / "metrics/timing.json").read_text())
    parts = {name: ms["median"] for name, ms in found["milliseconds"].items()}
    assert set(parts) == {"decode", "mv_tsn", "clip", "fusion", "clip_to_class"}
    assert all(ms > 0 for ms in parts.values())
    assert parts["clip_to_class"] >= max(ms for name, ms in parts.items() if name != "clip_to_class")
    assert run("git", "status", "--porcelain", cwd=project).stdout == "", "neither git nor DVC watches it"


def test_an_interrupt_ends_with_one_message(project: Path) -> None:
    process = subprocess.Popen(
        ["python", "-m", "stages.train_mv", "--tsn-epochs", "9999"], cwd=project, text=True,
        env=surroundings() | {"PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )  # fmt: skip
    assert process.stdout is not None
    assert "train_mv: test_resnet" in process.stdout.readline()
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; run the same command again" in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("command", "library"),
    [
        ("stages.train_mv", "tensorstore"),
        ("stages.train_mv", "torch"),
        ("stages.train_image --baselines-image test_resnet", "torch"),
        ("stages.embed_image --baselines-image test_resnet", "torch"),
        ("stages.train_fusion", "torch"),
        ("pipeline.cli timing", "torch"),
    ],
)
def test_an_interrupt_while_a_library_is_imported_ends_with_the_same_message(
    project: Path, tmp_path: Path, command: str, library: str
) -> None:
    """A library that turns an interrupt of its start into an error of its own, as those written in C++ do."""
    (tmp_path / f"{library}.py").write_text(
        "import os, signal\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\n    signal.pause()\n"
        "except KeyboardInterrupt:\n    raise ImportError('initialization failed') from None\n"
    )
    name, *words = command.split()
    code = f"import signal, sys; sys.path.insert(0, {str(tmp_path)!r}); "  # a shell's background jobs ignore it
    code += f"signal.signal(signal.SIGINT, signal.default_int_handler); sys.argv = {[name, *words]}; "
    code += f"import runpy; runpy.run_module({name!r}, run_name='__main__')"
    error = run(sys.executable, "-c", code, cwd=project, code=130).stderr
    assert "interrupted; run the same command again" in error
    assert "initialization failed" not in error


def test_plots_and_metrics_show_work(finished: Path, tmp_path: Path) -> None:
    shown = run("dvc", "metrics", "show", "--json", cwd=finished).stdout
    assert "metrics/summary.json" in shown
    run("dvc", "plots", "show", "-o", str(tmp_path / "plots"), cwd=finished)
    page = (tmp_path / "plots/index.html").read_text()
    for title in (
        "Top-1 of each stream",
        "MV-TSN loss",
        "Fusion accuracy",
        "Confusion of classes",
        "Accuracy of each class",
    ):
        assert title in page
