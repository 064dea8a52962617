"""`moclip sweep`: run a grid of parameters with several seeds as DVC experiments -> a table and a plot."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from moclip.errors import MoclipError
from pipeline import experiments, paths
from pipeline import params as parameters
from pipeline.console.output import STREAM_LABELS, print_error, print_note, print_result
from pipeline.console.progress import show_progress
from pipeline.io import read_json, rounded, write_json, write_text
from pipeline.options import value_text
from pipeline.params import Params
from pipeline.stage import command

Grid = dict[str, list[Any]]


@command("dataset.seeds")
def sweep(
    params: Params,
    settings: Annotated[
        list[str],
        typer.Argument(help="KEY=VALUE,VALUE,... of params.yaml; several keys: every combination.", show_default=False),
    ],
    name: Annotated[str | None, typer.Option(help="Folder of the results in metrics/sweeps.  [from the keys]")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results of all sweeps.")] = paths.METRICS / "sweeps",
    show: Annotated[bool, typer.Option("--show", help="Show the output of the runs.")] = False,
    dry: Annotated[bool, typer.Option("--dry", help="Only list the runs.")] = False,
) -> None:
    """Run a grid of parameters with several seeds as DVC experiments, and compare them.

    Each combination runs with every seed of dataset.seeds. Finished experiments of this commit with the current code
    are not run again, no matter how you started them, so an interrupted sweep resumes. Sweeps with the same --name
    share one table. Writes table.csv, table.json and plot.png: top-1 as mean and standard deviation over the seeds, and
    the multiply-adds of a video. With dataset.shots and other keys, also shots.png: a few-shot curve for each.
    """
    raw = parameters.read_raw(paths.PARAMS)
    grid = _parse_grid(settings)
    label = name or "-".join(key.replace(".", "_") for key in grid)
    wanted = [
        _checked_values(raw, dict(zip(grid, values, strict=True)) | {"seed": seed})  # all, before anything runs
        for values in itertools.product(*grid.values())
        for seed in params.dataset.seeds
    ]
    identities = [_identity(parameters.with_values(raw, values)) for values in wanted]
    done = _finished_by_identity()
    missing = [values for values, identity in zip(wanted, identities, strict=True) if identity not in done]
    print_note(f"sweep {label}: {len(wanted)} runs, {len(wanted) - len(missing)} of them done, {len(missing)} to go")
    if dry:
        for values in missing:
            print_note("  " + " ".join(f"{key}={value}" for key, value in values.items()))
        return
    failed = _run_missing(label, raw, missing, show)
    folder = out / label
    runs = _finished_by_identity() if missing else done
    rows = _table_rows(grid, wanted, [runs.get(identity) for identity in identities])
    _write_results(folder, _with_earlier_rows(folder / "table.json", rows))
    if failed:
        raise MoclipError(f"{len(failed)} of {len(missing)} runs failed; the first:\n  {failed[0]}", where=label)


def _parse_grid(settings: list[str]) -> Grid:
    grid: Grid = {}
    for setting in settings:
        key, sign, values = setting.partition("=")
        if not sign or not values:
            raise MoclipError("wanted KEY=VALUE,VALUE,...", where=setting, fix="for example: tsn.size=64,96,128")
        if key not in parameters.all_keys():
            raise parameters.unknown_key_error(key)
        if key == "seed":
            raise MoclipError("the seeds are those of dataset.seeds", where=setting, fix="--dataset-seeds '[0, 1, 2]'")
        listed = parameters.parse_value(f"[{values}]")
        if not isinstance(listed, list):
            raise MoclipError("the values are not valid YAML", where=setting)
        grid[key] = listed
    return grid


def _checked_values(raw: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Return `values` as the model of params.yaml reads them: `1e-4` is a number."""
    read = parameters.validate(parameters.with_values(raw, values), source="sweep").model_dump(mode="json")
    return {key: parameters.value_at(read, key) for key in values}


def _identity(params: dict[str, Any]) -> str:
    """Return a text that is the same for two runs with the same parameters. No run reads `dataset.seeds`."""
    values = parameters.validate(params, source="experiment").model_dump()
    values["dataset"].pop("seeds")
    return repr(values)


