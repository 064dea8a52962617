"""Folders of clips as users have them: nested, split into train and test, with links, in one folder too many."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from moclip.data.class_shortages import MOST_CLASSES, class_shortages
from moclip.data.clip_folder import ClipFolder, scan_folder
from moclip.data.groups import group_of, hold_out, sources_needed
from moclip.data.index import describe_sources
from moclip.data.list_matching import match_lists
from moclip.data.list_notes import folder_problems, layout_notes
from moclip.data.split_lists import read_splits
from moclip.data.unknown_classes import check_background
from moclip.errors import DatasetError, VideoError
from moclip.files.walk import walk_files
from moclip.video.clip_files import file_md5
from moclip.video.probe import probe
from pipeline.clip_source import check_folder
from tests.clips import encode, moving_texture
from tests.conftest import BIN, run, set_keys


def touched(root: Path, *names: str) -> Path:
    """A folder with an empty file of each name."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def clips_in(root: Path, *names: str) -> Path:
    """A folder with a clip of each name, all of different contents."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        encode(root / name, moving_texture(4, (48, 64), seed=number))
    return root


def places(folder: ClipFolder) -> dict[str, tuple[str, str]]:
    """The class and the source of each clip."""
    return {clip: (folder.class_of(clip), folder.source_of(clip, group_of)) for clip in folder.clips}


def refusal(root: Path, follow_links: bool = False) -> str:
    with pytest.raises(DatasetError) as caught:
        scan_folder(root, follow_links)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------------ layouts


def test_the_folder_within_a_class_folder_is_the_source(tmp_path: Path) -> None:
    names = ("Run/anna/1.avi", "Run/anna/day 2/2.MP4", "Run/bob/v_Run_g07_c01.avi", "Run/flat.avi", "Jump/anna/1.avi")
    folder = scan_folder(touched(tmp_path, *names))
    assert places(folder) == {
        "Jump/anna/1.avi": ("Jump", "anna"),
        "Run/anna/1.avi": ("Run", "anna"),
        "Run/anna/day 2/2.MP4": ("Run", "anna"),
        "Run/bob/v_Run_g07_c01.avi": ("Run", "g07"),
        "Run/flat.avi": ("Run", "flat"),
    }
    assert layout_notes(folder) == [
        "4 clips lie in a folder within a class folder, such as Jump/anna/1.avi: its class is Jump, its source anna, "
        "unless gNN names one"
    ]
    assert folder_problems(folder) == []


@pytest.mark.parametrize(
    "names",
    [
        ("Run/Run/a.avi", "Run/Run/b.avi", "Jump/Jump/c.avi"),
        ("Run/clips/a.avi", "Run/clips/b.avi", "Jump/clips/c.avi"),
        ("Run/Run/a.avi", "Run/b.avi", "Jump/c.avi"),
        ("Run/Run/Run/a.avi", "Run/Run/Run/b.avi", "Jump/Jump/Jump/c.avi"),
        ("Run/videos/Run/a.avi", "Run/videos/Run/b.avi", "Jump/videos/Jump/c.avi"),
    ],
)
def test_a_folder_that_tells_nothing_is_no_source(tmp_path: Path, names: tuple[str, ...]) -> None:
    folder = scan_folder(touched(tmp_path, *names))
    assert folder.classes == ["Jump", "Run"]
    assert {source for _, source in places(folder).values()} == {"a", "b", "c"}
    assert not any("source" in note for note in layout_notes(folder))


@pytest.mark.parametrize(
    ("folders", "splits", "note"),
    [
        (("train", "val", "test"), ("train", "val", "test"), "the splits are those of the folders test, train, val"),
        (("Train", "Testing"), ("train", "test"), "Testing, Train: clips of train are held out as val"),
        (
            ("training", "validation"),
            ("train", "test"),
            "training, validation: val is the test split, because there is",
        ),
    ],
)
def test_folders_of_splits_give_the_splits(
    tmp_path: Path, folders: tuple[str, ...], splits: tuple[str, ...], note: str
) -> None:
    names = [f"{folder}/{name}/a.avi" for folder in folders for name in ("Run", "Jump")]
    folder = scan_folder(touched(tmp_path, *names, f"{folders[0]}/Run/anna/b.avi", "other/x.avi", "notes/n.txt"))
    assert folder.classes == ["Jump", "Run"]
    assert {clip: folder.split_of(clip) for clip in folder.clips} == {
        f"{name}/{rest}": split
        for name, split in zip(folders, splits, strict=True)
        for rest in ("Run/a.avi", "Jump/a.avi", *(["Run/anna/b.avi"] if name == folders[0] else []))
    }
    assert folder.source_of(f"{folders[0]}/Run/anna/b.avi", group_of) == "anna"
    assert layout_notes(folder)[0].startswith("the splits are those of the folders ")
    assert note in layout_notes(folder)[0]
    assert folder.misplaced == ["other/x.avi"]


@pytest.mark.parametrize(
    "names",
    [
        ("train/a.avi", "train/b.avi", "bus/c.avi"),
        ("train/x/a.avi", "bus/y/b.avi"),
        ("train/a.avi", "test/b.avi"),
        ("train/a.avi", "test/Run/b.avi", "Run/c.avi"),
        ("val/Run/a.avi", "test/Run/b.avi"),
        ("trainer/Run/a.avi", "tester/Run/b.avi"),
        ("Run/train/a.avi", "Run/test/b.avi", "Jump/c.avi"),
        ("Run/val/a.avi", "Jump/test/b.avi"),
    ],
)
def test_other_folders_of_these_names_are_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    folder = scan_folder(touched(tmp_path, *names))
    assert folder.splits == {}
    assert folder.classes == sorted({name.split("/")[0] for name in names})


@pytest.mark.parametrize("common", ["videos", "day 1/videos"])
def test_the_source_lies_below_folders_that_all_clips_share(tmp_path: Path, common: str) -> None:
    names = [f"{name}/{common}/{who}/{name}.avi" for name in ("Run", "Jump") for who in ("anna", "bob")]
    folder = scan_folder(touched(tmp_path, *names))
    assert places(folder) == {name: (name.split("/")[0], name.split("/")[-2]) for name in names}
    assert "its class is Jump, its source anna, unless" in layout_notes(folder)[0]


@pytest.mark.parametrize("train", ["train_set", "Train-Data", "training_videos", "trainset", "train split"])
@pytest.mark.parametrize("test", ["test_set", "testclips", "TESTING-VIDEO"])
def test_names_of_splits_may_say_what_they_hold(tmp_path: Path, train: str, test: str) -> None:
    folder = scan_folder(touched(tmp_path, f"{train}/Run/a.avi", f"{train}/Jump/b.avi", f"{test}/Run/c.avi"))
    assert folder.splits == {train: "train", test: "test"}
    assert folder.classes == ["Jump", "Run"]


def test_folders_of_splits_within_class_folders(tmp_path: Path) -> None:
    names = [f"{name}/{part}/{part}.avi" for name in ("Run", "Jump") for part in ("train", "val_set")]
    root = touched(tmp_path, *names, "Run/train/anna/a.avi", "Run/train/bob/b.avi", "loose.avi")
    folder = scan_folder(root)
    assert folder.classes == ["Jump", "Run"]
    assert {folder.split_of(clip) for clip in folder.clips if "/val_set/" in clip} == {"test"}
    assert places(folder)["Run/train/anna/a.avi"] == ("Run", "anna")
    assert places(folder)["Run/train/train.avi"] == ("Run", "train")
    assert folder_problems(folder) == [
        "1 clip does not lie in <class>/train|val_set/<clip>, such as loose.avi: not read; "
        "move each into its class and split"
    ]
    touched(root, "Run/c.avi", "Sit/d.avi")
    assert (
        "train and val_set look like folders of splits, but 2 clips lie beside them, such as Run/c.avi\n"
        "  move each into the folder of its split, or out of this folder"
    ) in refusal(root)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("train/Run/a.avi", "train/Jump/b.avi", "test/1.avi", "test/2.avi"), "test holds 2 clips of its own, which"),
        (("train/Run/a.avi", "train/x.avi", "test/Run/b.avi"), "train holds 1 clip of its own, which has no class"),
        (("train/Run/a.avi", "test/b.avi", "val_set/c.avi"), "test holds 1 clip of its own and val_set holds 1 clip"),
        (
            ("train/a.avi", "test/Run/b.avi"),
            "train holds 1 clip of its own, which has no class\n  move them into class",
        ),
    ],
)
def test_clips_beside_class_folders_in_folders_of_splits(tmp_path: Path, names: tuple[str, ...], told: str) -> None:
    message = refusal(touched(tmp_path, *names, "notes/n.txt", "loose.avi"))
    assert " look like folders of splits, but " in message
    assert told in message
    assert "out of this folder; if these folders are classes, rename them" in message


@pytest.mark.parametrize("scheme", ["", "file://"])
@pytest.mark.parametrize(
    ("names", "inner"),
    [
        (["UCF-101/Run/a.avi", "UCF-101/Jump/b.avi"], "UCF-101"),
        (["sets/UCF-101/Run/a.avi", "sets/UCF-101/Jump/b.avi", "lists/notes.txt"], "sets/UCF-101"),
        (["UCF-101/UCF-101/Run/a.avi", "UCF-101/UCF-101/Jump/b.avi", "__MACOSX/x/a.avi"], "UCF-101/UCF-101"),
        (["k/train/Run/a.avi", "k/train/Jump/a.avi", "k/test/Run/b.avi"], "k"),
        (["train/Run/a.avi", "train/Jump/a.avi"], "train"),
    ],
)
def test_a_root_above_the_folder_of_the_classes(tmp_path: Path, scheme: str, names: list[str], inner: str) -> None:
    root = f"{scheme}{touched(tmp_path / 'v', *names)}"
    message = refusal(root)  # type: ignore[arg-type]
    assert f"{root}: its only folder with clips is {inner}, which holds the folders " in message
    assert f"did you mean {root}/{inner}? set dataset.root to it" in message
    assert len(scan_folder(f"{root}/{inner}").classes) == 2


@pytest.mark.parametrize(("classes", "named"), [("ABC", "A, B, C"), ("ABCD", "A, B, C, ...")])
def test_three_of_the_folders_below_a_root_above_are_named(tmp_path: Path, classes: str, named: str) -> None:
    message = refusal(touched(tmp_path, *(f"all/{name}/a.avi" for name in classes)))
    assert f"which holds the folders {named}\n" in message


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_clips_without_a_class_folder(tmp_path: Path, scheme: str) -> None:
    root = touched(tmp_path / "v", "a.avi", "b.avi")
    message = refusal(f"{scheme}{root}")  # type: ignore[arg-type]
    assert f"{root}: no clips found; 2 clips do not lie in <class>/<clip>, such as a.avi" in message
    assert (
        "put each into a folder named after its class; if this folder is a class, name the folder above it" in message
    )
    folder = scan_folder(touched(root, "Run/c.avi", "Jump/d.avi"))
    assert folder_problems(folder) == [
        "2 clips do not lie in <class>/<clip>, such as a.avi: not read; move each into its class's folder"
    ]


def test_folders_without_clips_and_classes_of_one_name_are_told(tmp_path: Path) -> None:
    root = touched(tmp_path, "Run/a.avi", "run /b.avi", "Cafe\u0301/c.avi", "Caf\u00e9/d.avi", "lists/n.txt")
    (root / "Sit").mkdir()
    (root / "Run/clip.mp4").mkdir()
    problems = folder_problems(scan_folder(root))
    assert problems[0] == "2 folders hold no clips, such as Sit: no class is made of it"
    assert [note.partition(" have ")[0] for note in problems[1:]] == [
        "the classes Cafe\u0301 and Caf\u00e9",
        "the classes Run and run ",
    ]


@pytest.mark.parametrize(
    ("alike", "more"), [("bo", ""), ("bob ", " (and 1 more such group)"), ("bob /cy ", " (and 2 more such groups)")]
)
def test_sources_of_one_name_are_asked_about_in_a_line(tmp_path: Path, alike: str, more: str) -> None:
    names = ["Run/Anna/a.avi", "Jump/anna/b.avi", "Run/bob/c.avi", "Run/cy/e.avi"]
    names += [f"Jump/{name}/{number}.avi" for number, name in enumerate(alike.split("/"))]
    assert folder_problems(scan_folder(touched(tmp_path, *names))) == [
        f"the sources Anna and anna have the same name but for case, accents or spaces{more}: merge them?"
    ]


@pytest.mark.parametrize("other", ["val", "test"])
@pytest.mark.parametrize("within", [False, True])
def test_a_source_in_more_than_one_split_is_told(tmp_path: Path, other: str, within: bool) -> None:
    names = [("train", "Run", "anna"), ("train", "Jump", "bob"), ("test", "Run", "eve"), ("test", "Jump", "fay")]
    names += [(other, "Jump", "anna"), (other, "Jump", "v_g01"), ("train", "Run", "v_g01")]
    places = [f"{name}/{part}/{who}" if within else f"{part}/{name}/{who}" for part, name, who in names]
    root = touched(tmp_path, *(f"{place}/{'v_g01_c01' if 'v_' in place else k}.avi" for k, place in enumerate(places)))
    told = [note for note in layout_notes(scan_folder(root)) if "more than one split" in note]
    assert told == [
        "1 of 4 sources is in more than one split (anna): their clips are alike, so the scores are too good; "
        "move each source into one split"
    ]


@pytest.mark.parametrize(
    ("names", "source"),
    [
        (("Run/a.avi", "Jump/b.avi"), "the gNN in a name, or else the clip itself"),
        (("Run/anna/a.avi", "Jump/bob/b.avi"), "the folder within a class folder, such as anna"),
        (("Run/anna/a.avi", "Jump/v_g01_c01.avi"), "the folder within a class folder, such as anna, the gNN in a name"),
        (("Run/anna/a.avi", "Jump/b.avi"), "the folder within a class folder, such as anna, or else the clip itself"),
    ],
)
def test_what_a_source_is_follows_the_folder(tmp_path: Path, names: tuple[str, ...], source: str) -> None:
    folder = scan_folder(touched(tmp_path, *names))
    lines = class_shortages(index_like(A="r", B="r"), {"test": 0.3}, describe_sources(folder, None, False))
    assert lines[-1] == f"add clips of other sources, or remove the classes; a source is {source}"


def test_no_clips_at_all(tmp_path: Path) -> None:
    assert "among 1 files\n" in refusal(touched(tmp_path, "Run/notes.txt", ".DS_Store"))


@pytest.mark.slow
def test_index_takes_nested_folders_and_those_of_splits(tmp_path: Path) -> None:
    nested = clips_in(tmp_path / "n", *(f"{c}/{who}/{k}.avi" for c in "AB" for who in "pqrs" for k in (1, 2)))
    run("moclip", "use", "folder", "--root", nested, cwd=tmp_path)
    printed = run("moclip", "index", cwd=tmp_path).stdout
    assert "16 clips lie in a folder within a class folder, such as A/p/1.avi: its class is A, its source p" in printed
    table = pd.read_parquet(tmp_path / "data/index.parquet")
    assert (table.groupby("group")["split"].nunique() == 1).all()
    assert set(table["group"]) == set("pqrs")
    assert (table["class"] == table["id"].str[0]).all()

    split = clips_in(
        tmp_path / "s", *(f"{part}/{c}/{k}.avi" for part in ("train", "test") for c in "AB" for k in "123")
    )
    run("moclip", "use", "folder", "--root", split, "--force", cwd=tmp_path)
    printed = run("moclip", "index", cwd=tmp_path).stdout
    assert "the splits are those of the folders test, train: clips of train are held out as val" in printed
    table = pd.read_parquet(tmp_path / "data/index.parquet")
    of_test = table["id"].str.startswith("test/")
    assert (table["split"][of_test] == "test").all()
    assert set(table["split"][~of_test]) == {"train", "val"}
    assert (table["class"] == table["id"].str.split("/").str[1]).all()
    counts = json.loads((tmp_path / "metrics/counts/index.json").read_text())
    assert counts["split_source"] == "the folders test, train"

    lists = tmp_path / "lists"
    lists.mkdir()
    for part in ("train", "test"):
        (lists / f"{part}list01.txt").write_text(f"{part}/A/1.avi\n")
    set_keys(tmp_path / "params.yaml", {"dataset.splits": str(lists)})
    refused = run("moclip", "index", cwd=tmp_path, code=1).stderr
    assert f"dataset.splits = {lists} has split lists, and dataset.root has folders of splits: test, train" in refused


@pytest.mark.parametrize(
    "lines", [["UCF-101/A/1.avi", "UCF-101/B/1.avi"], ["A/1.avi,1", "B/1.avi,2"], ["A/x.avi", "B/x.avi"]]
)
def test_lists_of_other_clips_are_refused_with_a_name_of_each(tmp_path: Path, lines: list[str]) -> None:
    folder = scan_folder(touched(tmp_path / "v", "A/1.avi", "B/1.avi"))
    for part, line in zip(("train", "test"), lines, strict=True):
        (tmp_path / f"{part}list01.txt").write_text(f"{line}\n")
    splits = read_splits(tmp_path, 1)
    assert splits is not None
    with pytest.raises(DatasetError) as refused:
        match_lists(folder, splits)
    assert f"none of the 2 listed clips is there: the lists name {lines[0]}, and the folder holds A/1.avi" in str(
        refused.value
    )


def test_lists_of_nested_folders(tmp_path: Path) -> None:
    folder = scan_folder(touched(tmp_path / "v", "A/p/1.avi", "B/p/1.avi", "A/q/1.avi", "B/q/1.avi"))
    (tmp_path / "trainlist01.txt").write_bytes("\ufeffA\\p\\1.avi \r\n\r\nB/p/1\r\n".encode())
    (tmp_path / "testlist01.txt").write_text("A/q/1.avi\nB/q/1.avi\n")
    splits = read_splits(tmp_path, 1)
    assert splits is not None
    matched = match_lists(folder, splits)
    assert matched.parts == {"A/p/1.avi": "train", "B/p/1.avi": "train", "A/q/1.avi": "test", "B/q/1.avi": "test"}
    assert matched.classes == ["A", "B"]


# -------------------------------------------------------------------------------------------------------------- links


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A folder with links of all kinds, beside a folder that some of them lead to."""
    root, outside = touched(tmp_path / "v", "Run/a.avi", "Jump/b.avi", ".store/Sit/c.avi"), tmp_path / "outside"
    touched(outside, "Swim/d.avi", "e.avi")
    links: dict[str, str | Path] = {
        "Run/again.avi": "a.avi",
        "Sit": ".store/Sit",
        "Jog": "Run",
        "Run/up": root,
        "Swim": outside / "Swim",
        "Run/out.avi": outside / "e.avi",
        "Run/gone.avi": "nowhere",
        "Run/round.avi": "round.avi",
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    (outside / "Swim/back").symlink_to(root)
    return root


INSIDE = ["Jump/b.avi", "Run/a.avi", "Run/again.avi", "Sit/c.avi"]


def test_links_within_the_root_are_followed_and_no_folder_is_listed_twice(linked: Path) -> None:
    folder = scan_folder(linked)
    assert folder.clips == INSIDE
    assert folder.links_out == ["Run/out.avi", "Swim"]
    assert folder.broken_links == ["Run/gone.avi", "Run/round.avi"]
    assert folder.repeated_links == ["Jog", "Run/up"]
    assert folder_problems(folder) == [
        "2 links lead out of it, such as Run/out.avi: not read; to read them, set dataset.follow_links: true",
        "2 links lead to nothing, such as Run/gone.avi: not read; remove them, because `dvc repro` stops at them",
    ]
    assert layout_notes(folder) == ["2 links lead to folders that are read already, such as Jog: not read again"]


def test_links_out_of_the_root_are_followed_if_you_say_so(linked: Path) -> None:
    folder = scan_folder(linked, follow_links=True)
    assert folder.clips == sorted([*INSIDE, "Run/out.avi", "Swim/d.avi"])
    assert folder.links_out == []
    assert folder.repeated_links == ["Jog", "Run/up", "Swim/back"]


def test_a_root_on_a_path_with_links(linked: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/link").symlink_to(linked)
    assert scan_folder(tmp_path / "elsewhere/link").clips == INSIDE


def test_a_folder_of_nothing_but_links(tmp_path: Path) -> None:
    touched(tmp_path / "out", "a.avi")
    for name in ("Run", "Jump"):
        (tmp_path / "v" / name).mkdir(parents=True)
        (tmp_path / "v" / name / "a.avi").symlink_to(tmp_path / "out/a.avi")
    message = refusal(tmp_path / "v")
    assert "no clips found; 2 links lead out of it, such as Jump/a.avi" in message
    assert "set dataset.follow_links: true" in message
    (tmp_path / "out/a.avi").unlink()
    assert "no clips found; 2 links lead to nothing, such as Jump/a.avi" in refusal(tmp_path / "v")


def test_links_in_a_circle_through_the_outside_end(tmp_path: Path) -> None:
    touched(tmp_path, "v/Run/a.avi", "w/b.avi")
    (tmp_path / "v/Run/w").symlink_to(tmp_path / "w")
    (tmp_path / "w/self").symlink_to(tmp_path / "w")
    (tmp_path / "w/v").symlink_to(tmp_path / "v")
    (tmp_path / "w/all").symlink_to(tmp_path)
    found = walk_files(tmp_path / "v", follow_links=True)
    assert found.files == ["Run/a.avi", "Run/w/b.avi"]


@pytest.mark.slow
def test_index_and_transcode_follow_links_alike(tmp_path: Path) -> None:
    root = clips_in(tmp_path / "v", *(f"{c}/{k}.avi" for c in "AB" for k in "1234"))
    outside = clips_in(tmp_path / "w", "5.avi", "6.avi")
    (root / "A/5.avi").symlink_to(outside / "5.avi")
    (root / "B/more").symlink_to(outside)
    run("moclip", "use", "folder", "--root", root, cwd=tmp_path)
    set_keys(tmp_path / "params.yaml", {"index.transcode": "mpeg4"})
    told = "2 links lead out of it, such as A/5.avi: not read; to read them, set dataset.follow_links: true"
    for follow, more in ((False, set()), (True, {"A/5.avi", "B/more/5.avi", "B/more/6.avi"})):
        set_keys(tmp_path / "params.yaml", {"dataset.follow_links": follow})
        run("moclip", "transcode", cwd=tmp_path)
        printed = run("moclip", "index", cwd=tmp_path).stdout
        assert (told in printed) is not follow
        table = pd.read_parquet(tmp_path / "data/index.parquet")
        assert set(table["id"]) == {f"{c}/{k}.avi" for c in "AB" for k in "1234"} | more
        assert (table["status"] == "ok").all()
        files = {path.relative_to(tmp_path / "data/transcoded").as_posix() for path in tmp_path.rglob("*.avi.avi")}
        assert files == {f"{name}.avi" for name in table["id"]}
        counts = json.loads((tmp_path / "metrics/counts/index.json").read_text())
        assert counts["links_out"] == (0 if follow else 2)


def test_a_project_is_not_made_of_a_folder_that_dvc_cannot_read(linked: Path, tmp_path: Path) -> None:
    printed = run("moclip", "new", "p", "--clips", linked, cwd=tmp_path, code=1).stderr
    assert f"{linked}: 2 links lead to nothing, such as Run/gone.avi\n  remove them: DVC cannot read" in printed
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: os.mkfifo(path / "b.mp4"), "Run/b.mp4 is no regular file: DVC cannot read"),
        (lambda path: os.mkfifo(path / ".hidden"), "Run/.hidden is no regular file: DVC"),
        (
            lambda path: [touched(path, f"{k}\udce9.mp4") for k in "ab"],
            "Run/a\\xe9.mp4 has a name that is not UTF-8, and 1",
        ),
        (lambda path: (path / ".gone").symlink_to("/nowhere"), "Run/.gone is a link to nothing: DVC"),
    ],
)
def test_what_dvc_cannot_read_is_refused(tmp_path: Path, make: Callable[[Path], object], told: str) -> None:
    root = touched(tmp_path, "Run/a.avi", "Jump/a.avi")
    check_folder(str(root), scan_folder(root))
    make(root / "Run")
    with pytest.raises(DatasetError) as caught:
        check_folder(str(root), scan_folder(root))
    assert f"{root}: {told}" in str(caught.value)


