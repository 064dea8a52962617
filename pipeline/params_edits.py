"""What a user changed in a params.yaml that `moclip use` wrote, and a copy of it before it is replaced."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from moclip.errors import MoclipError
from pipeline import params as parameters
from pipeline import presets
from pipeline.console.output import print_note
from pipeline.yaml_text import load_yaml

SET_BY_OPTIONS = frozenset(
    ("dataset.root", "dataset.splits", "dataset.manifest", "dataset.split", "clip.model", "clip.files")
)
"""The keys that `moclip use` sets by its options: another value is no edit."""


@dataclass(frozen=True)
class Edits:
    """How a params.yaml differs from the preset it is nearest to: a line for each key."""

    preset: str
    lines: list[str]


def keep_edited(path: Path, force: bool) -> None:
    """Copy an edited params.yaml to params.yaml.bak, as it is about to be replaced. One without edits is not copied.

    Without `force` it shows the edits and asks first. Raises MoclipError where nobody can be asked, or if the file
    belongs to another pipeline, such as data/demo's.
    """
    raw = parameters.read_raw(path)
    if not parameters.is_project(raw):
        fix = "run `moclip use` in the project's folder, or a new one"
        raise MoclipError("of another pipeline", where=path, fix=fix)
    edits = find_edits(raw)
    if not edits.lines:
        return
    kept = path.with_name(f"{path.name}.bak")
    if not force:
        edited = "\n  ".join([f"edited since `moclip use {edits.preset}`:", *edits.lines])
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise MoclipError(edited, where=path, fix=f"to replace it, add --force; it is kept as {kept}")
        typer.confirm(f"{path}: {edited}\nReplace it, and keep it as {kept}?", abort=True, err=True)
    shutil.copyfile(path, kept)
    print_note(f"{kept}: your edited {path}")


def find_edits(raw: dict[str, Any]) -> Edits:
    """Compare a params.yaml, as a tree, with each preset. A key that it lacks is no edit: a newer version added it."""
    each = [Edits(preset, list(_lines(raw, preset))) for preset in presets.names()]
    return min(each, key=lambda edits: len(edits.lines))


def _lines(raw: dict[str, Any], preset: str) -> Iterator[str]:
    written = dict(_values(load_yaml(presets.params_text(preset, root="."))))
    for key, value in _values(raw):
        if key not in written:
            yield f"{key}: {presets.yaml_value(value)} (unknown key)"
        elif key not in SET_BY_OPTIONS and value != written[key]:
            yield f"{key}: {presets.yaml_value(value)} (preset: {presets.yaml_value(written[key])})"


def _values(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each full key of a tree with its value."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _values(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
