"""`import moclip` finds the package wherever Python is started, also beside a clone in a folder of that name."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from benchmarks.common import copy_product
from tests.conftest import ROOT, run_fresh

pytestmark = pytest.mark.slow


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
