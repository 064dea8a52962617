"""Find the file of each listed clip, though lists and files spell names differently."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from moclip.data.clip_folder import ClipFolder, written
from moclip.data.list_differences import class_notes, clip_notes
from moclip.data.name_spelling import fold_name, grouped, name_stem, speller, unambiguous, without_suffix
from moclip.data.split_lists import Splits, in_both
from moclip.errors import DatasetError


@dataclass(frozen=True)
class Matched:
    """Split lists laid over a folder.

    parts : each clip that the lists name, as "Class/file", and each listed clip that is `missing` -> its part.
    missing : listed clips that no file was found for -> the list that names them.
    classes : each class, as folder or lists spell it -> as it is called.
    names : class names in label order.
    notes : what was not found to the letter, a line each.
    """

    parts: dict[str, str]
    missing: dict[str, str]
    classes: dict[str, str]
    names: list[str]
    notes: list[str]


def match_lists(folder: ClipFolder, splits: Splits) -> Matched:
    """Find each listed clip's file.

    In this order: by the whole name; by the name without suffix; by either in another case, if one file alone is
    called so. A file that a list names in whole is no other listed name's. Raises DatasetError where two parts name one
    file.
    """
    listed = {name for part in splits.parts.values() for name in part}
    find = _finder([written(clip) for clip in folder.clips], listed)
    parts: dict[str, str] = {}
    places: dict[str, str] = {}  # where each file is named
    missing: dict[str, str] = {}
    found: dict[str, list[str]] = {}
    for part, clips in splits.parts.items():
        for name, place in clips.items():
            found[name] = find(name)
            if not found[name]:
                parts[name], missing[name] = part, part
            for clip in found[name]:
                if parts.setdefault(clip, part) != part:
                    raise DatasetError(in_both(clip, places[clip], place))
                places[clip] = place
    classes, names = class_spelling(folder, splits)
    return Matched(parts, missing, classes, names, [*class_notes(classes), *clip_notes(found)])


def _finder(clips: Sequence[str], listed: set[str]) -> Callable[[str], list[str]]:
    """The function that finds the files of a listed name among the clips."""
    there = set(clips)
    by_stem = grouped(clips, name_stem)
    in_any_case = [grouped(clips, fold_name), grouped(clips, lambda clip: fold_name(name_stem(clip)))]

    def find(name: str) -> list[str]:
        if name in there:
            return [name]
        stem = without_suffix(name)
        for one in (name, stem):
            if found := [clip for clip in by_stem.get(one, []) if stem == name or clip not in listed]:
                return found
        for group, one in itertools.product(in_any_case, (name, stem)):
            found = group.get(fold_name(one), [])
            if len(found) == 1 and found[0] not in listed:
                return found
        return []

    return find


def class_spelling(folder: ClipFolder, splits: Splits) -> tuple[dict[str, str], list[str]]:
    """What each class is called that the folder or the lists name, and the classes in label order."""
    listed = {name.split("/")[0] for part in (splits.train, splits.test) for name in part}
    unused = {name.split("/")[0] for name in splits.unused}
    ordered = splits.classes or sorted(set(map(speller(folder.classes), listed)))
    spelt = speller(ordered)
    alike = set(folder.classes) - set(unambiguous(folder.classes).values())
    classes = {name: name if name in alike else spelt(name) for name in folder.classes}
    classes |= {name: spelt(name) for name in listed | unused}
    there = {classes[name] for name in [*folder.classes, *listed]}
    names = [name for name in ordered if name in there]  # labels without gaps
    return classes, two_at_least(names, "the lists in dataset.splits want classes of this folder")


def two_at_least(names: list[str], of: str) -> list[str]:
    if len(names) < 2:
        raise DatasetError(
            f"only one class ({', '.join(names)}): there is nothing to tell apart", fix=f"{of}, two at least"
        )
    return names