UNPRIVILEGED = ("setpriv", *(f"--{sets}=-dac_override,-dac_read_search" for sets in ("bounding-set", "inh-caps")))


@pytest.mark.slow
def test_files_that_you_may_not_read_are_refused(tmp_path: Path) -> None:
    root = touched(tmp_path / "v", "Run/a.avi", "Run/b.avi", "Jump/a.avi", "Jump/notes.txt")
    for name in ("Run/a.avi", "Jump/notes.txt"):
        (root / name).chmod(0)
    if os.access(root / "Run/a.avi", os.R_OK):
        if not shutil.which("setpriv") or subprocess.run([*UNPRIVILEGED, "true"]).returncode:
            pytest.skip("root reads every file, and setpriv cannot take that away here")
        before: tuple[str, ...] = UNPRIVILEGED
    else:
        before = ()
    printed = run(*before, BIN / "moclip", "new", "p", "--clips", root, cwd=tmp_path, code=1).stderr
    assert f"{root}: Jump/notes.txt cannot be read, and 1 more like it: DVC cannot read a folder" in printed
    assert not (tmp_path / "p").exists()


def test_nothing_waits_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    for read in (probe, file_md5):
        with pytest.raises(VideoError, match=r"a\.mp4: no regular file"):
            read(tmp_path / "a.mp4")


