"""Which clips a data set holds: the folder in UCF-101's layout, its split lists, groups, and one row a clip.

Called by the `index` stage. Nothing is dropped: a clip that cannot be used keeps its row with a status and a reason.
"""

from __future__ import annotations

import codecs
import hashlib
import itertools
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from moclip import processes, storage, transcode, video
from moclip.errors import DatasetError, VideoError

COLUMNS = {
    "id": "str",
    "path": "str",
    "class": "str",
    "label": "int64",
    "split": "str",
    "group": "str",
    "codec": "str",
    "w": "int32",
    "h": "int32",
    "fps": "float64",
    "frames": "int64",
    "gop": "int32",
    "has_b": "bool",
    "bytes": "int64",
    "status": "str",
    "reason": "str",
    "md5": "str",
    "damage": "str",
    "seekable": "bool",
}
"""Columns of the index. `split`: train, val, test or none (in no list); `status`: ok, failed, missing (only listed).

`frames` to `has_b` are as in `video.VideoInfo`, and so is `damage`: what does not decode of a clip that is usable
without it. `seekable` says so of the clip's own file, which stills are read from: false where another file is indexed.
"""

_GROUP = re.compile(r"_(g\d+)(?:_|$)")


# ------------------------------------------------------------------------------------------------- the folder


@dataclass(frozen=True)
class Folder:
    """What lies under the root: clips as "Class/file", and files and folders that are `ignored`.

    Of the ignored, `hidden` are the hidden ones and a system's own, a folder counted once. `misplaced` are clips that
    are not read, because they lie elsewhere than in a class's folder.
    """

    clips: list[str]
    classes: list[str]
    ignored: list[str]
    hidden: list[str]
    misplaced: list[str]


def scan(root: str | Path) -> Folder:
    """List `<root>/<class>/<clip>`, by path or URL; what is hidden is left out.

    Raises DatasetError where there is no folder, it cannot be listed, or no clip lies where one is looked for.
    """
    if not storage.is_folder(root):
        raise DatasetError(
            "no such folder", where=root, fix="set dataset.root to the folder that holds a folder a class"
        )
    found = _sorted_out(root)
    if found.misplaced and not found.clips:
        what = f"no clips found; {_misplaced(found)}"
        raise DatasetError(what, where=root, fix=_where_they_belong(root, found))
    if not found.clips:
        raise DatasetError(
            f"no clips found; looked for <class>/<clip> with {', '.join(video.VIDEO_SUFFIXES)}",
            where=root,
            fix="dataset.root is the folder above the class folders",
        )
    return found


def _written(name: str) -> str:
    """A file's name as text: bytes in it that are no UTF-8 are spelt out."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _sorted_out(root: str | Path) -> Folder:
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
    classes = sorted({_written(clip).split("/")[0] for clip in clips})
    return Folder(clips, classes, sorted([*ignored, *hidden]), sorted(hidden), misplaced)


def _is_video(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in video.VIDEO_SUFFIXES


def _hidden(path: PurePosixPath) -> str | None:
    """The topmost part of a name that is hidden, as a path; None where nothing is."""
    chain = [*reversed(path.parents), path]  # ".", "a", "a/b"
    return next((str(part) for part in chain[1:] if storage.is_hidden(part.name)), None)


def _listed(root: str | Path) -> Iterator[tuple[str, bool]]:
    """What lies in the root and in its folders, sorted, and whether it is a file; at a URL every file, however deep."""
    if storage.is_url(root):
        yield from ((name, True) for name in storage.Folder(root).sizes())
        return
    folders = []
    for path in _entries(Path(root)):
        if path.is_dir() and not storage.is_hidden(path.name):
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
        inner[:] = sorted(one for one in inner if not storage.is_hidden(one))
        here = Path(folder).relative_to(root)
        yield from ((here / file).as_posix() for file in sorted(files) if not storage.is_hidden(file))


def _misplaced(folder: Folder) -> str:
    first = _written(folder.misplaced[0])
    return f"{len(folder.misplaced)} clips lie elsewhere than in <class>/<clip>, such as {first}"


def _where_they_belong(root: str | Path, folder: Folder) -> str:
    """What to do about clips that lie elsewhere than in a class's folder."""
    parts = [PurePosixPath(_written(name)).parts for name in folder.misplaced]
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
        return f"set dataset.root to {storage.join(root, above[0])}"
    return f"{move}; or set dataset.root to one of {', '.join(above[:3])}{', ...' * (len(above) > 3)}"


