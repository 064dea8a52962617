"""List a data set's folder, `<root>/<class>/<clip>`, on a disk or at a URL.

A class folder may hold folders: the inner folder is then the source of its clips. The class folders may lie in folders
of splits, `<root>/train/<class>/<clip>`, or hold them, `<root>/<class>/train/<clip>` (`moclip.data.folder_layout`).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from moclip.data.folder_layout import Layout, clips_beside_splits, find_layout
from moclip.data.groups import group_of
from moclip.errors import DatasetError
from moclip.files.folders import Folder, folder_exists, join_path
from moclip.files.hidden import is_hidden
from moclip.files.walk import FoundFiles, walk_files
from moclip.video.clip_files import VIDEO_SUFFIXES
from moclip.wording import counted, join_and


@dataclass(frozen=True)
class ClipFolder:
    """What lies below the root.

    clips : "Class/file", "Class/source/file", or either of them in the folder of a split: "train/Class/file".
    classes : names of the classes that have clips, sorted.
    ignored : files and folders that are no clips.
    hidden : those of the ignored that are hidden or belong to the operating system; a hidden folder is one entry.
    misplaced : clips that are not read because they do not lie in a class folder.
    layout : what the folders above the clips mean.
    sources : whether folders within class folders tell the sources of clips.
    empty : folders in the place of class folders that hold no clips.
    links_out, broken_links, repeated_links : links that are not followed (`moclip.files.walk.FoundFiles`).
    """

    clips: list[str]
    classes: list[str]
    ignored: list[str]
    hidden: list[str]
    misplaced: list[str]
    layout: Layout = field(default_factory=Layout)
    sources: bool = False
    empty: list[str] = field(default_factory=list)
    links_out: list[str] = field(default_factory=list)
    broken_links: list[str] = field(default_factory=list)
    repeated_links: list[str] = field(default_factory=list)

    @property
    def splits(self) -> dict[str, str]:
        """Folder of a split -> its split, train, val or test. Empty where there are none."""
        return self.layout.splits

    def class_of(self, clip: str) -> str:
        return clip.split("/")[self.layout.class_level]

    def split_of(self, clip: str) -> str:
        return self.splits[clip.split("/")[self.layout.split_level]]

    def inner_folders(self, clip: str) -> list[str]:
        """Return the folders between those of class and split and the clip, without those that tell nothing."""
        return self.layout.inner_folders(clip)

    def source_of(self, clip: str, by_name: Callable[[str], str]) -> str:
        """Return the source of a clip: that in its name, as `by_name` finds it, or else the folder in its class's."""
        source, inner = by_name(clip), self.inner_folders(clip)
        return inner[0] if self.sources and inner and source == PurePosixPath(clip).stem else source

    def folder_source_of(self, clip: str) -> str | None:
        """Return the folder that is the source of a clip; None where the clip's name tells it, or nothing does."""
        stem = PurePosixPath(clip).stem
        inner = self.inner_folders(clip)
        return inner[0] if self.sources and inner and group_of(clip) == stem else None

    def describe_sources(self) -> str:
        """Say what a source is in this folder, by what occurs in it: folders, names with gNN, single clips."""
        folders = {self.folder_source_of(clip) for clip in self.clips}
        named = sorted(folders - {None}, key=str)
        kinds = [f"the folder within a class folder, such as {printable_name(str(named[0]))}"] if named else []
        others = [clip for clip in self.clips if self.folder_source_of(clip) is None]
        is_given = [group_of(clip) != PurePosixPath(clip).stem for clip in others]
        kinds += ["the gNN in a name"] if any(is_given) or not named else []
        kinds += ["or else the clip itself"] if not all(is_given) or not named else []
        return ", ".join(kinds)


def scan_folder(root: str | Path, follow_links: bool = False) -> ClipFolder:
    """List the clips below a root, by path or URL, without hidden files.

    Links that lead out of the root are followed with `follow_links` only. Raises DatasetError where the folder does not
    exist or cannot be listed, where no class folder holds a clip, where one folder holds all class folders, or where
    clips lie beside what looks like folders of splits.
    """
    if not folder_exists(root):
        raise DatasetError(
            "no such folder", where=root, fix="set dataset.root to the folder that holds one folder per class"
        )
    folder = _sort_files(_list_files(root, follow_links))
    if not folder.clips:
        raise _no_clips(root, folder)
    _check_splits(root, folder)
    _check_classes(root, folder)
    return folder


