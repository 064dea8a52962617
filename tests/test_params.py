"""params.yaml is typed: what is wrong is named in full, with its value and what is allowed."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import params, presets
from pipeline.dag import COMMANDS, STAGES
from pipeline.params import ParamError, Params
from tests.conftest import ROOT, run, set_keys, surroundings


@pytest.fixture
def raw() -> dict[str, Any]:
    return params.read_raw(ROOT / "params.yaml")


@pytest.mark.parametrize(
    ("key", "value", "expected_text"),
    [
        ("fusion.lrr", 1, ["fusion.lrr = 1", "unknown key", "did you mean fusion.lr?"]),
        ("warmth", 1, ["warmth = 1", "unknown key", "dataset, index, mv, clip"]),
        ("tsn.lr_mult.hed", 1, ["tsn.lr_mult.hed", "did you mean tsn.lr_mult.head?"]),
        ("fusion.lr", "fast", ["fusion.lr = 'fast'", "a number > 0"]),
        ("fusion.lr", -1, ["fusion.lr = -1", "a number > 0"]),
        ("tsn.epochs", 1.5, ["tsn.epochs = 1.5", "a whole number from 1 to 10000"]),
        ("tsn.epochs", "3", ["tsn.epochs = '3'", "a whole number"]),
        ("tsn.epochs", True, ["tsn.epochs = True", "a whole number"]),
        ("tsn.lr", True, ["tsn.lr = ", "True", "a number"]),
        ("tsn.compile", "yes!", ["tsn.compile = 'yes!'", "true or false"]),
        ("tsn.crops", [1, 2], ["tsn.crops.1 = 2", "> 0", "<= 1"]),
        ("mv.canvas", [240, 321], ["mv", "multiples of mv.cell = 8"]),
        ("mv.accumulate", True, ["mv.accumulate = True", "false | grid"]),
        ("tsn.schedule", "linear", ["tsn.schedule = 'linear'", "steps | cosine | onecycle"]),
        ("tsn.warmup", 1, ["tsn.warmup = 1", ">= 0 and < 1"]),
        ("mv.backend", "gpu", ["mv.backend = 'gpu'", "auto | mvextractor | pyav"]),
        ("evaluate.protocol", "32x2", ["evaluate.protocol = '32x2'", "32x1 or 25x10"]),
        ("dataset", 3, ["dataset = 3", "a group of keys"]),
    ],
)
def test_a_bad_value_is_named_in_full(raw: dict[str, Any], key: str, value: object, expected_text: list[str]) -> None:
    with pytest.raises(ParamError) as caught:
        params.validate(params.with_values(raw, {key: value}), "params.yaml")
    for part in expected_text:
        assert part in str(caught.value)


def test_a_missing_key_is_named(raw: dict[str, Any]) -> None:
    del raw["fusion"]["lr"]
    with pytest.raises(ParamError, match=r"fusion\.lr: missing; a number > 0 and <= 10; the default is 0.0001"):
        params.validate(raw, "params.yaml")
    del raw["mv"], raw["dataset"]["root"]
    with pytest.raises(ParamError, match=r"dataset\.root: missing"):
        params.validate(raw, "params.yaml")
    raw["dataset"]["root"] = "videos"
    with pytest.raises(ParamError, match=r"mv\.cell: missing(.|\n)*fusion\.lr: missing"):
        params.validate(raw, "params.yaml")


def test_1e_4_is_read_as_a_float(raw: dict[str, Any]) -> None:
    assert isinstance(yaml.safe_load("lr: 1e-4")["lr"], str), "YAML 1.1, as PyYAML has it"
    assert params.validate(params.with_values(raw, {"fusion.lr": "1e-4"}), "").fusion.lr == 1e-4


@pytest.mark.parametrize(
    ("content", "expected_text"),
    [
        (b"seed: 0\ndataset:\n\troot: x\n", "not valid YAML in line 3: .*\n  indent with spaces, not with tabs"),
        (b"seed: 0\nmv: [1\n", "not valid YAML in line 3: expected ',' or ']'.*\n  correct it; `git diff` shows"),
        ("seed: 0\n".encode("utf-16"), "not text in UTF-8\n  save it as UTF-8"),
        (b"", "holds no groups of parameters\n  write a new one"),
        (None, "a folder, not a file\n  move it away"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_what_to_do(
    tmp_path: Path, content: bytes | None, expected_text: str
) -> None:
    path = tmp_path / "params.yaml"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(ParamError, match=f"params.yaml: {expected_text}"):
        params.load(path)


def test_line_ends_and_the_byte_order_mark_of_windows_are_read(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    path = tmp_path / "params.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert params.read_raw(path) == params.read_raw(ROOT / "params.yaml")


@pytest.mark.parametrize("blank", ["", " "])
def test_a_text_of_blanks_is_refused(raw: dict[str, Any], blank: str) -> None:
    with pytest.raises(ParamError, match=r"clip\.model = "):
        params.validate(params.with_values(raw, {"clip.model": blank}), "")


def test_every_key_is_read_by_a_stage_or_watched_by_dvc() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    read = {key for stage in stages.values() for key in stage.get("params", []) if isinstance(key, str)}
    watched = {key for key in params.all_keys() if "${" + key + "}" in (ROOT / "dvc.yaml").read_text()}
    beside_the_dag = {"dataset.seeds"}  # of `moclip sweep`
    assert set(params.all_keys()) - read - watched == beside_the_dag


def test_the_committed_params_are_the_demo_preset() -> None:
    assert (ROOT / "params.yaml").read_text() == presets.params_text("demo")


@pytest.mark.parametrize("preset", ["demo", "folder", "hmdb51", "ucf101"])
def test_a_preset_with_a_folder_is_valid(preset: str, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    text = presets.params_text(preset, root=str(tmp_path / "videos"), split=2)
    model = Params.model_validate(yaml.safe_load(text))
    assert model.dataset.root == str(tmp_path / "videos")
    assert model.dataset.split == 2
    for key in params.all_keys():
        assert params.describe(key)[0] in text


def test_the_ucf101_preset_is_the_papers_recipe() -> None:
    model = Params.model_validate(yaml.safe_load(presets.params_text("ucf101", root=str(ROOT))))
    assert (model.fusion.lr, model.fusion.epochs, model.fusion.batch, model.fusion.hidden) == (
        1e-4,
        100,
        64,
        512,
    )
    assert (model.tsn.backbone, model.tsn.lr, model.tsn.epochs, model.tsn.lr_steps) == (
        "efficientnet_b0",
        0.01,
        200,
        [80, 160],
    )
    tsn = model.tsn
    assert (tsn.optimiser, tsn.eps, tsn.weight_decay, tsn.schedule) == ("adam", 1e-3, 1e-4, "steps")
    assert (tsn.warmup, tsn.label_smoothing, tsn.ema, tsn.min_steps) == (0, 0, 0, 0), "nothing that is not the paper's"
    assert model.evaluate.protocol == "32x1"
    assert model.clip.model == "openai/clip-vit-base-patch32"


def test_a_local_model_must_be_watched(tmp_path: Path) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
    (tmp_path / "clip").mkdir()
    set_keys(tmp_path / "params.yaml", {"clip.model": str(tmp_path / "clip")})
    with pytest.raises(ParamError, match=r"clip\.files"):
        params.load(tmp_path / "params.yaml")
    set_keys(tmp_path / "params.yaml", {"clip.files": str(tmp_path / "clip")})
    assert params.load(tmp_path / "params.yaml").clip.files == str(tmp_path / "clip")


def test_a_stage_refuses_an_unknown_key_with_one_message(project: Path) -> None:
    set_keys(project / "params.yaml", {"fusion.learning_rate": 1})
    done = run("python", "-m", "stages.train_fusion", cwd=project, code=1)
    assert "params.yaml: fusion.learning_rate = 1: unknown key" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bad_option_is_one_error_message(finished: Path) -> None:
    done = run("python", "-m", "stages.train_fusion", "--fusion-lr", "fast", cwd=finished, code=1)
    assert "fusion.lr = 'fast'" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_params_yaml_the_message_says_how_to_get_one(tmp_path: Path) -> None:
    done = run("moclip", "index", cwd=tmp_path, code=1)
    assert "params.yaml: not found" in done.stderr
    assert "moclip use demo" in done.stderr


def test_moclip_lists_the_stages_in_dag_order(tmp_path: Path) -> None:
    shown = run("moclip", "--help", cwd=tmp_path).stdout
    first, *stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert first == "code", "it is no command"
    places = [shown.index(f"  {name} ") for name in stages]
    assert places == sorted(places)


def test_moclip_lists_every_command_once(tmp_path: Path) -> None:
    """In the help's sections: one that is missing there would be hidden."""
    shown = run("moclip", "--help", cwd=tmp_path).stdout.partition("--help")[2]
    listed = re.findall(r"^  ([a-z_-]+) ", shown, re.MULTILINE)
    assert sorted(listed) == sorted([*STAGES, *COMMANDS, "use", "metrics", "store"])
    assert "..." not in shown


