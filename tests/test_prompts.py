"""What `moclip prompts` shows of the texts that stand for each class, and its errors."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.clips import encode, moving_texture
from tests.conftest import ROOT, run, run_fresh

TEMPLATES = ["a photo of {}.", "someone {}"]
PHRASES = {"HighJump": ["high jumping", "leaping over a bar"], "run": "running"}


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of three classes whose index is made, with phrases for two of them."""
    folder = tmp_path_factory.mktemp("prompts")
    for name in ("HighJump", "run", "sit_down"):
        for number in range(4):
            (folder / "videos" / name).mkdir(parents=True, exist_ok=True)
            encode(folder / f"videos/{name}/v_g{number:02d}_c01.avi", moving_texture(4, (64, 80)))
    (folder / "phrases.json").write_text(json.dumps(PHRASES))
    (folder / "templates.json").write_text(json.dumps(TEMPLATES))
    run("moclip", "use", "folder", "--root", "videos", cwd=folder)
    params = (folder / "params.yaml").read_text()
    params = params.replace("phrases: data/none", "phrases: phrases.json")
    (folder / "params.yaml").write_text(params.replace("prompts: data/prompts.json", "prompts: templates.json"))
    without = run("moclip", "prompts", cwd=folder, code=1).stderr
    assert without == "error: data/index.parquet: not found\n  run: dvc repro (or: moclip index)\n"
    run("moclip", "index", cwd=folder)
    return folder


@pytest.mark.slow
def test_a_line_per_class(indexed: Path) -> None:
    shown = run("moclip", "prompts", cwd=indexed).stdout
    title, head, _, jump, running, sit, _, note = shown.splitlines()
    assert title == "8 texts of 3 classes: phrases.json, in 2 templates of templates.json"
    assert head.split() == ["class", "phrases", "templates", "texts", "first", "text"]
    assert jump.split(maxsplit=4) == ["HighJump", "2", "2", "4", "a photo of high jumping."]
    assert running.split(maxsplit=4) == ["run", "1", "2", "2", "a photo of running."]
    assert sit.split(maxsplit=4) == ["sit_down", "1", "2", "2", "a photo of sit down."]
    assert note == "phrases.json: the name is the only phrase of sit_down"
    assert note not in run("moclip", "prompts", "--quiet", cwd=indexed).stdout


def test_every_text_as_table_csv_and_json(indexed: Path) -> None:
    texts = [
        ["HighJump", "a photo of high jumping."],
        ["HighJump", "someone high jumping"],
        ["HighJump", "a photo of leaping over a bar."],
        ["HighJump", "someone leaping over a bar"],
    ]
    chosen = ("--class", "HighJump", "--class", "HighJump")
    shown = run("moclip", "prompts", "--show", *chosen, cwd=indexed).stdout.splitlines()
    assert [line.split(maxsplit=1) for line in shown[3:-1]] == texts
    rows = csv.reader(run("moclip", "prompts", "--csv", *chosen, cwd=indexed).stdout.splitlines())
    assert list(rows) == [["class", "text"], *texts]
    told = json.loads(run("moclip", "prompts", "--json", cwd=indexed).stdout)
    assert told["templates"] == TEMPLATES
    assert list(told["classes"]) == ["HighJump", "run", "sit_down"]
    assert told["classes"]["HighJump"] == {"phrases": PHRASES["HighJump"], "texts": [text for _, text in texts]}


def test_class_names_stand_in_for_phrases(indexed: Path) -> None:
    shown = run("moclip", "prompts", "--dataset-phrases", "data/none", cwd=indexed).stdout.splitlines()
    assert shown[0] == "6 texts of 3 classes: class names, in 2 templates of templates.json"
    assert shown[3].endswith("a photo of high jump.")
    assert len(shown) == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--class HighJmp", "data/index.parquet: no class 'HighJmp'\n  did you mean 'HighJump'?"),
        ("--class x", "data/index.parquet: no class 'x'\n  moclip prompts lists the classes"),
        ("--json --csv", "--json and --csv exclude each other"),
        ("--dataset-phrases gone.json", "gone.json: not found"),
        ("--clip-prompts phrases.json", "phrases.json: expected a list of prompt templates"),
        ("--dataset-phrases templates.json", "templates.json: expected a mapping from class to phrases"),
    ],
)
def test_errors_name_the_file(indexed: Path, options: str, message: str) -> None:
    assert run("moclip", "prompts", *options.split(), cwd=indexed, code=1).stderr == f"error: {message}\n"


@pytest.mark.slow
def test_it_needs_no_torch(indexed: Path) -> None:
    done = run_fresh("moclip", "prompts", cwd=indexed, PYTHONPROFILEIMPORTTIME="1", PYTHONPATH=f"{ROOT}/src:{ROOT}")
    packages = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert not packages & {"torch", "transformers", "zarr"}