# ---------------------------------------------------------------------------------------------------------- shortages


def index_like(**splits: str) -> pd.DataFrame:
    """An index; `splits` are the first letters of the splits of each class's clips, x for one that is not usable."""
    names = {"r": "train", "v": "val", "t": "test", "n": "none", "x": "train"}
    rows = [
        {"class": name, "label": label, "group": f"{number}", "split": names[letter], "status": letter}
        for label, (name, letters) in enumerate(splits.items())
        for number, letter in enumerate(letters)
    ]
    return pd.DataFrame(rows).assign(status=lambda table: table["status"].map(lambda x: "failed" if x == "x" else "ok"))


def test_each_class_that_lacks_clips_has_a_line() -> None:
    table = index_like(A="rrvt", B="rvtn", C="r", D="xx", E="rrrrrvx", F="rt")
    lines = class_shortages(table, {"test": 0.3, "val": 0.2})
    assert lines == [
        "class C: 1 usable clip of 1 source, none to choose epochs on and none to test on; at least 4 sources are "
        "needed",
        "class D: no usable clip among its 2",
        "class E: 6 usable clips of 6 sources, none to test on",
        "class F: 2 usable clips of 2 sources, none to choose epochs on; at least 4 sources are needed",
        "add clips of other sources, or remove the classes; a source is the gNN in a name, or else the clip itself",
    ]
    assert class_shortages(index_like(A="rvt", B="rvt"), {"test": 0.3, "val": 0.2}) == []
    assert class_shortages(table, {})[-1] == "name more clips of these classes in each split, or remove the classes"


