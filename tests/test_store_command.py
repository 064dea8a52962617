"""`moclip store` tells what the store holds, and finds what is damaged."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import run


def test_info_counts_what_is_there(finished: Path) -> None:
    shown = run("moclip", "store", "info", cwd=finished).stdout
    table = pd.read_parquet(finished / "data/features/mv.parquet")
    rows = {" ".join(words[:-1]): words[-1] for line in shown.splitlines() if (words := line.split())}
    assert rows["clips"] == str(len(table))
    assert rows["frames"] == f"{table['length'].sum():,}"
    assert "version: ffmpeg" in shown


def test_show_finds_a_clip_by_a_part_of_its_name(finished: Path) -> None:
    name = pd.read_parquet(finished / "data/features/mv.parquet")["id"][0]
    shown = run("moclip", "store", "show", Path(name).stem, cwd=finished).stdout
    assert name in shown
    assert " I " in shown
    assert " P " in shown
    several = run("moclip", "store", "show", "Ball", cwd=finished, code=1)
    assert "clips have this in their id" in several.stderr
    assert "Traceback" not in several.stderr


def test_verify_names_the_clip_with_a_flipped_byte(project: Path) -> None:
    assert "all clips are intact" in run("moclip", "store", "verify", cwd=project).stdout
    table = pd.read_parquet(project / "data/features/mv.parquet")
    first = table[table["shard"] == 0].sort_values("offset").iloc[0]["id"]
    shard = project / "data/features/mv.zarr/field/c/0/0/0/0"
    content = bytearray(shard.read_bytes())
    content[50] ^= 1
    shard.write_bytes(content)
    done = run("moclip", "store", "verify", cwd=project, code=1)
    assert first in done.stderr
    assert "--rebuild" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command", ["store info", "store verify", "store show Ball", "metrics", "index", "predict a.avi"]
)
def test_in_a_folder_of_the_project_the_projects_own_is_named(finished: Path, command: str) -> None:
    for folder in ("data/features", "data/demo"):  # the second one has a params.yaml of its own
        done = run("moclip", *command.split(), cwd=finished / folder, code=1)
        assert "this is not the project's folder\n" in done.stderr
        assert f"  run it there: cd {finished.resolve()}\n" in done.stderr


@pytest.mark.slow
def test_outside_a_project_no_message_suggests_extracting(tmp_path: Path) -> None:
    for command in ("store info", "store verify", "store show Ball", "metrics"):
        done = run("moclip", *command.split(), cwd=tmp_path, code=1)
        assert done.stderr.startswith("error: params.yaml: not found\n  run from the project's root")
    run("moclip", "use", "demo", cwd=tmp_path)
    assert "run the extraction again" in run("moclip", "store", "info", cwd=tmp_path, code=1).stderr
    assert "run: dvc repro" in run("moclip", "metrics", cwd=tmp_path, code=1).stderr
    (tmp_path / "sub").mkdir()
    printed = run("moclip", "use", "demo", cwd=tmp_path / "sub").stdout
    assert f"this folder is inside another project, {tmp_path.resolve()}" in printed


def test_without_a_store_it_says_so(tmp_path: Path) -> None:
    done = run("moclip", "store", "info", cwd=tmp_path, code=1)
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")
