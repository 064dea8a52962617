"""docs/scale.md: its arithmetic starts from the measured figures, and prints what the page shows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks.peers import RESULTS
from tests.conftest import ROOT, run

PAGE = (ROOT / "docs/scale.md").read_text(encoding="utf-8")
CODE, SHOWN = re.findall(r"```(?:python|text)\n(.*?)```", PAGE, re.DOTALL)
RESULT = json.loads(RESULTS.read_text(encoding="utf-8"))
CORES = RESULT["machine"]["cores"]


def figure(part: str, name: str) -> float:
    return float(next(row["ours"] for row in RESULT["parts"][part]["rows"] if row["name"] == name))


def measured() -> dict[str, float]:
    """Each input of the arithmetic, for one core."""
    facts = RESULT["parts"]["predict"]["facts"]
    label = CORES * figure("predict", "a clip to its label") / 1e3
    epoch = "{}: an epoch of UCF-101's 9,537 clips, from {}"
    trained = RESULT["parts"]["head"]["facts"]["clips"]["train"]
    return {
        "decode": figure("extract", "320x240 H.264 with B"),
        "field": figure("read", "size of a field"),
        "embed": label * facts["shares"]["MV-TSN"] / 32,
        "clip": label * facts["shares"]["CLIP"],
        "train": CORES * figure("train", epoch.format("EfficientNet-B0, 224 px", 48)) / 9_537,
        "train_small": CORES * figure("train", epoch.format("resnet10t, 64 px", 128)) / 9_537,
        "head": CORES * figure("head", "an experiment on the head, 100 epochs, DVC included") / trained,
    }


@pytest.mark.parametrize("name", measured())
def test_an_input_is_the_measured_one(name: str) -> None:
    written = re.search(rf"^{name} = ([\d_.]+)", CODE, re.MULTILINE)
    assert written
    assert float(written[1]) == pytest.approx(measured()[name], rel=0.005)


def test_the_arithmetic_prints_what_the_page_shows(tmp_path: Path) -> None:
    assert run("python", "-c", CODE, cwd=tmp_path).stdout == SHOWN


def test_limits_follow_from_16_gb() -> None:
    rows = re.findall(r"^\| .* \| ([\d,]+) \| ([\d.,]+)( million)? \| .* \|$", PAGE, re.MULTILINE)
    assert len(rows) == 5
    for size, clips, million in rows:
        shown = float(clips.replace(",", "")) * (1e6 if million else 1)
        assert shown == pytest.approx(16e9 / float(size.replace(",", "")), rel=0.005)
