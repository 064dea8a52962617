"""Read the official split lists of UCF-101 and of HMDB-51."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from moclip.data.groups import group_of, hmdb_group_of
from moclip.data.name_spelling import speller
from moclip.data.text_files import read_text_file
from moclip.errors import DatasetError
from moclip.files.hidden import is_hidden


@dataclass(frozen=True)
class Splits:
    """Official split lists.

    classes : class names in label order; None where the lists do not give them.
    train, test : listed clips, "Class/clip" with or without suffix -> list and line, as "trainlist01.txt, line 3".
    unused : the same for clips that the lists leave out of this split.
    group : function that gives a clip's source from "Class/file".
    contradictions : lines whose label is not that of the clip's folder.
    """

    classes: list[str] | None
    train: dict[str, str]
    test: dict[str, str]
    unused: dict[str, str]
    group: Callable[[str], str]
    contradictions: Sequence[str] = ()

    @property
    def parts(self) -> dict[str, dict[str, str]]:
        """Listed clips by the split's name in the index."""
        return {"train": self.train, "test": self.test, "none": self.unused}


def read_splits(folder: Path, number: int) -> Splits | None:
    """Read the official lists of UCF-101 or of HMDB-51; None where the folder holds no lists at all.

    UCF-101: `trainlist0<n>.txt`, `testlist0<n>.txt` and `classInd.txt`. HMDB-51: `<class>_test_split<n>.txt`, one line
    per clip with 1 (train), 2 (test) or 0 (not in this split). UTF-8, or UTF-16 with a byte-order mark. Raises
    DatasetError for a missing list, another encoding, a malformed line, a clip in both parts, or a class or number
    given twice.
    """
    if not folder.is_dir():
        raise DatasetError("no such folder", where=folder, fix="set dataset.splits to the folder of the split lists")
    if _hmdb_lists(folder, "?"):
        return _read_hmdb(folder, number)
    parts = [folder / f"{part}list{number:02d}.txt" for part in ("train", "test")]
    if not any(path.exists() for path in parts):
        if others := sorted(path.name for path in folder.glob("trainlist*.txt")):
            raise DatasetError(
                f"no {parts[0].name}; there is {', '.join(others)}",
                where=folder,
                fix="set dataset.split to one of them",
            )
        return None
    for path in parts:
        if not path.exists():
            raise DatasetError("not found, though its partner list is there", where=path)
    numbers = _read_classes(folder / "classInd.txt")
    contradictions: list[str] = []
    train, test = (_read_list(path, numbers or {}, contradictions) for path in parts)
    if both := sorted(train.keys() & test.keys()):
        raise DatasetError(in_both_lists(both[0], train[both[0]], test[both[0]], len(both)), where=folder)
    return Splits(
        sorted(numbers, key=numbers.__getitem__) if numbers else None, train, test, {}, group_of, contradictions
    )


def in_both_lists(clip: str, first_line: str, second_line: str, count: int = 1) -> str:
    return f"{clip} is in both lists: {first_line}, and {second_line}; such clips: {count}"


def _hmdb_lists(folder: Path, number: int | str) -> list[Path]:
    """Return HMDB-51's lists of a split, sorted; "?" stands for any split."""
    found = folder.glob(f"*_test_split{number}.txt")
    return sorted(path for path in found if not is_hidden(path.name))


def _read_hmdb(folder: Path, number: int) -> Splits:
    suffix = f"_test_split{number}.txt"
    lists = _hmdb_lists(folder, number)
    classes = {path.name.rsplit("_test_split", 1)[0] for path in _hmdb_lists(folder, "?")}
    if absent := sorted(classes - {path.name.removesuffix(suffix) for path in lists}):
        what = f"no {absent[0]}{suffix} ({len(absent)} classes have no list of this split)"
        raise DatasetError(what, where=folder, fix="set dataset.split to a split whose lists are all there")
    parts: tuple[dict[str, str], ...] = ({}, {}, {})  # unused, train, test
    for path in lists:
        for clip, part, list_line in _read_hmdb_list(path, path.name.removesuffix(suffix)):
            for other in parts:
                if other is not parts[part] and clip in other:
                    raise DatasetError(f"{clip} is in two parts: {other[clip]}, and {list_line}", where=folder)
            parts[part].setdefault(clip, list_line)
    unused, train, test = parts
    if not train or not test:
        raise DatasetError("the lists name no clip to train or to test on", where=folder)
    return Splits(sorted(classes), train, test, unused, hmdb_group_of)


