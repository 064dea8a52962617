"""Stages on a Ray cluster of two machines: the same bytes, also when one of them is lost on the way."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moclip.motion import extract as extract_module
from moclip.motion.extract import ShardJob, _do_apart
from moclip.store.layout import PARTS_FOLDER
from moclip.store.reader import FieldReader
from moclip.store.verify import verify_store
from moclip.workers import cluster as cluster_module
from moclip.workers.cluster import AHEAD, Cluster, ClusterError, check_seen, check_versions
from moclip.workers.processes import DECODER_DIED
from tests.cloud import two_machines
from tests.conftest import BIN, run
from tests.test_dag import digests
from tests.test_extract import _do_one_or_die, _do_or_die, clips, contents, index
from tests.test_extract import run as extract

pytest.importorskip("ray", reason="the extra ray is not installed")
__all__ = ["clips"]  # a fixture

FEATURES = ("data/features/mv.zarr", "data/features/mv.parquet", "data/features/clip_image.zarr")
SMALLER = ("--mv-shard", "128")


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    with two_machines() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def fight(real_data: Path, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every third real clip indexed, extracted and encoded on this machine."""
    folder = tmp_path_factory.mktemp("fight")
    shutil.copytree(finished / "data/demo/clip", folder / "data/demo/clip")
    shutil.copytree(finished / "data/models", folder / "data/models")
    shutil.copy(finished / "data/prompts.json", folder / "data/prompts.json")
    root = real_data / "fight_surv/videos"
    for clip in sorted(root.rglob("*.mp4"))[::3]:
        (folder / "clips" / clip.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, folder / "clips" / clip.parent.name)
    run("moclip", "use", "folder", "--root", "clips", cwd=folder)
    run("moclip", "index", cwd=folder)
    run("moclip", "extract_mv", *SMALLER, cwd=folder)
    run("moclip", "clip_image", cwd=folder)
    return folder


@pytest.mark.slow
def test_a_machine_is_lost_while_real_clips_are_extracted(fight: Path, ray: Any) -> None:
    right = digests(fight, *FEATURES)
    shutil.rmtree(fight / "data/features")
    log = fight / "log.txt"
    with log.open("w") as out:
        command = [BIN / "moclip", "extract_mv", *SMALLER, "--ray", ray.address]
        process = subprocess.Popen(command, cwd=fight, stdout=out, stderr=out)
        parts = fight / "data/features/mv.zarr" / PARTS_FOLDER
        _wait_for(lambda: len(list(parts.glob("[0-9]*.json"))) >= 4)
        assert process.poll() is None, "the run ended before a machine could be lost"
        ray.remove_node(ray.second, allow_graceful=False)
        assert process.wait(timeout=300) == 0, log.read_text()
    assert "Traceback" not in log.read_text()
    ray.second = ray.add_node(num_cpus=1)
    ray.wait_for_nodes()
    run("moclip", "clip_image", cwd=fight, MOCLIP_RAY=ray.address)  # as `dvc repro` would pass it on
    assert digests(fight, *FEATURES) == right


@pytest.mark.slow
def test_embeddings_of_a_cluster_are_those_of_one_machine(project: Path, ray: Any) -> None:
    right = digests(project, "data/features/mv_embed.zarr")
    shutil.rmtree(project / "data/features/mv_embed.zarr")
    run("moclip", "embed_mv", "--ray", ray.address, cwd=project)
    assert digests(project, "data/features/mv_embed.zarr") == right
    assert not any((project / "data/work").glob("*")), "parts are left"


def test_a_clip_that_kills_its_worker_costs_itself_alone(
    clips: Path, tmp_path: Path, ray: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = index(clips)
    healthy = videos[videos["id"] != "v3"]
    extract(healthy, clips, tmp_path / "right")
    monkeypatch.setattr(extract_module, "_do_there", _do_or_die)
    monkeypatch.setattr(extract_module, "_do_apart", _apart_or_die)
    with Cluster(ray.address) as cluster:
        table = extract(videos, clips, tmp_path / "out", cluster=cluster).set_index("id")
    assert (table.drop("v3")["status"] == "ok").all()
    assert table.loc["v3", "status"] == "failed"
    assert table.loc["v3", "reason"] == DECODER_DIED
    found = FieldReader(tmp_path / "out/mv.zarr", tmp_path / "out/mv.parquet")
    right = FieldReader(tmp_path / "right/mv.zarr", tmp_path / "right/mv.parquet")
    assert all((found.read_video(name) == right.read_video(name)).all() for name in healthy["id"])


def _apart_or_die(job: ShardJob) -> None:
    _do_one = _do_one_or_die  # in the worker
    _do_apart(job)


def test_a_run_that_is_killed_goes_on_on_a_cluster(clips: Path, tmp_path: Path, ray: Any) -> None:
    videos = index(clips)
    extract(videos, clips, tmp_path / "right")
    extract(videos[:5], clips, tmp_path / "out")
    with Cluster(ray.address) as cluster:
        table = extract(videos, clips, tmp_path / "out", cluster=cluster)
    assert set(table["status"]) == {"ok"}
    assert verify_store(tmp_path / "out/mv.zarr", tmp_path / "out/mv.parquet") == []
    with Cluster(ray.address) as cluster:
        extract(videos, clips, tmp_path / "new", cluster=cluster)
    assert contents(tmp_path / "new") == contents(tmp_path / "right")


def test_no_more_jobs_are_out_than_the_machines_can_take(ray: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def load(number: int) -> int:
        made.append(number)
        return number

    with Cluster(ray.address) as cluster:
        ended = []
        for name, result in cluster.run(_double, _double, load, range(40)):
            assert result == 2 * name
            ended.append(name)
            assert len(made) - len(ended) <= AHEAD * 2
    assert sorted(ended) == list(range(40))


def _double(number: int) -> int:
    return 2 * number


def test_a_job_that_always_loses_its_worker_ends_the_run(ray: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "ATTEMPTS", 2)
    with Cluster(ray.address) as cluster, pytest.raises(ClusterError, match="2 workers were lost"):
        list(cluster.run(_kill, _kill, int, [1]))


def _kill(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_another_machine_must_see_and_compute_the_same() -> None:
    check_versions({"av": "1", "x": "2"}, {"av": "1"})
    with pytest.raises(ClusterError, match="has av 2, where the run began with 1"):
        check_versions({"av": "2"}, {"av": "1"})
    with pytest.raises(ClusterError, match="does not see /nowhere"):
        check_seen(False, "/nowhere")


def test_where_no_cluster_is_that_is_said(project: Path) -> None:
    for address, variable in (("auto", "127.0.0.1:1"), ("127.0.0.1:1", ""), ("ray://127.0.0.1:1", "")):
        said = run("moclip", "extract_mv", "--ray", address, cwd=project, code=1, RAY_ADDRESS=variable).stderr
        assert f"error: --ray {address}: no Ray cluster there" in said
        assert "ray start --head" in said
        assert "Traceback" not in said


def _wait_for(so: Any, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.02)
