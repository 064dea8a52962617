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

from moclip.errors import ModelError
from moclip.motion import extract as extract_module
from moclip.motion import extract_workers
from moclip.motion.extract_plan import ShardJob
from moclip.motion.extract_workers import write_shard_on_cluster
from moclip.store.layout import PARTS_FOLDER
from moclip.store.reader import FieldReader
from moclip.store.verify import verify_store
from moclip.workers import cluster as cluster_module
from moclip.workers.cluster import Cluster, ClusterError, check_same_versions, check_visible
from moclip.workers.processes import DECODER_DIED
from tests.cloud import Machines, two_machines
from tests.conftest import run, surroundings
from tests.test_dag import digests
from tests.test_extract import clips, contents, index, read_or_die, write_or_die
from tests.test_extract import run as extract

pytestmark = pytest.mark.slow

pytest.importorskip("ray", reason="the extra ray is not installed")
__all__ = ["clips"]  # a fixture

FEATURES = ("data/features/mv.zarr", "data/features/mv.parquet", "data/features/clip_image.zarr")
SMALLER = ("--mv-shard", "128")


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    with two_machines(tmp_path_factory.mktemp("ray")) as machines:
        yield machines


@pytest.fixture(scope="module")
def cluster(ray: Machines) -> Iterator[Cluster]:
    """One connection for all tests that need no command: each has worker processes of its own, which start slowly."""
    with Cluster(ray.address) as connected:
        yield connected


@pytest.fixture(scope="module")
def fight(real_data: Path, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every sixth real clip indexed, extracted and encoded on this machine."""
    folder = tmp_path_factory.mktemp("fight")
    shutil.copytree(finished / "data/demo/clip", folder / "data/demo/clip")
    shutil.copytree(finished / "data/models", folder / "data/models")
    shutil.copy(finished / "data/prompts.json", folder / "data/prompts.json")
    root = real_data / "fight_surv/videos"
    for clip in sorted(root.rglob("*.mp4"))[::6]:
        (folder / "clips" / clip.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, folder / "clips" / clip.parent.name)
    run("moclip", "use", "folder", "--root", "clips", cwd=folder)
    run("moclip", "index", cwd=folder)
    run("moclip", "extract_mv", *SMALLER, cwd=folder)
    run("moclip", "clip_image", cwd=folder)
    return folder


@pytest.mark.slow
def test_losing_a_machine_during_extraction_loses_no_clip(fight: Path, ray: Machines) -> None:
    right = digests(fight, *FEATURES)
    shutil.rmtree(fight / "data/features")
    log = fight / "log.txt"
    with log.open("w") as out:
        command = ["moclip", "extract_mv", *SMALLER, "--ray", ray.address]
        process = subprocess.Popen(command, cwd=fight, env=surroundings(), stdout=out, stderr=out)
        parts = fight / "data/features/mv.zarr" / PARTS_FOLDER
        _wait_for(lambda: len(list(parts.glob("[0-9]*.json"))) >= 4)
        assert process.poll() is None, "the run ended before a machine could be lost"
        ray.lose()
        assert process.wait(timeout=300) == 0, log.read_text()
    assert "Traceback" not in log.read_text()
    ray.add()
    run("moclip", "clip_image", cwd=fight, MOCLIP_RAY=ray.address)  # as `dvc repro` would pass it on
    assert digests(fight, *FEATURES) == right


@pytest.mark.slow
def test_embeddings_of_a_cluster_are_those_of_one_machine(project: Path, ray: Machines) -> None:
    right = digests(project, "data/features/mv_embed.zarr")
    shutil.rmtree(project / "data/features/mv_embed.zarr")
    run("moclip", "embed_mv", "--ray", ray.address, cwd=project)
    assert digests(project, "data/features/mv_embed.zarr") == right
    assert not any((project / "data/work").glob("*")), "parts are left"


def test_a_clip_that_kills_its_worker_fails_alone(
    clips: Path, tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = index(clips)
    healthy = videos[videos["id"] != "v3"]
    extract(healthy, clips, tmp_path / "right")
    monkeypatch.setattr(extract_module, "write_shard_on_cluster", _write_or_die_there)
    table = extract(videos, clips, tmp_path / "out", cluster=cluster).set_index("id")
    assert (table.drop("v3")["status"] == "ok").all()
    assert table.loc["v3", "status"] == "failed"
    assert table.loc["v3", "reason"] == DECODER_DIED
    found = FieldReader(tmp_path / "out/mv.zarr", tmp_path / "out/mv.parquet")
    right = FieldReader(tmp_path / "right/mv.zarr", tmp_path / "right/mv.parquet")
    assert all((found.read_video(name) == right.read_video(name)).all() for name in healthy["id"])


def _write_or_die_there(job: ShardJob, lost: int) -> None:
    with pytest.MonkeyPatch.context() as patch:  # in the worker
        patch.setattr(extract_workers, "read_clip", read_or_die)
        if not lost:
            write_or_die(job)
        else:
            write_shard_on_cluster(job, lost)


def test_a_killed_run_resumes_on_a_cluster(clips: Path, tmp_path: Path, cluster: Cluster) -> None:
    videos = index(clips)
    extract(videos, clips, tmp_path / "right")
    extract(videos[:5], clips, tmp_path / "out")
    table = extract(videos, clips, tmp_path / "out", cluster=cluster)
    assert set(table["status"]) == {"ok"}
    assert verify_store(tmp_path / "out/mv.zarr", tmp_path / "out/mv.parquet") == []
    extract(videos, clips, tmp_path / "new", cluster=cluster)
    assert contents(tmp_path / "new") == contents(tmp_path / "right")


def test_each_job_is_reported_once(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "JOBS_IN_RAY", 15)
    assert sorted(cluster.run(_nothing, list(range(40)))) == list(range(40))
    assert list(cluster.run(_nothing, [])) == []


def _nothing(number: int, lost: int) -> None:
    pass


def test_a_job_that_keeps_losing_its_worker_ends_the_run(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "MAX_ATTEMPTS", 2)  # a worker takes seconds to start
    with pytest.raises(ClusterError, match="2 workers were lost"):
        list(cluster.run(_kill, [1]))


def _kill(number: int, lost: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_errors_of_a_machine_or_model_end_the_run(cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match="has av 2, but the run was started with 1"):
        list(cluster.run(_other_version, [1, 2]))
    with pytest.raises(ModelError, match="no such model"):
        list(cluster.run_on_actors(_no_model, ("mv_tsn.safetensors",), [1, 2, 3]))


def _other_version(number: int, lost: int) -> None:
    check_same_versions({"av": "2"}, {"av": "1"})


def _no_model(path: str) -> Any:
    raise ModelError("no such model", where=path)


def test_another_machine_must_see_and_compute_the_same() -> None:
    check_same_versions({"av": "1", "x": "2"}, {"av": "1"})
    with pytest.raises(ClusterError, match="does not see /nowhere"):
        check_visible(False, "/nowhere")


def test_a_missing_cluster_is_an_error(project: Path) -> None:
    for address, variable in (("auto", "127.0.0.1:1"), ("127.0.0.1:1", "")):
        printed = run("moclip", "extract_mv", "--ray", address, cwd=project, code=1, RAY_ADDRESS=variable).stderr
        assert f"error: --ray {address}: no Ray cluster there" in printed
        assert "ray start --head" in printed
        assert "Traceback" not in printed
    printed = run("moclip", "extract_mv", "--ray", "ray://127.0.0.1:10001", cwd=project, code=1).stderr
    assert "run the command on a machine of the cluster, with --ray auto" in printed


def _wait_for(so: Any, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.02)
