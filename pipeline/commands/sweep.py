"""`moclip sweep`: run a grid of parameters with several seeds as DVC experiments -> a table and a plot."""

from __future__ import annotations

import itertools
import math
import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from moclip.errors import MoclipError
from moclip.wording import counted
from pipeline import experiments, paths
from pipeline import params as parameters
from pipeline.console.output import STREAM_LABELS, print_error, print_note, print_result
from pipeline.console.progress import show_progress
from pipeline.io import read_json, rounded, write_json, write_text
from pipeline.options import value_text
from pipeline.params import Params
from pipeline.stage import command

Grid = dict[str, list[Any]]


@dataclass(frozen=True)
class Variant:
    """Settings that change together, and their name. Without settings: the grid alone."""

    name: str
    values: dict[str, Any]


UNCHANGED = Variant("unchanged", {})


@dataclass(frozen=True)
class Run:
    """A run: the values of the grid, the variant, and both with the seed, as the model of params.yaml reads them."""

    grid: dict[str, Any]
    variant: Variant
    values: dict[str, Any]


@command("dataset.seeds")
def sweep(
    params: Params,
    settings: Annotated[
        list[str] | None,
        typer.Argument(help="KEY=VALUE,VALUE,... of params.yaml; several keys: every combination.", show_default=False),
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(
            help="Also run with these changed: 'KEY=VALUE KEY=VALUE ...' or 'NAME: KEY=VALUE ...'. "
            "Can be given several times.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Folder of the results in metrics/sweeps.  [default: from the keys]")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results of all sweeps.")] = paths.METRICS / "sweeps",
    show: Annotated[bool, typer.Option("--show", help="Show what the runs print.")] = False,
    dry: Annotated[bool, typer.Option("--dry", help="Only list the runs, and run none.")] = False,
) -> None:
    """Run a grid of parameters with several seeds as DVC experiments, and compare them.

    Each combination runs with every seed of dataset.seeds. With --variant, it runs as it is, and once more with each
    variant's settings: one change at a time, or several together. Finished experiments of this commit with the current
    code are not run again, no matter how you started them, so an interrupted sweep resumes. Sweeps with the same --name
    share one table. Writes table.csv, table.json and plot.png: top-1 as mean and standard deviation over the seeds, on
    the test clips and on the validation clips, the multiply-adds of a video, and how often the verdict said what. With
    dataset.shots and other keys, also shots.png: a few-shot curve for each.
    """
    raw = parameters.read_raw(paths.PARAMS)
    grid, variants = _parse_grid(settings or []), [_parse_variant(text) for text in variant or []]
    if not grid and not variants:
        raise MoclipError("nothing to run", where="moclip sweep", fix="for example: moclip sweep tsn.size=64,96,128")
    label = name or "-".join(key.replace(".", "_") for key in grid) or "variants"
    wanted = _list_runs(raw, grid, variants, params.dataset.seeds)  # all are checked before anything runs
    identities = [_identity(parameters.with_values(raw, run.values)) for run in wanted]
    done = _finished_by_identity()
    different = {identity: run.values for run, identity in zip(wanted, identities, strict=True)}
    missing = [values for identity, values in different.items() if identity not in done]
    count = len(different)
    print_note(f"sweep {label}: {counted(count, 'run')}, {count - len(missing)} done, {len(missing)} to go")
    if dry:
        for values in missing:
            print_note("  " + " ".join(f"{key}={value}" for key, value in values.items()))
        return
    failed = _run_missing(label, raw, missing, show)
    folder = out / label
    finished = _finished_by_identity() if missing else done
    rows = _table_rows(wanted, [finished.get(identity) for identity in identities])
    _write_results(folder, _with_earlier_rows(folder / "table.json", rows))
    if failed:
        raise MoclipError(f"{len(failed)} of {len(missing)} runs failed; the first:\n  {failed[0]}", where=label)


def _parse_grid(settings: list[str]) -> Grid:
    grid: Grid = {}
    for setting in settings:
        key, sign, values = setting.partition("=")
        if not sign or not values:
            raise MoclipError("wanted KEY=VALUE,VALUE,...", where=setting, fix="for example: tsn.size=64,96,128")
        _check_key(key, setting)
        listed = parameters.parse_value(f"[{values}]")
        if not isinstance(listed, list):
            raise MoclipError("the values are not valid YAML", where=setting)
        grid[key] = listed
    return grid


def _parse_variant(text: str) -> Variant:
    """Read "KEY=VALUE KEY=VALUE ...", with "NAME: " in front or not."""
    before, colon, after = text.partition(":")
    named = bool(colon) and "=" not in before
    settings = shlex.split(after if named else text)
    values = {}
    for setting in settings:
        key, sign, value = setting.partition("=")
        if not sign or not value:
            raise MoclipError("wanted KEY=VALUE", where=setting, fix="for example: --variant tsn.stack=1")
        _check_key(key, setting)
        values[key] = parameters.parse_value(value)
    if not values:
        raise MoclipError("the variant has no settings", where=f"--variant {text!r}")
    return Variant(before.strip() if named else " ".join(settings), values)


def _check_key(key: str, setting: str) -> None:
    if key not in parameters.all_keys():
        raise parameters.unknown_key_error(key)
    if key == "seed":
        raise MoclipError("the seeds are those of dataset.seeds", where=setting, fix="--dataset-seeds '[0, 1, 2]'")


def _list_runs(raw: dict[str, Any], grid: Grid, variants: list[Variant], seeds: list[int]) -> list[Run]:
    """Return the runs of every combination of the grid, as it is and with each variant."""
    for one in variants:
        if both := sorted(set(one.values) & set(grid)):
            raise MoclipError(f"{both[0]} is in the grid, too", where=f"--variant {one.name!r}")
    runs = []
    for one in (UNCHANGED, *variants):
        for combination in itertools.product(*grid.values()):
            own = dict(zip(grid, combination, strict=True))
            for seed in seeds:
                values = _checked_values(raw, own | one.values | {"seed": seed})
                changed = Variant(one.name, {key: values[key] for key in one.values})
                runs.append(Run({key: values[key] for key in grid}, changed, values))
    return runs


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


def _table_rows(wanted: list[Run], found: list[experiments.FinishedExperiment | None]) -> list[dict[str, Any]]:
    """Return a row per combination and variant, over its finished seeds.

    A row holds the `values` of the grid, the `variant` and its `changes`, the number of `runs`, the scores of the
    `streams`, and the `verdict`: how often it said what.
    """
    rows: dict[str, tuple[Run, list[experiments.FinishedExperiment]]] = {}
    for run, experiment in zip(wanted, found, strict=True):
        _, finished = rows.setdefault(repr((run.grid, run.variant.values)), (run, []))
        if experiment:
            finished.append(experiment)
    return [
        {
            "values": run.grid,
            "variant": run.variant.name,
            "changes": run.variant.values,
            "runs": len(finished),
            "streams": _stream_scores(finished),
            "verdict": _verdict_counts(finished),
        }
        for run, finished in rows.values()
        if finished
    ]


def _stream_scores(runs: list[experiments.FinishedExperiment]) -> dict[str, dict[str, Any]]:
    """Return the scores of each stream. Those on validation clips are of the streams that the verdict chooses among."""
    import numpy as np

    streams: dict[str, dict[str, Any]] = {}
    for stream in STREAM_LABELS:
        scores = [run.metrics.get(stream, {}).get("top1") for run in runs]
        if None in scores:
            continue
        streams[stream] = _over_seeds("top1", scores)
        streams[stream]["multiply_adds_m"] = runs[0].metrics["cost"]["multiply_adds_m"]["video"][stream]
        maps = [run.metrics[stream].get("map") for run in runs]
        if None not in maps:  # clips with several labels
            streams[stream] |= _over_seeds("map", maps)
        candidates = [run.metrics.get("verdict", {}).get("trusted", {}).get("candidates", {}) for run in runs]
        for metric in ("top1", "map"):
            chosen_by = [found.get(stream, {}).get(metric) for found in candidates]
            if None not in chosen_by:
                streams[stream] |= _over_seeds(f"val_{metric}", chosen_by)
        new = [run.metrics[stream].get("base_to_new", {}).get("harmonic_mean") for run in runs]
        if None not in new:
            streams[stream]["harmonic_mean"] = _finite(float(np.mean(new)))
    return streams


def _over_seeds(name: str, scores: list[Any]) -> dict[str, Any]:
    """Return the mean, the standard deviation (None for one score) and the scores themselves."""
    import numpy as np

    values = np.array(scores, dtype=float)
    deviation = float(values.std(ddof=1)) if len(values) > 1 else None
    return {f"{name}_mean": float(values.mean()), f"{name}_sd": deviation, name: values.tolist()}


def _verdict_counts(runs: list[experiments.FinishedExperiment]) -> dict[str, dict[str, int]]:
    """Return how often each stream was `trusted`, and how often each comparison had which answer."""
    verdicts = [run.metrics["verdict"] for run in runs if "verdict" in run.metrics]
    counts = {"trusted": Counter(verdict["trusted"]["stream"] for verdict in verdicts)}
    for comparison in COMPARISONS:
        # without an encoder there is no comparison with the still
        answers = [verdict["test"][comparison]["answer"] for verdict in verdicts if comparison in verdict["test"]]
        counts[comparison] = Counter(answers)
    return {name: dict(counted.most_common()) for name, counted in counts.items()} if verdicts else {}


COMPARISONS = {
    "majority": "trusted against the commonest class",
    "motion": "fusion against the still",
    "still": "fusion against MV-TSN",
}
"""The comparisons of the verdict, and their titles in tables."""


def _with_earlier_rows(path: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows after those of earlier sweeps with the same name and other values; variants after the others."""
    earlier = read_json(path, "sweep")["rows"] if path.exists() else []
    own = [_settings(row) for row in rows]
    kept = [row for row in earlier if _settings(row) not in own]
    return sorted(kept + rows, key=lambda row: bool(row.get("changes")))


def _settings(row: dict[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = row["values"] | row.get("changes", {})
    return settings


def _write_results(folder: Path, rows: list[dict[str, Any]]) -> None:
    import pandas as pd

    if not rows:
        return
    from moclip.evaluation.plots import SHOTS, plot_accuracy_over_cost, plot_fusion_over_shots, plot_variants

    has_variants = any(row.get("changes") for row in rows)
    flat = pd.DataFrame(
        [
            ({"variant": _variant_name(row)} if has_variants else {})
            | {**row["values"], "runs": row["runs"]}
            | {
                f"{stream}_{key}": rounded(value)
                for stream, part in row["streams"].items()
                for key, value in part.items()
                if key not in ("top1", "val_top1", "map", "val_map")
            }
            | {f"verdict_{name}": _counts_text(counts) for name, counts in row.get("verdict", {}).items()}
            for row in rows
        ]
    )
    write_json(folder / "table.json", {"rows": rows})
    write_text(folder / "table.csv", flat.to_csv(index=False, lineterminator="\n"))
    keys = list(dict.fromkeys(key for row in rows for key in row["values"]))
    if has_variants:
        plot_variants(rows, STREAM_LABELS, folder / "plot.png")
    else:
        plot_accuracy_over_cost(rows, STREAM_LABELS, folder / "plot.png")
        if SHOTS in keys and len(keys) > 1 and all(row["values"].get(SHOTS) for row in rows):
            plot_fusion_over_shots(rows, folder / "shots.png")
    names = (*(("variant",) if has_variants else ()), *(key.rsplit(".", 1)[-1] for key in keys), "runs")
    starts = [
        (
            *((_variant_name(row),) if has_variants else ()),
            *(value_text(row["values"].get(key, "")) for key in keys),
            row["runs"],
        )
        for row in rows
    ]
    _print_tables(f"{folder}/table.csv, plot.png", names, starts, rows)


def _print_tables(
    files: str, names: tuple[str, ...], starts: list[tuple[Any, ...]], rows: list[dict[str, Any]]
) -> None:
    """Print top-1 on the test clips, then on the validation clips, then the verdicts.

    Each line begins with one of `starts`, whose columns are `names`.
    """
    streams = [stream for stream in STREAM_LABELS if any(stream in row["streams"] for row in rows)]
    print_result(
        f"top-1, mean and standard deviation; {files}",
        (*names, *(STREAM_LABELS[stream] for stream in streams), "M multiply-adds"),
        [
            (
                *start,
                *(_score_text(row["streams"].get(stream), "top1") for stream in streams),
                f"{row['streams']['fusion']['multiply_adds_m']:,.1f}",
            )
            for start, row in zip(starts, rows, strict=True)
        ],
        repeated=len(names),
    )
    for metric, split in (("map", "test"), ("val_map", "validation")):
        shown = [
            stream for stream in streams if any(f"{metric}_mean" in row["streams"].get(stream, {}) for row in rows)
        ]
        if shown:
            print_result(
                f"mean average precision on the {split} clips, which have several labels",
                (*names, *(STREAM_LABELS[stream] for stream in shown)),
                [
                    (*start, *(_score_text(row["streams"].get(stream), metric) for stream in shown))
                    for start, row in zip(starts, rows, strict=True)
                ],
                repeated=len(names),
            )
    validated = [s for s in streams if any("val_top1_mean" in row["streams"].get(s, {}) for row in rows)]
    if validated:
        print_result(
            "the same on the validation clips, which chose the epoch and the strength of each head",
            (*names, *(STREAM_LABELS[stream] for stream in validated)),
            [
                (*start, *(_score_text(row["streams"].get(stream), "val_top1") for stream in validated))
                for start, row in zip(starts, rows, strict=True)
            ],
            repeated=len(names),
        )
    if any(row.get("verdict") for row in rows):
        print_result(
            "the verdicts: how often they said what",
            (*names, "trusted", *COMPARISONS.values()),
            [
                (*start, *(_counts_text(row.get("verdict", {}).get(one, {})) for one in ("trusted", *COMPARISONS)))
                for start, row in zip(starts, rows, strict=True)
            ],
            repeated=len(names),
        )


def _variant_name(row: dict[str, Any]) -> str:
    return str(row.get("variant", UNCHANGED.name))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _score_text(part: dict[str, Any] | None, name: str) -> str:
    if part is None or f"{name}_mean" not in part:
        return ""
    spread = "" if part[f"{name}_sd"] is None else f"±{part[f'{name}_sd']:.3f}"
    return f"{part[f'{name}_mean']:.3f}{spread}"


def _counts_text(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


if __name__ == "__main__":
    sweep()