def _read_hmdb_list(path: Path, class_name: str) -> Iterator[tuple[str, int, str]]:
    """Yield each listed clip, "Class/clip", its part 0, 1 or 2, and its list and line."""
    for number, text in _read_lines(path):
        file, _, part = text.replace("\t", " ").rpartition(" ")
        if not file:
            raise DatasetError(f"line {number}, {text!r}: expected a clip and 0, 1 or 2", where=path)
        if part not in ("0", "1", "2"):
            raise DatasetError(f"line {number}: part {part!r}; expected 0, 1 or 2", where=path)
        clip = PurePosixPath(class_name, file.strip())
        if not _is_clip(clip):
            raise DatasetError(f"line {number}: {file!r} is no clip of {class_name}", where=path)
        yield str(clip), int(part), f"{path.name}, line {number}"


def _read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield number and stripped text of each line that is not blank."""
    for number, line in enumerate(re.split("\r\n|\r|\n", read_text_file(path)), start=1):
        if line.strip():
            yield number, line.strip()


_LABELLED = re.compile(r"(.*\S)\s+([0-9]+)")


def _read_list(path: Path, numbers: Mapping[str, int], contradictions: list[str]) -> dict[str, str]:
    """Read lines "Class/file.avi" or "Class/file.avi 1": "Class/file.avi" -> list and line.

    Lines whose label is not the number of their class in `numbers` are added to `contradictions`; the name counts.
    """
    listed: dict[str, str] = {}
    spell = speller(numbers)
    for line, text in _read_lines(path):
        labelled = _LABELLED.fullmatch(text)
        name = labelled.group(1) if labelled else text
        clip = PurePosixPath(name if "/" in name else name.replace("\\", "/"))
        if not _is_clip(clip):
            raise DatasetError(f"line {line}, {text!r}: expected <Class>/<file> and perhaps a label", where=path)
        number = numbers.get(spell(clip.parts[0]))
        if labelled and number is not None and number != int(labelled.group(2)):
            what = f"{path.name}, line {line}, {text!r}: classInd.txt gives {clip.parts[0]} the number {number}"
            contradictions.append(what)
        listed.setdefault(clip.as_posix(), f"{path.name}, line {line}")
    if not listed:
        raise DatasetError("lists no clips", where=path)
    return listed


def _is_clip(name: PurePosixPath) -> bool:
    """Return whether a name is "Class/file", perhaps with folders between them, and does not lead out of the folder."""
    return len(name.parts) >= 2 and not {"/", ".."} & set(name.parts)


def _read_classes(path: Path) -> dict[str, int] | None:
    """Read lines "1 ApplyEyeMakeup" or "0 air drumming": class -> number; None where the file does not exist."""
    if not path.exists():
        return None
    numbers: dict[str, int] = {}
    lines: dict[str | int, int] = {}  # class or number -> its line
    for line, text in _read_lines(path):
        found = re.fullmatch(r"([0-9]+)\s+(.+)", text)
        if not found:
            raise DatasetError(f"line {line}, {text!r}: expected a number and a class", where=path)
        number, name = int(found.group(1)), found.group(2)
        for what, value in (("class", name), ("number", number)):
            if value in lines:
                raise DatasetError(f"line {line}, {text!r}: line {lines[value]} has the same {what}", where=path)
            lines[value] = line
        numbers[name] = number
    if not numbers:
        raise DatasetError("names no classes", where=path, fix="remove it, or write one number and class per line")
    return numbers
