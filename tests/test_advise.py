"""What `moclip advise` and `index` tell of a data set, and when they tell nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from moclip.data.look_alikes import most_similar
from moclip.store.features import to_unit_length, write_features
from pipeline import params as parameters
from pipeline.advice.classes import mirror_findings
from pipeline.advice.finding import Finding
from pipeline.advice.notes import index_findings, index_notes
from pipeline.advice.splits import is_copied_across_splits
from pipeline.advice.videos import length_findings, unusable_findings
from pipeline.demo_clip import demo_clip_warning
from pipeline.params import Params
from tests.clips import encode, moving_texture
from tests.conftest import ROOT, run, set_keys

CLASSES = ("dip", "jump", "run", "TurnUp")


def healthy() -> pd.DataFrame:
    """The index of a data set without faults: 4 classes, 20 clips each in train, 5 in val, 15 in test."""
    rows = []
    for label, name in enumerate(CLASSES):
        for number in range(40):
            split = "train" if number < 20 else "val" if number < 25 else "test"
            clip = f"{name}/v_{name}_g{number // 5:02d}_c{number:02d}.avi"
            rows.append({"id": clip, "path": clip, "class": name, "label": label, "split": split})
    table = pd.DataFrame(rows)
    table["group"] = table["path"].str.extract(r"(g\d\d)")[0]
    same: dict[str, Any] = {
        "codec": "mpeg4",
        "w": 320,
        "h": 240,
        "fps": 25.0,
        "frames": 60,
        "gop": 12,
        "has_b": False,
        "bytes": 1000,
    }
    return table.assign(**same, status="ok", reason="", md5=table["id"], damage="", seekable=True)


def params(**values: Any) -> Params:
    raw = parameters.read_raw(ROOT / "params.yaml")
    return parameters.validate(parameters.with_values(raw, values), "test")


def all_findings(table: pd.DataFrame, has_lists: bool = True, **values: Any) -> list[Finding]:
    """The findings that need no more than the index."""
    return [
        *index_findings(table, has_lists),
        *mirror_findings(sorted(set(table["class"])), params(**values)),
        *length_findings(table, params(**values)),
        *unusable_findings(table),
    ]


def test_a_healthy_data_set_has_no_findings() -> None:
    assert all_findings(healthy(), has_lists=True) == []
    assert all_findings(healthy(), has_lists=False) == []
    assert list(index_notes(healthy(), True)) == []


def fault(column: str, rows: slice | Callable[[pd.DataFrame], pd.Series], value: Any) -> Callable[[], pd.DataFrame]:
    """Return a function that makes a healthy index and then sets a column of some rows."""

    def make() -> pd.DataFrame:
        table = healthy()
        table.loc[table.index[rows] if isinstance(rows, slice) else rows(table), column] = value
        return table

    return make


def test_spans_of_copies_that_share_frames_are_copies() -> None:
    table = pd.DataFrame(
        [
            ("a.avi@0-2", "a", 0, 50, "train"),
            ("b.avi@1-3", "a", 25, 50, "test"),  # b.avi is a copy of a.avi
            ("a.avi@3-4", "a", 75, 25, "val"),
            ("c.avi", "c", 0, 50, "train"),
            ("c.avi@1-2", "c", 25, 25, "train"),
            ("d.avi", "d", 0, 90, "test"),
        ],
        columns=["id", "video_md5", "first", "frames", "split"],
    ).assign(video="x", video_frames=100, md5=list("123456"))
    assert is_copied_across_splits(table).tolist() == [True, True, False, False, False, False]
    backwards = table.iloc[::-1]
    assert is_copied_across_splits(backwards).tolist() == [False, False, False, False, True, True]


def of_class(name: str, split: str) -> Callable[[pd.DataFrame], pd.Series]:
    return lambda table: (table["class"] == name) & (table["split"] == split)


@pytest.mark.parametrize(
    ("make", "about", "found", "to_do"),
    [
        (
            fault("split", of_class("dip", "train"), "none"),
            "classes",
            "no clip to train on: dip (0 train, 5 val, 15 test)",
            "name clips of them in the train list",
        ),
        (
            fault("split", of_class("dip", "val"), "train"),
            "classes",
            "no clip to choose epochs on: dip (25 train, 0 val, 15 test)",
            "dataset.val_fraction",
        ),
        (
            fault("split", of_class("dip", "test"), "none"),
            "classes",
            "no clip to test on: dip (20 train, 5 val, 0 test)",
            "test list",
        ),
        (
            fault("split", slice(2, 24), "none"),
            "classes",
            "few clips in 1 of 4 classes: dip (2 train, 1 val, 15 test)",
            "fewer than 10 train or 5 test clips",
        ),
        (
            fault("split", lambda table: (table["split"] == "test") & table["path"].str.contains("c2|c3[012]"), "none"),
            "test clips",
            "28 in all, so an accuracy of 50 % is known to about ±19 points",
            "95 % intervals",
        ),
        (
            lambda: pd.concat([healthy(), *(healthy().query("label == 2") for _ in range(2))]),
            "balance",
            "train: 60 of 120 clips (50 %) are run, dip has 20; test: 45 of 90 clips (50 %) are run, dip has 15",
            "compare top-1 with 50 %, which always answering run reaches",
        ),
        (
            fault("md5", slice(19, 26, 6), "same"),
            "copies",
            "the same file in several splits: dip/v_dip_g03_c19.avi (train) = dip/v_dip_g05_c25.avi (test)",
            "remove the copies",
        ),
        (
            fault("md5", slice(39, 80, 40), "same"),
            "copies",
            "the same file in several classes: dip/v_dip_g07_c39.avi (test) = jump/v_jump_g07_c39.avi (test)",
            "the class that it shows",
        ),
        (
            fault("group", slice(30, 31), "g00"),
            "sources",
            "in test, and also in train or val: 1 of 13 sources: dip g00",
            "in the same list",
        ),
        (
            fault("fps", slice(0, 40), 15.0),
            "frame rates",
            "15 to 25 frames a second, most often 25 (120 of 160 clips): at a lower rate the same motion has longer "
            "vectors; this alone tells the class of 50 % of the clips",
            "re-encode the clips to one frame rate",
        ),
        (
            fault("has_b", slice(0, 160, 2), True),
            "motion vectors",
            "B-frames without vectors, as FFmpeg exports none for their codec: 80 of 160 clips",
            "index.transcode: mpeg4",
        ),
        (fault("gop", slice(3), 1), "motion vectors", "key frames only, so no vectors: 3 of", "index.transcode: mpeg4"),
        (
            fault("codec", slice(0, 160, 4), "h264"),
            "codecs",
            "mpeg4 (120 clips), h264 (40 clips): which vectors a frame has depends on the encoder",
            "index.transcode: mpeg4",
        ),
        (
            fault("h", slice(0, 160, 4), 568),
            "picture sizes",
            "width / height 0.56 to 1.33, most often 1.33 (120 of 160 clips): all are stretched to mv.canvas",
            "crop or pad",
        ),
        (
            fault(["w", "h"], slice(0, 160, 4), [1280, 960]),  # type: ignore[arg-type]
            "picture sizes",
            "320 to 1280 px wide, most often 320 (120 of 160 clips): vectors are of blocks of 8 or 16 px",
            "index.transcode: mpeg4",
        ),
        (fault("frames", slice(7, 8), 2), "length", "fewer frames than tsn.segments = 3: 1 clip: dip/", "lower"),
        (
            fault("frames", slice(0, 30), 7),
            "length",
            "19 % of the clips have fewer frames than the 8 segments of evaluate.protocol = 8x1; the shortest has 7",
            "lower the segments of evaluate.protocol",
        ),
        (
            fault("frames", slice(7, 8), 2501),
            "length",
            "longer than 60 s: 1 of 160 clips; the longest, dip/v_dip_g01_c07.avi, has 100 s",
            "cut them",
        ),
        (
            fault(["status", "reason"], slice(2), ["failed", "codec hevc exports no motion vectors"]),  # type: ignore[arg-type]
            "unusable clips",
            "2 of 160 clips: codec hevc exports no motion vectors: dip/v_dip_g00_c00.avi, dip/v_dip_g00_c01.avi",
            "set index.transcode: mpeg4",
        ),
        (fault("damage", slice(1), "cut"), "damaged clips", "used as far as they decode: 1 of 160 clips", "again"),
    ],
)
def test_a_fault_is_found_with_what_to_do(make: Callable[[], pd.DataFrame], about: str, found: str, to_do: str) -> None:
    findings = [finding for finding in all_findings(make().reset_index(drop=True)) if finding.about == about]
    assert len(findings) == 1
    assert findings[0].found.startswith(found) if ":" in found else found in findings[0].found
    assert to_do in findings[0].advice
    json.dumps(findings[0].figures)


@pytest.mark.parametrize(
    "make",
    [
        fault("fps", slice(0, 5), 15.0),  # fewer than 5 %
        fault("fps", slice(0, 160, 2), 24.0),
        fault("fps", slice(0, 160), 0.0),  # unknown
        fault("codec", slice(0, 7), "h264"),
        fault("h", slice(0, 160, 2), 180),
        fault("w", slice(0, 7), 1280),
        fault("frames", slice(0, 7), 7),
        fault("group", slice(30, 31), "g07"),
    ],
)
def test_small_differences_are_not_told(make: Callable[[], pd.DataFrame]) -> None:
    assert all_findings(make()) == []


def test_a_class_without_train_clips_is_not_said_to_lack_val_clips() -> None:
    table = healthy().query("label > 0 or split == 'test'")
    (finding,) = all_findings(table.reset_index(drop=True))
    assert finding.found == "no clip to train on: dip (0 train, 0 val, 15 test)"


def test_clips_whose_names_have_no_source_are_told_where_there_are_no_lists() -> None:
    table = healthy()
    table["path"] = table["id"] = table["path"].str.replace(r"_g\d\d", "", regex=True)
    table["group"] = table["path"].str.extract(r"/(.*)\.avi")[0]
    assert all_findings(table, has_lists=True) == []
    (finding,) = all_findings(table, has_lists=False)
    assert finding.found.startswith("160 clips, 160 sources: similar clips may lie on both sides of the split")
    assert "_g01_" in finding.advice
    assert "dataset.splits" in finding.advice


def test_index_prints_a_few_findings_and_names_the_command() -> None:
    table = healthy()
    table.loc[table["class"] == "dip", "split"] = "none"
    changed = table.index[::2]
    changes: dict[str, Any] = {"fps": 50.0, "codec": "h264", "w": 1280, "gop": 1}
    for column, value in changes.items():
        table.loc[changed, column] = value
    notes = list(index_notes(table, True))
    assert [note.partition(":")[0] for note in notes[:4]] == ["test clips", "motion vectors", "frame rates", "codecs"]
    assert notes[4:] == ["what to do about these and 1 more: moclip advise"]


def test_mirror_images_are_told_only_where_clips_are_mirrored() -> None:
    classes = ["TurnLeft", "TurnRight", "PushLeft", "nod"]
    assert mirror_findings(classes, params(**{"tsn.flip": False})) == []
    pair, single = mirror_findings(classes, params(**{"tsn.flip": True}))
    assert pair.found.startswith("TurnLeft and TurnRight show each other's motion when mirrored, and tsn.flip mirrors")
    assert pair.advice.startswith("set tsn.flip: ")
    assert single.found.startswith("PushLeft may be another class when mirrored")
    crops = mirror_findings(classes[:2], params(**{"tsn.flip": False, "evaluate.protocol": "4x10"}))
    assert [finding.advice for finding in crops] == ["set evaluate.protocol: 4x5"]


def test_the_most_similar_row_is_that_of_a_plain_product() -> None:
    rng = np.random.default_rng(0)
    one, other = (rng.normal(size=(n, 5)).astype(np.float32) for n in (23, 41))
    nearest, cosines = most_similar(one, other, block=8)
    assert nearest.tolist() == (one @ other.T).argmax(axis=1).tolist()
    np.testing.assert_allclose(cosines, (one @ other.T).max(axis=1), rtol=1e-5)


# -------------------------------------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose index is made: 12 clips of a moving camera, 12 of a fixed one."""
    folder = tmp_path_factory.mktemp("advice") / "project"
    for number in range(12):
        for name, step in (("pan", (3, 1)), ("still", (0, 0))):
            path = folder / f"videos/{name}/v_g{number:02d}_c01.avi"
            path.parent.mkdir(parents=True, exist_ok=True)
            encode(path, moving_texture(10, (96, 128), step, seed=number))
    run("moclip", "use", "folder", "--root", "videos", cwd=folder)
    printed = run("moclip", "index", cwd=folder).stdout
    assert "  classes: few clips in 2 of 2 classes: " in printed
    return folder


