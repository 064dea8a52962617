"""Each benchmark runs to its end with --quick and writes its figures; the page says what the results say."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks import comparison, encoders, extract, page, train
from benchmarks.common import index_clips
from benchmarks.peers import PARTS, RESULTS
from moclip.motion.quantise import quantise
from tests.clips import encode, moving_texture
from tests.conftest import ROOT, run


def bench(name: str, *words: str | Path, cwd: Path = ROOT) -> str:
    """Run a benchmark; what it prints."""
    return run("python", "-m", f"benchmarks.{name}", *words, cwd=cwd).stdout


# -------------------------------------------------------------------------------------------------------- page


@pytest.mark.slow
def test_the_page_is_rendered_from_the_results_without_measuring(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "docs").mkdir()
    bench("peers", "--page", cwd=tmp_path)
    assert (tmp_path / "docs/performance.md").read_text("utf-8") == page.PAGE.read_text("utf-8")
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert not results["quick"]
    assert tuple(results["parts"]) == PARTS


def test_the_page_says_where_ours_is_slower_and_what_is_missed() -> None:
    part = comparison.Part(False, 1.0, Path())
    turns = comparison.Turns({"ours": [2.0, 2.0, 2.1], "theirs": [1.0, 1.1, 1.0]})
    part.add_ratio("reading", turns, "ours", "theirs", "fields/s", amounts=(100, 100), target=0.85)
    part.add_figure("size", "B", 10, 30, less=True)
    part.add_figure("memory", "MiB", 99, target=98, at_most=True)
    found = vars(part)
    assert part.rows[0]["ratio"] == pytest.approx(0.5)
    assert part.rows[1]["ratio"] == 3
    assert "| 1. Extraction | reading | theirs 0.50 |" in page.losses({"extract": found})
    assert "size" not in page.losses({"extract": found})
    assert page.targets({"extract": found}).startswith("0 of 2 targets are met. Missed:")
    table, figures = page.tables("", found)
    assert "| reading | 50 fields/s | **0.50** (0.49–0.53) |" in table
    assert figures == "Figures: memory = 99 MiB (**missed** target <= 98)."


@pytest.mark.slow
def test_timelines_are_timed_step_by_step() -> None:
    rows = [line.split(" | ") for line in bench("timeline", "--quick").splitlines() if line.startswith("| ")]
    assert [row[:2] for row in rows[1:3]] == [["| 320x240", "none"], ["| 320x240", "tiny"]]
    for row in rows[1:3]:
        assert float(row[2]) > 0
        assert sum(float(share.partition(" %")[0]) for share in row[3:]) == pytest.approx(100, abs=2)
    assert [row[0] for row in rows[4:]] == ["| 4 s", "| 8 s"]


@pytest.mark.slow
def test_stills_are_compared_with_the_encoder_alone() -> None:
    shown = bench("stills", "--quick")
    rows = [line.split("|") for line in shown.splitlines() if line.startswith("| ")]
    assert [row[1].strip() for row in rows[1:]] == ["240 x 320, mpeg4"] * 2 + ["1080 x 1920, h264"] * 2
    assert all(float(row[5]) > 0 for row in rows[1:])


@pytest.mark.slow
def test_many_clips_are_timed_on_one_core_and_on_all() -> None:
    name, one, several, ratio = bench("cores", "--quick").splitlines()[-1].strip("| ").split(" | ")
    assert name == "clip_image"
    assert float(several) / float(one) == pytest.approx(float(ratio), abs=0.02)


@pytest.mark.slow
def test_the_gpu_benchmark_runs_on_a_cpu_and_says_so() -> None:
    lines = bench("gpu", "--quick").splitlines()
    assert lines[0].startswith("no GPU: on the CPU")
    epoch, steps = (float(line.split()[-2].replace(",", "")) for line in lines[1:3])
    assert float(lines[3].split()[1]) == pytest.approx(epoch / steps, abs=0.1)
    assert float(lines[4].split()[-4].replace(",", "")) > 0


@pytest.mark.slow
def test_the_page_of_encoders_says_what_each_tower_costs() -> None:
    text = (ROOT / "docs" / "encoders.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    found = {row[0]: row[1:4] for row in rows if len(row) == 5 and row[3].isdigit()}
    assert list(found) == list(encoders.TOWERS)
    for name, tower in encoders.TOWERS.items():
        parameters, adds, width = encoders.count(tower)
        assert found[name] == [f"{parameters / 1e6:.3g}", f"{adds / 1e9:.3g}", str(width)], name


def test_contenders_take_turns_until_their_ratio_is_steady() -> None:
    order: list[str] = []
    runs = {name: (lambda name=name: order.append(name)) for name in "ab"}
    turns = comparison.run_interleaved(runs, 9, spread=1e9)
    assert "".join(order) == "ab" + "abbaab"  # once before timing starts, then three rounds
    assert turns.rounds == comparison.LEAST
    endless = itertools.count()
    never = comparison.run_interleaved({"a": endless.__next__, "b": endless.__next__}, 9, spread=-1)
    assert never.rounds == comparison.MOST
    assert comparison.Turns({"a": [1, 1, 1], "b": [2, 2, 2]}).ratio("a", "b") == (2, 2, 2)


# ------------------------------------------------------------------------------------------------------- parts


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTS)
def test_each_benchmark_part_runs_alone(name: str, tmp_path: Path) -> None:
    shown = bench(name, "--quick", "--out", tmp_path / "part.json")
    found = json.loads((tmp_path / "part.json").read_text())
    assert shown.strip() == "\n\n".join(page.tables(name, found))
    assert found["rows"]
    assert found["setup"]
    assert name == "growth" or all(row["ours"] > 0 for row in found["rows"])  # twenty clips say little of growth


@pytest.mark.slow
def test_a_part_that_is_measured_again_keeps_the_others(tmp_path: Path) -> None:
    before = json.loads(RESULTS.read_text(encoding="utf-8"))
    shutil.copy(RESULTS, tmp_path / "results.json")
    shown = bench("peers", "read", "--quick", "--out", tmp_path / "results.json")
    after = json.loads((tmp_path / "results.json").read_text())
    assert "## 2. Reading the store" in shown
    assert after["parts"]["read"] != before["parts"]["read"]
    assert after["parts"]["read"]["measured_separately"]
    assert {**after["parts"], "read": 0} == {**before["parts"], "read": 0}
    left_out = [one["name"] for one in after["parts"]["read"]["left_out"]]
    assert left_out == [name for name, module in (("zarrs", "zarrs"), ("HDF5", "h5py")) if module not in after["peers"]]
    assert "A quick run" in page.render(after)


@pytest.mark.parametrize("accumulate", [False, "pixel"])
def test_what_is_decoded_at_each_access_are_the_stores_fields(accumulate: bool | str, tmp_path: Path) -> None:
    """Else the two would not be compared at the same work."""
    path = encode(tmp_path / "clip.avi", moving_texture(20, (64, 80), (3, 1)), "mpeg4", options={"g": "6"})
    reader = extract.open_store(index_clips([path]), tmp_path / "store", accumulate=accumulate)
    for frame in range(20):
        decoded = quantise(train.decoded_field(str(path), frame, accumulate)[None], train.CLIP)
        assert np.array_equal(decoded, reader.read(np.array([frame]))), frame
