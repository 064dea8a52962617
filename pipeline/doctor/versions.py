"""Which packages are installed, and whether they load."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass
from pipeline.doctor.finding import OK, PROBLEM, WARNING, Finding

PIPELINE = ("dvc", "dvclive", "pandas", "tensorstore", "zarr")
"""What exported models work without."""
OPTIONAL = {
    "motion-vector-extractor": "not needed: PyAV reads every clip",
    "onnxruntime": "needed for ONNX models only",
}
PYAV = "install PyAV from PyPI: pip install av"
_EXTRA = "pip install 'moclip[pipeline]'; without it only exported models work"


def check_versions() -> list[Finding]:
    """Python, this package and those it is built on; of PyTorch and torchvision also whether they load."""
    found = [Finding("python", platform.python_version()), _package("moclip", PROBLEM, "pip install .")]
    found += [_loaded(_package(name, PROBLEM, f"pip install {name}")) for name in ("torch", "torchvision")]
    found += [_package(name, PROBLEM, f"pip install {name}") for name in ("timm", "transformers", "av")]
    found += [_package(name, WARNING, _EXTRA) for name in PIPELINE]
    found += [_package(name, OK, advice) for name, advice in OPTIONAL.items()]
    return [*found, _ffmpeg()]


def _package(name: str, absent: str, advice: str) -> Finding:
    try:
        return Finding(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "not installed", absent, advice)


def _loaded(package: Finding) -> Finding:
    """A package that is installed may still not load: a torchvision built for another torch, say."""
    if package.state != OK:
        return package
    try:
        importlib.import_module(package.what)
    except Exception as problem:
        found = f"{package.found}, does not load: {first_line(problem)}"
        return replace(package, found=found, state=PROBLEM, advice="install torch and torchvision as one pair")
    return package


def _ffmpeg() -> Finding:
    try:
        import av
    except Exception as problem:
        return Finding("FFmpeg of av", f"av does not load: {first_line(problem)}", PROBLEM, PYAV)
    libraries = ", ".join(
        f"{name} {'.'.join(map(str, number))}"
        for name, number in sorted(av.library_versions.items())
        if name in ("libavcodec", "libavformat", "libswscale")
    )
    return Finding("FFmpeg of av", f"{av.ffmpeg_version_info}: {libraries}")


def first_line(problem: BaseException) -> str:
    return next(iter(str(problem).splitlines()), type(problem).__name__)
