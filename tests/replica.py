"""Folders as UCF-101 and HMDB-51 come: true class names, official list formats, groups, AVIs; few and short clips."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.clips import encode, moving_texture
from tests.conftest import ROOT

FRAMES = 5
TRAIN_GROUPS, TEST_GROUPS = (8, 10), (1,)


def classes_of(data_set: str) -> list[str]:
    return list(json.loads((ROOT / f"data/classes/{data_set}.json").read_text()))


def ucf101(folder: Path) -> tuple[Path, Path]:
    """101 classes of three clips each, MPEG-4 Part 2 at 160 x 120 px; (videos, lists of split 1)."""
    root, lists, names = folder / "UCF-101", folder / "ucfTrainTestlist", classes_of("ucf101")
    films = _films(folder, (120, 160), 6)
    listed: dict[str, list[str]] = {"train": [], "test": []}
    for number, name in enumerate(names):
        stem = name.replace("HandstandPushups", "HandStandPushups")  # so the data set spells its files
        for part, groups in (("train", TRAIN_GROUPS), ("test", TEST_GROUPS)):
            for group in groups:
                clip = f"{name}/v_{stem}_g{group:02d}_c01.avi"
                _copy(films[(number + group) % len(films)], root / clip)
                listed[part].append(f"{clip} {number + 1}\n" if part == "train" else f"{clip}\n")
    lists.mkdir()
    (lists / "classInd.txt").write_text("".join(f"{number} {name}\n" for number, name in enumerate(names, 1)))
    for part, lines in listed.items():
        (lists / f"{part}list01.txt").write_text("".join(lines))
    return root, lists


def hmdb51(folder: Path) -> tuple[Path, Path]:
    """51 classes of four clips from three sources each, one of them not in the split; (videos, lists of split 1)."""
    root, lists = folder / "hmdb51", folder / "testTrainMulti_7030_splits"
    films = _films(folder, (120, 160), 4)
    lists.mkdir(parents=True)
    for number, name in enumerate(classes_of("hmdb51")):
        lines = []
        for clip, (source, part) in enumerate((("April_09", 1), ("Big_Fish", 1), ("#20_Rhythm", 2), ("April_09", 0))):
            file = f"{source}_{name}_u_nm_np1_ba_goo_{clip}.avi"
            _copy(films[(number + clip) % len(films)], root / name / file)
            lines.append(f"{file} {part} \n")
        (lists / f"{name}_test_split1.txt").write_text("".join(lines))
    return root, lists


def _films(folder: Path, size: tuple[int, int], count: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    steps = [(3, 0), (-3, 0), (0, 3), (0, -3), (2, 2), (-2, -2)]
    return [
        encode(folder / f"film{number}.avi", moving_texture(FRAMES, size, steps[number % len(steps)], seed=number))
        for number in range(count)
    ]


def _copy(film: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(film, target)
