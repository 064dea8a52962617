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
    """What lies below the root.

    clips : "Class/file".
    classes : names of the folders that hold clips, sorted.
    ignored : files and folders that are no clips.
    hidden : those of the ignored that are hidden or belong to the operating system; a hidden folder is one entry.
    misplaced : clips that are not read because they do not lie in a class folder.
    """

    clips: list[str]
    classes: list[str]
    ignored: list[str]
    hidden: list[str]
    misplaced: list[str]


def scan_folder(root: str | Path) -> ClipFolder:
    """List `<root>/<class>/<clip>`, by path or URL, without hidden files.

    Raises DatasetError where the folder does not exist or cannot be listed, or where no class folder holds a clip.
    """
    if not folder_exists(root):
        raise DatasetError(
            "no such folder", where=root, fix="set dataset.root to the folder that holds one folder per class"
        )
    folder = _sort_entries(root)
    if folder.misplaced and not folder.clips:
        what = f"no clips found; {describe_misplaced(folder)}"
        raise DatasetError(what, where=root, fix=misplaced_fix(root, folder))
    if not folder.clips:
        raise DatasetError(
            f"no clips found; looked for <class>/<clip> with {', '.join(VIDEO_SUFFIXES)}",
            where=root,
            fix="dataset.root is the folder above the class folders",
        )
    return folder


def printable_name(name: str) -> str:
    """Return a file's name as valid text: bytes that are not UTF-8 become escapes such as "\\xe9"."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _sort_entries(root: str | Path) -> ClipFolder:
    """Sort what lies below the root into clips and ignored entries."""
    clips: list[str] = []
    ignored: list[str] = []
    hidden: dict[str, None] = {}
    misplaced: list[str] = []
    for name, is_file in _list_entries(root):
        path = PurePosixPath(name)
        if hidden_part := _topmost_hidden(path):
            hidden[hidden_part] = None
        elif is_file and len(path.parts) == 2 and _is_video(name):
            clips.append(name)
        else:
            ignored.append(name)
            misplaced += filter(_is_video, [name] if is_file else _files_below(Path(root), name))
    classes = sorted({printable_name(clip).split("/")[0] for clip in clips})
    return ClipFolder(clips, classes, sorted([*ignored, *hidden]), sorted(hidden), misplaced)


def _is_video(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES


def _topmost_hidden(path: PurePosixPath) -> str | None:
    """Return the path of the topmost hidden file or folder in a path; None where nothing is hidden."""
    chain = [*reversed(path.parents), path]  # ".", "a", "a/b"
    return next((str(part) for part in chain[1:] if is_hidden(part.name)), None)


def _list_entries(root: str | Path) -> Iterator[tuple[str, bool]]:
    """Yield names and whether each is a file: two levels, sorted; at a URL every file, however deep."""
    if is_url(root):
        yield from ((name, True) for name in Folder(root).sizes())
        return
    folders = []
    for path in _sorted_entries(Path(root)):
        if path.is_dir() and not is_hidden(path.name):
            folders.append(path)
        else:
            yield path.name, path.is_file()
    for folder in folders:
        yield from ((f"{folder.name}/{path.name}", path.is_file()) for path in _sorted_entries(folder))


def _sorted_entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as problem:
        fix = "check its permissions"
        raise DatasetError(f"cannot be listed: {problem.strerror}", where=folder, fix=fix) from None


def _files_below(root: Path, name: str) -> Iterator[str]:
    """Yield the files in a folder within a class folder, however deep, without hidden ones; links are not followed."""
    if (root / name).is_symlink():
        return
    for folder, inner, files in os.walk(root / name):
        inner[:] = sorted(child for child in inner if not is_hidden(child))
        below_root = Path(folder).relative_to(root)
        yield from ((below_root / file).as_posix() for file in sorted(files) if not is_hidden(file))


def describe_misplaced(folder: ClipFolder) -> str:
    first = printable_name(folder.misplaced[0])
    return f"{len(folder.misplaced)} clips do not lie in <class>/<clip>, such as {first}"


def misplaced_fix(root: str | Path, folder: ClipFolder) -> str:
    """Say where to move clips that do not lie in a class folder."""
    paths = [PurePosixPath(printable_name(name)).parts for name in folder.misplaced]
    if all(len(path) == 1 for path in paths):
        return "put each into a folder named after its class; if this folder is a class, name the folder above it"
    if doubled := sorted({path[0] for path in paths if len(path) == 3 and path[0] == path[1]}):
        name = doubled[0]
        more = f" (and likewise for {len(doubled) - 1} more)" if len(doubled) > 1 else ""
        return f"a folder lies within one of the same name: move what is in {name}/{name} up into {name}{more}"
    move = "move each into its class's folder, <class>/<clip>"
    if len(folder.misplaced) <= len(folder.clips):
        return move
    above = sorted({"/".join(path[:-2]) for path in paths if len(path) > 2})
    if len(above) == 1:
        return f"set dataset.root to {join_path(root, above[0])}"
    return f"{move}; or set dataset.root to one of {', '.join(above[:3])}{', ...' * (len(above) > 3)}"


def join_first_lines(lines: Iterable[str], most: int = 5) -> str:
    """Join the first lines, and say how many more there are."""
    every = list(lines)
    more = [f"... and {len(every) - most} more"] if len(every) > most else []
    return "\n  ".join(every[:most] + more)
