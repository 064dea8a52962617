"""A manifest: what is read from a table of clips, what is refused and where, and that it is as good as a folder."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from moclip.data.groups import group_of, groups_of
from moclip.data.index import build_index
from moclip.data.manifest import Manifest, read_manifest
from moclip.data.selection import class_names
from moclip.errors import DatasetError
from moclip.video.transcode import transcoded_name
from moclip.video.transcoded_folder import transcode_clips
from tests.clips import encode, moving_texture
from tests.conftest import run, set_keys

HEADER = "path,label"


def written(folder: Path, text: str | bytes, name: str = "clips.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(folder: Path, text: str | bytes, name: str = "clips.csv", root: str | None = None) -> Manifest:
    return read_manifest(written(folder, text, name), root or str(folder))


def rows_of(manifest: Manifest, *names: str) -> list[tuple[str, ...]]:
    return list(manifest.rows[list(names)].itertuples(index=False, name=None))


# ------------------------------------------------------------------------------------------------ what is read


@pytest.mark.parametrize(
    "text",
    [
        "path,label\na/1.mp4,Run\nb.mp4,Jump\n",
        "\ufeffpath;label;\r\na/1.mp4;Run;\r\nb.mp4;Jump;\r\n;;\r\n",
        b"\xff\xfe" + "path\tlabel\r\na/1.mp4\tRun\r\nb.mp4\tJump\r\n".encode("utf-16-le"),
        'Label , "PATH"\n" Run ",a/1.mp4\n\nJump,b.mp4',
        "label,path,note\nRun,./a//1.mp4\nJump,b.mp4\n",
        "path,label\na\\1.mp4,Run\nb.mp4,Jump\n",
        "path,label,start,end,weight\na/1.mp4,Run,,,\nb.mp4,Jump,,,\n",
        "path,label\na/1.mp4,Run,,\nb.mp4,Jump, \n",
        "path;label\ra/1.mp4;Run\rb.mp4;Jump\r",
    ],
)
def test_csv_as_spreadsheets_write_it(tmp_path: Path, text: str | bytes) -> None:
    manifest = read(tmp_path, text)
    assert rows_of(manifest, "path", "class", "id") == [("a/1.mp4", "Run", "a/1.mp4"), ("b.mp4", "Jump", "b.mp4")]
    assert not manifest.has_splits


LABELS = ["3", "push/pull", "sauter à la corde", "run, fast", 'a "b"', "NA"]


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_labels_of_any_kind_in_every_kind_of_table(tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"clips.{kind}"
    table = pd.DataFrame({"path": [f"{n}.mp4" for n in range(len(LABELS))], "label": LABELS})
    if kind == "csv":
        table.to_csv(file, index=False)
    elif kind == "parquet":
        table.assign(label=table["label"].astype("category")).set_index("path").to_parquet(file)
    else:
        file.write_text("".join(f"{json.dumps(record)}\n" for record in table.to_dict("records")))
    manifest = read_manifest(file, str(tmp_path))
    assert manifest.rows["class"].tolist() == LABELS
    assert manifest.classes == sorted(LABELS)


def test_numbers_are_classes_and_nothing_is_an_empty_cell(tmp_path: Path) -> None:
    lines = ({"path": "a", "label": 3}, {"path": "b", "label": 4.0, "group": None}, {"path": "c", "label": "x"})
    found = read(tmp_path, "\r\n".join(map(json.dumps, lines)), "clips.jsonl")
    assert found.rows["class"].tolist() == ["3", "4", "x"]
    table = pd.DataFrame({"path": ["a", "b"], "label": [3, 4], "group": pd.Series([7, None])})
    table.to_parquet(tmp_path / "clips.parquet", index=False)
    found = read_manifest(tmp_path / "clips.parquet", str(tmp_path))
    assert rows_of(found, "class", "group") == [("3", "7"), ("4", "b")]


def test_paths_below_the_root_are_relative_and_others_stay(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    root.mkdir()
    (tmp_path / "link").symlink_to(root)
    given = [f"{root}/x/a.mp4", f"file://{root}/b.mp4", f"{tmp_path}/c.mp4", "s3://bucket/d.mp4", "./e.mp4"]
    text = "".join(f"{path},{label}\n" for path, label in zip(given, "ABABA", strict=True))
    expected = ["x/a.mp4", "b.mp4", f"{tmp_path}/c.mp4", "s3://bucket/d.mp4", "e.mp4"]
    for named in (root, tmp_path / "link", f"file://{root}"):
        found = read(tmp_path, f"{HEADER}\n{text}", root=str(named)).rows
        assert found["path"].tolist() == found["id"].tolist() == expected, named
    found = read(tmp_path, f"{HEADER}\ns3://bucket/v/a.mp4,A\nb.mp4,B\n/c.mp4,A\n", root="s3://bucket/v/").rows
    assert found["path"].tolist() == ["a.mp4", "b.mp4", "/c.mp4"]


def test_groups_are_given_or_follow_from_the_name(tmp_path: Path) -> None:
    text = "path,label,group\na/v_g01_c01.mp4,A,\nb.mp4,B,film 1\nhttp.tar.mp4,A,\n"
    assert read(tmp_path, text).rows["group"].tolist() == ["g01", "film 1", "http.tar"]
    names = [
        "A/v_g01_c02.avi",
        "a.b.avi",
        ".hidden",
        "x/y.",
        "x/..a",
        "g01",
        "_g2",
        "x_g3.mp4",
        "_g4x.avi",
        "é/ü_g5_.a",
    ]
    assert groups_of(pd.Series(names, dtype="str")).tolist() == [group_of(name) for name in names]


@pytest.mark.parametrize(
    ("text", "expected_text"),
    [
        ("path,label,Actor,age\na,A,x,1\nb,B,y,2\n", "columns that are not read: actor, age"),
        ("path,label\na,A\nb,B\n./a,A\n", "rows 2 and 4 name the same file, a: used once; such rows: 1"),
        ("path,label\na,run\nb,Run\n", "the labels 'Run' and 'run' are different classes"),
        (
            "path,label,split,group\na,A,train,g\nb,B,test,g\nc,A,test,h\n",
            "the group g is in test (row 3) and in train (row 2); such groups: 1",
        ),
    ],
)
def test_what_is_told(tmp_path: Path, text: str, expected_text: str) -> None:
    assert [expected_text in note for note in read(tmp_path, text).notes] == [True]


# ---------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("text", "expected_text"),
    [
        ("video,class\na,A\n", "no column path; its columns: video, class\n  name a column path"),
        ("path;class\na;A\n", "no column label; its columns: path, class"),
        ("path,label,Label\na,A,B\n", "the column label is there 2 times"),
        ("", "empty\n  write a header"),
        ("path,label\n\n", "no rows"),
        ("path,label\na,A\n,B\n,C\n", "row 3, column path: empty; such rows: 2\n  write the path"),
        ("path,label\na,A\n\nb, \n", "row 4, column label: empty\n  write the name"),
        ("path,label,split\na,A,train\nb,B,dev\n", "row 3, column split: 'dev'; expected train, val, test, none"),
        ("path,label,split\na,A,train\nb,B,\n", "row 3, column split: empty\n  write train, val, test or none"),
        ("path,label,split\na,A,train\nb,B,val\n", "column split: no row has test\n  write test in some rows"),
        ("path,label,split\na,A,val\nb,B,test\n", "column split: no row has train"),
        ("path,label,id\na,A,1\nb,B,2\nc,B,1\n", "row 4, column id: '1' is also the id of row 2\n  write a name"),
        ("path,label,id\na,A,1\nb,B,\n", "row 3, column id: empty"),
        ("path,label\na,A\nb,B\n./a,C\n", "row 4, column label: 'C', but row 2 gives the same file, a, 'A'"),
        ("path,label,split\na,A,train\nb,B,test\na,A,test\n", "row 4, column split: 'test', but row 2 gives the same"),
        ("path,label\na,A\nb,A\n", "column label: only one class (A): training needs at least two"),
        ("path,label,split\na,A,train\nb,A,test\nc,B,none\n", "only one class (A)"),
        ("path,label,start\na,A,\nb,B,x\n", "row 3, column start: 'x' is no time\n  write seconds, such as 12.5"),
        ("path,label,start\na,A,\nb,B,1:75\n", "row 3, column start: '1:75' is no time"),
        ("path,label,start\na,A,\nb,B,\"1,5\"\n", "row 3, column start: '1,5' is no time"),
        ("path,label,start\na,A,inf\nb,B,nan\n", "row 2, column start: 'inf' is no time; such rows: 2"),
        ("path,label,start\na,A,-1\nb,B,2\n", "row 2, column start: '-1' is negative"),
        ("path,label,END\na,A,0\nb,B,\n", "row 2, column end: '0' is not after the start, '0'\n  write when"),
        ("path,label,start,end\na,A,1,2\nb,B,0:10,9.5\n", "row 3, column end: '9.5' is not after the start, '0:10'"),
        ("path,label,start\na,A,1\na,B,1.0\n", "row 3, column label: 'B', but row 2 gives the same span, a@1-, 'A'"),
        ("path,label,start,id\na,A,1,x\nb,B,,a\n", "row 3, column id: 'a' is also the path of a video that other rows"),
        ("path,label,weight\na,A,\nb,B,0\n", "row 3, column weight: '0'; expected a number above 0\n  write a number"),
        ("path,label,weight\na,A,-1\nb,B,x\n", "row 2, column weight: '-1'; expected a number above 0; such rows: 2"),
        ("path,label,weight\na,A,1\nb,B,nan\n", "row 3, column weight: 'nan'; expected a number above 0\n"),
        ("path,label,weight\na,A,inf\nb,B,\n", "row 2, column weight: 'inf'; expected a number above 0\n"),
        ("path,label,weight\na,A,2\nb,B,\na,A,3\n", "row 4, column weight: '3', but row 2 gives the same file, a, '2'"),
        ("path,label\na,A\nb,c.mp4,B\n", "row 3: 3 cells, but the header has 2\n  put \"...\" around"),
        ('path,label\na,A\n"b,B\nc,C\n', "row 3: not valid CSV"),
        ('path,label\na,A\nb,"B\nC"\n', "row 3, column label: 'B\\nC' has a control character, such as a line break"),
        ("path,label\na,A\nb,Caf\u00e9\n".encode("latin-1"), "row 3: not text in UTF-8(.|\n)*save it as UTF-8"),
        ("path,label\n../a,A\nb,B\n", "row 2, column path: '../a' leads out of dataset.root\n  write"),
        ("path,label\nhttps://x/a.mp4,A\nb,B\n", "row 2, column path: 'https://x/a.mp4': this kind of URL"),
        ("path,label\n.,A\nb,B\n", "row 2, column path: '.' is no file"),
    ],
)  # fmt: skip
def test_wrong_tables_are_refused_by_row_and_column(tmp_path: Path, text: str | bytes, expected_text: str) -> None:
    with pytest.raises(DatasetError) as refused:
        read(tmp_path, text)
    assert str(refused.value).startswith(f"{tmp_path}/clips.csv: ")
    pattern = expected_text if "(.|" in expected_text else re.escape(expected_text)
    assert re.search(pattern, str(refused.value)), refused.value


@pytest.mark.parametrize(
    ("name", "text", "expected_text"),
    [
        ("clips.jsonl", '{"path": "a", "label": "A"}\n\n{"path": \n', "row 3: not valid JSON"),
        ("clips.jsonl", '{"path": "a", "label": "A"}\n["b", "B"]\n', "row 2: not a JSON object"),
        ("clips.jsonl", '{"path": "a", "label": "A", "Label": "B"}\n', "row 1: the key label is there twice\n  rename"),
        ("clips.jsonl", '{"path": "a", "label": ["A"]}\n', "row 1, column label: list; expected text or a number"),
        ("clips.jsonl", '{"path": "a", "label": "A"}\n{"path": "b"}\n', "row 2, column label: empty"),
        ("clips.parquet", "path,label\n", "not a Parquet file"),
        ("clips.xlsx", "path,label\n", "not a kind of table that can be read\n  a manifest ends in .csv,"),
    ],
)  # fmt: skip
def test_other_wrong_tables(tmp_path: Path, name: str, text: str, expected_text: str) -> None:
    with pytest.raises(DatasetError) as refused:
        read(tmp_path, text, name)
    assert expected_text in str(refused.value)


def test_rows_of_parquet_are_numbered_as_a_spreadsheet_shows_them(tmp_path: Path) -> None:
    file = tmp_path / "clips.parquet"
    pd.DataFrame({"path": ["a", "b"], "label": ["A", None]}).to_parquet(file)
    with pytest.raises(DatasetError, match="row 3, column label: empty"):
        read_manifest(file, str(tmp_path))


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"gone.csv: not found\n  set dataset.manifest"):
        read_manifest(tmp_path / "gone.csv", str(tmp_path))
    with pytest.raises(DatasetError, match=r"gone: no such folder\n  set dataset.root"):
        read(tmp_path, f"{HEADER}\na,A\n", root=str(tmp_path / "gone"))


# ---------------------------------------------------------------------------------------------------- the index


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of six clips in three groups, in folders."""
    root = tmp_path_factory.mktemp("manifest") / "videos"
    for name in ("Run", "Jump"):
        (root / name).mkdir(parents=True)
    for number in range(6):
        film = moving_texture(6, (48, 64), seed=number)
        for name in ("Run", "Jump"):
            encode(root / f"{name}/v_{name}_g{number // 2 + 1:02d}_c{number % 2 + 1:02d}.avi", film)
    return root