def test_of_many_classes_the_first_are_named() -> None:
    lines = class_shortages(index_like(**{f"c{number:03d}": "rt" for number in range(200)}), {"test": 0.3, "val": 0.2})
    assert [line.partition(":")[0] for line in lines[:-2]] == [f"class c{number:03d}" for number in range(MOST_CLASSES)]
    assert lines[-2] == "... and 190 more classes"


@pytest.mark.parametrize("fractions", [(0.3, 0.2), (0.3, 0.1), (0.5, 0.5), (0.85, 0.85), (0.1, 0.05), (0.25,)])
def test_the_sources_that_are_needed_are_the_fewest_that_can_be_held_out(fractions: tuple[float, ...]) -> None:
    def can_hold_out(count: int) -> bool:
        groups = pd.Series([f"{number}" for number in range(count)])
        for fraction in fractions:
            held = hold_out(groups, pd.Series(0, index=groups.index), fraction, 0)
            if not held.any():
                return False
            groups = groups[~held]
        return True

    needed = sources_needed(dict(zip("ab", fractions, strict=False)))
    assert can_hold_out(needed)
    assert not can_hold_out(needed - 1)


def test_a_class_that_is_not_there_is_named_with_a_similar_one() -> None:
    classes = [f"class {number:03d}" for number in range(200)] + ["Run"]
    with pytest.raises(DatasetError, match=r"no class 'run'\n  did you mean Run\? the classes are .*019, ... \(201 in"):
        check_background(classes, "run")
    with pytest.raises(DatasetError, match=r"no class 'x'\n  the classes are A, B$"):
        check_background(["A", "B"], "x")


@pytest.mark.slow
def test_index_names_the_classes_that_are_too_small(tmp_path: Path) -> None:
    root = clips_in(tmp_path / "v", "A/a1.avi", "A/a2.avi", "A/a3.avi", "B/b1.avi", "C/c1.avi", "C/c2.avi")
    run("moclip", "use", "folder", "--root", root, cwd=tmp_path)
    refused = run("moclip", "index", cwd=tmp_path, code=1).stderr
    assert "no usable clip to choose epochs on among 6 clips" in refused
    assert (
        "class B: 1 usable clip of 1 source, none to choose epochs on and none to test on; at least 4 sources"
        in refused
    )
    clips_in(root, *(f"{name}/{name}{number}.avi" for name in "AC" for number in range(4, 9)), "A/anna/a.avi")
    shutil.rmtree(root / "B")
    touched(root, "B/b1.avi", "B/b2.avi")
    printed = run("moclip", "index", cwd=tmp_path).stdout
    assert "  class B: no usable clip among its 2\n  add clips of other sources, or remove the classes" in printed
    assert "a source is the folder within a class folder, such as anna, or else the clip itself" in printed
    assert "no clip to test on" not in printed, "it would say the same"
