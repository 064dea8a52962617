"""`moclip compare`: two experiments on the same clips, from folders, revisions and DVC experiments."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from moclip.evaluation.comparison import Difference, compare_classes, compare_map, compare_top1
from moclip.training.average_precision import mean_average_precision
from pipeline.commands.compare import answer_text
from pipeline.io import write_parquet
from tests.conftest import run

CLASSES = ["jump", "run", "walk"]
STREAMS = ("majority", "mv_tsn", "fusion")


def index_of(count: int) -> pd.DataFrame:
    """An index of so many test clips, two of each source."""
    labels = np.arange(count) % 3
    return pd.DataFrame(
        {
            "id": [f"{CLASSES[label]}/v_g{n // 6:02}_c{n}.mp4" for n, label in enumerate(labels)],
            "class": [CLASSES[label] for label in labels],
            "label": labels,
            "split": "test",
            "group": [f"g{n // 6:02}" for n in range(count)],
            "frames": 20,
            "md5": [f"{n:032}" for n in range(count)],
            "status": "ok",
        }
    )


def write_experiment(folder: Path, index: pd.DataFrame, wrong: set[int], **streams: np.ndarray) -> Path:
    """Write what `compare` reads. Every stream says the class after the clip's own in the rows `wrong`."""
    labels = index["label"].to_numpy()
    said = np.where(np.isin(np.arange(len(index)), list(wrong)), (labels + 1) % 3, labels)
    logits = {name: np.eye(3, dtype=np.float32)[said] for name in STREAMS} | streams
    table = index[[name for name in ("id", "class", "label", "labels") if name in index]].copy()
    for name, values in logits.items():
        table[name] = list(values.astype(np.float32))
    folder.mkdir(parents=True, exist_ok=True)
    write_parquet(folder / "index.parquet", index)
    write_parquet(folder / "predictions.parquet", table)
    return folder


# ------------------------------------------------------------------------------------------------------------ figures


def plain_interval(difference: np.ndarray, sources: np.ndarray, draws: int = 4000) -> tuple[float, float]:
    generator, names = np.random.default_rng(7), np.unique(sources)
    of_source = {name: difference[sources == name] for name in names}
    means = [np.concatenate([of_source[n] for n in generator.choice(names, len(names))]).mean() for _ in range(draws)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def test_a_paired_difference_has_the_interval_of_plainly_resampled_sources() -> None:
    generator = np.random.default_rng(0)
    sources = np.repeat(np.arange(40), generator.integers(1, 6, 40))
    one = generator.random(len(sources)) < 0.6
    two = one | (generator.random(len(sources)) < 0.3)
    found = compare_top1({"fusion": one}, {"fusion": two}, sources, 0)["fusion"]
    assert (found.clips, found.first, found.second) == (len(sources), one.mean(), two.mean())
    assert found.difference == pytest.approx(two.mean() - one.mean())
    assert (found.low, found.high) == pytest.approx(plain_interval(two.astype(float) - one, sources), abs=0.012)
    assert found.better == 2
    swapped = compare_top1({"fusion": two}, {"fusion": one}, sources, 0)["fusion"]
    assert swapped.better == 1
    assert (swapped.low, swapped.high) == pytest.approx((-found.high, -found.low))  # type: ignore[operator]


def test_five_sources_are_too_few_for_an_interval() -> None:
    right, wrong = np.ones(50, bool), np.zeros(50, bool)
    few = compare_top1({"fusion": wrong}, {"fusion": right}, np.arange(50) % 5, 0)["fusion"]
    assert (few.difference, few.low, few.high, few.better) == (1.0, None, None, 0)
    assert compare_top1({"fusion": wrong}, {"fusion": right}, np.arange(50) % 6, 0)["fusion"].better == 2


def test_classes_come_with_the_largest_difference_first() -> None:
    classes, sources = np.array(["a", "b"] * 12), np.arange(24) // 2
    one, two = np.ones(24, bool), np.ones(24, bool)
    two[classes == "b"] = np.arange(12) < 3
    found = compare_classes(one, two, classes, sources, 0)
    assert list(found) == ["b", "a"]
    assert (found["b"].clips, found["b"].difference, found["b"].better) == (12, -0.75, 1)
    assert (found["a"].difference, found["a"].low, found["a"].high) == (0, 0, 0)


def test_mean_average_precisions_are_compared_on_the_same_draws() -> None:
    generator = np.random.default_rng(1)
    positives = (generator.random((80, 4)) < 0.4).astype(np.float32)
    good = positives + generator.normal(0, 0.5, positives.shape)
    better = good + 0.2 * positives
    found = compare_map({"fusion": good}, {"fusion": better}, positives, np.arange(80) // 2, 0)["fusion"]
    assert found.first == mean_average_precision(good, positives)
    assert found.second == mean_average_precision(better, positives)
    assert found.low is not None
    assert 0 < found.low < found.difference < found.high  # type: ignore[operator]
    same = compare_map({"fusion": good}, {"fusion": good}, positives, np.arange(80) // 2, 0)["fusion"]
    assert (same.difference, same.low, same.high) == (0, 0, 0)


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.01, 0.2, "B is better than A by the fusion head: top-1 50.0 % in A, 60.0 % in B, +10.0 points (95 % interv"),
        (-0.2, -0.01, "A is better than B"),
        (-0.1, 0.2, "Cannot tell whether A or B is better"),
        (0.0, 0.2, "Cannot tell whether A or B is better"),
        (0.0, 0.0, "A and B score the same"),
        (None, None, "too few sources for an interval"),
    ],
)
def test_the_answer_is_what_the_interval_says(low: float | None, high: float | None, text: str) -> None:
    assert text in answer_text("fusion", Difference(20, 0.5, 0.6, 0.1, low, high), "top-1")