# --------------------------------------------------------------------------------------------------- split lists


@dataclass(frozen=True)
class Splits:
    """Official split lists: class names in label order, and the clips of each part, as listed, with file and line.

    A clip is "Class/clip", with or without a suffix. `unused` are those that the lists name and leave out of this
    split. `group` tells a clip's source from "Class/file". `contradictions` are lines whose number is another class's
    than that of the clip's folder.
    """

    classes: list[str] | None
    train: dict[str, str]
    test: dict[str, str]
    unused: dict[str, str]
    group: Callable[[str], str]
    contradictions: Sequence[str] = ()

    @property
    def parts(self) -> dict[str, dict[str, str]]:
        """The three parts, by the word that the index has for them."""
        return {"train": self.train, "test": self.test, "none": self.unused}


def read_splits(folder: Path, number: int) -> Splits | None:
    """Read the official lists of UCF-101 or of HMDB-51; None where the folder holds no lists at all.

    UCF-101: `trainlist0<n>.txt`, `testlist0<n>.txt` and `classInd.txt`. HMDB-51: `<class>_test_split<n>.txt`, a line a
    clip with 1 (train), 2 (test) or 0 (not in this split). UTF-8, or UTF-16 with a mark. Raises DatasetError for a
    missing list, other bytes, a malformed line, a clip in both parts, or a class or number named twice.
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
        raise DatasetError(_in_both(both[0], train[both[0]], test[both[0]], len(both)), where=folder)
    return Splits(
        sorted(numbers, key=numbers.__getitem__) if numbers else None, train, test, {}, group_of, contradictions
    )


def _in_both(clip: str, one: str, other: str, count: int = 1) -> str:
    return f"{clip} is in both lists: {one}, and {other}; such clips: {count}"


def _hmdb_lists(folder: Path, number: int | str) -> list[Path]:
    """HMDB-51's lists of a split, sorted; "?" means of any."""
    found = folder.glob(f"*_test_split{number}.txt")
    return sorted(path for path in found if not storage.is_hidden(path.name))


def _read_hmdb(folder: Path, number: int) -> Splits:
    suffix = f"_test_split{number}.txt"
    lists = _hmdb_lists(folder, number)
    named = {path.name.rsplit("_test_split", 1)[0] for path in _hmdb_lists(folder, "?")}
    if absent := sorted(named - {path.name.removesuffix(suffix) for path in lists}):
        what = f"no {absent[0]}{suffix} ({len(absent)} classes without)"
        raise DatasetError(what, where=folder, fix="set dataset.split to a split whose lists are all there")
    parts: tuple[dict[str, str], ...] = ({}, {}, {})  # unused, train, test
    for path in lists:
        name = path.name.removesuffix(suffix)
        for line, text in _lines(path):
            clip, _, part = text.replace("\t", " ").rpartition(" ")
            if not clip:
                raise DatasetError(f"line {line}, {text!r}: wanted a clip and 0, 1 or 2", where=path)
            if part not in ("0", "1", "2"):
                raise DatasetError(f"line {line}: part {part!r}; wanted 0, 1 or 2", where=path)
            listed = PurePosixPath(name, clip.strip())
            if not _is_clip(listed):
                raise DatasetError(f"line {line}: {clip!r} is no clip of {name}", where=path)
            place = f"{path.name}, line {line}"
            for other in parts:
                if other is not parts[int(part)] and str(listed) in other:
                    raise DatasetError(f"{listed} is in two parts: {other[str(listed)]}, and {place}", where=folder)
            parts[int(part)].setdefault(str(listed), place)
    unused, train, test = parts
    if not train or not test:
        raise DatasetError("the lists name no clip to train or to test on", where=folder)
    return Splits(sorted(named), train, test, unused, hmdb_group_of)