def _run_missing(label: str, raw: dict[str, Any], missing: list[dict[str, Any]], show: bool) -> list[str]:
    failed = []
    with show_progress(f"sweep {label}", len(missing), "run") as advance:
        for values in missing:
            name = experiments.experiment_name(label, parameters.with_values(raw, values))
            try:
                experiments.run_experiment(name, values, show)
            except MoclipError as problem:
                failed.append(f"{' '.join(f'{key}={value}' for key, value in values.items())}: {problem}")
                print_error(failed[-1])
            advance(1)
    return failed


def _finished_by_identity() -> dict[str, experiments.FinishedExperiment]:
    return {_identity(experiment.params): experiment for experiment in experiments.finished_experiments()}


def _table_rows(
    grid: Grid, wanted: list[dict[str, Any]], found: list[experiments.FinishedExperiment | None]
) -> list[dict[str, Any]]:
    """Return a row per combination: its values, the number of finished seeds, and each stream's scores over them."""
    rows: dict[str, tuple[dict[str, Any], list[experiments.FinishedExperiment]]] = {}
    for values, run in zip(wanted, found, strict=True):
        own = {key: value for key, value in values.items() if key in grid}
        _, runs = rows.setdefault(repr(own), (own, []))
        if run:
            runs.append(run)
    return [{"values": own, "runs": len(runs), "streams": _stream_scores(runs)} for own, runs in rows.values() if runs]


def _stream_scores(runs: list[experiments.FinishedExperiment]) -> dict[str, dict[str, Any]]:
    import numpy as np

    streams = {}
    for stream in STREAM_LABELS:
        scores = [run.metrics.get(stream, {}).get("top1") for run in runs]
        if None in scores:
            continue
        top1 = np.array(scores, dtype=float)
        streams[stream] = {
            "top1_mean": float(top1.mean()),
            "top1_sd": float(top1.std(ddof=1)) if len(top1) > 1 else None,
            "top1": top1.tolist(),
            "multiply_adds_m": runs[0].metrics["cost"]["multiply_adds_m"]["video"][stream],
        }
        new = [run.metrics[stream].get("base_to_new", {}).get("harmonic_mean") for run in runs]
        if None not in new:
            streams[stream]["harmonic_mean"] = _finite(float(np.mean(new)))
    return streams


def _with_earlier_rows(path: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows after those of earlier sweeps with the same name and other values."""
    earlier = read_json(path, "sweep")["rows"] if path.exists() else []
    own = [row["values"] for row in rows]
    return [row for row in earlier if row["values"] not in own] + rows


def _write_results(folder: Path, rows: list[dict[str, Any]]) -> None:
    import pandas as pd

    if not rows:
        return
    from moclip.evaluation.plots import SHOTS, plot_accuracy_over_cost, plot_fusion_over_shots

    flat = pd.DataFrame(
        [
            {**row["values"], "runs": row["runs"]}
            | {
                f"{stream}_{key}": rounded(value)
                for stream, part in row["streams"].items()
                for key, value in part.items()
                if key != "top1"
            }
            for row in rows
        ]
    )
    write_json(folder / "table.json", {"rows": rows})
    write_text(folder / "table.csv", flat.to_csv(index=False, lineterminator="\n"))
    plot_accuracy_over_cost(rows, STREAM_LABELS, folder / "plot.png")
    keys = list(dict.fromkeys(key for row in rows for key in row["values"]))
    if SHOTS in keys and len(keys) > 1 and all(row["values"].get(SHOTS) for row in rows):
        plot_fusion_over_shots(rows, folder / "shots.png")
    streams = [stream for stream in STREAM_LABELS if any(stream in row["streams"] for row in rows)]
    print_result(
        f"top-1, mean and standard deviation; {folder}/table.csv, plot.png",
        (
            *(key.rsplit(".", 1)[-1] for key in keys),
            "runs",
            *(STREAM_LABELS[stream] for stream in streams),
            "M multiply-adds",
        ),
        [
            (
                *(value_text(row["values"].get(key, "")) for key in keys),
                row["runs"],
                *(_score_text(row["streams"].get(stream)) for stream in streams),
                f"{row['streams']['fusion']['multiply_adds_m']:,.1f}",
            )
            for row in rows
        ],
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _score_text(part: dict[str, Any] | None) -> str:
    if part is None:
        return ""
    spread = "" if part["top1_sd"] is None else f"±{part['top1_sd']:.3f}"
    return f"{part['top1_mean']:.3f}{spread}"


if __name__ == "__main__":
    sweep()
