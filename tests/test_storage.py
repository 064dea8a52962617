"""Features and clips in an object store: the same bytes as on a disk, links that DVC tracks, a kill on the way."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from moclip.errors import StoreError, VideoError
from moclip.files.folders import Folder
from moclip.files.links import follow_link
from moclip.files.local_copies import local_copy
from moclip.store.features import Features, write_features
from moclip.store.layout import PARTS_FOLDER, shard_name
from moclip.store.reader import FieldReader
from moclip.store.table import TABLE_COLUMNS, as_table, read_table, write_table
from moclip.store.verify import verify_store
from tests.cloud import names, objects, s3, s3_server
from tests.conftest import commit, run, run_stages, set_keys, stages_from
from tests.test_dag import digests
from tests.test_extract import SLOW, clips, index
from tests.test_extract import run as extract

pytest.importorskip("s3fs", reason="the extra s3 is not installed")
__all__ = ["clips"]  # a fixture

STORES = ("mv", "clip_image", "clip_text", "mv_embed")


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    with s3_server() as environment:
        yield environment


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ------------------------------------------------------------------------------------------------------ the pipeline


@pytest.mark.slow
def test_the_pipeline_with_clips_and_features_in_s3(finished: Path, project: Path, server: dict[str, str]) -> None:
    """The scores and the bytes are those of a disk; the project holds links, and DVC keeps nothing but them."""
    system = s3()
    for name, content in files(project / "data/demo/videos").items():
        system.pipe_file(f"bucket/clips/{name}", content)
    for name, content in files(project / "data/demo/splits").items():
        system.pipe_file(f"bucket/splits/{name}", content)
    place = {"dataset.root": "s3://bucket/clips", "dataset.splits": "s3://bucket/splits", "store": "s3://bucket/feat"}
    set_keys(project / "params.yaml", place)
    run("dvc", "repro", "extract_mv", cwd=project)
    run_stages(*stages_from("clip_text"), cwd=project)
    assert (project / "data/index.parquet").read_bytes() == (finished / "data/index.parquet").read_bytes()
    for name in STORES:
        link = json.loads((project / f"data/features/{name}.zarr/link.json").read_text())
        there = objects(link["url"])
        for beside in ("table.parquet", "code"):
            there.pop(beside, None)
        assert there == files(finished / f"data/features/{name}.zarr")
    assert digests(project, "metrics/summary.json") == digests(finished, "metrics/summary.json")
    shown = run("moclip", "store", "info", cwd=project).stdout
    assert "s3://bucket/feat/mv-" in shown
    assert "all clips" in run("moclip", "store", "verify", cwd=project).stdout
    assert not [name for name in system.find("bucket/feat") if "/work/" in name], "parts are left"
    assert run("dvc", "repro", "extract_mv", cwd=project).stdout.count("Running stage") == 0

    commit(project)  # other parameters have a place of their own: the links of a former state stay good
    set_keys(project / "params.yaml", {"mv.clip": 10})
    run("moclip", "extract_mv", cwd=project)
    assert "all clips" in run("moclip", "store", "verify", cwd=project).stdout
    run("dvc", "checkout", "-f", "data/features/mv.zarr", "data/features/mv.parquet", cwd=project)
    assert "all clips" in run("moclip", "store", "verify", cwd=project).stdout


# ----------------------------------------------------------------------------------------------------- extraction


@pytest.mark.slow
def test_a_store_in_s3_is_byte_for_byte_a_local_one(clips: Path, tmp_path: Path, server: dict[str, str]) -> None:
    videos = index(clips)
    extract(videos, clips, tmp_path / "right")
    extract(videos[:5], clips, tmp_path / "right")
    extract(videos, clips, tmp_path / "out", storage="s3://bucket/grown", workers=2)
    extract(videos[:5], clips, tmp_path / "out", storage="s3://bucket/grown")
    folder, _ = follow_link(tmp_path / "out/mv.zarr")
    there = objects(folder.url)
    assert there.pop("table.parquet") == (tmp_path / "out/mv.parquet").read_bytes()
    assert there == files(tmp_path / "right/mv.zarr")
    reader = FieldReader(tmp_path / "out/mv.zarr", tmp_path / "out/mv.parquet")
    local = FieldReader(tmp_path / "right/mv.zarr", tmp_path / "right/mv.parquet")
    frames = np.array([reader.offset("v1") + 3, reader.offset("v3")])
    np.testing.assert_array_equal(reader.read(frames), local.read(frames))
    np.testing.assert_array_equal(reader.frame_types("v1"), local.frame_types("v1"))


@pytest.mark.slow
def test_a_killed_run_into_s3_resumes(clips: Path, tmp_path: Path, server: dict[str, str]) -> None:
    videos = index(clips)
    extract(videos, clips, tmp_path / "right")
    (tmp_path / "slow.py").write_text(SLOW)
    videos.to_parquet(tmp_path / "videos.parquet")
    arguments = [tmp_path / "slow.py", tmp_path / "videos.parquet", clips, tmp_path / "out", 0, "s3://bucket/kill"]
    process = subprocess.Popen([sys.executable, *map(str, arguments)])
    deadline = time.monotonic() + 60
    while len(parts := _parts("s3://bucket/kill")) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert len(parts) >= 3, "the last of them may be at work yet"
    shards = {name: about for name, about in objects("s3://bucket/kill").items() if "/c/" in name}
    first = {name: s3().info(f"bucket/kill/{name}")["LastModified"] for name in shards}
    extract(videos, clips, tmp_path / "out", storage="s3://bucket/kill")
    kept = [name for name in first if s3().info(f"bucket/kill/{name}")["LastModified"] == first[name]]
    assert len(kept) >= 2, "what was finished is not written again"
    folder, _ = follow_link(tmp_path / "out/mv.zarr")
    there = objects(folder.url)
    there.pop("table.parquet")
    assert there == files(tmp_path / "right/mv.zarr")


def _parts(url: str) -> list[str]:
    return [name for name in names(url) if f"/{PARTS_FOLDER}/" in name and name.endswith(".json")]


@pytest.mark.slow
def test_damage_and_change_in_s3_are_named(clips: Path, tmp_path: Path, server: dict[str, str]) -> None:
    videos = index(clips)
    extract(videos, clips, tmp_path, storage="s3://bucket/hurt")
    shutil.copytree(tmp_path / "mv.zarr", tmp_path / "older.zarr")
    folder, _ = follow_link(tmp_path / "mv.zarr")
    name = shard_name(0)
    content = bytearray(folder.read(name))
    content[len(content) // 3] ^= 1
    folder.write(name, bytes(content))
    problems = verify_store(tmp_path / "mv.zarr", tmp_path / "mv.parquet")
    assert problems
    assert all("shard 0" in problem for problem in problems)
    folder.remove(name)
    reader = FieldReader(tmp_path / "mv.zarr", tmp_path / "mv.parquet")
    with pytest.raises(StoreError, match="shard 0 is missing or damaged"):
        reader.read(np.arange(4))
    extract(videos[1:], clips, tmp_path, storage="s3://bucket/hurt")
    with pytest.raises(StoreError, match="has changed since"):
        FieldReader(tmp_path / "older.zarr", tmp_path / "mv.parquet")
    extract(videos, clips, tmp_path, storage="s3://bucket/hurt")
    assert verify_store(tmp_path / "mv.zarr", tmp_path / "mv.parquet") == []


@pytest.mark.slow
def test_a_store_moves_from_disk_to_s3_and_back(clips: Path, tmp_path: Path, server: dict[str, str]) -> None:
    videos = index(clips)
    extract(videos, clips, tmp_path)
    before = files(tmp_path / "mv.zarr")
    extract(videos, clips, tmp_path, storage="s3://bucket/moved")
    assert list(files(tmp_path / "mv.zarr")) == ["link.json"]
    extract(videos, clips, tmp_path)
    assert files(tmp_path / "mv.zarr") == before


# ------------------------------------------------------------------------------------------------- small features


def test_features_by_link(tmp_path: Path, server: dict[str, str]) -> None:
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    for shift in (0, 1):
        arrays = {"features": (values + shift, ("feature",))}
        write_features(tmp_path / f"{shift}.zarr", list("abcd"), arrays, {"model": "m"}, "s3://bucket/small")
    for shift in (0, 1):  # each has a place of its own
        found = Features(tmp_path / f"{shift}.zarr", "clip_text")
        np.testing.assert_array_equal(found.rows("features", ["c", "a"]), values[[2, 0]] + shift)
        assert found.attributes["model"] == "m"


# ------------------------------------------------------------------------------------------------ what goes wrong


def test_an_unreachable_store_is_named(server: dict[str, str], project: Path) -> None:
    set_keys(project / "params.yaml", {"store": "s3://nobody/here"})
    printed = run("moclip", "clip_text", cwd=project, code=1).stderr
    assert "there is no such bucket" in printed
    assert "Traceback" not in printed
    set_keys(project / "params.yaml", {"store": "s3://bucket/x"})
    nowhere = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_MAX_ATTEMPTS": "1"}
    printed = run("moclip", "clip_text", cwd=project, code=1, **nowhere).stderr
    assert "cannot be reached" in printed
    assert "Traceback" not in printed
    set_keys(project / "params.yaml", {"store": "ftp://host/x"})
    printed = run("moclip", "clip_text", cwd=project, code=1).stderr
    assert "store = 'ftp://host/x': allowed is false | s3://" in printed


def test_a_missing_clip_at_a_url_is_a_video_error(tmp_path: Path, server: dict[str, str]) -> None:
    with pytest.raises(VideoError, match="no longer exists"), local_copy("s3://bucket/none.mp4"):
        pass
    Folder("s3://bucket/one").write("clip.mp4", b"abc")
    with local_copy("s3://bucket/one/clip.mp4") as file:
        assert file.read_bytes() == b"abc"
        assert file.suffix == ".mp4"
    assert not file.exists()


def test_folders_by_path_and_by_url_do_the_same(tmp_path: Path, server: dict[str, str]) -> None:
    for place in (str(tmp_path / "f"), f"file://{tmp_path}/g", "s3://bucket/h"):
        folder = Folder(place)
        assert folder.sizes() == {}
        for name in ("a/b", "a/c", "d"):
            folder.write(name, name.encode() * 2)
        assert folder.sizes() == {"a/b": 6, "a/c": 6, "d": 2}
        assert folder.sizes("a") == {"a/b": 6, "a/c": 6}
        assert folder.read_range("a/b", 1, 4) == b"/ba"
        assert list(folder.read_many(["d", "a/c"])) == [b"dd", b"a/ca/c"]
        before = folder.stamp("d")
        folder.write("d", b"new")
        assert folder.stamp("d") not in (before, "")
        folder.remove("a/b")
        folder.remove("a/b")
        assert (folder.exists("a/b"), folder.exists("a/c"), folder.stamp("a/b")) == (False, True, "")
        with pytest.raises(FileNotFoundError):
            folder.read("a/b")
        folder.clear()
        assert folder.sizes() == {}


def test_a_table_travels_by_url(server: dict[str, str]) -> None:
    table = as_table(pd.DataFrame({"id": ["a"], "md5": ["m"]}).reindex(columns=list(TABLE_COLUMNS)).fillna(0))
    write_table("s3://bucket/t/table.parquet", table)
    pd.testing.assert_frame_equal(read_table("s3://bucket/t/table.parquet"), table)