_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a list that are not blank, without space around them, and their numbers."""
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise DatasetError(f"cannot be read: {problem.strerror}", where=path) from None
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        text = None
    if text is None or "\0" in text:  # as in UTF-16 without a mark
        fix = "save it as UTF-8 (in Notepad: Save as, Encoding; elsewhere: iconv -f OLD -t UTF-8)"
        raise DatasetError("not text in UTF-8, nor in UTF-16 with a mark", where=path, fix=fix)
    for number, line in enumerate(re.split("\r\n|\r|\n", text), start=1):
        if line.strip():
            yield number, line.strip()


_LABELLED = re.compile(r"(.*\S)\s+([0-9]+)")


def _read_list(path: Path, numbers: Mapping[str, int], contradictions: list[str]) -> dict[str, str]:
    """Lines "Class/file.avi" or "Class/file.avi 1": the name as listed -> file and line.

    A number that is not the class's in `numbers` is told in `contradictions`; the class is that of the name.
    """
    listed: dict[str, str] = {}
    spelling = _speller(numbers)
    for line, text in _lines(path):
        labelled = _LABELLED.fullmatch(text)
        name = labelled.group(1) if labelled else text
        clip = PurePosixPath(name if "/" in name else name.replace("\\", "/"))
        if not _is_clip(clip):
            raise DatasetError(f"line {line}, {text!r}: wanted <Class>/<file> and perhaps a label", where=path)
        number = numbers.get(spelling(clip.parts[0]))
        if labelled and number is not None and number != int(labelled.group(2)):
            what = f"{path.name}, line {line}, {text!r}: classInd.txt gives {clip.parts[0]} the number {number}"
            contradictions.append(what)
        listed.setdefault(clip.as_posix(), f"{path.name}, line {line}")
    if not listed:
        raise DatasetError("lists no clips", where=path)
    return listed


def _is_clip(name: PurePosixPath) -> bool:
    """Whether a name is "Class/file", and leads nowhere else."""
    return len(name.parts) == 2 and not {"/", ".."} & set(name.parts)


def _read_classes(path: Path) -> dict[str, int] | None:
    """Lines "1 ApplyEyeMakeup" or "0 air drumming": each class's number; None where there is no such file."""
    if not path.exists():
        return None
    numbers: dict[str, int] = {}
    lines: dict[str | int, int] = {}  # of each class and each number
    for line, text in _lines(path):
        found = re.fullmatch(r"([0-9]+)\s+(.+)", text)
        if not found:
            raise DatasetError(f"line {line}, {text!r}: wanted a number and a class", where=path)
        number, name = int(found.group(1)), found.group(2)
        for what, one in (("class", name), ("number", number)):
            if one in lines:
                raise DatasetError(f"line {line}, {text!r}: line {lines[one]} has the same {what}", where=path)
            lines[one] = line
        numbers[name] = number
    if not numbers:
        raise DatasetError("names no classes", where=path, fix="remove it, or write a number and a class a line")
    return numbers


# ------------------------------------------------------------------------------------- which file a list means


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


_OTHER_SUFFIXES = (".mpg", ".mpeg", ".m4v", ".wmv", ".flv", ".3gp", ".ts", ".mts", ".ogv", ".divx")
"""Beside those of clips here: lists were written before clips were converted."""


def match(folder: Folder, splits: Splits) -> Matched:
    """Find each listed clip's file.

    In this order: by the whole name; by the name without suffix; by either in another case, if one file alone is
    called so. A file that a list names in whole is no other listed name's. Raises DatasetError where two parts name one
    file.
    """
    listed = {name for part in splits.parts.values() for name in part}
    find = _finder([_written(clip) for clip in folder.clips], listed)
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
                    raise DatasetError(_in_both(clip, places[clip], place))
                places[clip] = place
    classes, names = _classes(folder, splits)
    return Matched(parts, missing, classes, names, [*_class_notes(classes), *_clip_notes(found)])


def _finder(clips: Sequence[str], listed: set[str]) -> Callable[[str], list[str]]:
    """The function that finds the files of a listed name among the clips."""
    there = set(clips)
    by_stem = _grouped(clips, _stem)
    in_any_case = [_grouped(clips, _folded), _grouped(clips, lambda clip: _folded(_stem(clip)))]

    def find(name: str) -> list[str]:
        if name in there:
            return [name]
        stem = _without_suffix(name)
        for one in (name, stem):
            if found := [clip for clip in by_stem.get(one, []) if stem == name or clip not in listed]:
                return found
        for group, one in itertools.product(in_any_case, (name, stem)):
            found = group.get(_folded(one), [])
            if len(found) == 1 and found[0] not in listed:
                return found
        return []

    return find