def printable_name(name: str) -> str:
    """Return a file's name as valid text: bytes that are not UTF-8 become escapes such as "\\xe9"."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_video(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES


def _list_files(root: str | Path, follow_links: bool) -> FoundFiles:
    folder = Folder(root)
    if folder.local:
        return walk_files(folder.local, follow_links)
    found, hidden = FoundFiles(), dict[str, None]()
    for name in folder.sizes():
        if topmost := _topmost_hidden(PurePosixPath(name)):
            hidden[topmost] = None
        else:
            found.files.append(name)
    found.hidden = list(hidden)
    return found


def _topmost_hidden(path: PurePosixPath) -> str | None:
    """Return the path of the topmost hidden file or folder in a path; None where nothing is hidden."""
    chain = [*reversed(path.parents), path]  # ".", "a", "a/b"
    return next((str(part) for part in chain[1:] if is_hidden(part.name)), None)


def _sort_files(found: FoundFiles) -> ClipFolder:
    """Sort files into clips and others, and read what their folders tell."""
    videos = [name for name in found.files if is_video(name)]
    others = [name for name in found.files if not is_video(name)]
    layout = find_layout(videos)
    clips = [name for name in videos if layout.is_placed(name)]
    misplaced = [name for name in videos if not layout.is_placed(name)]
    names = {printable_name(clip).split("/")[layout.class_level] for clip in clips}
    links = [*found.out, *found.broken, *found.again]
    ignored = sorted([*others, *misplaced, *found.others, *found.hidden, *links])
    return ClipFolder(
        clips,
        sorted(names),
        ignored,
        found.hidden,
        misplaced,
        layout,
        len({tuple(layout.inner_folders(clip)[:1]) for clip in clips}) > 1,
        _without_clips(found.folders, clips, layout.class_level + 1),
        found.out,
        found.broken,
        found.again,
    )


def _without_clips(folders: Iterable[str], clips: Iterable[str], depth: int) -> list[str]:
    """Return the folders so many names below the root that hold no clips."""
    holding = {tuple(clip.split("/")[:depth]) for clip in clips}
    return [name for name in folders if name.count("/") == depth - 1 and tuple(name.split("/")) not in holding and name]


def _no_clips(root: str | Path, folder: ClipFolder) -> DatasetError:
    if folder.misplaced:
        what = f"no clips found; {describe_misplaced(folder)}"
        return DatasetError(what, where=root, fix=misplaced_fix(folder))
    if folder.links_out:
        what = f"no clips found; {describe_links_out(folder)}"
        return DatasetError(what, where=root, fix=LINKS_OUT_FIX)
    if folder.broken_links:
        what = f"no clips found; {describe_broken_links(folder)}"
        return DatasetError(what, where=root, fix="mount what they lead to, or remove them")
    suffixes = ", ".join(VIDEO_SUFFIXES)
    others = len(folder.ignored) - len(folder.hidden)
    what = f"no clips found; looked for <class>/<clip> with {suffixes}" + f" among {others} files" * bool(others)
    return DatasetError(what, where=root, fix="dataset.root is the folder above the class folders")


def _check_splits(root: str | Path, folder: ClipFolder) -> None:
    """Raise DatasetError where clips lie beside what looks like folders of splits: each would be a class, or unread."""
    splits, loose = clips_beside_splits([*folder.clips, *folder.misplaced], folder.layout)
    if not loose:
        return
    looks = f"{join_and(map(printable_name, splits))} look like folders of splits"
    if folder.layout.splits_within:
        what = f"{looks}, but {counted(len(loose), 'clip lies', 'clips lie')} beside them, such as {first_name(loose)}"
        raise DatasetError(what, where=root, fix="move each into the folder of its split, or out of this folder")
    own = Counter(name.split("/")[0] for name in sorted(loose))
    counts = [f"{printable_name(name)} holds {counted(count, 'clip')} of its own" for name, count in own.items()]
    what = f"{looks}, but {join_and(counts)}, which {'has' if len(loose) == 1 else 'have'} no class"
    fix = "move them into class folders, or out of this folder; if these folders are classes, rename them"
    raise DatasetError(what, where=root, fix=fix)


def _check_classes(root: str | Path, folder: ClipFolder) -> None:
    """Raise DatasetError where one folder holds all class folders: the root is one or more folders too high."""
    if len(folder.classes) > 1:
        return
    above = [PurePosixPath(printable_name(clip)).parent for clip in folder.clips]
    shared = PurePosixPath(os.path.commonpath(above))
    inner = sorted({path.relative_to(shared).parts[0] for path in above if path != shared})
    if not folder.splits and shared not in above and len(inner) > 1:
        names = ", ".join(inner[:3]) + ", ..." * (len(inner) > 3)
        what = f"its only folder with clips is {shared}, which holds the folders {names}"
        fix = f"did you mean {join_path(root, str(shared))}? set dataset.root to it"
        raise DatasetError(what, where=root, fix=fix)


def describe_misplaced(folder: ClipFolder) -> str:
    count = counted(len(folder.misplaced), "clip does", "clips do")
    return f"{count} not lie in {folder.layout.described}, such as {first_name(folder.misplaced)}"


def misplaced_fix(folder: ClipFolder) -> str:
    """Say where to move clips that do not lie in a class folder."""
    if folder.splits:
        return f"move each into its {'class and split' if folder.layout.splits_within else 'split and class'}"
    if folder.clips:
        return "move each into its class's folder"
    return "put each into a folder named after its class; if this folder is a class, name the folder above it"


LINKS_OUT_FIX = "to read them, set dataset.follow_links: true"


def describe_links_out(folder: ClipFolder) -> str:
    count = counted(len(folder.links_out), "link leads", "links lead")
    return f"{count} out of it, such as {first_name(folder.links_out)}"


def describe_broken_links(folder: ClipFolder) -> str:
    count = counted(len(folder.broken_links), "link leads", "links lead")
    return f"{count} to nothing, such as {first_name(folder.broken_links)}"


def first_name(names: list[str]) -> str:
    return printable_name(names[0])


def join_first_lines(lines: Iterable[str], most: int = 5) -> str:
    """Join the first lines, and say how many more there are."""
    every = list(lines)
    more = [f"... and {len(every) - most} more"] if len(every) > most else []
    return "\n  ".join(every[:most] + more)
