"""The package as it is installed: `import moclip` finds it wherever Python is started; `make setup` begins again."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from benchmarks.common import copy_product
from tests.conftest import ROOT, run_fresh

pytestmark = pytest.mark.slow

LOCKED = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_a_clone_named_moclip_does_not_hide_the_package(kind: str, tmp_path: Path) -> None:
    clone = tmp_path / "moclip"
    clone.mkdir()
    copy_product(clone)
    for name in ("pyproject.toml", "README.md", "LICENSE", "Makefile"):
        shutil.copy(ROOT / name, clone / name)
    run_fresh(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    run_fresh(sys.executable, "-c", f"from setuptools import build_meta; build_meta.build_{kind}('dist')", cwd=clone)
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    with ZipFile(next((clone / "dist").glob("*.whl"))) as wheel:
        wheel.extractall(packages)
    if kind == "editable":
        run_fresh("make", "link", f"VENV={tmp_path / 'venv'}", cwd=clone)  # a part of `make setup`
    script = "import moclip; print(moclip.__file__, moclip.load.__name__)"
    done = run_fresh(tmp_path / "venv/bin/python", "-c", script, cwd=tmp_path, PYTHONPATH="")
    file, function = done.stdout.split()
    assert Path(file).parent == (packages / "moclip" if kind == "wheel" else clone / "src/moclip")
    assert function == "load"


@pytest.mark.parametrize("interrupted", [True, False])
def test_make_setup_begins_with_an_empty_environment_after_an_interruption(interrupted: bool, tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path / name)
    half_copied = tmp_path / ".venv/bin/package"
    half_copied.parent.mkdir(parents=True)
    half_copied.touch()
    if interrupted:
        (tmp_path / ".venv/.unfinished").touch()
    done = run_fresh("make", "setup", "PYTHON=true", cwd=tmp_path, code=2)  # there is no pip in the environment
    assert half_copied.exists() == (not interrupted)
    assert ("was interrupted" in done.stdout) == interrupted
    assert f"installing {len(LOCKED)} packages" in done.stdout
    assert (tmp_path / ".venv/.unfinished").exists()
    assert not (tmp_path / ".venv/.ready").exists()