def names_of(videos: Path) -> list[str]:
    return sorted(path.relative_to(videos).as_posix() for path in videos.rglob("*.avi"))


def table_of(names: Sequence[str], **columns: Sequence[Any]) -> str:
    table = pd.DataFrame({"path": names, "label": [name.split("/")[-2] for name in names]}).assign(**columns)
    return table.to_csv(index=False)


def index_of(manifest: Manifest, root: Path | str, transcoded: Path | None = None) -> pd.DataFrame:
    table = build_index(root, manifest.clips, None, 0.3, 0.3, 0, transcoded=transcoded, manifest=manifest)
    return table.set_index("id")


def test_given_splits_are_kept_and_val_is_held_out_where_none_is_given(videos: Path, tmp_path: Path) -> None:
    names = names_of(videos)
    splits = ["test" if "g01" in name else "train" for name in names]
    table = index_of(read(tmp_path, table_of(names, split=splits), root=str(videos)), videos)
    assert set(table[table["split"] == "test"]["group"]) == {"g01"}
    parts = {part: set(rows["group"]) for part, rows in table.groupby("split")}
    assert sorted(len(groups) for groups in parts.values()) == [1, 1, 1], "val is a whole group of train"
    splits = ["val" if name == "Run/v_Run_g02_c01.avi" else one for name, one in zip(names, splits, strict=True)]
    splits[names.index("Jump/v_Jump_g02_c02.avi")] = "none"
    table = index_of(read(tmp_path, table_of(names, split=splits), root=str(videos)), videos)
    assert table.loc[names, "split"].tolist() == splits, "nothing more is held out"


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_labels_groups_and_ids_of_the_manifest(videos: Path, tmp_path: Path, scheme: str) -> None:
    names = names_of(videos)
    columns = {
        "label": ["b/c" if number % 2 else "a" for number in range(12)],
        "group": [f"film {number // 4}" for number in range(12)],
        "id": [f"clip {number}" for number in range(12)],
    }
    elsewhere = tmp_path / "other" / "x.avi"
    elsewhere.parent.mkdir()
    shutil.copy(videos / names[0], elsewhere)
    named = [str(elsewhere), *names[1:]]
    root = f"{scheme}{videos}"
    table = index_of(read(tmp_path, table_of(named, **columns), root=root), root)
    assert table.loc[columns["id"], "path"].tolist() == named
    assert table.loc[columns["id"], "class"].tolist() == columns["label"]
    assert table.loc[columns["id"], "group"].tolist() == columns["group"]
    assert (table["status"] == "ok").all(), "a clip outside of the root, too"
    assert class_names(table) == ["a", "b/c"]
    assert {part: rows["group"].nunique() for part, rows in table.groupby("split")} == {"test": 1, "train": 1, "val": 1}


