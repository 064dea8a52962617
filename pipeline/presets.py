"""Presets for the demo, your own folder, HMDB-51 and UCF-101. `moclip use` writes one as params.yaml.

A preset holds only what differs from the defaults in `pipeline.params`, so a new key needs no edit there.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from moclip.errors import DatasetError, MoclipError
from moclip.files.folders import home_expanded, is_url
from pipeline import params as parameters
from pipeline.yaml_text import load_yaml

COMMENT_COLUMN = 29


def names() -> list[str]:
    return sorted(
        path.name.removesuffix(".yaml")
        for path in resources.files("pipeline").joinpath("presets").iterdir()
        if path.name.endswith(".yaml")
    )


def params_text(
    preset: str,
    root: str | None = None,
    splits: str | None = None,
    split: int | None = None,
    clip: str | None = None,
    manifest: str | None = None,
) -> str:
    """Return a preset's params.yaml for a data set. Raises MoclipError for bad arguments."""
    if preset not in names():
        raise MoclipError(f"no such preset; there are {', '.join(names())}", where=preset)
    values = differences(preset)
    dataset = values.setdefault("dataset", {})
    if manifest is not None:
        if splits is not None:
            raise MoclipError("--splits and --manifest exclude each other: both give the splits")
        dataset["manifest"] = _checked_manifest(manifest)
        root = root if root is not None else _folder_of(manifest)
    if root is not None:
        dataset["root"] = _checked_folder(root, "--root")
    if manifest is not None:
        dataset["splits"] = parameters.NO_FILE
    elif splits is not None:
        dataset["splits"] = _checked_folder(splits, "--splits")
    elif root is not None:
        dataset["splits"] = dataset["root"]  # which holds no lists, so `index` splits by group
    if split is not None:
        dataset["split"] = split
    if clip is not None:
        values.setdefault("clip", {}).update(_encoder_values(clip))
    if "root" not in dataset:
        raise MoclipError(f"the preset {preset!r} needs to know where the videos are", fix="add --root DIR")
    return complete(values, heading(_source(preset)), source=f"preset {preset}")


def differences(preset: str) -> dict[str, Any]:
    """Return the values that a preset sets, as a tree."""
    return dict(load_yaml(_source(preset)) or {})


def _source(preset: str) -> str:
    return resources.files("pipeline").joinpath("presets", f"{preset}.yaml").read_text(encoding="utf-8")


def heading(source: str) -> str:
    """Return the comment lines at the top of a YAML file."""
    return "".join(itertools.takewhile(lambda line: line.startswith("#"), source.splitlines(keepends=True)))


def complete(values: dict[str, Any], heading: str, source: str) -> str:
    """Return the text of a params.yaml with every key and its description. Keys not in `values` have their default."""
    parameters.validate_partial(values, source)
    text = heading + "\n".join(_lines(parameters.Params, values)) + "\n"
    parameters.validate(load_yaml(text), source)
    return text


def _lines(group: type[BaseModel], values: dict[str, Any], indent: str = "") -> Iterator[str]:
    for name, field in group.model_fields.items():
        if model := parameters.group_of(field):
            yield from () if indent else [""]
            yield f"{indent}{name}:"
            yield from _lines(model, values.get(name, {}), f"{indent}  ")
        else:
            line = f"{indent}{name}: {yaml_value(values.get(name, field.default))}"
            yield f"{line:<{COMMENT_COLUMN}}  # {field.description}"


def yaml_value(value: Any) -> str:
    """Return a value as YAML text on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=math.inf)
    return text.removesuffix("...\n").strip()  # YAML ends a single value with "..."


def _encoder_values(name: str) -> dict[str, Any]:
    """Return the keys of the group `clip` for an encoder: a folder, a hub id, timm:NAME, hf-hub:ID or "false"."""
    if name == "false":
        return {"model": False, "files": parameters.NO_FILE}
    path = home_expanded(name)
    if name.strip() and path.is_dir():
        folder = _checked_folder(name, "--clip")
        return {"model": folder, "files": folder}
    if not _HUB_NAME.fullmatch(name) or path.exists():
        fix = "--clip takes a folder that exists, a hub id (org/name), timm:NAME, hf-hub:ID or false"
        raise DatasetError("no such folder, and no name of a model", where=f"--clip {name!r}", fix=fix)
    return {"model": name, "files": parameters.NO_FILE}


_HUB_NAME = re.compile(r"timm:[\w.-]+|(hf-hub:)?[A-Za-z0-9][\w.-]*/[\w.-]+")
"""A name of timm's, or an id of the hub."""


def _checked_folder(path: str, option: str) -> str:
    """Return a folder as params.yaml names it. Raises DatasetError where it does not exist."""
    if is_url(path):
        return path
    folder = home_expanded(path)
    if not folder.is_dir():
        raise DatasetError("no such folder", where=path, fix=f"{option} takes a folder that exists")
    return _as_named(folder)


def _checked_manifest(path: str) -> str:
    """Return a manifest as params.yaml names it. Raises DatasetError where it is no table."""
    from moclip.data.text_tables import SUFFIXES  # imports pandas

    file = home_expanded(path)
    if not file.is_file() or file.suffix.lower() not in SUFFIXES:
        fix = f"--manifest takes a file that exists and ends in {', '.join(SUFFIXES)}"
        raise DatasetError("no table of clips", where=path, fix=fix)
    return _as_named(file)


def _folder_of(manifest: str) -> str:
    """Return the folder that a manifest lies in, which its paths are relative to if no other is named."""
    folder = home_expanded(manifest).resolve().parent
    if Path.cwd().resolve().is_relative_to(folder):  # DVC would watch the project itself
        fix = "add --root DIR, the folder of the clips, which the paths in the manifest are relative to"
        raise DatasetError("where are its clips?", where=manifest, fix=fix)
    return str(folder)


def _as_named(path: Path) -> str:
    """Return a path as params.yaml names it: relative if it is in the project, else absolute."""
    path, project = path.resolve(), Path.cwd().resolve()
    in_project = path.is_relative_to(project) and path != project
    return path.relative_to(project).as_posix() if in_project else str(path)
