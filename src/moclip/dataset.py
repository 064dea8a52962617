"""Which clips a data set holds: the folder in UCF-101's layout, its split lists, groups, and one row a clip.

Called by the `index` stage. Nothing is dropped: a clip that cannot be used keeps its row with a status and a reason.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
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


@dataclass(frozen=True)
class Splits:
    """Official split lists: class names in label order, and the stems ("Class/clip") of each part with their file.

    `unused` are clips that the lists name and leave out of this split. `group` tells a clip's source from "Class/file".
    """

    classes: list[str] | None
    train: dict[str, str]
    test: dict[str, str]
    unused: dict[str, str]
    group: Callable[[str], str]


@dataclass(frozen=True)
class Folder:
    """What lies under the root: clips as "Class/file" and the files that are no clips."""

    clips: list[str]
    classes: list[str]
    ignored: list[str]


def scan(root: str | Path) -> Folder:
    """List `<root>/<class>/<clip>`, by path or URL. Raises DatasetError where there is no folder or nothing in it."""
    if not storage.is_folder(root):
        raise DatasetError(
            "no such folder", where=root, fix="set dataset.root to the folder that holds a folder a class"
        )
    clips, ignored = _sorted_out(_listed(root))
    if not clips:
        raise DatasetError(
            f"no clips found; looked for <class>/<clip> with {', '.join(video.VIDEO_SUFFIXES)}",
            where=root,
            fix="dataset.root is the folder above the class folders",
        )
    return Folder(clips, sorted({_written(clip).split("/")[0] for clip in clips}), sorted(ignored))


def _written(name: str) -> str:
    """A file's name as text: bytes in it that are no UTF-8 are spelt out."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _listed(root: str | Path) -> Iterator[tuple[str, bool]]:
    """What lies in the root and in its folders, sorted, and whether it is a file; at a URL there are files alone."""
    if storage.is_url(root):
        yield from ((name, True) for name in storage.Folder(root).sizes())
        return
    top = sorted(Path(root).iterdir())
    inner = [path for folder in top if folder.is_dir() for path in sorted(folder.iterdir())]
    for path in [*(path for path in top if path.is_file()), *inner]:
        yield path.relative_to(root).as_posix(), path.is_file()


def _sorted_out(files: Iterable[tuple[str, bool]]) -> tuple[list[str], list[str]]:
    """Clips, "Class/file", and what is none."""
    clips: list[str] = []
    ignored: list[str] = []
    for name, is_file in files:
        path = PurePosixPath(name)
        is_clip = is_file and len(path.parts) == 2 and path.suffix.lower() in video.VIDEO_SUFFIXES
        (clips if is_clip else ignored).append(name)
    return clips, ignored


def read_splits(folder: Path, number: int) -> Splits | None:
    """Read the official lists of UCF-101 or of HMDB-51; None where the folder holds no lists at all.

    UCF-101: `trainlist0<n>.txt`, `testlist0<n>.txt` and `classInd.txt`. HMDB-51: `<class>_test_split<n>.txt`, a line a
    clip with 1 (train), 2 (test) or 0 (not in this split). Raises DatasetError for a missing list, a malformed line, or
    a clip in both parts.
    """
    if not folder.is_dir():
        raise DatasetError("no such folder", where=folder, fix="set dataset.splits to the folder of the split lists")
    if any(folder.glob("*_test_split?.txt")):
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
    train, test = (_read_list(path) for path in parts)
    if both := sorted(train.keys() & test.keys()):
        raise DatasetError(f"{both[0]} is in both lists ({len(both)} such clips)", where=parts[0])
    return Splits(_read_classes(folder / "classInd.txt"), train, test, {}, group_of)


def _read_hmdb(folder: Path, number: int) -> Splits:
    suffix = f"_test_split{number}.txt"
    lists = sorted(folder.glob(f"*{suffix}"))
    named = {path.name.rsplit("_test_split", 1)[0] for path in folder.glob("*_test_split?.txt")}
    if absent := sorted(named - {path.name.removesuffix(suffix) for path in lists}):
        what = f"no {absent[0]}{suffix} ({len(absent)} classes without)"
        raise DatasetError(what, where=folder, fix="set dataset.split to a split whose lists are all there")
    parts: tuple[dict[str, str], ...] = ({}, {}, {})  # unused, train, test
    for path in lists:
        name = path.name.removesuffix(suffix)
        for line, (clip, part) in _words(path, "a clip and 0, 1 or 2"):
            if part not in ("0", "1", "2"):
                raise DatasetError(f"line {line}: part {part!r}; wanted 0, 1 or 2", where=path)
            if not _is_clip(PurePosixPath(name, clip)):
                raise DatasetError(f"line {line}: {clip!r} is no clip of {name}", where=path)
            parts[int(part)][_stem(f"{name}/{clip}")] = f"{name}/{clip}"
    unused, train, test = parts
    if not train or not test:
        raise DatasetError("the lists name no clip to train or to test on", where=folder)
    return Splits(sorted(named), train, test, unused, hmdb_group_of)