def test_missing_and_broken_clips_have_rows(videos: Path, tmp_path: Path) -> None:
    names = names_of(videos)
    (tmp_path / "broken.avi").write_bytes(b"broken")
    bad = ["Run/gone.avi", str(tmp_path / "broken.avi"), "Run", "file:///gone/a.avi"]
    labels = [*(name.split("/")[0] for name in names), *["Run"] * 4]
    text = pd.DataFrame({"path": [*names, *bad], "label": labels}).to_csv(index=False)
    table = index_of(read(tmp_path, text, root=str(videos)), videos)
    assert (table.loc[names, "status"] == "ok").all()
    assert table.loc[["Run/gone.avi", "Run", "/gone/a.avi"], "status"].eq("missing").all()
    assert table.loc["Run/gone.avi", "reason"] == "named in the manifest, but there is no such file"
    assert table.loc[str(tmp_path / "broken.avi"), "status"] == "failed"


def test_a_class_that_is_in_no_split_has_no_label(videos: Path, tmp_path: Path) -> None:
    names = names_of(videos)
    splits = ["test" if "g01" in name else "train" for name in names]
    splits[0] = "none"
    labels = ["Sit", *(name.split("/")[0] for name in names[1:])]
    table = index_of(read(tmp_path, table_of(names, split=splits, label=labels), root=str(videos)), videos)
    assert tuple(table.loc[names[0], ["label", "reason"]]) == (-1, "its class has no row in train, val or test")


