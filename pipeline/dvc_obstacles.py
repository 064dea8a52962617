"""What stops DVC when it reads the folder of the clips: told before a project is made, not minutes later by DVC."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

from moclip.data.clip_folder import printable_name
from moclip.errors import DatasetError

_FIXES = {
    "cannot be read": "make them readable (chmod +r), or remove them",
    "has a name that is not UTF-8": "rename them, or remove them",
    "is no regular file": "remove them",
    "is a link to nothing": "remove them, or mount what they lead to",
}


def check_for_dvc(root: Path) -> None:
    """Raise DatasetError for what DVC cannot read below a folder: it reads every file, also hidden ones and no clips.

    Links to folders are not followed, as DVC does not follow them.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for folder, _, files in os.walk(root):
        for name in files:
            path = Path(folder, name)
            below = path.relative_to(root).as_posix()
            if problem := _obstacle(path, below):
                found[problem].append(below)
    for problem, names in found.items():
        more = f", and {len(names) - 1} more like it" if len(names) > 1 else ""
        what = f"{printable_name(min(names))} {problem}{more}: DVC cannot read a folder with such files"
        raise DatasetError(what, where=root, fix=_FIXES[problem])


def _obstacle(path: Path, name: str) -> str | None:
    """Return what is wrong with a file, a key of `_FIXES`; None where DVC can read it."""
    if name != printable_name(name):
        return "has a name that is not UTF-8"
    if not os.access(path, os.R_OK):  # os.path, because Path.exists raises where a folder may not be entered
        is_broken = os.path.islink(path) and not os.path.exists(path)  # noqa: PTH110, PTH114
        return "is a link to nothing" if is_broken else "cannot be read"
    return None if path.is_file() else "is no regular file"
