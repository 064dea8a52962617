"""`moclip doctor` tells what the machine has and lacks, and finds readers of motion vectors that are not exact."""

from __future__ import annotations

import importlib.metadata
import json
import os
import resource
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moclip.video.decoding import MOTION_CODECS
from moclip.video.vectors import has_mvextractor, read_vectors
from pipeline.doctor.codecs import WITHOUT_VECTORS, check_codecs
from pipeline.doctor.exactness import check_exactness, count_blocks, error_px, shared_blocks
from pipeline.doctor.finding import OK, PROBLEM, WARNING, Finding
from pipeline.doctor.machine import check_disk, check_machine
from pipeline.doctor.sample_clips import STEP
from pipeline.doctor.versions import check_versions
from tests.clips import encode, moving_texture
from tests.conftest import ROOT, run, set_keys


@pytest.fixture
def hub() -> Iterator[str]:
    """A hub that answers."""

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {one.what: one for one in findings}


# -------------------------------------------------------------------------------------------------- the command


@pytest.mark.slow
def test_a_valid_project_has_no_problems(hub: str, tmp_path: Path) -> None:
    run("git", "init", "-q", cwd=tmp_path)
    run("dvc", "init", "-q", cwd=tmp_path)
    for name in ("one", "two"):
        (tmp_path / "videos" / name).mkdir(parents=True)
        encode(tmp_path / "videos" / name / "v_g01.avi", moving_texture(3, (64, 80)))
    run("moclip", "use", "folder", "--root", "videos", cwd=tmp_path)
    (tmp_path / "data/demo").mkdir(parents=True)
    (tmp_path / "data/demo/dvc.yaml").touch()
    (tmp_path / "data/index.parquet").touch()
    online: dict[str, Any] = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub, "NO_PROXY": "127.0.0.1"}
    done = run("moclip", "doctor", cwd=tmp_path, **online)
    heads = [part.partition("\n")[0] for part in done.stdout.split("\n\n")]
    assert heads[:6] == ["versions", "device", "codecs", "exactness", "hub", "project"]
    printed = {" ".join(line.split()) for line in done.stdout.splitlines()}
    for wanted in (
        f"torch ok {importlib.metadata.version('torch')}",
        f"cores for this process ok {len(os.sched_getaffinity(0))}",
        "h264 ok decoder; exports motion vectors",
        "av1 ok decoder; no motion vectors in any frame read such clips with index.transcode: mpeg4",
        "MPEG-4, pyav ok the same in 10 reads, 100.0% of the blocks as PyAV's, 0.00 px off",
        f"hub ok {hub}",
        "params.yaml ok valid",
        "dataset.root ok videos: 2 clips",
        "clip.model ok false: motion alone",
        "data/index.parquet ok exists",
        "data/features/mv.zarr ok not made yet",
    ):
        assert wanted in printed
    assert done.stdout.splitlines()[-1].startswith("0 problems, ")


@pytest.mark.slow
def test_problems_are_json_with_exit_code_1(tmp_path: Path) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    encoders = {"clip.model": "openai/nothing", "clip.models": ["a/b"], "clip.files": "data/none"}
    set_keys(tmp_path / "params.yaml", encoders)
    done = run("moclip", "doctor", "--json", "-q", cwd=tmp_path, code=1)
    assert done.stderr.startswith("error: 3 problems, ")
    project = {one["what"]: one for one in json.loads(done.stdout)["project"]}
    states = {what: one["state"] for what, one in project.items()}
    assert (states["dataset.root"], states["clip.model"], states["DVC cache"]) == (PROBLEM, PROBLEM, WARNING)
    for key in ("clip.model", "clip.models"):
        assert f"name its folder in {key} " in project[key]["advice"]


@pytest.mark.slow
def test_the_clips_counted_are_those_of_the_index(tmp_path: Path) -> None:
    for name in ("a/v.avi", "a/._v.avi", ".ipynb_checkpoints/v.avi", "UCF-101/b/v.avi", "UCF-101/c/v.avi"):
        (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / name).touch()
    run("moclip", "use", "folder", "--root", "videos", cwd=tmp_path)

    def root() -> dict[str, str]:
        done = run("moclip", "doctor", "--json", cwd=tmp_path, code=None)
        return {one["what"]: one for one in json.loads(done.stdout)["project"]}["dataset.root"]

    found = root()
    assert (found["found"], found["state"]) == ("videos: 3 clips", OK)
    shutil.rmtree(tmp_path / "videos/a")
    found = root()
    assert found["state"] == PROBLEM
    assert found["advice"] == "did you mean videos/UCF-101? set dataset.root to it"


# -------------------------------------------------------------------------------------------------- the facts


