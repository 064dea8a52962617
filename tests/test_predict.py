"""`moclip predict` answers for clips by the models of the last run, and reports the ones it cannot read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import run


def test_prediction_agrees_with_the_pipelines(finished: Path) -> None:
    stored = pd.read_parquet(finished / "data/predictions.parquet").set_index("id")
    answers = json.loads(run("moclip", "predict", "data/demo/videos", "--json", "--top", "4", cwd=finished).stdout)
    by_id = {answer["clip"].removeprefix("data/demo/videos/"): answer for answer in answers}
    assert len(by_id) == 4 * (6 + 3), "every clip below the folder"
    for name, row in stored.iterrows():
        for stream in ("fusion", "mv_tsn", "zero_shot"):
            logits = row[stream].astype(float)
            expected = np.sort(np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum())[::-1]
            given = [one["probability"] for one in by_id[str(name)][stream]]
            assert given == pytest.approx(expected.tolist(), abs=2e-3), (name, stream)


def test_an_unreadable_clip_is_reported_and_the_others_answered(finished: Path, tmp_path: Path) -> None:
    good = next((finished / "data/demo/videos").rglob("*.avi"))
    shutil.copy(good, tmp_path / "good.avi")
    (tmp_path / "bad.mp4").write_text("no video")
    done = run("moclip", "predict", tmp_path / "good.avi", tmp_path / "bad.mp4", cwd=finished)
    assert "bad.mp4" in done.stderr
    assert "fusion of both" in done.stdout
    alone = run("moclip", "predict", tmp_path / "bad.mp4", cwd=finished, code=1)
    assert "no clip could be read" in alone.stderr
    assert "Traceback" not in alone.stderr


def test_without_models_it_says_what_to_run(tmp_path: Path) -> None:
    run("moclip", "use", "demo", cwd=tmp_path)
    done = run("moclip", "predict", "x.mp4", cwd=tmp_path, code=1)
    assert "data/models/mv_tsn.safetensors: no such model" in done.stderr
    assert "stages.train_mv" in done.stderr
