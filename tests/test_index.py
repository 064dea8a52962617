"""What `index` makes of a folder: classes, splits, groups, and a row with a reason for whatever cannot be used."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from moclip import dataset
from moclip.errors import DatasetError
from tests.clips import encode, moving_texture
from tests.conftest import commit, run, set_keys


def add_clip(root: Path, name: str, codec: str = "mpeg4", frames: int = 8, seed: int = 0) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return encode(path, moving_texture(frames, (48, 64), seed=seed), codec)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of six clips, three groups, no split lists."""
    root = tmp_path_factory.mktemp("clips") / "videos"
    for number in range(6):
        for name in ("Run", "Jump"):
            add_clip(root, f"{name}/v_{name}_g{number // 2 + 1:02d}_c{number % 2 + 1:02d}.avi", seed=number)
    return root


def index_of(
    root: Path, splits: Path | None = None, seed: int = 0, val: float = 0.3, test: float = 0.3
) -> pd.DataFrame:
    lists = dataset.read_splits(splits, 1) if splits else None
    return dataset.index(root, dataset.scan(root), lists, val, test, seed)


def write_lists(folder: Path, train: list[str], test: list[str], classes: list[str] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    numbers = {name: number for number, name in enumerate(classes or [], 1)}
    lines = [(name, numbers.get(name.split("/")[0], 1)) for name in train]
    (folder / "trainlist01.txt").write_text("".join(f"{name} {number}\n" for name, number in lines))
    (folder / "testlist01.txt").write_text("".join(f"{name}\n" for name in test))
    if classes:
        (folder / "classInd.txt").write_text("".join(f"{n} {name}\n" for n, name in enumerate(classes, 1)))
    return folder


def test_a_folder_without_lists_is_split_by_group(clean: Path) -> None:
    table = index_of(clean)
    assert list(table.columns) == list(dataset.COLUMNS)
    assert dict(table.groupby("split").size()) == {"test": 4, "train": 4, "val": 4}
    parts = {part: set(rows["group"]) for part, rows in table.groupby("split")}
    assert all(len(groups) == 1 for groups in parts.values()), "each of the three groups is whole"
    assert dataset.class_names(table) == ["Jump", "Run"]


def test_the_split_depends_on_the_seed_alone(clean: Path) -> None:
    assert index_of(clean).equals(index_of(clean))
    splits = {tuple(index_of(clean, seed=seed)["split"]) for seed in range(8)}
    assert len(splits) > 1


def test_official_lists_give_the_split_and_the_labels(clean: Path, tmp_path: Path) -> None:
    every = [f"{n}/v_{n}_g{g:02d}_c{c:02d}" for n in ("Run", "Jump") for g in (1, 2, 3) for c in (1, 2)]
    train = [f"{name}.mp4" for name in every if "_g01" not in name]  # another suffix than the files have
    test = [f"{name}.avi" for name in every if "_g01" in name and "_c02" not in name]
    table = index_of(clean, write_lists(tmp_path / "s", train, test, ["Run", "Jump"]))
    assert dataset.class_names(table) == ["Run", "Jump"], "in the order of classInd.txt"
    assert set(table[table["group"] == "g01"]["split"]) == {"test", "none"}
    assert (table["split"] == "none").sum() == 2
    assert (table["split"] == "test").sum() == 2
    assert table["frames"].eq(8).all()


def test_a_listed_clip_that_is_absent_has_a_row(clean: Path, tmp_path: Path) -> None:
    train = [f"Run/v_Run_g0{g}_c01.avi" for g in (2, 3)] + [f"Jump/v_Jump_g0{g}_c01.avi" for g in (2, 3)]
    lists = write_lists(tmp_path / "s", [*train, "Run/v_Run_g09_c01.avi"], ["Run/v_Run_g01_c01.avi"])
    table = index_of(clean, lists).set_index("id")
    row = table.loc["Run/v_Run_g09_c01.avi"]
    assert row["status"] == "missing"
    assert "train list" in row["reason"]


@pytest.mark.parametrize(
    ("train", "test", "told"),
    [
        (["Run/a.avi"], ["Run/a.avi"], "in both lists"),
        (["a.avi"], ["Run/b.avi"], "<Class>/<file>"),
    ],
)
def test_wrong_lists_are_refused(tmp_path: Path, train: list[str], test: list[str], told: str) -> None:
    with pytest.raises(DatasetError, match=told):
        dataset.read_splits(write_lists(tmp_path / "s", train, test), 1)


def test_held_out_groups_never_empty_a_class() -> None:
    groups = pd.Series(["g1"] * 5 + ["g2"] * 5 + ["only"] * 2)
    labels = pd.Series([0] * 10 + [1] * 2)
    for seed, fraction in itertools.product(range(10), (0.4, 0.8)):
        held = dataset.hold_out(groups, labels, fraction, seed)
        assert not held[groups == "only"].any()
        assert 0 < held[:10].sum() < 10


def test_shots_are_nested_and_drawn_by_the_seed() -> None:
    rows = pd.DataFrame({"id": [*(f"c{n}" for n in range(60)), "only"], "label": [*(n % 3 for n in range(60)), 3]})
    drawn = {shots: set(dataset.few_shot(rows, shots, 0)["id"]) for shots in (1, 2, 4, 8, 16)}
    assert [len(drawn[shots]) for shots in (1, 2, 4, 8, 16)] == [3 * shots + 1 for shots in (1, 2, 4, 8, 16)]
    assert drawn[1] < drawn[2] < drawn[4] < drawn[8] < drawn[16]
    assert drawn[4] != set(dataset.few_shot(rows, 4, 1)["id"])
    shuffled = rows.sample(frac=1, random_state=0)
    assert set(dataset.few_shot(shuffled, 4, 0)["id"]) == drawn[4]
    assert dataset.few_shot(rows, False, 0).equals(rows)


def test_counts_per_class_come_near_the_wanted_share() -> None:
    rng = np.random.default_rng(0)
    groups = pd.Series([f"g{n:02d}" for n in rng.integers(25, size=2000)])
    labels = pd.Series(rng.integers(10, size=2000))
    held = dataset.hold_out(groups, labels, 0.2, 0)
    share = held.groupby(labels).mean()
    assert 0.17 < held.mean() < 0.23
    assert share.between(0.1, 0.35).all()
    assert not set(groups[held]) & set(groups[~held])


@pytest.fixture(scope="module")
def broken(clean: Path, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project on a folder with good clips and one of each kind of bad one, run up to the vectors."""
    folder = tmp_path_factory.mktemp("broken")
    videos = folder / "videos"
    shutil.copytree(clean, videos)
    (videos / "Run/v_Run_g02_c07.mp4").write_text("this is no video\n")
    (videos / "Run/v_Run_g02_c08.mp4").write_bytes(b"")
    add_clip(videos, "Jump/v_Jump_g01_c07.mp4", "libx265")
    add_clip(videos, "Jump/v_Jump_g01_c08.avi", frames=1)
    whole = add_clip(videos, "Run/v_Run_g01_c09.mp4", "libx264")
    whole.write_bytes(whole.read_bytes()[:300])
    (videos / "Run/notes.txt").write_text("x")
    project = shutil.copytree(finished, folder / "project", symlinks=True)
    run("moclip", "use", "folder", "--root", videos, cwd=project)
    set_keys(project / "params.yaml", {"mv.shard": 64, "dataset.val_fraction": 0.4})
    commit(project)
    done = run("dvc", "repro", "extract_mv", cwd=project)
    (folder / "output.txt").write_text(done.stdout + done.stderr)
    return folder


@pytest.mark.slow
def test_a_broken_clip_gets_its_row_and_the_run_goes_on(broken: Path) -> None:
    table = pd.read_parquet(broken / "project/data/index.parquet").set_index("id")
    assert len(table) == 17
    bad = table[table["status"] != "ok"]["reason"]
    assert sorted(bad.index) == [
        "Jump/v_Jump_g01_c07.mp4",
        "Jump/v_Jump_g01_c08.avi",
        "Run/v_Run_g01_c09.mp4",
        "Run/v_Run_g02_c07.mp4",
        "Run/v_Run_g02_c08.mp4",
    ]
    assert "hevc" in bad["Jump/v_Jump_g01_c07.mp4"].lower()
    assert "1 frame" in bad["Jump/v_Jump_g01_c08.avi"]
    assert bad.str.len().gt(0).all()
    assert not bad.str.contains("Traceback|\n").any()


@pytest.mark.slow
def test_counts_show_what_was_left_out(broken: Path) -> None:
    counts = json.loads((broken / "project/metrics/counts/index.json").read_text())
    assert counts["clips"] == 17
    assert counts["usable"] == 12
    assert sum(counts["not_usable"].values()) == 5
    assert counts["ignored_files"] == 1
    extracted = json.loads((broken / "project/metrics/counts/extract_mv.json").read_text())
    assert extracted["indexed"] == 17
    assert extracted["extracted"] + sum(extracted["not_usable"].values()) == 17
    output = (broken / "output.txt").read_text()
    assert "not usable: Jump/v_Jump_g01_c08.avi: " in output


def failing(tmp_path: Path, root: Path, *more: str) -> str:
    """The message of `moclip index` on a folder that cannot be used."""
    videos = tmp_path / "given"
    videos.mkdir(exist_ok=True)
    run("moclip", "use", "folder", "--root", videos, cwd=tmp_path)
    set_keys(tmp_path / "params.yaml", {"dataset.root": str(root), "dataset.splits": str(root)})
    done = run("moclip", "index", *more, cwd=tmp_path, code=1)
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data/index.parquet").exists()
    return done.stderr


def test_a_root_that_is_not_there(tmp_path: Path) -> None:
    assert "nowhere: no such folder" in failing(tmp_path, tmp_path / "nowhere")


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no clips found" in failing(tmp_path, tmp_path / "empty")


def test_a_folder_with_one_class(clean: Path, tmp_path: Path) -> None:
    shutil.copytree(clean / "Run", tmp_path / "one/Run")
    assert "only one class (Run)" in failing(tmp_path, tmp_path / "one")


def test_a_folder_of_one_source_cannot_be_split_by_group(tmp_path: Path) -> None:
    for name in ("Run", "Jump"):
        for number in (1, 2):
            add_clip(tmp_path / "v", f"{name}/v_{name}_g01_c0{number}.avi")
    assert "no usable clip to test on" in failing(tmp_path, tmp_path / "v")


def test_the_split_that_is_asked_for_must_be_there(clean: Path, tmp_path: Path) -> None:
    lists = write_lists(tmp_path / "s", ["Run/v_Run_g02_c01.avi"], ["Run/v_Run_g01_c01.avi"])
    message = failing(tmp_path, clean, "--dataset-splits", str(lists), "--dataset-split", "2")
    assert "no trainlist02.txt; there is trainlist01.txt" in message


def test_real_clips_are_all_indexed(real_data: Path) -> None:
    folder = real_data / "fight_surv"
    table = index_of(folder / "videos", folder / "splits", val=0.2)
    assert len(table) == 150
    assert (table["status"] == "ok").all()
    assert (table["split"] == "test").sum() == 46
    assert table["has_b"].sum() == 130
    parts = {part: set(rows["group"]) for part, rows in table.groupby("split")}
    assert not parts["val"] & parts["train"]
