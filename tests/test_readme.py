"""README says what is so: its results, its commands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

import moclip
from pipeline.console.output import STREAM_LABELS
from pipeline.dag import STAGES
from tests.conftest import ROOT, run

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_results_are_those_in_git() -> None:
    for name, title in STREAM_LABELS.items():
        scores = json.loads((ROOT / f"metrics/{name}.json").read_text())
        row = next(line for line in README.splitlines() if line.strip().startswith(title))
        assert f"{scores['top1']:.3f}" in row
        assert f"{scores['top5']:.3f}" in row
    printed = run("moclip", "metrics", cwd=ROOT).stdout
    shown = "\n".join(line for line in README.splitlines() if line)
    assert "\n".join(line for line in printed.splitlines() if line) in shown


def test_the_demo_shows_what_it_should() -> None:
    top1 = {name: json.loads((ROOT / f"metrics/{name}.json").read_text())["top1"] for name in STREAM_LABELS}
    assert top1["fusion"] >= 0.9
    assert max(top1["zero_shot"], top1["mv_tsn"]) <= top1["fusion"] - 0.25


def test_every_command_of_the_project_that_readme_names_exists(tmp_path: Path) -> None:
    known = set(re.findall(r"^  ([a-z_]+)  ", run("moclip", "--help", cwd=tmp_path).stdout, re.MULTILINE))
    named = set(re.findall(r"^moclip ([a-z_]+)", README, re.MULTILINE))
    assert named
    assert named <= known
    text = README + "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md"))
    targets = set(re.findall(r"`make ([a-z-]+)`", text)) | set(re.findall(r"^make ([a-z-]+)", text, re.MULTILINE))
    assert targets <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert all(f"`{name}`" in README for name in STAGES)


def test_no_registry_or_host_is_named_in_the_lock() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    assert all(
        re.match(r"^[A-Za-z0-9._-]+==[^=;]+(; .*)?$", line) for line in lock.splitlines() if not line.startswith("#")
    )
    assert "torch==2.14.1" in lock.splitlines()
    assert "torchvision==0.29.1" in lock.splitlines()


def test_each_promise_of_reliability_names_a_test_that_exists() -> None:
    page = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    promises = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| what happens")]
    named = [re.search(r"`(test_\w+)` \|$", line) for line in promises]
    assert len(promises) > 20
    assert all(named), "a row without a test"
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    assert {one[1] for one in named if one} <= set(re.findall(r"def (test_\w+)", tests))


def test_the_citation_has_the_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == moclip.__version__
