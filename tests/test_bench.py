"""`make bench`: it runs to its end in its quick form, also without the peers, and its page says what was measured."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.peers import core, growth, page
from benchmarks.peers.__main__ import OUT, PARTS
from tests.conftest import ROOT


def test_the_page_is_what_the_results_say() -> None:
    results = json.loads(OUT.read_text(encoding="utf-8"))
    assert not results["quick"]
    assert set(results["parts"]) == set(PARTS)
    assert page.PAGE.read_text(encoding="utf-8") == page.render(results)


def test_the_page_marks_where_ours_is_slower_and_what_is_missed() -> None:
    part = core.Part(False, 1.0, Path())
    turns = core.Turns({"ours": [2.0, 2.0, 2.1], "theirs": [1.0, 1.1, 1.0]})
    part.versus("reading", turns, "ours", "theirs", 100, "fields/s", target=0.85)
    part.row("size", "B", 10, 30, less=True)
    slower, smaller = (page.verdict(row) for row in part.rows)
    assert "**slower**" in slower
    assert "target >= 0.85: **missed**" in slower
    assert smaller == "less"
    assert part.rows[0]["ratio"] == pytest.approx(0.5)
    assert part.rows[1]["ratio"] == 3


def test_contenders_take_turns_until_their_ratio_holds_still() -> None:
    order: list[str] = []
    turns = core.interleaved({name: (lambda name=name: order.append(name)) for name in "ab"}, 9, spread=1e9)  # type: ignore[misc]
    assert "".join(order) == "ab" + "abbaab"  # once before the clock runs, then three rounds
    assert turns.rounds == core.LEAST
    endless = itertools.count()
    assert core.interleaved({"a": endless.__next__, "b": endless.__next__}, 9, spread=-1).rounds == core.MOST
    assert core.Turns({"a": [1, 1, 1], "b": [2, 2, 2]}).ratio("a", "b") == (2, 2, 2)


def test_growth_is_seen_behind_a_long_start() -> None:
    sizes = [100, 1_000, 3_000, 10_000]
    for exponent in (0.5, 1.0, 1.5):
        seconds = [3 + (size / 5_000) ** exponent for size in sizes]
        assert growth.without_start(sizes, seconds) == pytest.approx(exponent, abs=0.02)
        assert growth.last_slope(sizes, seconds) < exponent
        assert growth.spread(sizes, [[second, second] for second in seconds]) == pytest.approx([exponent] * 3, abs=0.02)
        noisy = growth.spread(sizes, [[second, 1.1 * second] for second in seconds])
        assert noisy.low < noisy.high


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_the_bench_runs_and_leaves_out_the_peers_that_are_not_there(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    command = [sys.executable, "-m", "benchmarks.peers", "--quick", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = json.loads(out.read_text())
    assert set(results["parts"]) == set(PARTS)
    assert all(row["ours"] > 0 for part in results["parts"].values() for row in part["rows"])
    left_out = {one["name"] for part in results["parts"].values() for one in part["left_out"]}
    assert {"zarrs", "HDF5"} <= left_out or {"zarrs", "h5py"} <= set(results["peers"])
    assert "A quick run" in page.render(results)
