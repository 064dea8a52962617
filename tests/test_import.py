"""`moclip import` turns lists of other projects into a manifest that `index` reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moclip.data.foreign_lists import read_class_names, read_foreign_list
from moclip.data.manifest import read_manifest
from moclip.errors import DatasetError
from tests.conftest import run


def written(folder: Path, text: str, name: str) -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


KINETICS = (
    "label,youtube_id,time_start,time_end,split\n"
    "run fast,-abc,10,20,train\nrun fast,-abc,10,20,train\nhop,d_f,5,15,validate\n"
)


def imported(folder: Path, *words: str | Path) -> tuple[list[str], str]:
    """The lines of the manifest that `moclip import` writes, and what it prints."""
    done = run("moclip", "import", *words, "--out", "out.csv", cwd=folder)
    return (folder / "out.csv").read_text().splitlines(), done.stdout


def test_a_list_is_not_replaced_by_its_manifest(tmp_path: Path) -> None:
    file = written(tmp_path, KINETICS, "kinetics.csv")
    done = run("moclip", "import", file, "--out", "./kinetics.csv", cwd=tmp_path, code=1)
    assert "it is one of the lists\n  name another file" in done.stderr
    assert (tmp_path / "kinetics.csv").read_text() == KINETICS


def test_lists_of_kinetics_become_a_manifest(tmp_path: Path) -> None:
    file = written(tmp_path, KINETICS, "kinetics.csv")
    lines, printed = imported(tmp_path, file, "--trimmed", "--test-on-val")
    assert lines == [
        "path,label,split,group,id",
        "-abc_000010_000020.mp4,run fast,train,-abc,-abc_000010_000020",
        "d_f_000005_000015.mp4,hop,test,d_f,d_f_000005_000015",
    ]
    assert "out.csv: 2 clips, 2 classes; next: moclip use folder --manifest out.csv" in printed
    assert read_manifest(tmp_path / "out.csv", str(tmp_path)).rows["split"].tolist() == ["train", "test"]
    rows = read_foreign_list(file)
    assert rows[["path", "start", "end"]].to_numpy().tolist() == [["-abc.mp4", "10", "20"], ["d_f.mp4", "5", "15"]]


def test_lists_of_mmaction2_become_a_manifest(tmp_path: Path) -> None:
    written(tmp_path, "a b/1.mp4 1\nc.mp4 0\n", "set_train_list_videos.txt")
    written(tmp_path, "d.mp4 1\r\n", "set_val_list_videos.txt")
    written(tmp_path, "hop\nrun fast\n", "names.txt")
    words = ("set_train_list_videos.txt", "set_val_list_videos.txt", "--classes", "names.txt")
    lines, printed = imported(tmp_path, *words)
    assert lines == ["path,label,split", "a b/1.mp4,run fast,train", "c.mp4,hop,train", "d.mp4,run fast,val"]
    assert "no clip has the split test: with --test-on-val, those of val get it" in printed
    assert read_class_names(written(tmp_path, "0 hop\n1 run fast\n", "n.txt")) == ["hop", "run fast"]
    assert read_class_names(written(tmp_path, "100 m race\nhop\n", "n.txt")) == ["100 m race", "hop"]
    assert read_foreign_list(tmp_path / "set_train_list_videos.txt")["label"].tolist() == ["1", "0"]


def test_lists_of_activitynet_become_a_manifest(tmp_path: Path) -> None:
    annotations = [{"label": "Hop", "segment": [0.01, 90]}, {"label": "Run", "segment": [90.5, 100]}]
    database = {
        "x1": {"subset": "training", "annotations": annotations},
        "x2": {"subset": "testing", "annotations": []},
    }
    rows = read_foreign_list(written(tmp_path, json.dumps({"database": database}), "net.json"))
    assert rows.to_numpy().tolist() == [
        ["v_x1.mp4", "Hop", "train", "x1", "x1_0", "0.01", "90"],
        ["v_x1.mp4", "Run", "train", "x1", "x1_1", "90.5", "100"],
    ]
    file = tmp_path / "clips.csv"
    rows.assign(split=["train", "test"]).to_csv(file, index=False)
    found = read_manifest(file, str(tmp_path)).rows
    assert found[["start", "end"]].to_numpy().tolist() == [[10_000, 90_000_000], [90_500_000, 100_000_000]]
    assert found["video"].tolist() == ["v_x1.mp4", "v_x1.mp4"]


def test_rows_of_untrimmed_videos_are_spans_with_all_their_digits(tmp_path: Path) -> None:
    annotations = [{"label": "Hop", "segment": [1234.56789, 2000]}, {"label": "Run", "segment": [5, 5]}]
    text = json.dumps({"database": {"x": {"subset": "training", "annotations": annotations}}})
    written(tmp_path, text, "net.json")
    lines, printed = imported(tmp_path, "net.json")
    assert lines[1:] == ["v_x.mp4,Hop,train,x,x_0,1234.56789,2000"]
    assert "rows are spans of whole videos, from start to end" in printed
    assert "left out, as their end is not after their start: 1 row" in printed
    kinetics = "label,youtube_id,time_start,time_end\nrun,a,10,20.5\nhop,a,10.25,20\nhop,a,10.5,20\n"
    rows = read_foreign_list(written(tmp_path, kinetics, "k.csv"))
    assert rows["id"].tolist() == ["a_000010_20.5", "a_10.25_000020", "a_10.5_000020"]
    assert rows[["path", "start", "end"]].iloc[0].tolist() == ["a.mp4", "10", "20.5"]


@pytest.mark.parametrize(
    ("name", "text", "expected_text"),
    [
        ("k.csv", "youtube_id,time_start,time_end\nx,1,2\n", "no column label"),
        ("k.csv", KINETICS.replace(",5,", ",five,"), "row 4, column time_start: 'five' is no number"),
        ("k.csv", KINETICS.replace("validate", "held"), "row 4, column split: 'held'"),
        ("list.txt", "a.mp4 0\nb.mp4\n", "row 2: 'b.mp4'\n  each line is the path"),
        ("list.txt", "a.mp4 0\nb.mp4 2\n", "row 2: no class 2: the list of classes has 2, from 0"),
        ("net.json", '{"database": {"x": {"annotations": []}}, "more": [}', "not a list of ActivityNet"),
        ("net.json", '{"database": {"x": {"annotations": [{}]}}}', "ActivityNet (KeyError"),
    ],
)
def test_wrong_lists_of_others_are_refused(tmp_path: Path, name: str, text: str, expected_text: str) -> None:
    with pytest.raises(DatasetError) as refused:
        read_foreign_list(written(tmp_path, text, name), ["hop", "run"])
    assert str(refused.value).startswith(f"{tmp_path}/{name}: ")
    assert expected_text in str(refused.value)


def test_a_label_with_the_sign_between_labels_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "a.mp4 0\n", "train.txt")
    written(tmp_path, "hop|run\nsit\n", "names.txt")
    done = run("moclip", "import", "train.txt", "--classes", "names.txt", "--out", "out.csv", cwd=tmp_path, code=1)
    assert "the label 'hop|run' has |, which stands between labels in a manifest" in done.stderr