def _grouped(names: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return groups


def _stem(clip: str) -> str:
    return PurePosixPath(clip).with_suffix("").as_posix()


def _without_suffix(listed: str) -> str:
    """A listed name without a video's suffix, if it has one; other dots are a part of the name."""
    suffix = PurePosixPath(listed).suffix.lower()
    return _stem(listed) if suffix in (*video.VIDEO_SUFFIXES, *_OTHER_SUFFIXES) else listed


def _folded(name: str) -> str:
    """A name where neither upper and lower case counts, nor how an accent is encoded."""
    return unicodedata.normalize("NFC", name).casefold()


def _alone(names: Iterable[str]) -> dict[str, str]:
    """`_folded` name -> name, for those that no other is like."""
    return {key: group[0] for key, group in _grouped(names, _folded).items() if len(group) == 1}


def _speller(names: Iterable[str]) -> Callable[[str], str]:
    """The function that spells a name as the one of `names` that is like it; it leaves others as they are."""
    exact, alone = set(names), _alone(names)
    return lambda name: name if name in exact else alone.get(_folded(name), name)


def _classes(folder: Folder, splits: Splits) -> tuple[dict[str, str], list[str]]:
    """What each class is called that the folder or the lists name, and the classes in label order."""
    listed = {name.split("/")[0] for part in (splits.train, splits.test) for name in part}
    unused = {name.split("/")[0] for name in splits.unused}
    ordered = splits.classes or sorted(set(map(_speller(folder.classes), listed)))
    spelt = _speller(ordered)
    alike = set(folder.classes) - set(_alone(folder.classes).values())
    classes = {name: name if name in alike else spelt(name) for name in folder.classes}
    classes |= {name: spelt(name) for name in listed | unused}
    there = {classes[name] for name in [*folder.classes, *listed]}
    names = [name for name in ordered if name in there]  # labels without gaps
    return classes, _two_at_least(names, "the lists in dataset.splits want classes of this folder")


def _two_at_least(names: list[str], of: str) -> list[str]:
    if len(names) < 2:
        raise DatasetError(
            f"only one class ({', '.join(names)}): there is nothing to tell apart", fix=f"{of}, two at least"
        )
    return names


_DIFFERS = "they differ in upper and lower case, or in how an accent is encoded"


def _class_notes(classes: Mapping[str, str]) -> Iterator[str]:
    loose = sorted((name, called) for name, called in classes.items() if name != called)
    if loose:
        yield f"{loose[0][0]} is taken for the class {loose[0][1]}; {_DIFFERS}; such classes: {len(loose)}"


def _clip_notes(found: Mapping[str, list[str]]) -> Iterator[str]:
    loose = [(name, clips[0]) for name, clips in found.items() if clips and _is_spelt_otherwise(name, clips[0])]
    if loose:
        yield f"{loose[0][1]} is taken for {loose[0][0]} of the lists; {_DIFFERS}; such names: {len(loose)}"
    several = [(name, clips) for name, clips in found.items() if len(clips) > 1]
    if several:
        yield f"{several[0][0]} of the lists is {' and '.join(several[0][1])}, all taken; such names: {len(several)}"


def _is_spelt_otherwise(listed: str, clip: str) -> bool:
    """Whether a clip's file, whatever its folder, is not called as the lists have it."""
    file = listed.partition("/")[2]
    own = clip.partition("/")[2]
    return file != own and _stem(own) not in (file, _without_suffix(file))


def notes(root: str | Path, folder: Folder, splits: Splits | None) -> list[str]:
    """What to tell a user of a folder and its lists, a line each: clips that are not read, names that differ."""
    found = match(folder, splits).notes if splits else []
    if splits and splits.contradictions:
        first, count = splits.contradictions[0], len(splits.contradictions)
        found = [f"{first}; such lines: {count}; a clip's class is its folder, whatever the number", *found]
    if folder.misplaced:
        found = [f"{_misplaced(folder)}: not read; {_where_they_belong(root, folder)}", *found]
    return found


# ------------------------------------------------------------------------------------------------ groups of clips


def group_of(clip: str) -> str:
    """The source of a clip: gNN in its name, as UCF-101 writes it; a clip without is its own source."""
    stem = PurePosixPath(clip).stem
    found = _GROUP.search(stem)
    return found.group(1) if found else stem


def hmdb_group_of(clip: str) -> str:
    """The source of a clip of HMDB-51, "<class>/<source>_<class>_<properties>_<number>.avi"."""
    path = PurePosixPath(clip)
    return re.split(re.escape(f"_{path.parent.name}_"), path.stem, maxsplit=1, flags=re.IGNORECASE)[0]


def hold_out(groups: pd.Series, labels: pd.Series, fraction: float, seed: int) -> pd.Series:
    """Choose about `fraction` of the clips of each class, in whole groups; a group counts across classes.

    `groups` and `labels` are aligned (n,). Groups come in seeded order and are taken where that brings the held-out
    counts per class nearer to the wanted ones, never a class's last group. Returns a boolean mask (n,).
    """
    names, inside, totals = _by_group(groups, labels)
    order = np.random.default_rng(seed).permutation(len(names))
    want, left = fraction * totals, totals
    held = np.zeros_like(totals)
    chosen = []
    for number in order:
        row = np.bincount(inside[number], minlength=len(totals))
        nearer = np.abs(want - held - row).sum() < np.abs(want - held).sum()
        if nearer and np.all((left - row > 0) | (row == 0)):
            held, left = held + row, left - row
            chosen.append(names[number])
    return groups.isin(chosen)


def smallest_fraction(groups: pd.Series, labels: pd.Series) -> float | None:
    """The smallest fraction, in thousandths, of which `hold_out` holds out any group, whatever the seed.

    None where it never does, because each group is all that some class has.
    """
    _, inside, totals = _by_group(groups, labels)
    fractions = np.arange(1, 1000) / 1000
    for row in inside:
        found, counts = np.unique(row, return_counts=True)
        if np.all(counts < totals[found]):
            want = np.outer(fractions, totals[found])
            nearer = want.sum(axis=1) - np.abs(want - counts).sum(axis=1) > 1e-9
            fractions = fractions[: np.argmax(nearer) + 1] if nearer.any() else fractions
    return float(fractions[-1]) if len(fractions) < 999 else None  # .5 is enough wherever a group can be spared


def _by_group(groups: pd.Series, labels: pd.Series) -> tuple[pd.Index, list[np.ndarray], np.ndarray]:
    """Names of groups, sorted; the labels in each, counted from 0 without gaps; and how often each label occurs.

    A table of groups by classes would take gigabytes where each of many clips is its own source.
    """
    codes, names = pd.factorize(groups, sort=True)
    plain = np.unique(labels, return_inverse=True)[1]
    ends = np.cumsum(np.bincount(codes, minlength=len(names)))
    inside = np.split(plain[np.argsort(codes, kind="stable")], ends)[: len(names)]
    return names, inside, np.bincount(plain)


# ------------------------------------------------------------------------------------------------------ the index


def index(
    root: str | Path,
    folder: Folder,
    splits: Splits | None,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    workers: int = 1,
    advance: Callable[[int], object] = lambda count: None,
    transcoded: Path | None = None,
) -> pd.DataFrame:
    """One row a clip (`COLUMNS`), sorted by id: every clip in the folder, and every listed clip that is not there.

    With a folder of `transcoded` clips a row's `codec` to `bytes` and its `md5` are those of the transcoded file.
    Raises DatasetError where no training could come of it: one class, no usable train or test clip, no second group;
    where a clip is not transcoded; or where two parts of the lists mean one file.
    """
    matched = match(folder, splits) if splits else None
    classes = matched.names if matched else _two_at_least(folder.classes, "dataset.root wants a folder a class")
    failed = transcode.read_failed(transcoded) if transcoded else {}
    rows = []
    jobs = [_Probe(str(root), clip, _place(root, clip, transcoded, failed), failed.get(clip)) for clip in folder.clips]
    for row in processes.run_in_order(_probe, jobs, workers, _lost):
        rows.append(row)
        advance(1)
    rows += _absent(matched) if matched else []
    table = pd.DataFrame(rows)
    table["class"] = table["path"].str.split("/").str[0]
    if matched:
        table["class"] = table["class"].map(matched.classes)
    strangers = sorted(set(table["class"]) - set(classes))
    table["label"] = table["class"].map({name: label for label, name in enumerate(classes)}).fillna(-1)
    table.loc[table["class"].isin(strangers), ["status", "reason"]] = [
        "failed",
        "its class is in no list" if splits and splits.classes is None else "its class is not in classInd.txt",
    ]
    table["group"] = table["path"].map(splits.group if splits else group_of)
    table = table.sort_values("id", ignore_index=True)
    table["split"] = _split_column(table, matched, val_fraction, test_fraction, seed)
    table = table[list(COLUMNS)].astype(COLUMNS)
    _check(table, root, {"val": val_fraction} if splits else {"test": test_fraction, "val": val_fraction})
    return table


def usable(table: pd.DataFrame, *parts: str) -> pd.DataFrame:
    """The rows of the index with status ok in the named splits (all but none, where no part is named)."""
    wanted = table["split"].isin(parts) if parts else table["split"] != "none"
    return table[wanted & (table["status"] == "ok")].reset_index(drop=True)


def few_shot(rows: pd.DataFrame, shots: int | bool, seed: int) -> pd.DataFrame:
    """At most `shots` rows of each class (columns id, label), all if False; the order of rows stays.

    Each clip has its rank from the seed and its id alone, so the clips of 2 shots contain those of 1, and a clip added
    to the folder pushes out one at most.
    """
    if shots is False:
        return rows
    rank = rows["id"].map(lambda name: hashlib.sha256(f"{seed}/{name}".encode()).hexdigest())
    kept = rows.loc[rank.sort_values().index].groupby("label", sort=False).head(int(shots)).index
    return rows[rows.index.isin(kept)].reset_index(drop=True)


def base_classes(classes: int) -> int:
    """How many classes, the first in label order, base-to-new trains on (arXiv 2203.05557, section 4.1)."""
    return (classes + 1) // 2


def class_names(table: pd.DataFrame) -> list[str]:
    """Class names in label order, from the index."""
    named = table[table["label"] >= 0].drop_duplicates("label").sort_values("label")
    return [str(name) for name in named["class"]]


def counts(table: pd.DataFrame, folder: Folder | None = None) -> dict[str, object]:
    """What a reader wants to know of an index: clips, classes, split sizes, codecs, failures by reason.

    `listed` counts the clips in a split, absent ones too, and `usable_of_listed` those of them that can be used.
    `ignored_files` counts the files and folders that are no clips, `hidden_files` those of them that are hidden.
    """
    ok = table[table["status"] == "ok"]
    codec = ok["codec"] + np.where(ok["has_b"], " with B-frames", "")
    listed = table["split"] != "none"
    return {
        "clips": len(table),
        "usable": len(ok),
        "listed": int(listed.sum()),
        "usable_of_listed": int((ok["split"] != "none").sum()),
        "classes": int(table.loc[table["label"] >= 0, "label"].nunique()),
        "splits": tally(ok["split"]),
        "codecs": tally(codec),
        "damaged": int((ok["damage"] != "").sum()),
        "not_usable": tally(table.loc[table["status"] != "ok", "reason"]),
        "ignored_files": len(folder.ignored) if folder else 0,
        "hidden_files": len(folder.hidden) if folder else 0,
        "misplaced_clips": len(folder.misplaced) if folder else 0,
    }


def tally(values: pd.Series) -> dict[str, int]:
    """How often each value occurs, sorted by value."""
    return {str(name): int(count) for name, count in values.value_counts().sort_index().items()}


@dataclass(frozen=True)
class _Probe:
    """A clip to describe: below the root, and where it is read. `failed` is why it could not be transcoded, if so."""

    root: str
    clip: str
    place: str
    failed: str | None

    @property
    def is_transcoded(self) -> bool:
        """Whether what is read was made from the clip."""
        return self.place != storage.join(self.root, self.clip)


def _place(root: str | Path, clip: str, transcoded: Path | None, failed: Mapping[str, str]) -> str:
    if transcoded is None or clip in failed:
        return storage.join(root, clip)
    return str(transcode.place(transcoded, clip))


def _probe(job: _Probe) -> dict[str, object]:
    try:
        if job.clip != _written(job.clip):
            raise VideoError("its name is not UTF-8", fix="rename it")
        storage.check_inside(job.root, job.clip)
        if job.is_transcoded:
            with storage.fetched(storage.join(job.root, job.clip)) as source:
                transcode.check_current(source, Path(job.place))
        with storage.fetched(job.place) as file:
            return _row(file, job)
    except VideoError as problem:  # it could not be fetched
        return _lost(job, problem.what)
    except Exception as problem:  # whatever is wrong with one clip, it stops no other
        return _lost(job, getattr(problem, "strerror", None) or f"{type(problem).__name__}: {problem}")


def _lost(job: _Probe, reason: str) -> dict[str, object]:
    name = _written(job.clip)
    return {"id": name, "path": name, "md5": ""} | _unusable("failed", reason)


def _row(file: Path, job: _Probe) -> dict[str, object]:
    row: dict[str, object] = {"id": job.clip, "path": job.clip, "md5": video.md5(file)}
    if job.failed is not None:
        return row | _unusable("failed", job.failed)
    try:
        with processes.limited():
            found = asdict(video.probe(file))
    except VideoError as problem:
        return row | _unusable("failed", problem.what)
    return row | {
        "codec": found["codec"],
        "w": found["width"],
        "h": found["height"],
        "fps": round(found["fps"], 6),
        "frames": found["frames"],
        "gop": found["gop"],
        "has_b": found["has_b"],
        "bytes": file.stat().st_size,
        "status": "ok",
        "reason": "",
        "damage": found["damage"],
        "seekable": found["seekable"] and not job.is_transcoded,
    }


def _unusable(status: str, reason: str) -> dict[str, object]:
    nothing = {"codec": "", "w": 0, "h": 0, "fps": 0.0, "frames": 0, "gop": 0, "has_b": False, "bytes": 0}
    nothing |= {"damage": "", "seekable": False}
    return nothing | {"status": status, "reason": reason}


def _absent(matched: Matched) -> list[dict[str, object]]:
    """A row for each listed clip that is not in the folder."""
    names = {"train": "train", "test": "test", "none": "unused"}
    return [
        {"id": name, "path": name, "md5": ""}
        | _unusable("missing", f"named in the {names[part]} list, not in the folder")
        for name, part in matched.missing.items()
    ]


def _split_column(
    table: pd.DataFrame, matched: Matched | None, val_fraction: float, test_fraction: float, seed: int
) -> pd.Series:
    column = pd.Series("train", index=table.index, dtype=object)
    if matched is None:
        ok = table["status"] == "ok"
        column[ok] = np.where(hold_out(table["group"][ok], table["label"][ok], test_fraction, seed), "test", "train")
    else:
        column[:] = table["path"].map(matched.parts).fillna("none")
    train = (column == "train") & (table["status"] == "ok")
    held = hold_out(table["group"][train], table["label"][train], val_fraction, seed + 1)
    column[held.index[held]] = "val"
    return column


def _check(table: pd.DataFrame, root: str | Path, fractions: Mapping[str, float]) -> None:
    """Raise DatasetError where a part has no clip. `fractions` has the parts that are held out by group."""
    ok = table[table["status"] == "ok"]
    for part, why in (("train", "to train on"), ("test", "to test on"), ("val", "to choose epochs on")):
        if not (ok["split"] == part).any():
            rest = ok[ok["split"].isin(("train", "val"))]
            more, advice = _why_none_is_held(part, fractions[part], rest) if part in fractions else ("", [])
            reasons = _first(f"{row.id}: {row.reason}" for row in table.itertuples() if row.status != "ok")
            fix = "\n  ".join([*advice, *([reasons] if reasons else [])])
            raise DatasetError(f"no usable clip {why} among {len(table)} clips{more}", where=root, fix=fix or None)


def _why_none_is_held(part: str, fraction: float, rest: pd.DataFrame) -> tuple[str, list[str]]:
    enough = smallest_fraction(rest["group"], rest["label"])
    if enough is None:
        advice = "a clip's source is the gNN in its name, or else the clip itself; a class wants two sources at least"
        return "; none can be held out by group: one source only, or one a class", [advice]
    key = f"dataset.{part}_fraction"
    return f"; {key} = {fraction:g} is too small to hold out a group", [f"set {key} to {enough:g} or more"]


def _first(lines: Iterable[str], most: int = 5) -> str:
    every = list(lines)
    more = [f"... and {len(every) - most} more"] if len(every) > most else []
    return "\n  ".join(every[:most] + more)
