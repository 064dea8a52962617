"""`moclip sweep` runs what is missing as DVC experiments, beside the workspace, and sums up over the seeds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from moclip.evaluation.plots import plot_accuracy_over_cost, plot_fusion_over_shots, plot_variants
from pipeline.console.output import STREAM_LABELS
from tests.conftest import commit, in_turn, run, set_keys


@pytest.mark.slow
def test_a_sweep_runs_what_is_missing_and_sums_up_over_the_seeds(project: Path) -> None:
    pipeline = yaml.safe_load((project / "dvc.yaml").read_text())
    del pipeline["stages"]["report"]  # which each run would write
    (project / "dvc.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False))
    commit(project)
    run("dvc", "exp", "run", "--temp", "-S", "fusion.epochs=2", cwd=project)  # by hand: taken as it is
    run("dvc", "exp", "run", "--queue", "-S", "fusion.epochs=4", cwd=project)  # waits, and is no result
    sweep = ("moclip", "sweep", "--dataset-seeds", "[0]", "--name", "epochs")
    done = run(*sweep, "fusion.epochs=2,4", cwd=project)
    assert "2 runs, 1 done, 1 to go" in done.stdout
    assert run("git", "status", "--porcelain", "--untracked-files=no", cwd=project).stdout == "", "the workspace stays"
    folder = project / "metrics/sweeps/epochs"
    rows = json.loads((folder / "table.json").read_text())["rows"]
    assert [row["values"] for row in rows] == [{"fusion.epochs": 2}, {"fusion.epochs": 4}]
    assert all(len(row["streams"]["fusion"]["top1"]) == row["runs"] == 1 for row in rows)
    assert pd.read_csv(folder / "table.csv")["fusion.epochs"].tolist() == [2, 4]
    assert (folder / "plot.png").read_bytes().startswith(b"\x89PNG")
    shown = json.loads(run("dvc", "exp", "show", "--json", "--num", "1", cwd=project).stdout)
    top1 = {
        data["params"]["params.yaml"]["data"]["fusion"]["epochs"]: data["metrics"]["metrics/summary.json"]["data"][
            "top1"
        ]["fusion"]
        for one in shown[-1]["experiments"]
        for data in [one["revs"][0]["data"]]
        if data.get("metrics")
    }
    assert [row["streams"]["fusion"]["top1"] for row in rows] == [[top1[2]], [top1[4]]]
    again = run(*sweep, "fusion.epochs=4", cwd=project)
    assert "1 run, 1 done, 0 to go" in again.stdout
    check_variants(project, rows)
    stage = project / "stages/train_fusion.py"
    code = stage.read_text()
    stage.write_text(code + "# edited since\n")
    assert "1 run, 0 done, 1 to go" in run(*sweep, "fusion.epochs=4", "--dry", cwd=project).stdout
    edited = run(*sweep, "fusion.epochs=5", cwd=project)
    assert "1 run, 0 done, 1 to go" in edited.stdout
    assert "1 run, 1 done, 0 to go" in run(*sweep, "fusion.epochs=5", "--dry", cwd=project).stdout
    stage.write_text(code)
    reverted = run(*sweep, "fusion.epochs=4,5", "--dry", cwd=project)
    assert "2 runs, 1 done, 1 to go" in reverted.stdout, "5 ran with other code"
    kept = json.loads((folder / "table.json").read_text())["rows"]
    assert sorted(row["values"]["fusion.epochs"] for row in kept) == [2, 4, 5], "sweeps of one name add up"


def check_variants(project: Path, rows: list[dict]) -> None:
    """Variants run one at a time beside the unchanged parameters; `rows` are of 2 and 4 epochs of the fusion head."""
    variants = ("--variant", "fusion.epochs=2", "--variant", "four: fusion.epochs=4 fusion.lr=0.01")
    done = run("moclip", "sweep", *variants, "--dataset-seeds", "[0]", "--name", "variants", cwd=project)
    assert "3 runs, 2 done, 1 to go" in done.stdout, "0.01 is the learning rate of params.yaml"
    folder = project / "metrics/sweeps/variants"
    unchanged, two, four = json.loads((folder / "table.json").read_text())["rows"]
    assert [row["variant"] for row in (unchanged, two, four)] == ["unchanged", "fusion.epochs=2", "four"]
    assert (unchanged["changes"], four["changes"]) == ({}, {"fusion.epochs": 4, "fusion.lr": 0.01})
    assert [two["streams"], four["streams"]] == [row["streams"] for row in rows]
    for row in (unchanged, two, four):
        assert 0 <= row["streams"]["fusion"]["val_top1_mean"] <= 1
        assert "val_top1_mean" not in row["streams"]["still"], "the verdict does not choose it"
        assert all(sum(row["verdict"][name].values()) == 1 for name in ("trusted", "majority", "motion", "still"))
    table = pd.read_csv(folder / "table.csv")
    assert table["variant"].tolist() == ["unchanged", "fusion.epochs=2", "four"]
    assert table["fusion_val_top1_mean"].tolist() == pytest.approx(
        [row["streams"]["fusion"]["val_top1_mean"] for row in (unchanged, two, four)], abs=1e-4
    )
    (stream,) = unchanged["verdict"]["trusted"]
    assert table["verdict_trusted"][0] == f"{stream} 1"
    assert "the verdicts: how often they said what" in done.stdout
    assert (folder / "plot.png").read_bytes().startswith(b"\x89PNG")


REFUSED = [
    (("tsn.siz=64",), "did you mean tsn.size?"),
    (("tns.size=64",), "tns.size: unknown key; did you mean tsn?"),
    (("tsn.size",), "wanted KEY=VALUE,VALUE"),
    (("tsn.size=64,7",), "tsn.size = 7: allowed is a whole number from 16 to 512"),
    (("seed=1,2",), "seeds are those of dataset.seeds"),
    (("--variant", "tsn.siz=64"), "did you mean tsn.size?"),
    (("--variant", "small: tsn.size"), "wanted KEY=VALUE"),
    (("--variant", "small:"), "the variant has no settings"),
    (("--variant", "tsn.stack=3 tsn.size=7"), "tsn.size = 7"),
    (("tsn.size=64,96", "--variant", "tsn.size=32"), "tsn.size is in the grid, too"),
    ((), "nothing to run"),
]


def test_a_wrong_grid_or_variant_is_refused_before_anything_runs(finished: Path) -> None:
    ended = in_turn(finished, *(("sweep", *arguments) for arguments, _ in REFUSED))
    for (code, _, printed), (arguments, expected_text) in zip(ended, REFUSED, strict=True):
        assert code == 1, arguments
        assert expected_text in printed, arguments
        assert "Traceback" not in printed


def test_variants_are_single_changes_of_each_combination(finished: Path) -> None:
    variants = ("--variant", "tsn.stack=3", "--variant", "both: tsn.stack=3 tsn.lr_steps=[1,2]")
    done = run("moclip", "sweep", "fusion.epochs=2,3", *variants, "--dataset-seeds", "[0]", "--dry", cwd=finished)
    assert [line.strip() for line in done.stdout.splitlines()[1:]] == [
        "fusion.epochs=2 seed=0",
        "fusion.epochs=3 seed=0",
        "fusion.epochs=2 tsn.stack=3 seed=0",
        "fusion.epochs=3 tsn.stack=3 seed=0",
        "fusion.epochs=2 tsn.stack=3 tsn.lr_steps=[1, 2] seed=0",
        "fusion.epochs=3 tsn.stack=3 tsn.lr_steps=[1, 2] seed=0",
    ]


def test_a_dry_sweep_lists_its_runs(finished: Path) -> None:
    done = run("moclip", "sweep", "fusion.lr=1e-3,1e-4", "tsn.lr_steps=[1],[1, 2]", "--dry", cwd=finished)
    assert "12 runs, 0 done, 12 to go" in done.stdout
    assert "fusion.lr=0.0001 tsn.lr_steps=[1, 2] seed=2" in done.stdout
    assert not (finished / "metrics/sweeps").exists()


def test_a_sweep_of_a_project_within_a_git_repository_finds_its_experiments(project: Path, tmp_path: Path) -> None:
    (outer := tmp_path / "outer").mkdir()
    inner = project.rename(outer / "inner")
    shutil.rmtree(inner / ".dvc")
    (inner / ".git").rename(outer / ".git")
    run("dvc", "init", "-q", "--subdir", cwd=inner)
    commit(outer)
    set_keys(inner / "params.yaml", {"fusion.lr": 0.02})
    run("dvc", "exp", "save", cwd=inner)
    done = run("moclip", "sweep", "fusion.lr=0.02,0.03", "--dataset-seeds", "[0]", "--dry", cwd=inner)
    assert "2 runs, 1 done, 1 to go" in done.stdout


@pytest.mark.slow
def test_without_dvc_or_git_the_message_says_so(tmp_path: Path) -> None:
    run("moclip", "use", "demo", cwd=tmp_path)
    stderr = run("moclip", "sweep", "tsn.size=32", cwd=tmp_path, code=1).stderr
    assert "you are not inside of a DVC repository" in stderr
    run("dvc", "init", "-q", "--no-scm", cwd=tmp_path)
    stderr = run("moclip", "sweep", "tsn.size=32", cwd=tmp_path, code=1).stderr
    assert "Only supported for Git repositories" in stderr
    assert "Traceback" not in stderr


@pytest.mark.slow
def test_the_plot_takes_rows_with_and_without_a_spread(tmp_path: Path) -> None:
    def row(size: int, cost: float, sd: float | None) -> dict:
        part = {"top1_mean": 0.5, "top1_sd": sd, "multiply_adds_m": cost}
        return {"values": {"tsn.size": size}, "streams": {"mv_tsn": part, "fusion": part}}

    for name, rows in (
        ("cost", [row(32, 10.0, 0.1), row(64, 40.0, None)]),
        ("same", [row(32, 10.0, 0.1), row(64, 10.0, 0.0)]),
    ):
        plot_accuracy_over_cost(rows, STREAM_LABELS, tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 5000


def test_the_few_shot_plot_takes_rows_with_other_keys_and_without_a_spread(tmp_path: Path) -> None:
    part = {"top1_mean": 0.5, "top1_sd": None, "multiply_adds_m": 1.0}
    rows = [
        {"values": {"dataset.shots": shots, **others}, "streams": {"zero_shot": part, "fusion": part | {"top1_sd": sd}}}
        for shots, sd in ((8, None), (2, 0.1))
        for others in ({"fusion.head": "concat"}, {"fusion.head": "cache", "fusion.cache_tune": True})
    ]
    plot_fusion_over_shots(rows, tmp_path / "shots.png")
    assert (tmp_path / "shots.png").stat().st_size > 5000


def test_the_plot_of_variants_takes_rows_with_and_without_validation_scores(tmp_path: Path) -> None:
    test = {"top1_mean": 0.5, "top1_sd": None}
    both = test | {"top1_sd": 0.1, "val_top1_mean": 0.6, "val_top1_sd": 0.05}
    for name, part in (("both", both), ("test", test)):
        rows = [
            {"values": {"tsn.size": size}, "variant": variant, "streams": {"still": test, "mv_tsn": part}}
            for size in (32, 64)
            for variant in ("unchanged", "tsn.stack=1")
        ]
        plot_variants(rows, STREAM_LABELS, tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