def test_use_writes_params_and_refuses_nonsense(tmp_path: Path) -> None:
    (tmp_path / "my clips").mkdir()
    run("moclip", "use", "folder", "--root", "my clips", cwd=tmp_path)
    written = yaml.safe_load((tmp_path / "params.yaml").read_text())
    assert written["dataset"]["root"] == "my clips"
    assert written["dataset"]["splits"] == "my clips", "no lists: the folder itself, so index splits by group"
    for arguments, expected_text in (
        (("folder",), "--root"),
        (("folder", "--root", "nowhere"), "no such folder"),
        (("kinetics",), "demo, folder, hmdb51, ucf101"),
    ):
        done = run("moclip", "use", *arguments, cwd=tmp_path, code=1)
        assert expected_text in done.stderr
        assert "Traceback" not in done.stderr


def on_a_terminal(command: list[str], folder: Path, typed: str) -> tuple[int, str]:
    """Run a command on a terminal on which `typed` is typed. Return its exit code and what it printed."""
    ours, theirs = pty.openpty()
    os.write(ours, typed.encode())
    env = surroundings()
    done = subprocess.run(command, cwd=folder, env=env, stdin=theirs, stdout=theirs, stderr=theirs, timeout=60)
    os.close(theirs)
    printed = b""
    with contextlib.suppress(OSError):  # the end
        while part := os.read(ours, 4096):
            printed += part
    os.close(ours)
    return done.returncode, printed.decode()