def test_transcoded_files_of_clips_elsewhere_stay_in_their_folder(videos: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "a.avi"
    shutil.copy(videos / names_of(videos)[0], elsewhere)
    names = [str(elsewhere), *names_of(videos)[1:], "Run/gone.avi"]
    text = table_of([f"x/{name}" for name in names], path=names, label=["Jump"] * 6 + ["Run"] * 7)
    manifest = read(tmp_path, text, root=str(videos))
    failed = transcode_clips(videos, manifest.clips.clips, tmp_path / "transcoded")
    assert failed == {"Run/gone.avi": "No such file or directory"}
    assert (tmp_path / "transcoded" / transcoded_name(str(elsewhere))).is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.avi", "clips.csv", "transcoded"]
    table = index_of(manifest, videos, tmp_path / "transcoded")
    assert (table.loc[names[:-1], ["status", "w"]] == ["ok", 340]).all(axis=None)
    assert table.loc[names[-1], "status"] == "missing"
    assert len({transcoded_name(clip) for clip in ("/a/x.mp4", "/b/x.mp4", "s3://a/x.mp4", "x.mp4")}) == 4


# ------------------------------------------------------------------------------------------------- the commands


def index_with(folder: Path, *options: str | Path, code: int = 0) -> str:
    """Index with `moclip use folder` and these options; returns what is printed."""
    run("moclip", "use", "folder", "--force", *options, cwd=folder)
    set_keys(folder / "params.yaml", {"dataset.val_fraction": 0.3})
    done = run("moclip", "index", cwd=folder, code=code)
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_manifest_of_a_folder_gives_the_index_of_the_folder(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    file = written(tmp_path / "tables", table_of(names_of(videos)[::-1]))
    index_with(tmp_path, "--root", videos)
    paths = ("data/index.parquet", "metrics/counts/index.json")
    by_folder = pd.read_parquet(tmp_path / paths[0])
    counts = (tmp_path / paths[1]).read_bytes()
    index_with(tmp_path, "--manifest", file, "--root", videos)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / paths[0]), by_folder)
    assert (tmp_path / paths[1]).read_bytes() == counts


