"""`moclip sweep`: a grid of parameters, each with every seed, as DVC experiments -> a table and a plot of them."""

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
from pipeline.params import Params
from pipeline.stage import shown, stage

Grid = dict[str, list[Any]]


@stage("dataset.seeds")
def sweep(
    params: Params,
    settings: Annotated[
        list[str],
        typer.Argument(help="KEY=VALUE,VALUE,... of params.yaml; several keys: every combination.", show_default=False),
    ],
    name: Annotated[str | None, typer.Option(help="Folder of the results in metrics/sweeps.  [from the keys]")] = None,
    out: Annotated[Path, typer.Option(help="Where that folder lies.")] = paths.METRICS / "sweeps",
    show: Annotated[bool, typer.Option("--show", help="Print what the runs print.")] = False,
    dry: Annotated[bool, typer.Option("--dry", help="Say what would be run, and stop.")] = False,
) -> None:
    """Run a grid of parameters as DVC experiments, each with every seed of dataset.seeds, and compare them.

    Experiments of this commit that are done, with the code as it is now, are taken as they are, however they were
    started; so an interrupted sweep goes on where it stood. Sweeps of one --name add up. Writes table.csv, table.json
    and plot.png: top-1 as mean and standard deviation over the seeds, beside the multiply-adds of a video.
    """
    raw = parameters.read_raw(paths.PARAMS)
    grid = _grid(settings)
    label = name or "-".join(key.replace(".", "_") for key in grid)
    wanted = [
        _checked(raw, dict(zip(grid, values, strict=True)) | {"seed": seed})  # all of them before anything runs
        for values in itertools.product(*grid.values())
        for seed in params.dataset.seeds
    ]
    contents = [_content(parameters.changed(raw, values)) for values in wanted]
    done = _done()
    missing = [values for values, content in zip(wanted, contents, strict=True) if content not in done]
    print_note(f"sweep {label}: {len(wanted)} runs, {len(wanted) - len(missing)} of them done, {len(missing)} to go")
    if dry:
        for values in missing:
            print_note("  " + " ".join(f"{key}={value}" for key, value in values.items()))
        return
    failed = _run(label, raw, missing, show)
    folder = out / label
    runs = _done() if missing else done
    rows = _merged(folder / "table.json", _rows(grid, wanted, [runs.get(content) for content in contents]))
    _write(folder, rows)
    if failed:
        raise MoclipError(f"{len(failed)} of {len(missing)} runs failed; the first:\n  {failed[0]}", where=label)


def _grid(settings: list[str]) -> Grid:
    grid: Grid = {}
    for setting in settings:
        key, sign, values = setting.partition("=")
        if not sign or not values:
            raise MoclipError("wanted KEY=VALUE,VALUE,...", where=setting, fix="for example: tsn.size=64,96,128")
        if key not in parameters.every_key():
            raise parameters.unknown(key)
        if key == "seed":
            raise MoclipError("seeds are those of dataset.seeds", where=setting, fix="--dataset-seeds '[0, 1, 2]'")
        listed = parameters.option_value(f"[{values}]")
        if not isinstance(listed, list):
            raise MoclipError("cannot be read as values", where=setting)
        grid[key] = listed
    return grid


def _checked(raw: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """`values` as the model reads them: `1e-4` is a number, whatever YAML says."""
    read = parameters.validate(parameters.changed(raw, values), source="sweep").model_dump(mode="json")
    return {key: parameters.value_at(read, key) for key in values}


def _content(params: dict[str, Any]) -> str:
    """What makes two runs one: every parameter, whatever `dataset.seeds` says, which no run reads."""
    plain = parameters.validate(params, source="experiment").model_dump()
    plain["dataset"].pop("seeds")
    return repr(plain)


def _run(label: str, raw: dict[str, Any], missing: list[dict[str, Any]], show: bool) -> list[str]:
    failed = []
    with show_progress(f"sweep {label}", len(missing), "run") as advance:
        for values in missing:
            name = experiments.name_of(label, parameters.changed(raw, values))
            try:
                experiments.run(name, values, show)
            except MoclipError as problem:
                failed.append(f"{' '.join(f'{key}={value}' for key, value in values.items())}: {problem}")
                print_error(failed[-1])
            advance(1)
    return failed


def _done() -> dict[str, experiments.Finished]:
    """The experiments that are done, by content."""
    return {_content(one.params): one for one in experiments.finished()}


def _rows(grid: Grid, wanted: list[dict[str, Any]], found: list[experiments.Finished | None]) -> list[dict[str, Any]]:
    """A row a combination: its values, how many seeds are done, and each stream's scores over them."""
    rows: dict[str, tuple[dict[str, Any], list[experiments.Finished]]] = {}
    for values, run in zip(wanted, found, strict=True):
        own = {key: value for key, value in values.items() if key in grid}
        _, runs = rows.setdefault(repr(own), (own, []))
        if run:
            runs.append(run)
    return [{"values": own, "runs": len(runs), "streams": _streams(runs)} for own, runs in rows.values() if runs]


def _streams(runs: list[experiments.Finished]) -> dict[str, dict[str, Any]]:
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


def _merged(path: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with those of earlier sweeps of the same name, which have other values."""
    earlier = read_json(path, "sweep")["rows"] if path.exists() else []
    own = [row["values"] for row in rows]
    return [row for row in earlier if row["values"] not in own] + rows


def _write(folder: Path, rows: list[dict[str, Any]]) -> None:
    import pandas as pd

    if not rows:
        return
    from moclip.evaluation.plots import plot_accuracy_over_cost

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
                *(shown(row["values"].get(key, "")) for key in keys),
                row["runs"],
                *(_score(row["streams"].get(stream)) for stream in streams),
                f"{row['streams']['fusion']['multiply_adds_m']:,.1f}",
            )
            for row in rows
        ],
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _score(part: dict[str, Any] | None) -> str:
    if part is None:
        return ""
    spread = "" if part["top1_sd"] is None else f"±{part['top1_sd']:.3f}"
    return f"{part['top1_mean']:.3f}{spread}"


if __name__ == "__main__":
    sweep()
