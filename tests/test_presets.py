"""The presets of the two public data sets run from their own files to the metrics; nothing is lost on the way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from moclip.data.clip_folder import scan_folder
from moclip.data.index import build_index
from moclip.data.selection import class_names
from moclip.data.split_lists import read_splits
from moclip.errors import DatasetError
from tests import replica
from tests.conftest import run, run_stages, set_keys, stages_from

SMALL: dict[str, Any] = {
    "clip.model": "data/demo/clip",
    "clip.files": "data/demo/clip",
    "clip.prompts": "prompts.json",
    "mv.shard": 1024,
    "tsn.backbone": "test_resnet",
    "tsn.pretrained": False,
    "tsn.size": 32,
    "tsn.epochs": 1,
    "tsn.batch": 40,
    "baselines.image": False,
    "embed.views": 1,
    "fusion.hidden": 32,
    "fusion.epochs": 2,
    "evaluate.protocol": "2x1",
    "dataset.val_fraction": 0.34,
}


def metrics(project: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project / "metrics" / f"{name}.json").read_text())
    return found


@pytest.mark.slow
def test_ucf101_runs_from_its_files_to_the_metrics(project: Path, tmp_path: Path) -> None:
    root, lists = replica.ucf101(tmp_path)
    (root / "Archery/v_Archery_g01_c01.avi").unlink()
    (root / "Biking/v_Biking_g08_c01.avi").write_bytes(b"cut short")
    shutil.copy(root / "YoYo/v_YoYo_g01_c01.avi", root / "YoYo/v_YoYo_g25_c07.avi")
    run("moclip", "use", "ucf101", "--root", root, "--splits", lists, "--split", "1", "--force", cwd=project)
    (project / "prompts.json").write_text('["a video of a person {}", "the action {}"]')
    set_keys(project / "params.yaml", SMALL)
    done = run("dvc", "repro", "index", cwd=project)
    run_stages(*stages_from("extract_mv"), cwd=project)
    assert "Archery/v_Archery_g01_c01.avi: named in the test list, not in the folder" in done.stdout
    counts = metrics(project, "counts/index")
    assert (counts["clips"], counts["usable"], counts["classes"]) == (304, 302, 101)
    assert (counts["listed"], counts["usable_of_listed"]) == (303, 301)
    assert counts["splits"]["none"] == 1
    assert counts["splits"]["test"] == 100
    assert counts["splits"]["train"] + counts["splits"]["val"] == 201
    assert metrics(project, "counts/extract_mv")["extracted"] == 301
    for stream in ("zero_shot", "mv_tsn", "fusion"):
        scores = metrics(project, stream)
        assert scores["n"] == 100
        assert sum(scores["skipped"].values()) == 1
    run("moclip", "report", "--report-clips", "0", cwd=project)
    page = (project / "data/report/index.html").read_text()
    headline = page[page.index('id="headline"') : page.index("</table>")]
    for figure in ("65.0 %", "66.5 %", "89.2 %", "16,900 M"):
        assert figure in headline, "the paper's, beside results on the same data set"
    index = pd.read_parquet(project / "data/index.parquet").set_index("id")
    tests = index[index["split"] == "test"]
    assert (tests["status"] == "ok").sum() == 100
    assert len(tests) == 101, "whoever is left out is counted as skipped"
    assert class_names(index) == replica.classes_of("ucf101")
    assert index.loc["HandstandPushups/v_HandStandPushups_g08_c01.avi", "group"] == "g08"
    groups = {part: set(rows["group"]) for part, rows in index[index["status"] == "ok"].groupby("split")}
    assert groups["val"].isdisjoint(groups["train"])


@pytest.mark.slow
def test_hmdb51_is_split_as_its_lists_say(tmp_path: Path) -> None:
    root, lists = replica.hmdb51(tmp_path)
    read = read_splits(lists, 1)
    table = build_index(root, scan_folder(root), read, 0.5, 0.3, 0, workers=2).set_index("id")
    assert class_names(table) == replica.classes_of("hmdb51")
    assert dict(table.groupby("split").size()) == {"none": 51, "test": 51, "train": 51, "val": 51}
    assert set(table["group"]) == {"April_09", "Big_Fish", "#20_Rhythm"}
    assert (table.loc[table["split"] == "test", "group"] == "#20_Rhythm").all()
    assert (table["status"] == "ok").all()
    (root / "wave/#20_Rhythm_wave_u_nm_np1_ba_goo_2.avi").unlink()
    again = build_index(root, scan_folder(root), read, 0.5, 0.3, 0, workers=2).set_index("id")
    assert again.loc["wave/#20_Rhythm_wave_u_nm_np1_ba_goo_2.avi", "status"] == "missing"


def test_wrong_lists_of_hmdb51_are_refused(tmp_path: Path) -> None:
    for name, content in (
        ("run_test_split1.txt", "a.avi 1\nb.avi 2\n"),
        ("walk_test_split1.txt", "c.avi 1\nd.avi 2\n"),
    ):
        (tmp_path / name).write_text(content)
    assert read_splits(tmp_path, 1) is not None
    with pytest.raises(DatasetError, match=r"no run_test_split2\.txt"):
        read_splits(tmp_path, 2)
    (tmp_path / "walk_test_split1.txt").write_text("c.avi 3\n")
    with pytest.raises(DatasetError, match="part '3'; expected 0, 1 or 2"):
        read_splits(tmp_path, 1)
    (tmp_path / "walk_test_split1.txt").write_text("c.avi\n")
    with pytest.raises(DatasetError, match=r"line 1, 'c\.avi': expected a clip and 0, 1 or 2"):
        read_splits(tmp_path, 1)


def test_hmdb51_is_used_with_its_phrases_and_transcoded(project: Path, tmp_path: Path) -> None:
    root, lists = replica.hmdb51(tmp_path)
    run("moclip", "use", "hmdb51", "--root", root, "--splits", lists, "--force", cwd=project)
    text = (project / "params.yaml").read_text()
    assert "data/classes/hmdb51.json" in text
    assert "transcode: mpeg4" in text