@pytest.mark.slow
def test_a_manifest_and_lists_exclude_each_other(videos: Path, tmp_path: Path) -> None:
    file = written(tmp_path, table_of(names_of(videos)))
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "trainlist01.txt").write_text("Run/a.avi 1\n")
    (lists / "testlist01.txt").write_text("Run/b.avi\n")
    done = run("moclip", "use", "folder", "--manifest", file, "--splits", lists, cwd=tmp_path, code=1)
    assert "--splits and --manifest exclude each other" in done.stderr
    run("moclip", "use", "folder", "--manifest", file, "--root", videos, cwd=tmp_path)
    printed = run("moclip", "index", "--dataset-splits", "lists", cwd=tmp_path, code=1).stderr
    assert "dataset.splits = lists has split lists, and dataset.manifest = clips.csv is a manifest" in printed
    assert "set dataset.splits to data/none, or dataset.manifest to data/none" in printed


@pytest.mark.slow
def test_use_writes_the_keys_of_a_manifest(videos: Path, tmp_path: Path) -> None:
    inside = written(tmp_path, table_of(names_of(videos)))
    printed = run("moclip", "use", "folder", "--manifest", inside, cwd=tmp_path, code=1).stderr
    assert "clips.csv: where are its clips?" in printed
    assert "add --root DIR" in printed
    printed = run("moclip", "use", "folder", "--manifest", "gone.csv", cwd=tmp_path, code=1).stderr
    assert "gone.csv: no table of clips" in printed
    (tmp_path / "set").mkdir()
    written(tmp_path / "set", "path,label\na,A\n")
    run("moclip", "use", "folder", "--manifest", "set/clips.csv", cwd=tmp_path)
    text = (tmp_path / "params.yaml").read_text()
    for line in ("root: set ", "splits: data/none ", "manifest: set/clips.csv "):
        assert f"  {line}" in text