def advice(project: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """What `moclip advise` found, and the reasons for what it did not check."""
    told = json.loads(run("moclip", "advise", "--json", cwd=project).stdout)
    return {one["about"]: one for one in told["findings"]}, {one["about"]: one["reason"] for one in told["not_checked"]}


def test_what_needs_later_stages_says_which_to_run(indexed: Path) -> None:
    printed = run("moclip", "advise", "--quiet", cwd=indexed).stdout
    assert "\nnot checked: motion of the camera: not found; run: dvc repro (or: moclip extract_mv)\n" in printed
    assert printed.endswith("no feature store here; run: moclip clip_image\n")
    assert "classes: few clips in 2 of 2 classes: pan (" in printed
    assert "\n  add clips, or leave such classes out: " in printed


@pytest.mark.slow
def test_the_camera_is_told_once_the_motion_is_read(indexed: Path, tmp_path: Path) -> None:
    project = shutil.copytree(indexed, tmp_path / "project")
    run("moclip", "extract_mv", cwd=project)
    findings, not_checked = advice(project)
    assert findings["camera"]["figures"] == {"clips": 12, "of": 24}
    assert "pan/v_g00_c01.avi" in findings["camera"]["found"]
    assert list(not_checked) == ["test clips that look like train clips"]
    set_keys(project / "params.yaml", {"mv.clip": 10})
    findings, not_checked = advice(project)
    assert "camera" not in findings
    assert "it was made with mv.clip: 20" in not_checked["motion of the camera"]


@pytest.mark.slow
def test_test_clips_that_look_like_train_clips_are_told(indexed: Path, tmp_path: Path) -> None:
    project = shutil.copytree(indexed, tmp_path / "project")
    set_keys(project / "params.yaml", {"clip.model": "openai/some-clip", "clip.files": "data/none"})
    index = pd.read_parquet(project / "data/index.parquet")
    features = np.random.default_rng(0).normal(size=(len(index), 1, 64)).astype(np.float32)
    is_test = (index["split"] == "test").to_numpy()
    test, train = np.flatnonzero(is_test)[0], np.flatnonzero(~is_test)[-1]
    features[test] = 1.05 * features[train]

    def store(values: np.ndarray, model: str) -> None:
        arrays = {"features": (to_unit_length(values), ("still", "feature"))}
        write_features(
            project / "data/features/clip_image.zarr", list(index["id"]), arrays, {"made_with": {"clip.model": model}}
        )

    key = "test clips that look like train clips"
    store(features, "openai/some-clip")
    findings, not_checked = advice(project)
    assert findings["look-alikes"]["figures"]["pairs"] == [[index["id"][test], index["id"][train]]]
    assert key not in not_checked
    store(features + 10, "openai/some-clip")
    assert "to this CLIP all clips look alike" in advice(project)[1][key]
    store(features, "openai/another")
    assert "it was made with clip.model" in advice(project)[1][key]
    set_keys(project / "params.yaml", {"clip.model": "data/demo/clip"})
    store(features, "data/demo/clip")
    assert "the demo's CLIP does not tell scenes apart" in advice(project)[1][key]


# ------------------------------------------------------------------------------------------- the demo's tiny CLIP


def test_the_demo_clip_is_recognised_by_path_and_by_shape(finished: Path, tmp_path: Path) -> None:
    assert demo_clip_warning("data/demo/clip", [], "data/demo/videos") is None
    assert demo_clip_warning("openai/clip-vit-base-patch32", [], "clips") is None
    assert "set clip.model: openai/" in str(demo_clip_warning("data/demo/clip", [], "clips"))
    copied = shutil.copytree(finished / "data/demo/clip", tmp_path / "copied")
    assert demo_clip_warning(str(copied), [], "clips")
    others = demo_clip_warning("openai/clip-vit-base-patch32", ["a/b", str(copied)], "clips")
    assert "remove it from clip.models" in str(others)
    config = json.loads((copied / "config.json").read_text())
    config["text_config"]["hidden_size"] = 512
    (copied / "config.json").write_text(json.dumps(config))
    assert demo_clip_warning(str(copied), [], "clips") is None


def test_whoever_uses_the_demo_clip_on_other_clips_is_warned(project: Path) -> None:
    sentence = "clip.model is the demo's tiny CLIP, which only knows coloured balls"
    clip = str(next((project / "data/demo/videos").glob("*/*.avi")).relative_to(project))
    commands = (("advise",), ("metrics",), ("predict", clip))
    for command in commands:
        assert sentence not in run("moclip", *command, cwd=project).stdout
    assert sentence not in (project / "data/report/index.html").read_text()
    (project / "data/demo/videos").rename(project / "clips")
    set_keys(project / "params.yaml", {"dataset.root": "clips"})
    clip = clip.replace("data/demo/videos", "clips")
    for command in (*commands[:2], ("predict", clip)):
        assert sentence in run("moclip", *command, cwd=project).stdout
    json.loads(run("moclip", "predict", clip, "--json", cwd=project).stdout)
    run("moclip", "report", cwd=project)
    assert "which only knows coloured balls" in (project / "data/report/index.html").read_text()
    use = ("moclip", "use", "folder", "--force", "--root", "clips", "--clip", "data/demo/clip")
    assert sentence in run(*use, cwd=project).stdout
