"""The demo as `make demo` runs it, from nothing: neither stream names the class alone, both together do."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.conftest import ROOT, commit, in_turn, new_project, run, set_keys

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo up to its scores, without the image baseline, which nothing here reads."""
    folder = new_project(tmp_path_factory.mktemp("demo") / "project")
    for name in ("params.yaml", "data/demo/params.yaml"):
        (folder / name).write_text((ROOT / name).read_text())
    set_keys(folder / "params.yaml", {"baselines.image": False})
    commit(folder)
    run("dvc", "repro", "evaluate", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def predictions(demo: Path) -> pd.DataFrame:
    return pd.read_parquet(demo / "data/predictions.parquet")


def parts(name: str) -> tuple[str, str]:
    """ "RedBallRising" -> appearance "Red", motion "Rising"."""
    colour, motion = name.split("Ball")
    return colour, motion


def right(predictions: pd.DataFrame, stream: str, part: int) -> float:
    """Share of test clips of which a stream names the appearance (0) or the motion (1)."""
    names = predictions.drop_duplicates("label").set_index("label")["class"]
    chosen = names.loc[np.stack(predictions[stream].to_list()).argmax(axis=1)]
    pairs = zip(chosen, predictions["class"], strict=True)
    return float(np.mean([parts(a)[part] == parts(b)[part] for a, b in pairs]))


def test_only_both_streams_together_name_the_class(demo: Path) -> None:
    top1 = {
        name: json.loads((demo / f"metrics/{name}.json").read_text())["top1"]
        for name in ("zero_shot", "mv_tsn", "fusion")
    }
    assert top1["fusion"] >= 0.9
    assert top1["zero_shot"] <= top1["fusion"] - 0.25
    assert top1["mv_tsn"] <= top1["fusion"] - 0.25


def test_a_frame_shows_the_colour_and_the_vectors_the_motion(predictions: pd.DataFrame) -> None:
    assert right(predictions, "zero_shot", 0) >= 0.9
    assert right(predictions, "mv_tsn", 1) >= 0.9
    # chance is 1/4 for the motion and 1/3 for the appearance: 96 clips stay within three deviations of it
    assert right(predictions, "zero_shot", 1) < 0.25 + 0.14
    assert right(predictions, "mv_tsn", 0) < 1 / 3 + 0.15


def scores(demo: Path, stream: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((demo / f"metrics/{stream}.json").read_text())
    return found


def test_the_text_head_names_classes_that_it_never_saw(demo: Path, tmp_path: Path) -> None:
    """Trained on half of the classes, `text` names the others by CLIP's features of their names; `concat` cannot."""
    folder = tmp_path / "demo"
    shutil.copytree(demo, folder, symlinks=True)

    def stages(*commands: tuple[str, ...]) -> None:
        ended = in_turn(folder, *commands)
        assert not any(one.code for one in ended), ended

    stages(("train_fusion", "--fusion-head", "text"), ("evaluate",))
    assert scores(folder, "fusion")["top1"] >= 0.9
    few = {"tsn.epochs": 10, "tsn.lr_steps": [8, 9], "embed.views": 2}  # enough for half of the classes
    set_keys(folder / "params.yaml", {"dataset.base_to_new": True, **few})
    stages(("train_mv",), ("embed_mv",), ("train_probe",))
    found = {}
    for head in ("concat", "text"):
        stages(("train_fusion", "--fusion-head", head), ("evaluate",))
        found[head] = scores(folder, "fusion")["base_to_new"]
    assert found["text"]["base"] >= 0.9
    assert found["text"]["new"] >= 0.7
    assert found["concat"]["base"] >= 0.9
    assert found["text"]["harmonic_mean"] >= found["concat"]["harmonic_mean"] + 0.4


def test_the_demo_has_the_stated_size_and_variety(demo: Path) -> None:
    index = pd.read_parquet(demo / "data/index.parquet")
    assert index["class"].nunique() == 12
    tests = index[index["split"] == "test"]
    assert tests.groupby("class").size().eq(8).all()
    assert (index[index["split"] != "test"].groupby("class").size() == 20).all()
    assert {"h264", "mpeg4"} == set(index["codec"])
    assert index["has_b"].any()
    assert len(index[["w", "h"]].drop_duplicates()) > 1
    mix = index.groupby(["class", "codec", "has_b"]).size().unstack("class")
    assert mix.nunique(axis=1).eq(1).all(), "no codec gives a class away"


def test_no_metadata_names_the_class(demo: Path) -> None:
    import av

    for path in sorted((demo / "data/demo/videos").rglob("v_*"))[::17]:
        with av.open(str(path)) as container:
            metadata = str(container.metadata) + str(container.streams.video[0].metadata)
        assert not re.search("ball|rising|falling|red|green|blue", metadata, re.IGNORECASE)


def test_renders_again_to_the_committed_bytes(demo: Path) -> None:
    """The lock of the demo's data in git holds here too: the same versions draw and encode the same bytes."""
    import yaml

    locks = [yaml.safe_load((root / "data/demo/dvc.lock").read_text())["stages"] for root in (ROOT, demo)]
    ours, again = ({out["path"]: out["md5"] for out in lock["render"]["outs"]} for lock in locks)
    assert ours == again
