"""What `index` makes of a folder: classes, splits, groups, and a row with a reason for whatever cannot be used."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from moclip.data.clip_folder import scan_folder
from moclip.data.groups import hold_out, smallest_fraction
from moclip.data.index import INDEX_COLUMNS, build_index
from moclip.data.list_differences import clip_notes
from moclip.data.probing import unusable_columns
from moclip.data.selection import class_names, few_shot
from moclip.data.split_lists import read_splits
from moclip.errors import DatasetError
from moclip.video.clip_files import find_clips
from moclip.video.transcoded_folder import transcode_clips
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
    root: Path | str, splits: Path | None = None, seed: int = 0, val: float = 0.3, test: float = 0.3
) -> pd.DataFrame:
    lists = read_splits(splits, 1) if splits else None
    return build_index(root, scan_folder(root), lists, val, test, seed)


def refusal(root: Path | str, splits: Path | None = None, val: float = 0.3, test: float = 0.3) -> str:
    """The message of an index that cannot be made."""
    with pytest.raises(DatasetError) as caught:
        index_of(root, splits, val=val, test=test)
    return str(caught.value)


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
    assert list(table.columns) == list(INDEX_COLUMNS)
    assert dict(table.groupby("split").size()) == {"test": 4, "train": 4, "val": 4}
    parts = {part: set(rows["group"]) for part, rows in table.groupby("split")}
    assert all(len(groups) == 1 for groups in parts.values()), "each of the three groups is whole"
    assert class_names(table) == ["Jump", "Run"]


@pytest.mark.slow
def test_the_split_depends_on_the_seed_alone(clean: Path) -> None:
    assert index_of(clean).equals(index_of(clean))
    splits = {tuple(index_of(clean, seed=seed)["split"]) for seed in range(8)}
    assert len(splits) > 1


def test_official_lists_give_the_split_and_the_labels(clean: Path, tmp_path: Path) -> None:
    every = [f"{n}/v_{n}_g{g:02d}_c{c:02d}" for n in ("Run", "Jump") for g in (1, 2, 3) for c in (1, 2)]
    train = [f"{name}.mp4" for name in every if "_g01" not in name]  # another suffix than the files have
    test = [f"{name}.avi" for name in every if "_g01" in name and "_c02" not in name]
    table = index_of(clean, write_lists(tmp_path / "s", train, test, ["Run", "Jump"]))
    assert class_names(table) == ["Run", "Jump"], "in the order of classInd.txt"
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
    ("train", "test", "expected_text"),
    [
        (["Run/a.avi"], ["Run/a.avi"], "in both lists"),
        (["a.avi"], ["Run/b.avi"], "<Class>/<file>"),
    ],
)
def test_wrong_lists_are_refused(tmp_path: Path, train: list[str], test: list[str], expected_text: str) -> None:
    with pytest.raises(DatasetError, match=expected_text):
        read_splits(write_lists(tmp_path / "s", train, test), 1)


# ------------------------------------------------------------------------------------------ lists as users have them


def placed(root: Path, *names: str) -> Path:
    """A folder with a clip of each name."""
    film = encode(root.parent / "film.avi", moving_texture(4, (48, 64)))
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(film, root / name)
    return root


SPACED = ("air drumming", "bouncing ball (not juggling)")


@pytest.mark.parametrize("first", [0, 1, 40])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_lists_of_windows_with_classes_of_several_words(tmp_path: Path, encoding: str, first: int) -> None:
    root = placed(tmp_path / "v", *(f"{name}/a {n}.mp4" for name in SPACED for n in range(4)))
    labels = dict(zip(SPACED, (first + 1, first), strict=True))
    content = {
        "classInd": [f"{number}\t{name} " for name, number in labels.items()],
        "trainlist01": [f"{name}\\a {n}.mp4\t{labels[name]}  " for name in SPACED for n in range(3)],
        "testlist01": ["", *(f"./{name}/a 3.mp4" for name in SPACED)],
    }
    for name, lines in content.items():
        (tmp_path / f"{name}.txt").write_bytes("\r\n".join(lines).encode(encoding))
    table = index_of(root, tmp_path, val=0.4)
    assert class_names(table) == list(reversed(SPACED)), "in the order of the numbers"
    assert (table["status"] == "ok").all()
    assert set(table.loc[table["split"] == "test", "id"]) == {f"{name}/a 3.mp4" for name in SPACED}
    assert (table["split"] != "none").all()


@pytest.mark.parametrize(
    ("name", "content", "expected_text"),
    [
        ("classInd", b"1 A\n2 A\n3 B\n", r"classInd.txt: line 2, '2 A': line 1 has the same class"),
        ("classInd", b"1 A\n\n1 B\n", r"classInd.txt: line 3, '1 B': line 1 has the same number"),
        ("classInd", b"A\n", r"classInd.txt: line 1, 'A': expected a number and a class"),
        ("classInd", "\u00b2 A\n".encode(), r"classInd.txt: line 1, .*: expected a number and a class"),
        ("classInd", b"\n", r"classInd.txt: names no classes"),
        (
            "trainlist01",
            "Caf\u00e9/a.avi\n".encode("latin-1"),
            r"trainlist01.txt: not text in UTF-8(.|\n)*save it as UTF-8",
        ),
        ("testlist01", "A/d.avi\n".encode("utf-16-le"), r"testlist01.txt: not text in UTF-8"),
        ("testlist01", b"\xff\xfeA", r"testlist01.txt: not text in UTF-8"),
        ("testlist01", b"B/a\n", r"B/a.avi is in both lists: trainlist01.txt, line 2, and testlist01.txt, line 1"),
    ],
)
def test_bad_split_lists_are_refused_by_file_and_line(
    tmp_path: Path, name: str, content: bytes, expected_text: str
) -> None:
    root = placed(tmp_path / "v", "A/a.avi", "B/a.avi", "A/d.avi", "B/d.avi")
    lists = write_lists(tmp_path / "s", ["A/a.avi", "B/a.avi"], ["A/d.avi", "B/d.avi"], ["A", "B"])
    (lists / f"{name}.txt").write_bytes(content)
    assert re.search(expected_text, refusal(root, lists))


@pytest.mark.slow
def test_a_label_of_another_class_is_noted_and_the_folder_decides(tmp_path: Path) -> None:
    root = placed(tmp_path / "v", *(f"{name}/{n}_g{n:02d}.avi" for name in "AB" for n in range(5)))
    train = [f"{name}/{n}_g{n:02d}.avi" for name in "AB" for n in range(4)]
    lists = write_lists(tmp_path / "s", train, ["A/4_g04.avi", "B/4_g04.avi"], ["A", "B"])
    (lists / "trainlist01.txt").write_text("".join(f"{name} 1\n" for name in train))
    run("moclip", "use", "folder", "--root", root, "--splits", lists, cwd=tmp_path)
    done = run("moclip", "index", "--dataset-val-fraction", "0.3", cwd=tmp_path)
    assert "trainlist01.txt, line 5, 'B/0_g00.avi 1': classInd.txt gives B the number 2; such lines: 4" in done.stdout
    found = pd.read_parquet(tmp_path / "data/index.parquet")
    assert dict(zip(found["class"], found["label"], strict=True)) == {"A": 0, "B": 1}


def test_a_number_of_a_class_that_classind_lacks_contradicts_nothing(tmp_path: Path) -> None:
    lists = write_lists(tmp_path / "s", ["A/a.avi"], ["A/b.avi"], ["A"])
    (lists / "trainlist01.txt").write_text("A/a.avi 1\nOther/c.avi 7\nA/d.avi 2\n")
    found = read_splits(lists, 1)
    assert found is not None
    assert [line.split(",")[1] for line in found.contradictions] == [" line 3"]


def test_a_listed_name_finds_its_own_file(tmp_path: Path) -> None:
    clips = [f"{name}/clip{n}.v2.mp4" for name in "AB" for n in range(5)]
    root = placed(tmp_path / "v", *clips, "A/clip0.mp4", "A/clip0.v2.avi", "B/clip4.mp4", "B/x.avi.mp4", "B/y.mp4")
    train = [*(f"{name}/clip{n}.v2" for name in "AB" for n in (1, 2, 3)), "B/y.mp4"]
    test = ["A/clip0.v2.avi", "B/clip0.v2", "A/clip4.v2.mpg", "B/clip4.v1", "B/x.avi", "B/y.avi"]
    found = index_of(root, write_lists(tmp_path / "s", train, test, ["A", "B"]), val=0.4)
    missing = set(found.loc[found["status"] == "missing", "id"])
    assert missing == {"B/clip4.v1", "B/y.avi"}, "another dot than a suffix's, and a file that is named in whole"
    parts: dict[str, set[str]] = {}
    for name, part in zip(found["id"], found["split"], strict=True):
        parts.setdefault(part, set()).add(name)
    assert parts["none"] == {"A/clip0.mp4", "A/clip0.v2.mp4", "B/clip4.mp4", "B/clip4.v2.mp4"}
    assert parts["test"] - missing == {"A/clip0.v2.avi", "A/clip4.v2.mp4", "B/clip0.v2.mp4", "B/x.avi.mp4"}
    assert "B/y.mp4" in parts["train"] | parts["val"]


@pytest.mark.parametrize("numbered", [True, False])
def test_a_class_in_another_case_is_found_and_noted(tmp_path: Path, numbered: bool) -> None:
    own, other = "HandstandPushups", "HandStandPushups"
    root = placed(tmp_path / "v", *(f"{name}/v_{other}_g{g:02d}.avi" for name in (own, "YoYo") for g in range(4)))
    names = (other, "YoYo")
    lists = write_lists(
        tmp_path / "s",
        [f"{name}/v_{other}_g{g:02d}.avi" for name in names for g in range(3)],
        [f"{name}/v_{other.lower()}_g03.avi" for name in names],
        [other, "YoYo"] if numbered else None,
    )
    run("moclip", "use", "folder", "--root", root, "--splits", lists, cwd=tmp_path)
    printed = run("moclip", "index", "--dataset-val-fraction", "0.4", cwd=tmp_path).stdout
    table = pd.read_parquet(tmp_path / "data/index.parquet")
    assert class_names(table) == [other if numbered else own, "YoYo"]
    assert (table["status"] == "ok").all()
    assert (table["split"] != "none").all()
    assert set(table["id"].str.split("/").str[0]) == {own, "YoYo"}, "where the file lies"
    pair = (own, other) if numbered else (other, own)
    assert "{} is taken for the class {}; they differ in upper and lower case".format(*pair) in printed
    assert "such names: 2" in printed


def test_a_listed_name_without_a_suffix_or_with_another_one_is_spelled_the_same() -> None:
    same = {"A/run": ["A/run.avi"], "A/run.mpg": ["A/run.mp4"], "A/run.v2": ["A/run.v2.avi"]}
    assert list(clip_notes(same)) == []
    assert [*clip_notes(same | {"A/Run": ["A/run.avi"]})] == [
        "A/run.avi is taken for A/Run of the lists; they differ in upper and lower case, or in how an accent is "
        "encoded; such names: 1"
    ]


def test_names_that_differ_only_in_case_are_not_guessed(tmp_path: Path) -> None:
    every = [f"{name}/{n}.avi" for name in ("Run", "run", "Jump") for n in range(3)]
    root = placed(tmp_path / "v", *every)
    if len({path.name for path in root.iterdir()}) < 3:
        pytest.skip("a file system that does not tell them apart")
    lists = write_lists(
        tmp_path / "s", ["RUN/0.avi", *every[6:8], *every[:2]], ["RUN/2.avi", every[8]], ["Run", "Jump"]
    )
    found = index_of(root, lists, val=0.4).set_index("id")
    assert (found.loc[[f"run/{n}.avi" for n in range(3)], "reason"] == "its class is not in classInd.txt").all()
    assert (found.loc[["RUN/0.avi", "RUN/2.avi"], "status"] == "missing").all()


def test_lists_of_hmdb51_as_users_have_them(tmp_path: Path) -> None:
    clips = {f"Brush_hair/{s} film_brush_hair_u_{n}.v.avi": 1 + (s == "R") for s in "PQR" for n in (1, 2)}
    clips |= {re.sub("brush_hair", "wave", name, flags=re.I): part for name, part in clips.items()}
    root = placed(tmp_path / "v", *clips)
    lists = tmp_path / "s"
    lists.mkdir()
    for name in ("brush_hair", "wave"):
        own = {clip: part for clip, part in clips.items() if clip.lower().startswith(name)}
        lines = [f"{clip.partition('/')[2]}\t{part} \r\n" for clip, part in own.items()]
        (lists / f"{name}_test_split1.txt").write_bytes("".join(lines).encode("utf-16"))
        (lists / f"._{name}_test_split1.txt").write_bytes(b"\0\x05\x16\x07\xff")
    table = index_of(root, lists, val=0.5)
    assert (table["status"] == "ok").all()
    assert dict(table.groupby("split").size()) == {"test": 4, "train": 4, "val": 4}
    assert set(table["group"]) == {"P film", "Q film", "R film"}
    (lists / "run_test_split1.txt").write_text("nowhere_run_u_1.v.avi 0\n")
    again = index_of(root, lists, val=0.5).set_index("id")
    assert (again.loc["run/nowhere_run_u_1.v.avi", ["class", "label", "split"]] == ["run", -1, "none"]).all()
    with (lists / "wave_test_split1.txt").open("ab") as file:
        file.write("P film_wave_u_1.v.avi 2\n".encode("utf-16-le"))
    with pytest.raises(DatasetError, match=r"in two parts: wave_test_split1.txt, line 1, and wave_.*, line 7"):
        read_splits(lists, 1)


# ---------------------------------------------------------------------------------------- what lies in the folder

LEFT_BEHIND = (
    ".ipynb_checkpoints/a.avi",
    ".ipynb_checkpoints/b.avi",
    "__MACOSX/Run/._c.avi",
    "@eaDir/d.avi",
    "$RECYCLE.BIN/e.avi",
    "System Volume Information/f.avi",
    "lost+found/g.avi",
    "Run/._v_Run_g01_c01.avi",
    "Run/.h.mp4",
    "Run/@eaDir/i.avi",
    ".DS_Store",
)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_hidden_and_system_files_are_ignored_and_counted(clean: Path, tmp_path: Path, scheme: str) -> None:
    root = tmp_path / ".data/videos"
    shutil.copytree(clean, root)
    placed(root, *LEFT_BEHIND)
    (root / "Run/notes.txt").write_text("x")
    run("moclip", "use", "folder", "--root", f"{scheme}{root}", cwd=tmp_path)
    printed = run("moclip", "index", "--dataset-val-fraction", "0.3", cwd=tmp_path).stdout
    table = pd.read_parquet(tmp_path / "data/index.parquet")
    assert set(table["id"]) == {path.relative_to(clean).as_posix() for path in clean.rglob("*.avi")}
    assert (table["status"] == "ok").all()
    counts = json.loads((tmp_path / "metrics/counts/index.json").read_text())
    assert (counts["clips"], counts["classes"]) == (12, 2)
    assert (counts["ignored_files"], counts["hidden_files"]) == (11, 10), "a folder once, whatever is in it"
    assert "11 other files ignored, 10 of them hidden or a system's" in printed


def test_a_folder_without_split_lists_is_an_error(clean: Path, tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    run("moclip", "use", "folder", "--root", clean, "--splits", "lists", cwd=tmp_path)
    printed = run("moclip", "index", "--dataset-val-fraction", "0.3", cwd=tmp_path, code=1).stderr
    assert "error: lists: no split lists in it: no trainlist01.txt, and no *_test_split1.txt" in printed
    assert f"set dataset.splits to {clean}" in printed


# ---------------------------------------------------------------------------------------------------- holding out


@pytest.mark.parametrize("part", ["test", "val"])
def test_a_split_fraction_too_small_is_an_error_that_names_a_working_one(clean: Path, part: str) -> None:
    def shares(fraction: float) -> tuple[float, float]:
        return (fraction, 0.3) if part == "val" else (0.3, fraction)

    message = refusal(clean, None, *shares(0.01))
    assert f"dataset.{part}_fraction = 0.01 is too small to hold out a group" in message
    enough = re.search(rf"set dataset.{part}_fraction to ([0-9.]+) or more", message)
    assert enough
    refusal(clean, None, *shares(float(enough[1]) - 0.002))
    assert (index_of(clean, None, 0, *shares(float(enough[1])))["split"] == part).any()


def held_out_plainly(groups: pd.Series, labels: pd.Series, fraction: float, seed: int) -> pd.Series:
    """By a table of all groups and classes."""
    counts = pd.crosstab(groups, labels)
    order = np.random.default_rng(seed).permutation(len(counts))
    table = counts.to_numpy()[order]
    want, left, held = fraction * table.sum(axis=0), table.sum(axis=0), 0 * table.sum(axis=0)
    chosen = []
    for row, group in zip(table, counts.index[order], strict=True):
        nearer = np.abs(want - held - row).sum() < np.abs(want - held).sum()
        if nearer and np.all((left - row > 0) | (row == 0)):
            held, left = held + row, left - row
            chosen.append(group)
    return groups.isin(chosen)


@pytest.mark.slow
def test_hold_out_matches_a_plain_definition() -> None:
    rng = np.random.default_rng(0)
    for seed in range(80):
        clips, sources, classes = rng.integers(1, (80, 20, 8))
        groups = pd.Series([f"g{n}" for n in rng.integers(sources, size=clips)])
        labels = pd.Series(3 * rng.integers(classes, size=clips) - 1)
        fraction = rng.choice([0.05, 0.1, 0.2, 0.5, 0.85])
        held = hold_out(groups, labels, fraction, seed)
        assert held.equals(held_out_plainly(groups, labels, fraction, seed))
        enough = smallest_fraction(groups, labels)
        if enough is None:
            assert not hold_out(groups, labels, 0.89, seed).any()
        else:
            assert hold_out(groups, labels, enough, seed).any()
            assert not hold_out(groups, labels, max(0.0, enough - 0.002), seed).any()


def test_held_out_groups_never_empty_a_class() -> None:
    groups = pd.Series(["g1"] * 5 + ["g2"] * 5 + ["only"] * 2)
    labels = pd.Series([0] * 10 + [1] * 2)
    for seed, fraction in itertools.product(range(10), (0.4, 0.8)):
        held = hold_out(groups, labels, fraction, seed)
        assert not held[groups == "only"].any()
        assert 0 < held[:10].sum() < 10


def test_shots_are_nested_and_drawn_by_the_seed() -> None:
    rows = pd.DataFrame({"id": [*(f"c{n}" for n in range(60)), "only"], "label": [*(n % 3 for n in range(60)), 3]})
    drawn = {shots: set(few_shot(rows, shots, 0)["id"]) for shots in (1, 2, 4, 8, 16)}
    assert [len(drawn[shots]) for shots in (1, 2, 4, 8, 16)] == [3 * shots + 1 for shots in (1, 2, 4, 8, 16)]
    assert drawn[1] < drawn[2] < drawn[4] < drawn[8] < drawn[16]
    assert drawn[4] != set(few_shot(rows, 4, 1)["id"])
    shuffled = rows.sample(frac=1, random_state=0)
    assert set(few_shot(shuffled, 4, 0)["id"]) == drawn[4]
    assert few_shot(rows, False, 0).equals(rows)


def test_counts_per_class_come_near_the_wanted_share() -> None:
    rng = np.random.default_rng(0)
    groups = pd.Series([f"g{n:02d}" for n in rng.integers(25, size=2000)])
    labels = pd.Series(rng.integers(10, size=2000))
    held = hold_out(groups, labels, 0.2, 0)
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
    run("moclip", "use", "folder", "--root", videos, "--force", cwd=project)
    set_keys(project / "params.yaml", {"mv.shard": 64, "dataset.val_fraction": 0.4})
    commit(project)
    done = run("dvc", "repro", "extract_mv", cwd=project)
    (folder / "output.txt").write_text(done.stdout + done.stderr)
    return folder


@pytest.mark.slow
def test_a_broken_clip_gets_a_row_and_the_run_continues(broken: Path) -> None:
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
    hevc = "codec hevc exports no motion vectors; to use it, set index.transcode: mpeg4"
    assert bad["Jump/v_Jump_g01_c07.mp4"] == hevc
    assert bad["Run/v_Run_g02_c08.mp4"] == "not a video file (it is empty)"
    assert "1 frame" in bad["Jump/v_Jump_g01_c08.avi"]
    assert bad.str.len().gt(0).all()
    assert not bad.str.contains("Traceback|\n").any()


@pytest.mark.slow
def test_what_makes_a_refused_codec_usable_is_told(broken: Path) -> None:
    assert "set index.transcode: mpeg4 to use 1 of these (iPhones" in (broken / "output.txt").read_text()


@pytest.mark.slow
def test_a_limit_of_memory_is_told_beside_damaged_clips(broken: Path) -> None:
    done = run("bash", "-c", "ulimit -v 100000000; exec moclip index", cwd=broken / "project")
    assert "ulimit -v limits memory to 102.4 GB, and a clip looks damaged where memory is refused" in done.stdout
    assert "ulimit" not in (broken / "output.txt").read_text()


@pytest.mark.slow
def test_files_of_every_usual_container_are_clips(tmp_path: Path) -> None:
    codecs = {
        ".m4v": "mpeg4", ".mpg": "mpeg1video", ".mpeg": "mpeg2video", ".ts": "libx264", ".mts": "mpeg2video",
        ".m2ts": "libx264", ".3gp": "h263", ".wmv": "wmv2", ".asf": "msmpeg4", ".flv": "flv", ".divx": "mpeg4",
    }  # fmt: skip
    for number, (suffix, codec) in enumerate(codecs.items()):
        path = tmp_path / "videos" / "AB"[number % 2] / f"{codec}_{number}{suffix.upper()}"
        path.parent.mkdir(parents=True, exist_ok=True)
        written = path.with_suffix(".avi" if suffix == ".divx" else suffix)
        encode(written, moving_texture(6, (144, 176)), codec).rename(path)
    root = tmp_path / "videos"
    assert sorted(path.relative_to(root).as_posix() for path in find_clips([root])) == scan_folder(root).clips
    assert transcode_clips(root, scan_folder(root).clips, tmp_path / "transcoded") == {}
    made = run("moclip", "new", "project", "--clips", root, cwd=tmp_path).stdout
    assert f"a project for {len(codecs)} clips of 2 classes" in made
    run("moclip", "use", "folder", "--root", "videos", cwd=tmp_path)
    run("moclip", "index", "--dataset-test-fraction", "0.4", "--dataset-val-fraction", "0.4", cwd=tmp_path)
    table = pd.read_parquet(tmp_path / "data/index.parquet")
    assert len(table) == len(codecs)
    assert (table["status"] == "ok").all(), table[["id", "reason"]].to_string()
    assert table["frames"].eq(6).all()


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


def failing(tmp_path: Path, root: Path | str, *more: str) -> str:
    """The message of `moclip index` on a folder that cannot be used."""
    videos = tmp_path / "given"
    videos.mkdir(exist_ok=True)
    run("moclip", "use", "folder", "--root", videos, cwd=tmp_path)
    set_keys(tmp_path / "params.yaml", {"dataset.root": str(root), "dataset.splits": str(root)})
    done = run("moclip", "index", *more, cwd=tmp_path, code=1)
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data/index.parquet").exists()
    return done.stderr


@pytest.mark.slow
def test_a_missing_root(tmp_path: Path) -> None:
    assert "nowhere: no such folder" in failing(tmp_path, tmp_path / "nowhere")


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no clips found" in refusal(tmp_path / "empty")


@pytest.mark.slow
def test_a_folder_with_one_class(clean: Path, tmp_path: Path) -> None:
    shutil.copytree(clean / "Run", tmp_path / "one/Run")
    assert "only one class (Run)" in failing(tmp_path, tmp_path / "one")
    shutil.copytree(clean / "Run", tmp_path / "broken/Run")
    (tmp_path / "broken/Jump").mkdir()
    (tmp_path / "broken/Jump/a.avi").touch()
    told = failing(tmp_path, tmp_path / "broken")
    assert "only one class (Run) has usable clips: training needs at least two" in told
    assert "class Jump: no usable clip among its 1" in told
    assert "Jump/a.avi: not a video file (it is empty)" in told


def test_a_folder_of_one_source_cannot_be_split_by_group(tmp_path: Path) -> None:
    for name in ("Run", "Jump"):
        for number in (1, 2):
            add_clip(tmp_path / "v", f"{name}/v_{name}_g01_c0{number}.avi")
    assert "no usable clip to test on" in refusal(tmp_path / "v")


def test_lists_whose_test_clips_are_all_broken_are_an_error(clean: Path, tmp_path: Path) -> None:
    root, tests = tmp_path / "v", ["Run/v_Run_g01_c01.avi", "Jump/v_Jump_g01_c01.avi"]
    shutil.copytree(clean, root)
    every = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*.avi"))]
    assert set(tests) < set(every)
    for clip in tests:
        (root / clip).write_bytes(b"broken")
    lists = write_lists(tmp_path / "s", [clip for clip in every if clip not in tests], tests)
    with pytest.raises(DatasetError, match="no usable clip to test on among") as refused:
        build_index(root, scan_folder(root), read_splits(lists, 1), 0.5, 0.3, 0, workers=2)
    assert f"{tests[1]}: " in str(refused.value)


def test_a_clip_that_cannot_be_read_has_a_row_of_zeros() -> None:
    row = unusable_columns("failed", "why")
    assert (row.pop("status"), row.pop("reason")) == ("failed", "why")
    assert set(row) <= set(INDEX_COLUMNS)
    assert not any(row.values())


def test_a_missing_split_is_an_error(clean: Path, tmp_path: Path) -> None:
    lists = write_lists(tmp_path / "s", ["Run/v_Run_g02_c01.avi"], ["Run/v_Run_g01_c01.avi"])
    message = failing(tmp_path, clean, "--dataset-splits", str(lists), "--dataset-split", "2")
    assert "no trainlist02.txt; there is trainlist01.txt" in message


@pytest.mark.slow
def test_real_clips_are_all_indexed(real_data: Path) -> None:
    folder = real_data / "fight_surv"
    table = index_of(folder / "videos", folder / "splits", val=0.2)
    assert len(table) == 150
    assert (table["status"] == "ok").all()
    assert (table["split"] == "test").sum() == 46
    assert table["has_b"].sum() == 130
    parts = {part: set(rows["group"]) for part, rows in table.groupby("split")}
    assert not parts["val"] & parts["train"]
