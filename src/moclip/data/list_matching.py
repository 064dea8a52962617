"""Find the file of each listed clip, though lists and files spell names differently."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from moclip.data.clip_folder import ClipFolder, printable_name
from moclip.data.list_differences import class_notes, clip_notes
from moclip.data.name_spelling import fold_name, group_by, name_stem, speller, unambiguous, without_suffix
from moclip.data.split_lists import Splits, in_both_lists
from moclip.errors import DatasetError


@dataclass(frozen=True)
class MatchedLists:
    """Split lists matched with the files of a folder.

    parts : "Class/file" of each file that the lists name, and each listed clip that is `missing` -> its part.
    missing : listed clips without a file -> the list that names them.
    class_of : each class name, as the folder or the lists spell it -> the class.
    classes : class names in label order.
    notes : names that did not match exactly, a line each.
    """

    parts: dict[str, str]
    missing: dict[str, str]
    class_of: dict[str, str]
    classes: list[str]
    notes: list[str]


def match_lists(folder: ClipFolder, splits: Splits) -> MatchedLists:
    """Find the files of each listed clip.

    A listed name is matched by, in this order: the whole name; the name without suffix; either of them in another
    case, if this matches exactly one file. A file that a list names exactly is not matched with any other name. Raises
    DatasetError where two parts match the same file, and where no listed clip has a file.
    """
    listed = {name for part in splits.parts.values() for name in part}
    find_files = _file_finder([printable_name(clip) for clip in folder.clips], listed)
    parts: dict[str, str] = {}
    list_lines: dict[str, str] = {}  # file -> where it is listed
    missing: dict[str, str] = {}
    files_of: dict[str, list[str]] = {}
    for part, clips in splits.parts.items():
        for name, list_line in clips.items():
            files_of[name] = find_files(name)
            if not files_of[name]:
                parts[name], missing[name] = part, part
            for clip in files_of[name]:
                if parts.setdefault(clip, part) != part:
                    raise DatasetError(in_both_lists(clip, list_lines[clip], list_line))
                list_lines[clip] = list_line
    if len(missing) == len(listed):
        what = f"none of the {len(listed)} listed clips is there: the lists name {next(iter(missing))}, "
        what += f"and the folder holds {printable_name(folder.clips[0])}"
        fix = "set dataset.root to the folder that the names in the lists start from, or correct the lists"
        raise DatasetError(what, where="dataset.splits", fix=fix)
    class_of, classes = match_classes(folder, splits)
    return MatchedLists(parts, missing, class_of, classes, [*class_notes(class_of), *clip_notes(files_of)])


def _file_finder(clips: Sequence[str], listed: set[str]) -> Callable[[str], list[str]]:
    """Return the function that finds the files of a listed name among the clips."""
    exact = set(clips)
    by_stem = group_by(name_stem, clips)
    by_folded = group_by(fold_name, clips)
    by_folded_stem = group_by(lambda clip: fold_name(name_stem(clip)), clips)

    def find_files(name: str) -> list[str]:
        if name in exact:
            return [name]
        stem = without_suffix(name)
        for candidate in (name, stem):
            if found := [clip for clip in by_stem.get(candidate, []) if stem == name or clip not in listed]:
                return found
        for groups, candidate in itertools.product((by_folded, by_folded_stem), (name, stem)):
            found = groups.get(fold_name(candidate), [])
            if len(found) == 1 and found[0] not in listed:
                return found
        return []

    return find_files


def match_classes(folder: ClipFolder, splits: Splits) -> tuple[dict[str, str], list[str]]:
    """Map each class name of the folder and the lists to its class, and return the classes in label order.

    Raises DatasetError where fewer than two classes are left.
    """
    listed = {name.split("/")[0] for part in (splits.train, splits.test) for name in part}
    unused = {name.split("/")[0] for name in splits.unused}
    ordered = splits.classes or sorted(set(map(speller(folder.classes), listed)))
    spell = speller(ordered)
    ambiguous = set(folder.classes) - set(unambiguous(folder.classes).values())
    class_of = {name: name if name in ambiguous else spell(name) for name in folder.classes}
    class_of |= {name: spell(name) for name in listed | unused}
    used = {class_of[name] for name in [*folder.classes, *listed]}
    classes = [name for name in ordered if name in used]  # so that labels have no gaps
    require_two_classes(classes, "the lists in dataset.splits must name at least two classes of this folder")
    return class_of, classes


def require_two_classes(classes: Sequence[str], fix: str, root: str | Path | None = None) -> None:
    if len(classes) < 2:
        raise DatasetError(f"only one class ({', '.join(classes)}): training needs at least two", where=root, fix=fix)