# ------------------------------------------------------------------------------------------------------- the command


def test_folders_are_compared_on_their_common_clips(tmp_path: Path) -> None:
    index = index_of(60)
    write_experiment(tmp_path / "one", index.iloc[:54], set(range(0, 54, 3)))  # all of jump wrong
    changed = index.assign(md5=["other" if n == 6 else md5 for n, md5 in enumerate(index["md5"])])
    write_experiment(tmp_path / "two", changed, {4})
    options = ("--page", "page/compare.html", "--csv", "clips.csv", "-n", "2")
    done = run("moclip", "compare", "one", "two", *options, cwd=tmp_path)
    assert "A: one; B: two; 53 test clips of 27 sources in both" in done.stdout
    assert f"6 test clips only in the second, not compared: {index['id'][54]}" in done.stdout
    assert f"1 test clip with other contents or another label, not compared: {index['id'][6]}" in done.stdout
    right = np.array([17, 18, 18])  # of jump, run, walk; jump/…6 is left out
    top1 = 100 * (right[1] + right[2]) / 53, 100 * 52 / 53
    assert f"fusion head: top-1 {top1[0]:.1f} % in A, {top1[1]:.1f} % in B" in done.stdout
    assert "B is better than A" in done.stdout
    assert "right in A, wrong in B, fusion head: 1 clip" in done.stdout
    assert "right in B, wrong in A, fusion head: 17 clips" in done.stdout
    assert "and 15 more: --count, --page or --csv" in done.stdout
    table = pd.read_csv(tmp_path / "clips.csv")
    assert table.columns.tolist() == ["clip", "class", "source"] + [
        f"{name}_{side}" for name in STREAMS for side in "ab"
    ]
    wrong = table[table["fusion_a"] != table["class"]]
    assert set(wrong["class"]) == {"jump"}
    assert set(wrong["fusion_a"]) == {"run"}
    assert table["clip"][table["fusion_b"] != table["class"]].tolist() == [index["id"][4]]
    page = (tmp_path / "page/compare.html").read_text()
    assert page.count("<h2>") == 4
    assert all(name in page for name in wrong["clip"]), "the page lists more than -n"
    assert "http" not in page
    again = run("moclip", "compare", "one", "two", *options, cwd=tmp_path)
    assert again.stdout == done.stdout


def test_classes_in_another_order_are_compared_by_name(tmp_path: Path) -> None:
    index = index_of(36)
    write_experiment(tmp_path / "one", index, {0})
    write_experiment(tmp_path / "two", index.assign(label=2 - index["label"]), set())
    done = run("moclip", "compare", "one", "two", cwd=tmp_path)
    assert "top-1 97.2 % in A, 100.0 % in B" in done.stdout