@pytest.mark.slow
def test_a_manifest_runs_as_its_folder_and_its_edits_are_noticed(project: Path) -> None:
    """The demo's clips and splits by a manifest: the same rows, fields and scores. DVC and the stages see an edit."""
    index = pd.read_parquet(project / "data/index.parquet")
    splits = index["split"].replace("val", "train")
    file = written(project, table_of(index["id"].tolist(), split=splits.tolist()))
    watched = ("data/features/mv.parquet", "metrics/fusion.json", "metrics/mv_tsn.json", "metrics/verdict.json")
    before = {name: (project / name).read_bytes() for name in watched}
    set_keys(project / "params.yaml", {"dataset.manifest": "clips.csv", "dataset.splits": "data/none"})
    run("dvc", "repro", "extract_mv", cwd=project)
    run("moclip", "evaluate", cwd=project)
    pd.testing.assert_frame_equal(pd.read_parquet(project / "data/index.parquet"), index)
    assert {name: (project / name).read_bytes() for name in watched} == before
    counts = json.loads((project / "metrics/counts/index.json").read_text())
    assert counts["split_source"] == "the manifest's column split"
    of_folders = ("ignored_files", "hidden_files", "misplaced_clips", "links_out", "broken_links")
    assert [counts[name] for name in of_folders] == [0] * 5
    file.write_text(file.read_text().replace(",test\n", ",none\n", 1))
    printed = run("moclip", "evaluate", cwd=project, code=1).stderr
    assert "data/index.parquet: it was made from another manifest" in printed
    assert "run: dvc repro index" in printed
    assert "index" in json.loads(run("dvc", "status", "--json", cwd=project).stdout)
    set_keys(project / "params.yaml", {"dataset.manifest": "data/none"})
    assert "made from another manifest" in run("moclip", "evaluate", cwd=project, code=1).stderr
