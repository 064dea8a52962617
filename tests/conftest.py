"""Fixtures: real git + DVC repositories in temporary folders, run as a user would, by command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads starve each other

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
REAL_DATA = "MOCLIP_REAL_DATA"

COPIED = (
    "dvc.yaml",
    ".dvcignore",
    ".gitignore",
    "pipeline",
    "stages",
    "src",
    "data/none",
    "data/prompts.json",
    "data/classes",
)
DEMO = ("dvc.yaml", "params.yaml", "*.py", ".gitignore")

SMALL = {
    "mv.shard": 128,
    "tsn.backbone": "test_resnet",
    "tsn.size": 32,
    "tsn.epochs": 2,
    "tsn.batch": 8,
    "tsn.lr_steps": [2],
    "baselines.image": False,
    "embed.views": 2,
    "fusion.lr": 0.01,
    "fusion.epochs": 20,
    "evaluate.protocol": "3x1",
}
"""Parameters that make every stage run in a second or two."""

SMALL_DEMO = {
    "appearances": 2,
    "motions": 2,
    "train": 6,
    "test": 3,
    "group": 2,
    "clip.stills": 64,
    "clip.steps": 4,
    "clip.batch": 16,
}

Run = Callable[..., subprocess.CompletedProcess[str]]


def run(*command: str | Path, cwd: Path, code: int | None = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user would; `code` is the exit code to expect (None: any)."""
    env = os.environ | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
        "GIT_AUTHOR_NAME": "t",
        "GIT_AUTHOR_EMAIL": "t@example.org",
        "GIT_COMMITTER_NAME": "t",
        "GIT_COMMITTER_EMAIL": "t@example.org",
        "COLUMNS": "120",
    }
    env.pop("DVC_ROOT", None)
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env | environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    if code is not None:
        assert done.returncode == code, f"{command} gave {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def set_keys(path: Path, values: dict[str, Any]) -> None:
    """Change keys ("fusion.lr") of a YAML file."""
    tree = yaml.safe_load(path.read_text())
    for key, value in values.items():
        *parents, leaf = key.split(".")
        group = tree
        for parent in parents:
            group = group[parent]
        group[leaf] = value
    path.write_text(yaml.safe_dump(tree, sort_keys=False))


def new_project(folder: Path) -> Path:
    """The product's files in a git + DVC repository of its own, nothing run yet."""
    folder.mkdir(parents=True)
    for name in COPIED:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, target)
    (folder / "data/demo").mkdir()
    for pattern in DEMO:
        for source in (ROOT / "data/demo").glob(pattern):
            shutil.copy(source, folder / "data/demo" / source.name)
    (folder / "metrics").mkdir()
    run("git", "init", "-q", "-b", "main", cwd=folder)
    run("dvc", "init", "-q", cwd=folder)
    run("moclip", "use", "demo", cwd=folder)
    set_keys(folder / "params.yaml", SMALL)
    set_keys(folder / "data/demo/params.yaml", SMALL_DEMO)
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    run("git", "add", "-A", cwd=folder)
    run("git", "commit", "-q", "-m", "state", "--allow-empty", cwd=folder)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project after `dvc repro`, committed. Read it; to change something take `project`."""
    folder = new_project(tmp_path_factory.mktemp("finished") / "project")
    run("dvc", "repro", cwd=folder)
    commit(folder)
    return folder


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished project, to change at will."""
    folder = tmp_path / "project"
    shutil.copytree(finished, folder, symlinks=True)
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real clips; the test is skipped where there is none."""
    given = os.environ.get(REAL_DATA)
    if not given:
        pytest.skip(f"{REAL_DATA} names no folder of real clips")
    return Path(given)
