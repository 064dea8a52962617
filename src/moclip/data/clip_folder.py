"""List a data set's folder `<root>/<class>/<clip>`, on a disk or at a URL."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from moclip.errors import DatasetError
from moclip.files.folders import Folder, folder_exists, is_url, join_path
from moclip.files.hidden import is_hidden
from moclip.video.clip_files import VIDEO_SUFFIXES


@dataclass(frozen=True)
class ClipFolder:
    """What lies under the root: clips as "Class/file", and files and folders that are `ignored`.

    Of the ignored, `hidden` are the hidden ones and a system's own, a folder counted once. `misplaced` are clips that
    are not read, because they lie elsewhere than in a class's folder.
    """

    clips: list[str]
    classes: list[str]
    ignored: list[str]
    hidden: list[str]
    misplaced: list[str]


def scan_folder(root: str | Path) -> ClipFolder:
    """List `<root>/<class>/<clip>`, by path or URL; what is hidden is left out.

    Raises DatasetError where there is no folder, it cannot be listed, or no clip lies where one is looked for.
    """
    if not folder_exists(root):
        raise DatasetError(
            "no such folder", where=root, fix="set dataset.root to the folder that holds a folder a class"
        )
    found = _sorted_out(root)
    if found.misplaced and not found.clips:
        what = f"no clips found; {misplaced(found)}"
        raise DatasetError(what, where=root, fix=where_they_belong(root, found))
    if not found.clips:
        raise DatasetError(
            f"no clips found; looked for <class>/<clip> with {', '.join(VIDEO_SUFFIXES)}",
            where=root,
            fix="dataset.root is the folder above the class folders",
        )
    return found


def written(name: str) -> str:
    """A file's name as text: bytes in it that are no UTF-8 are spelt out."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _sorted_out(root: str | Path) -> ClipFolder:
    """Tell clips, "Class/file", from what is none."""
    clips: list[str] = []
    ignored: list[str] = []
    hidden: dict[str, None] = {}
    misplaced: list[str] = []
    for name, is_file in _listed(root):
        path = PurePosixPath(name)
        if top := _hidden(path):
            hidden[top] = None
        elif is_file and len(path.parts) == 2 and _is_video(name):
            clips.append(name)
        else:
            ignored.append(name)
            misplaced += filter(_is_video, [name] if is_file else _below(Path(root), name))
    classes = sorted({written(clip).split("/")[0] for clip in clips})
    return ClipFolder(clips, classes, sorted([*ignored, *hidden]), sorted(hidden), misplaced)


def _is_video(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES


def _hidden(path: PurePosixPath) -> str | None:
    """The topmost part of a name that is hidden, as a path; None where nothing is."""
    chain = [*reversed(path.parents), path]  # ".", "a", "a/b"
    return next((str(part) for part in chain[1:] if is_hidden(part.name)), None)


def _listed(root: str | Path) -> Iterator[tuple[str, bool]]:
    """What lies in the root and in its folders, sorted, and whether it is a file; at a URL every file, however deep."""
    if is_url(root):
        yield from ((name, True) for name in Folder(root).sizes())
        return
    folders = []
    for path in _entries(Path(root)):
        if path.is_dir() and not is_hidden(path.name):
            folders.append(path)
        else:
            yield path.name, path.is_file()
    for folder in folders:
        yield from ((f"{folder.name}/{path.name}", path.is_file()) for path in _entries(folder))


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as problem:
        raise DatasetError(f"cannot be listed: {problem.strerror}", where=folder, fix="see who may read it") from None


def _below(root: Path, name: str) -> Iterator[str]:
    """The files in a folder within a class's folder, however deep, but for the hidden; links are not followed."""
    if (root / name).is_symlink():
        return
    for folder, inner, files in os.walk(root / name):
        inner[:] = sorted(one for one in inner if not is_hidden(one))
        here = Path(folder).relative_to(root)
        yield from ((here / file).as_posix() for file in sorted(files) if not is_hidden(file))


def misplaced(folder: ClipFolder) -> str:
    first = written(folder.misplaced[0])
    return f"{len(folder.misplaced)} clips lie elsewhere than in <class>/<clip>, such as {first}"


def where_they_belong(root: str | Path, folder: ClipFolder) -> str:
    """What to do about clips that lie elsewhere than in a class's folder."""
    parts = [PurePosixPath(written(name)).parts for name in folder.misplaced]
    if all(len(one) == 1 for one in parts):
        return "put each into a folder named after its class; if this folder is a class, name the folder above it"
    if doubled := sorted({one[0] for one in parts if len(one) == 3 and one[0] == one[1]}):
        name = doubled[0]
        more = f" (and so for {len(doubled) - 1} more)" if len(doubled) > 1 else ""
        return f"a folder within one of the same name: move what is in {name}/{name} up into {name}{more}"
    move = "move each into its class's folder, <class>/<clip>"
    if len(folder.misplaced) <= len(folder.clips):
        return move
    above = sorted({"/".join(one[:-2]) for one in parts if len(one) > 2})
    if len(above) == 1:
        return f"set dataset.root to {join_path(root, above[0])}"
    return f"{move}; or set dataset.root to one of {', '.join(above[:3])}{', ...' * (len(above) > 3)}"


def first_few(lines: Iterable[str], most: int = 5) -> str:
    every = list(lines)
    more = [f"... and {len(every) - most} more"] if len(every) > most else []
    return "\n  ".join(every[:most] + more)
