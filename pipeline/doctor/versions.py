"""Check which packages are installed, and whether they load."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
from dataclasses import replace

from pipeline.doctor.finding import OK, PROBLEM, WARNING, Finding

PIPELINE = ("accelerate", "dvc", "dvclive", "matplotlib", "pandas", "pyarrow", "ruamel.yaml", "tensorstore", "zarr")
"""Packages that exported models do not need."""
OPTIONAL = {
    "motion-vector-extractor": "not needed: PyAV reads every clip",
    "onnxruntime": "needed for ONNX models only",
}
INSTALL_PYAV = "install PyAV from PyPI: pip install av"
_INSTALL_PIPELINE = "pip install 'moclip[pipeline]'; without it only exported models work"


def check_versions() -> list[Finding]:
    """Check Python, this package and its dependencies, and whether PyTorch and torchvision load."""
    found = [Finding("python", platform.python_version()), _check_package("moclip", PROBLEM, "pip install .")]
    found += [_check_loads(_check_package(name, PROBLEM, f"pip install {name}")) for name in ("torch", "torchvision")]
    found += [_check_package(name, PROBLEM, f"pip install {name}") for name in ("timm", "transformers", "av")]
    found += [_check_package(name, WARNING, _INSTALL_PIPELINE) for name in PIPELINE]
    found += [_check_package(name, OK, advice) for name, advice in OPTIONAL.items()]
    return [*found, _check_ffmpeg()]


def _check_package(name: str, state_if_missing: str, advice: str) -> Finding:
    try:
        return Finding(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "not installed", state_if_missing, advice)


def _check_loads(package: Finding) -> Finding:
    """Check that an installed package loads. A torchvision built for another torch does not, for example."""
    if package.state != OK:
        return package
    try:
        importlib.import_module(package.what)
    except Exception as problem:
        found = f"{package.found}, does not load: {first_line(problem)}"
        return replace(package, found=found, state=PROBLEM, advice="install matching versions of torch and torchvision")
    return package


def _check_ffmpeg() -> Finding:
    try:
        import av
    except Exception as problem:
        return Finding("FFmpeg of av", f"av does not load: {first_line(problem)}", PROBLEM, INSTALL_PYAV)
    libraries = ", ".join(
        f"{name} {'.'.join(map(str, number))}"
        for name, number in sorted(av.library_versions.items())
        if name in ("libavcodec", "libavformat", "libswscale")
    )
    return Finding("FFmpeg of av", f"{av.ffmpeg_version_info}: {libraries}")


def first_line(problem: BaseException) -> str:
    return next(iter(str(problem).splitlines()), type(problem).__name__)
