"""Presets: whole params.yaml files for the demo, an own folder and UCF-101; `moclip use` writes one out."""

from __future__ import annotations

import io
from importlib import resources
from pathlib import Path

from ruamel.yaml import YAML

from moclip.errors import DatasetError, MoclipError
from moclip.files.folders import is_url
from pipeline import params as parameters
from pipeline.io import write_text


def names() -> list[str]:
    return sorted(
        path.name.removesuffix(".yaml")
        for path in resources.files("pipeline").joinpath("presets").iterdir()
        if path.name.endswith(".yaml")
    )


def text(preset: str, root: str | None = None, splits: str | None = None, split: int | None = None) -> str:
    """The preset's params.yaml with the data set filled in, comments kept. Raises MoclipError for bad arguments."""
    if preset not in names():
        raise MoclipError(f"no such preset; there are {', '.join(names())}", where=preset)
    source = resources.files("pipeline").joinpath("presets", f"{preset}.yaml").read_text(encoding="utf-8")
    yaml = YAML()
    yaml.width = 200
    tree = yaml.load(source)
    dataset = tree["dataset"]
    if root is not None:
        dataset["root"] = _folder(root, "--root")
        # without lists of its own the folder of videos stands in: index then splits by group
        dataset["splits"] = _folder(splits, "--splits") if splits else dataset["root"]
    elif splits is not None:
        dataset["splits"] = _folder(splits, "--splits")
    if split is not None:
        dataset["split"] = split
    if not dataset["root"]:
        raise MoclipError(f"the preset {preset!r} needs to know where the videos are", fix="add --root DIR")
    out = io.StringIO()
    yaml.dump(tree, out)
    parameters.validate(yaml.load(out.getvalue()), source=f"preset {preset}")
    return out.getvalue()


def write(preset: str, target: Path, root: str | None, splits: str | None, split: int | None) -> None:
    """Write a preset's params.yaml. Raises MoclipError where `target` is of another pipeline, the demo's clips' say."""
    if target.exists() and not parameters.is_ours(parameters.read_raw(target)):
        raise MoclipError(
            "of another pipeline", where=target, fix="run `moclip use` in the project's folder, or a new one"
        )
    write_text(target, text(preset, root, splits, split))


def _folder(path: str, option: str) -> str:
    if is_url(path):
        return path
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise DatasetError("no such folder", where=path, fix=f"{option} takes a folder that exists")
    inside = folder.resolve()
    here = Path.cwd().resolve()
    return inside.relative_to(here).as_posix() if inside.is_relative_to(here) and inside != here else str(inside)
