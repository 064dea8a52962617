"""What commands say that need a project's models while a stage runs there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.run_lock import run_lock
from tests.conftest import run


@contextmanager
def running(project: Path, stage: str) -> Iterator[None]:
    """Hold the lock of a stage in a project, as its run does."""
    before = Path.cwd()
    os.chdir(project)
    try:
        with run_lock(stage):
            yield
    finally:
        os.chdir(before)


def said(project: Path, *command: str, code: int = 1) -> str:
    return run("moclip", *command, cwd=project, code=code).stderr


def test_a_missing_model_is_explained_by_the_training_that_runs(project: Path) -> None:
    clip = next(path for path in sorted((project / "data/demo/videos").rglob("*.avi")))
    with running(project, "train_mv"):
        assert "error" not in said(project, "predict", str(clip), code=0), "nothing is missing yet"
        (project / "data/models/mv_tsn.safetensors").unlink()  # as DVC does before it runs the stage
        line = f"error: training is running in this project (process {os.getpid()}, since HH:MM): wait until it ends\n"
        for command in (["predict", str(clip)], ["timeline", str(clip)], ["timing"], ["export", "bundle"]):
            assert re.sub(r"\d\d:\d\d\)", "HH:MM)", said(project, *command)) == line, command
    assert "mv_tsn.safetensors: no such model" in said(project, "predict", str(clip))


@pytest.mark.slow
def test_other_stages_are_named_and_other_errors_stay(project: Path) -> None:
    with running(project, "extract_mv"):
        (project / "data/features/mv_embed.zarr/protocol/zarr.json").unlink()
        (project / "metrics/cost.json").unlink()
        for command in (["suspects"], ["similar", "x"], ["metrics"]):
            assert "error: the stage extract_mv is running in this project (process" in said(project, *command), command
        elsewhere = said(project, "predict", "--bundle", "nowhere", "x.avi")
        assert "is running" not in elsewhere
        assert "dvc" not in elsewhere
    (project / "data/work/train_mv.lock").write_text("1")  # of a run that was killed: nobody holds it
    assert "cost.json: not found" in said(project, "metrics")