def _words(path: Path, wanted: str) -> Iterator[tuple[int, list[str]]]:
    """The lines of a list that are not blank, each of two words, with their numbers."""
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if words := line.split():
            if len(words) != 2:
                raise DatasetError(f"line {number}, {line.strip()!r}: wanted {wanted}", where=path)
            yield number, words


def group_of(clip: str) -> str:
    """The source of a clip: gNN in its name, as UCF-101 writes it; a clip without is its own source."""
    stem = PurePosixPath(clip).stem
    found = _GROUP.search(stem)
    return found.group(1) if found else stem


def hmdb_group_of(clip: str) -> str:
    """The source of a clip of HMDB-51, "<class>/<source>_<class>_<properties>_<number>.avi"."""
    path = PurePosixPath(clip)
    return path.stem.split(f"_{path.parent.name}_")[0]


def hold_out(groups: pd.Series, labels: pd.Series, fraction: float, seed: int) -> pd.Series:
    """Choose about `fraction` of the clips of each class, in whole groups; a group counts across classes.

    `groups` and `labels` are aligned (n,). Groups come in seeded order and are taken where that brings the held-out
    counts per class nearer to the wanted ones, never a class's last group. Returns a boolean mask (n,).
    """
    counts = pd.crosstab(groups, labels).sort_index()
    order = np.random.default_rng(seed).permutation(len(counts))
    table = counts.to_numpy()[order]
    want, left = fraction * table.sum(axis=0), table.sum(axis=0)
    held = np.zeros_like(left)
    chosen = []
    for row, group in zip(table, counts.index[order], strict=True):
        nearer = np.abs(want - held - row).sum() < np.abs(want - held).sum()
        if nearer and np.all((left - row > 0) | (row == 0)):
            held, left = held + row, left - row
            chosen.append(group)
    return groups.isin(chosen)


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
    or where a clip is not transcoded.
    """
    classes = _class_names(folder, splits)
    failed = transcode.read_failed(transcoded) if transcoded else {}
    rows = []
    jobs = [_Probe(str(root), clip, _place(root, clip, transcoded, failed), failed.get(clip)) for clip in folder.clips]
    for row in processes.run_in_order(_probe, jobs, workers, _lost):
        rows.append(row)
        advance(1)
    rows += _absent(folder, splits)
    table = pd.DataFrame(rows)
    table["class"] = table["path"].str.split("/").str[0]
    strangers = sorted(set(table["class"]) - set(classes))
    table["label"] = table["class"].map({name: label for label, name in enumerate(classes)}).fillna(-1)
    table.loc[table["class"].isin(strangers), ["status", "reason"]] = [
        "failed",
        "its class is not in classInd.txt",
    ]
    table["group"] = table["path"].map(splits.group if splits else group_of)
    table = table.sort_values("id", ignore_index=True)
    table["split"] = _split_column(table, splits, val_fraction, test_fraction, seed)
    table = table[list(COLUMNS)].astype(COLUMNS)
    _check(table, root)
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
    }


def tally(values: pd.Series) -> dict[str, int]:
    """How often each value occurs, sorted by value."""
    return {str(name): int(count) for name, count in values.value_counts().sort_index().items()}


def _read_list(path: Path) -> dict[str, str]:
    """Lines "Class/file.avi" or "Class/file.avi 1": stem "Class/file" -> the name as listed."""
    listed: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        name = PurePosixPath(line.strip().rsplit(" ", 1)[0] if line.split()[-1].isdigit() else line.strip())
        if not _is_clip(name):
            raise DatasetError(
                f"line {number}, {line.strip()!r}: wanted <Class>/<file> and perhaps a label", where=path
            )
        listed[name.with_suffix("").as_posix()] = name.as_posix()
    if not listed:
        raise DatasetError("lists no clips", where=path)
    return listed


def _is_clip(name: PurePosixPath) -> bool:
    """Whether a name is "Class/file", and leads nowhere else."""
    return len(name.parts) == 2 and not {"/", ".."} & set(name.parts)


def _read_classes(path: Path) -> list[str] | None:
    """Lines "1 ApplyEyeMakeup", in label order; None where there is no such file."""
    if not path.exists():
        return None
    numbered = []
    for line, (number, name) in _words(path, "a number and a class"):
        if not number.isdigit():
            raise DatasetError(f"line {line}: {number!r} is no number", where=path)
        numbered.append((int(number), name))
    return [name for _, name in sorted(numbered)]


def _class_names(folder: Folder, splits: Splits | None) -> list[str]:
    if splits is None:
        names = folder.classes
    elif splits.classes is not None:
        listed = {stem.split("/")[0] for stem in [*splits.train, *splits.test]} | set(folder.classes)
        names = [name for name in splits.classes if name in listed]  # labels without gaps
    else:
        names = sorted({stem.split("/")[0] for stem in [*splits.train, *splits.test]})
    if len(names) < 2:
        raise DatasetError(
            f"only one class ({', '.join(names)}): there is nothing to tell apart",
            fix="dataset.root wants a folder a class, two at least",
        )
    return names


@dataclass(frozen=True)
class _Probe:
    """A clip to describe: below the root, and where it is read. `failed` is why it could not be transcoded, if so."""

    root: str
    clip: str
    place: str
    failed: str | None


def _place(root: str | Path, clip: str, transcoded: Path | None, failed: Mapping[str, str]) -> str:
    if transcoded is None or clip in failed:
        return storage.join(root, clip)
    return str(transcode.place(transcoded, clip))


def _probe(job: _Probe) -> dict[str, object]:
    try:
        if job.clip != _written(job.clip):
            raise VideoError("its name is not UTF-8", fix="rename it")
        storage.check_inside(job.root, job.clip)
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
        "seekable": found["seekable"] and job.place == storage.join(job.root, job.clip),
    }


def _unusable(status: str, reason: str) -> dict[str, object]:
    nothing = {"codec": "", "w": 0, "h": 0, "fps": 0.0, "frames": 0, "gop": 0, "has_b": False, "bytes": 0}
    nothing |= {"damage": "", "seekable": False}
    return nothing | {"status": status, "reason": reason}


def _absent(folder: Folder, splits: Splits | None) -> list[dict[str, object]]:
    """A row for each listed clip that is not in the folder."""
    if splits is None:
        return []
    there = {_stem(clip) for clip in folder.clips}
    return [
        {"id": name, "path": name, "md5": ""} | _unusable("missing", f"named in the {part} list, not in the folder")
        for part, listed in (("train", splits.train), ("test", splits.test), ("unused", splits.unused))
        for stem, name in listed.items()
        if stem not in there
    ]


def _stem(clip: str) -> str:
    return PurePosixPath(clip).with_suffix("").as_posix()


def _split_column(
    table: pd.DataFrame, splits: Splits | None, val_fraction: float, test_fraction: float, seed: int
) -> pd.Series:
    column = pd.Series("train", index=table.index, dtype=object)
    if splits is None:
        ok = table["status"] == "ok"
        column[ok] = np.where(hold_out(table["group"][ok], table["label"][ok], test_fraction, seed), "test", "train")
    else:
        stems = table["path"].map(_stem)
        column[:] = np.select(
            [stems.isin(splits.train.keys()), stems.isin(splits.test.keys())], ["train", "test"], "none"
        )
    train = (column == "train") & (table["status"] == "ok")
    held = hold_out(table["group"][train], table["label"][train], val_fraction, seed + 1)
    column[held.index[held]] = "val"
    return column


def _check(table: pd.DataFrame, root: str | Path) -> None:
    ok = table[table["status"] == "ok"]
    for part, why in (
        ("train", "no usable clip to train on"),
        ("test", "no usable clip to test on"),
        ("val", "no part of train can be held out by group: one source only, or one a class"),
    ):
        if not (ok["split"] == part).any():
            reasons = _first(f"{row.id}: {row.reason}" for row in table.itertuples() if row.status != "ok")
            raise DatasetError(f"{why} among {len(table)} clips", where=root, fix=reasons or None)


def _first(lines: Iterable[str], most: int = 5) -> str:
    every = list(lines)
    more = [f"... and {len(every) - most} more"] if len(every) > most else []
    return "\n  ".join(every[:most] + more)
