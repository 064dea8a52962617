"""Check and normalise the paths in a manifest."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pandas as pd

from moclip.data.row_errors import refuse
from moclip.files.folders import SCHEMES, is_absolute, is_url

PATH_FIX = "write the path of the clip's file, relative to dataset.root"


def clean_paths(rows: pd.DataFrame, root: str, file: Path) -> pd.Series:
    """Return each path as the index has it: relative to the root if it is below it, with single slashes.

    `rows` have the columns path and number. Raises DatasetError, with the row, for a path that is no file's, leads out
    of the root, or is a URL of another kind.
    """
    paths = rows["path"]
    windows = paths.str.contains("\\", regex=False) & ~paths.str.contains("/", regex=False)
    paths = paths.where(~windows, paths.str.replace("\\", "/", regex=False))
    urls = paths.str.contains(r"^[A-Za-z][A-Za-z0-9+.-]*://", regex=True)
    schemes = "|".join(SCHEMES)
    unsupported = urls & ~paths.str.contains(rf"^(?:{schemes})://", regex=True)
    wanted = ", ".join(f"{name}://" for name in SCHEMES)
    refuse(unsupported, rows, "path", "{!r}: this kind of URL is not supported", f"use one of {wanted}", file)
    if not is_url(root):
        paths = paths.str.removeprefix("file://")
        urls &= ~rows["path"].str.startswith("file://")
    untidy = ~urls & paths.str.contains(r"(?:^|/)\.\.?(?:/|$)|//|/$", regex=True)
    paths = paths.where(~untidy, paths[untidy].map(lambda path: PurePosixPath(path).as_posix()))
    for folder in _spellings(root):
        paths = paths.str.removeprefix(f"{folder}/")
    relative = ~paths.str.contains(r"^/|://", regex=True)
    outside = relative & paths.str.contains(r"(?:^|/)\.\.(?:/|$)", regex=True)
    fix = "write the absolute path; or set dataset.root to a folder above all clips"
    refuse(outside, rows, "path", "{!r} leads out of dataset.root", fix, file)
    refuse(paths.isin(["", ".", "/"]), rows, "path", "{!r} is no file", PATH_FIX, file)
    return paths


def _spellings(root: str) -> list[str]:
    """Return the absolute paths or URLs that stand for the root."""
    if root.startswith("file://"):
        return [root.rstrip("/"), root.removeprefix("file://").rstrip("/")]
    if is_absolute(root) and is_url(root):
        return [root.rstrip("/")]
    return list(dict.fromkeys([str(Path(root).absolute()), str(Path(root).resolve())]))