@pytest.mark.slow
def test_use_keeps_an_edited_file(tmp_path: Path) -> None:
    path, kept = tmp_path / "params.yaml", tmp_path / "params.yaml.bak"
    for name in ("clips", "others"):
        (tmp_path / name).mkdir()
    run("moclip", "use", "folder", "--root", "clips", "--clip", "a/b", cwd=tmp_path)
    run("moclip", "use", "demo", cwd=tmp_path)
    run("moclip", "use", "folder", "--root", "others", cwd=tmp_path)
    assert not kept.exists(), "what only `use` wrote is no edit"
    edited = path.read_text().replace("\n  lr: 0.001 ", "\n  lr: 0.002 ") + "\nmine:\n  own: [1]\n"
    assert edited.count("lr: 0.002") == 1
    path.write_text(edited)
    printed = run("moclip", "use", "demo", cwd=tmp_path, code=1).stderr
    lines = ["edited since `moclip use folder`:", "lr: 0.002 (preset: 0.001)", "mine.own: [1] (unknown key)", "--force"]
    assert all(line in printed for line in lines), printed
    assert path.read_text() == edited
    command = ["moclip", "use", "demo"]
    code, printed = on_a_terminal(command, tmp_path, "n\n")
    assert (code, path.read_text(), kept.exists()) == (1, edited, False)
    assert "lr: 0.002 (preset: 0.001)" in printed
    code, printed = on_a_terminal(command, tmp_path, "y\n")
    assert (code, kept.read_text()) == (0, edited), printed
    demo = path.read_text()
    assert yaml.safe_load(demo)["dataset"]["root"] == "data/demo/videos"
    path.write_text(edited)
    run(*command, "--force", cwd=tmp_path)
    assert (path.read_text(), kept.read_text()) == (demo, edited)


def test_a_key_that_a_newer_version_added_is_no_edit(tmp_path: Path) -> None:
    run("moclip", "use", "demo", cwd=tmp_path)
    text = (tmp_path / "params.yaml").read_text()
    shorter = re.sub(r"^  ema: .*\n", "", text, flags=re.MULTILINE)
    assert shorter != text
    (tmp_path / "params.yaml").write_text(shorter)
    run("moclip", "use", "demo", cwd=tmp_path)
    assert (tmp_path / "params.yaml").read_text() == text
