"""Features travel through a DVC remote: a second clone experiments on the head and extracts nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud import BUCKET, s3_server
from tests.conftest import commit, run
from tests.test_dag import digests, ran

HEAD_NEEDS = (
    "data/index.parquet",
    "data/features/clip_image.zarr",
    "data/features/clip_text.zarr",
    "data/features/mv_embed.zarr",
    "data/features/mv.parquet",
)


def share(project: Path, url: str, endpoint: str | None = None) -> None:
    """Make `url` the project's remote and push everything to it."""
    run("dvc", "remote", "add", "-d", "share", url, cwd=project)
    if endpoint:
        run("dvc", "remote", "modify", "share", "endpointurl", endpoint, cwd=project)
    commit(project)
    run("dvc", "push", cwd=project)


def clone(project: Path) -> Path:
    """What somebody else has after `git clone`."""
    second = project.parent / "second"
    run("git", "clone", "-q", str(project), str(second), cwd=project.parent)
    return second


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an S3 server, which DVC is to know from the project and not from the environment."""
    pytest.importorskip("dvc_s3", reason="the extra s3 is not installed")
    with s3_server() as environment, monkeypatch.context() as patch:
        patch.delenv("AWS_ENDPOINT_URL")
        yield environment["AWS_ENDPOINT_URL"]


def clips_elsewhere(project: Path) -> Path:
    """Move the clips out of the project, as if it had been run on them there; returns their folder."""
    inside, outside = "data/demo/videos", project.parent / "clips"
    (project / inside).rename(outside)
    for name in ("params.yaml", "dvc.lock"):
        text = (project / name).read_text()
        assert inside in text
        (project / name).write_text(text.replace(inside, str(outside)))
    assert "up to date" in run("dvc", "status", "index", "extract_mv", "clip_image", cwd=project).stdout
    return outside


def test_a_clone_pulls_the_features_and_runs_the_head_alone(project: Path) -> None:
    share(project, str(project.parent / "remote"))
    second = clone(project)
    run("dvc", "pull", cwd=second)
    assert "up to date" in run("dvc", "status", cwd=second).stdout
    assert run("git", "status", "--porcelain", cwd=second).stdout == ""
    expected = digests(project, "data/features", "data/models")
    del expected["data/features/mv.code"]  # of the machine that extracted; neither git nor DVC sends it
    assert digests(second, "data/features", "data/models") == expected
    done = run("dvc", "exp", "run", "-S", "fusion.lr=1e-4", cwd=second)
    assert ran(done.stdout) == ["train_fusion", "evaluate", "report"]
    features = {path: digest for path, digest in expected.items() if path.startswith("data/features/")}
    assert digests(second, "data/features") == features


@pytest.mark.slow
def test_without_the_clips_only_what_the_head_reads_comes_from_the_bucket(project: Path, endpoint: str) -> None:
    clips = clips_elsewhere(project)
    share(project, f"s3://{BUCKET}/moclip", endpoint)
    second = clone(project)
    clips.rename(clips.with_name("gone"))
    done = run("dvc", "exp", "run", "--pull", "--allow-missing", "-S", "fusion.lr=1e-4", "evaluate", cwd=second)
    assert ran(done.stdout) == ["train_fusion", "evaluate"]
    assert digests(second, *HEAD_NEEDS) == digests(project, *HEAD_NEEDS)
    assert not (second / "data/features/mv.zarr").exists(), "the motion fields stay where they are"
