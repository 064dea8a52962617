"""The benchmarks run to their end in their quick form and write every row; how fast anything is, is not tested."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu_check
from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]


def run(name: str, out: Path, *more: str) -> dict[str, Any]:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--out", str(out), *more]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "targets met" in done.stdout
    found: dict[str, Any] = json.loads(out.read_text())
    assert found["machine"]["cores"] >= 1
    assert all(row["ours"] > 0 and (row["target"] is None) == (row["met"] is None) for row in found["rows"])
    return found


def names_with(found: dict[str, Any], part: str) -> list[str]:
    return [row["name"] for row in found["rows"] if part in row["name"]]


def test_bench_extract(tmp_path: Path) -> None:
    found = run("extract", tmp_path / "extract.json")
    for size in ("320x240 MPEG-4", "320x240 H.264", "1280x720 H.264"):
        assert len(names_with(found, f"{size}, 1 w.")) == len(names_with(found, f"{size}, 2 w.")) >= 1
    assert len(names_with(found, "bare PyAV (1 thread)")) == 2
    assert names_with(found, "2 workers / 1")
    assert len(names_with(found, "peak memory")) == 2
    assert names_with(found, "np.add.at")


def test_bench_read(tmp_path: Path) -> None:
    found = run("read", tmp_path / "read.json")
    for part in (
        "zarr-python one by one", "64 MiB", "whole store", "chunks of", "samples read / decoded",
        "files in the store", "dvc status", "opening and a first batch",
    ):  # fmt: skip
        assert names_with(found, part), part
    assert all(share == 1 for share in found["facts"]["decoded fields equal to the stored ones"].values())


def test_bench_predict(finished: Path, tmp_path: Path) -> None:
    found = run("predict", tmp_path / "predict.json", "--project", str(finished))
    assert len(names_with(found, "clip to class / bare work")) == 2 * len(found["facts"]["clips"])


def test_bench_head(tmp_path: Path) -> None:
    found = run("head", tmp_path / "head.json")
    assert len(names_with(found, "in every epoch")) == 2
    assert found["facts"]["top-1 of the fusion head on these features"] > 0.25


def test_bench_scale(tmp_path: Path) -> None:
    found = run("scale", tmp_path / "scale.json", "planning")
    assert len(names_with(found, "planned afresh")) == 4
    assert names_with(found, "read, planned and cut in parts")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_check_says_in_one_line_that_there_is_no_gpu(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--out", str(tmp_path / "x.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "no GPU here: nothing is checked, and nothing written\n")
    assert list(tmp_path.iterdir()) == []


def test_gpu_check_trains_in_each_precision_and_says_how_far_it_is_from_what_was_expected(project: Path) -> None:
    """On the CPU: fp32 is what the project was made with, and so no distance from it."""
    expected = gpu_check.outcome(project, {})
    found = {name: gpu_check.outcome(project, gpu_check.train(project, name)) for name in ("bf16", "fp32")}
    rows = {row.name: row for row in gpu_check.compared(found, expected)}
    streams = ("zero-shot CLIP", "MV-TSN, motion alone", "sum of both scores", "fusion of both")
    names = [f"{name}, top-1" for name in streams] + [f"{name}, last training loss" for name in ("MV-TSN", "fusion")]
    assert list(rows) == [f"{precision}: {name}, distance" for precision in found for name in names]
    assert all(rows[f"fp32: {name}, distance"].ours == 0 for name in names)
    assert all(rows[f"bf16: {name}, distance"].ours > 0 for name in names[-2:])
    spent = [row.name for row in gpu_check.seconds(found, {"index": 1.0})]
    assert spent == ["index", *(f"{precision}: {stage}" for precision in found for stage in gpu_check.STAGES)]
    far = replace(expected, top1={name: top1 - 0.16 for name, top1 in expected.top1.items()})
    missed = [row.name for row in gpu_check.compared({"fp32": found["fp32"]}, far) if not row.met]
    assert missed == [f"fp32: {name}, top-1, distance" for name in streams]