def test_packages_that_are_absent_or_do_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = importlib.metadata.version

    def version(name: str) -> str:
        if name in ("timm", "zarr", "onnxruntime"):
            raise importlib.metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    found = by_name(check_versions())
    assert [found[name].state for name in ("torch", "timm", "zarr", "onnxruntime")] == [OK, PROBLEM, WARNING, OK]
    assert "moclip[pipeline]" in found["zarr"].advice
    assert found["torchvision"].state == PROBLEM
    assert found["torchvision"].found.endswith(", does not load: operator torchvision::nms does not exist")


def test_every_codec_is_tried() -> None:
    found = by_name(check_codecs())
    assert MOTION_CODECS | {"hevc", "vp9", "av1", "encoder mpeg4", "encoder libx264"} == set(found)
    assert {found[name].found for name in MOTION_CODECS} == {"decoder; exports motion vectors"}
    assert {found[name].found for name in WITHOUT_VECTORS} == {"decoder; no motion vectors in any frame"}
    assert {one.state for one in found.values()} == {OK}


@pytest.mark.slow
def test_pyav_is_exact_and_mvextractor_is_not_on_b_frames() -> None:
    found = by_name(check_exactness())
    assert len(found) == 6 if has_mvextractor() else 3
    for name, one in found.items():
        if "pyav" in name or "B-frames" not in name:
            assert one.state == OK
            assert one.figures == {"reads": 10, "answers": 1, "equal_blocks": 1.0, "error_px": 0.0}
    threads = has_mvextractor() and len(os.sched_getaffinity(0)) > 1
    if threads:
        name = "H.264, B-frames, mvextractor"
        tries = (by_name(check_exactness())[name] for _ in range(4))  # it loses vectors at random, now and then none
        lossy = next((one for one in chain([found[name]], tries) if one.state != OK), found[name])
        assert lossy.state == WARNING
        assert lossy.figures["answers"] > 1
        assert 0.3 < lossy.figures["equal_blocks"] < 1


def test_the_error_is_the_distance_from_the_known_motion(tmp_path: Path) -> None:
    step = STEP
    encode(tmp_path / "clip.avi", np.stack([*textures()]))
    right = read_vectors(tmp_path / "clip.avi", "pyav")
    assert error_px(right, 1) < 0.01
    counts = count_blocks(right)
    assert shared_blocks(counts, counts) == 1
    blocks = right.blocks.copy()
    blocks[:, 7:9] = 0
    still = replace(right, blocks=blocks)
    assert error_px(still, 1) == pytest.approx(sum(step) / 2)
    assert shared_blocks(count_blocks(still), counts) == 0
    mirrored = replace(right, blocks=right.blocks * np.where(np.isin(np.arange(10), (7, 8)), -1, 1))
    assert error_px(mirrored, 1) == pytest.approx(sum(step), abs=0.02)
    fewer = replace(right, blocks=right.blocks[::2], frame=right.frame[::2])
    assert shared_blocks(count_blocks(fewer), counts) == pytest.approx(0.5, abs=0.01)


def textures() -> Iterator[np.ndarray]:
    """Pictures in colour that move by `doctor.STEP`, by other means than the doctor's."""
    (dx, dy), film = STEP, moving_texture(1, (192, 256), (0, 0))[0]
    for number in range(6):
        yield np.roll(film, (dy * number, dx * number), (0, 1))


@pytest.mark.slow
def test_a_hub_that_does_not_answer_is_a_warning(tmp_path: Path) -> None:
    code = (
        "import json\nfrom pipeline.doctor.hub import check_hub\n"
        "print(json.dumps([vars(finding) for finding in check_hub()]))"
    )
    for environment, expected_text in (
        ({"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}, "refused"),
        ({"HF_HUB_OFFLINE": "1"}, "says offline"),
    ):
        (tmp_path / "hub").mkdir(exist_ok=True)
        (tmp_path / "hub/blob").write_bytes(bytes(2_000_000))
        done = run(sys.executable, "-c", code, cwd=tmp_path, code=0, HF_HOME=str(tmp_path), **environment)
        answer, cache = (Finding(**one) for one in json.loads(done.stdout))
        assert answer.state == WARNING
        assert expected_text in answer.found
        assert "a folder that clip.model" in answer.advice
        assert cache.state == OK
        assert cache.found.endswith("free, holds 2.0 MB")


def test_a_limit_of_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "memory limit" not in {finding.what for finding in check_machine()}
    monkeypatch.setattr(resource, "getrlimit", lambda which: (4_000_000_000, resource.RLIM_INFINITY))
    (found,) = (finding for finding in check_machine() if finding.what == "memory limit")
    assert (found.state, found.advice) == (WARNING, "run: ulimit -v unlimited")
    assert found.found.startswith("4.0 GB a process (ulimit -v)")


def test_a_folder_that_cannot_be_written_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_disk("disk", tmp_path / "not/yet").state == OK
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    assert check_disk("disk", tmp_path).state == PROBLEM
    assert "no permission" in check_disk("disk", tmp_path).found