@pytest.mark.slow
def test_several_labels_are_compared_by_mean_average_precision(tmp_path: Path) -> None:
    index = index_of(48).assign(labels=lambda rows: rows["class"].where(rows.index % 2 == 0, "run|walk"))
    has = np.stack([index["labels"].str.contains(name) for name in CLASSES], axis=1).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 1, has.shape)
    write_experiment(tmp_path / "one", index, set(), fusion=noise)
    write_experiment(tmp_path / "two", index, set(), fusion=has + 0.1 * noise)
    done = run("moclip", "compare", "one", "two", "--page", "page.html", cwd=tmp_path)
    assert f"mAP {100 * mean_average_precision(noise.astype(np.float32), has):.1f} % in A, 100.0 % in B" in done.stdout
    assert "B is better than A" in done.stdout
    assert (tmp_path / "page.html").read_text().count("<h2>") == 1
    assert "no one predicted class" in run("moclip", "compare", "one", "two", "--csv", "x", cwd=tmp_path, code=1).stderr
    write_experiment(tmp_path / "single", index_of(48), set())
    mixed = run("moclip", "compare", "one", "single", cwd=tmp_path, code=1).stderr
    assert "one: its clips have several labels, those of the other one a single label" in mixed


def _without_index(folder: Path) -> None:
    (folder / "two/index.parquet").unlink()


def _other_clips(folder: Path) -> None:
    index = index_of(12)
    write_experiment(folder / "two", index.assign(id="other/" + index["id"]), set())


@pytest.mark.parametrize(
    ("spoil", "options", "text"),
    [
        (_without_index, (), "two: no index.parquet"),
        (_other_clips, (), "one, two: no test clip in common"),
        (None, ("--stream", "zero"), "--stream zero: no such stream\n  one of majority"),
        (None, ("--stream", "still"), "--stream still: not scored in both experiments"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    tmp_path: Path, spoil: Callable[[Path], Any] | None, options: tuple[str, ...], text: str
) -> None:
    for name in ("one", "two"):
        write_experiment(tmp_path / name, index_of(12), set())
    if spoil:
        spoil(tmp_path)
    stderr = run("moclip", "compare", "one", "two", *options, cwd=tmp_path, code=1).stderr
    assert text in stderr
    assert "Traceback" not in stderr


@pytest.mark.slow
def test_revisions_and_experiments_are_read_from_dvcs_cache(tmp_path: Path) -> None:
    def save(wrong: set[int]) -> None:
        write_experiment(tmp_path / "data", index_of(36), wrong)
        run("dvc", "add", "-q", "data/index.parquet", "data/predictions.parquet", cwd=tmp_path)

    run("git", "init", "-q", "-b", "main", cwd=tmp_path)
    stderr = run("moclip", "compare", "main", "HEAD", cwd=tmp_path, code=1).stderr
    assert "you are not inside of a DVC repository" in stderr
    run("dvc", "init", "-q", cwd=tmp_path)
    run("git", "commit", "-q", "-m", "empty", cwd=tmp_path)
    save(set(range(18)))
    run("git", "add", "-A", cwd=tmp_path)
    run("git", "commit", "-q", "-m", "half", cwd=tmp_path)
    save({0})
    run("dvc", "exp", "save", "-q", "--name", "good", cwd=tmp_path)
    save(set())
    against_workspace = run("moclip", "compare", "HEAD", cwd=tmp_path).stdout
    assert "top-1 50.0 % in A, 100.0 % in B" in against_workspace
    assert "top-1 97.2 % in A, 50.0 % in B" in run("moclip", "compare", "good", "main", cwd=tmp_path).stdout
    stderr = run("moclip", "compare", "nonsense", cwd=tmp_path, code=1).stderr
    assert "nonsense: unknown Git revision 'nonsense'" in stderr
    stderr = run("moclip", "compare", "HEAD~1", cwd=tmp_path, code=1).stderr
    assert "HEAD~1: it has no data/predictions.parquet" in stderr
    shutil.rmtree(tmp_path / ".dvc/cache")
    stderr = run("moclip", "compare", "HEAD", cwd=tmp_path, code=1).stderr
    assert "HEAD: its data/predictions.parquet is not in DVC's cache" in stderr
    assert "dvc fetch" in stderr
    assert "Traceback" not in stderr
