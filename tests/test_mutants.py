"""Damaged clips cost themselves alone; stages that are killed, or may not write, go on to the same bytes."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from tests import damaged_clips, killed_stages
from tests.mutants import KINDS, Mutant, is_clip, rendered, write_mutants

pytestmark = pytest.mark.slow


class Tortured(NamedTuple):
    """Mutants, the folder they lie in, the project that has read them, and how its commands ended."""

    mutants: Sequence[Mutant]
    root: Path
    project: Path
    runs: dict[str, damaged_clips.Ran]


@pytest.fixture(scope="module")
def tortured(tmp_path_factory: pytest.TempPathFactory) -> Tortured:
    folder = tmp_path_factory.mktemp("mutants")
    root, project = folder / "videos", folder / "project"
    mutants = write_mutants(damaged_clips.sources_in(folder / "sources"), root, 3 * len(KINDS), seed=1)
    return Tortured(mutants, root, project, damaged_clips.run_over(root, project))


def test_damaged_or_odd_files_never_stop_a_run(tortured: Tortured) -> None:
    for done in tortured.runs.values():
        assert done.code == 0, done.printed
        assert "Traceback" not in done.printed
        assert done.peak_mb < damaged_clips.MOST_MB
    found = damaged_clips.judged(tortured.mutants, tortured.root, tortured.project)
    assert found.broken() == {}
    assert found.rows == found.clips
    assert found.others == found.ignored
    assert found.clips + found.others == 3 * len(KINDS)
    assert found.stored > len(KINDS)
    assert found.compared > 100


def test_the_checks_of_damaged_clips_find_violations(tortured: Tortured, tmp_path: Path) -> None:
    project = shutil.copytree(tortured.project, tmp_path / "project")
    path = project / "data/features/mv.parquet"
    table = pd.read_parquet(path).set_index("id")
    whole = [mutant.id for mutant in tortured.mutants if mutant.kind == "untouched"]
    moved, refused, silent = whole
    table["offset"] = table["offset"].where(table.index != moved, table["offset"][refused])
    for id, reason in ((refused, "why not"), (silent, "")):
        table["status"] = table["status"].where(table.index != id, "failed")
        table["reason"] = table["reason"].where(table.index != id, reason)
    gone = next(mutant.id for mutant in tortured.mutants if mutant.kind == "two videos")
    table = table.drop(gone)
    table.loc["Walk/of nothing.avi"] = table.loc[refused]
    table.reset_index().to_parquet(path, index=False)
    found = damaged_clips.judged(tortured.mutants, tortured.root, project)
    assert found.wrong == [moved]
    assert found.lost == [f"{refused}: why not", f"{silent}: "]
    assert found.without_reason == [silent]
    assert found.without_row == [gone]
    assert found.unasked == ["Walk/of nothing.avi"]


def test_a_wrong_field_is_found_anywhere() -> None:
    fields, types = np.ones((3, 2, 4, 4), np.int8), np.frombuffer(b"IPP", np.uint8)
    read = damaged_clips.Fields(fields, types, (b"1", b"2", b"3"), (1, 2, 3), ())
    assert damaged_clips.is_right(fields, types, read, read, 3)
    assert not damaged_clips.is_right(fields, types, None, read, 0)  # nothing is there to be stored
    assert not damaged_clips.is_right(fields[:2], types[:2], read, None, 0)
    assert not damaged_clips.is_right(fields, types[::-1], read, None, 0)
    for frame in range(3):
        other = fields.copy()
        other[frame, 1, 3, 3] = 2
        assert not damaged_clips.is_right(other, types, read, None, 0)
        changed = dataclasses.replace(read, fields=other)
        assert damaged_clips.is_right(other, types, changed, read, 2) == (frame == 2)  # the third one may be another


def test_leftover_temporary_files_are_detected(tmp_path: Path) -> None:
    for folder in ("data/work", "data/features", "metrics"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "data/features/kept").touch()
    assert (killed_stages.leftovers(tmp_path), list(killed_stages.written(tmp_path))) == ([], ["data/features/kept"])
    aside = [tmp_path / "data/features/.kept.host-1.tmp", tmp_path / "data/work/index.lock"]
    for path in aside:
        path.touch()
    (tmp_path / "data/work/empty").mkdir()
    assert set(killed_stages.leftovers(tmp_path)) == {*aside, tmp_path / "data/work/empty"}
    assert list(killed_stages.written(tmp_path)) == ["data/features/kept"]


def test_the_same_seed_gives_the_same_mutants(tmp_path: Path) -> None:
    sources = rendered(tmp_path / "sources")[:4]
    made = [write_mutants(sources, tmp_path / str(turn), 2 * len(KINDS), seed=5) for turn in range(2)]
    assert made[0] == made[1]
    for mutant in made[0]:
        files = [tmp_path / str(turn) / mutant.id for turn in range(2)]
        if is_clip(tmp_path / "0", mutant):
            assert files[0].read_bytes() == files[1].read_bytes(), mutant


@pytest.mark.parametrize(
    ("stage", "other"),
    [("index", ("--dataset-val-fraction", "0.5")), ("extract_mv", ("--mv-clip", "10")), ("train_mv", ())],
)
def test_a_killed_stage_resumes_with_the_same_bytes(
    stage: str, other: tuple[str, ...], finished: Path, tmp_path: Path
) -> None:
    """From nothing, or with the outputs of other parameters in the way; killed with all its processes, and alone."""
    killed_stages.kill(killed_stages.trial(stage, finished, tmp_path, other), 2)


@pytest.mark.parametrize("stage", ["index", "extract_mv"])
def test_a_missing_write_permission_is_reported_and_the_run_resumes(stage: str, finished: Path, tmp_path: Path) -> None:
    trial = killed_stages.trial(stage, finished, tmp_path)
    done = trial.without_right()
    assert done.code == 1
    assert re.search(r"^error: \S+: no access: Permission denied$", done.printed, re.MULTILINE), done.printed
    assert "Traceback" not in done.printed
    trial.run()
    trial.check("once it may write")
