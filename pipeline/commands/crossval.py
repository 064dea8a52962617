"""`moclip crossval`: what the folds of `fit.folds` say about every stream and class."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moclip.errors import MoclipError
from moclip.wording import counted
from pipeline import paths
from pipeline.console.command import while_importing
from pipeline.console.output import STREAM_LABELS, print_result
from pipeline.io import rounded
from pipeline.params import Params
from pipeline.stage import command

if TYPE_CHECKING:
    import pandas as pd


@command("dataset.shots", "dataset.base_to_new", "fit.folds", "fit.refit")
def crossval(
    params: Params, as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False
) -> None:
    """Show the accuracy that cross-validation expects: mean and spread over the folds, in all and per class.

    Every clip of train and val is scored by networks that did not see it or another clip of its source. The test split
    is not used. Needs `fit.folds`, and the models that `dvc repro` trained with it.
    """
    if not params.fit.folds:
        fix = "run: dvc exp run -S fit.folds=5 (trains six times), then: moclip crossval"
        raise MoclipError("there are no folds: fit.folds is false", where=paths.PARAMS, fix=fix)
    with while_importing():
        from pipeline.inputs import Inputs
        from pipeline.logits import read_validation
        from pipeline.multi_label import refuse_command

    inputs = Inputs(params)
    refuse_command(inputs, "crossval", "it counts correct clips; data/validation.parquet has the logits of every fold")
    table = read_validation(inputs)
    found = fold_accuracies(table, inputs.clips.classes)
    if as_json:
        print(json.dumps(rounded(found), indent=2))
        return
    folds, clips = table["fold"].nunique(), len(table)
    rows = [
        (STREAM_LABELS[name], f"{of['top1']['mean']:.3f}", f"{of['top1']['sd']:.3f}", f"{of['mean_class']['mean']:.3f}")
        for name, of in found["streams"].items()
    ]
    print_result(
        f"{counted(clips, 'clip')} in {folds} folds", ("stream", "top-1, mean", "sd of folds", "mean class"), rows
    )
    streams = [name for name in ("still", "mv_tsn", "fusion") if name in found["streams"]]
    by_class = [
        (name, of["clips"], *(f"{of[stream]['mean']:.2f} ± {of[stream]['sd']:.2f}" for stream in streams))
        for name, of in found["classes"].items()
    ]
    print_result("per class", ("class", "clips", *(STREAM_LABELS[stream] for stream in streams)), by_class)


def fold_accuracies(table: pd.DataFrame, classes: list[str]) -> dict[str, Any]:
    """Return top-1 and mean class accuracy of each stream, and each class's accuracy: mean and sd over the folds.

    `table` has columns label, fold and a list of logits per stream. The sd is that of a sample. A class counts in the
    folds that have clips of it.
    """
    import numpy as np

    labels, folds = table["label"].to_numpy(), table["fold"].to_numpy()
    right = {name: np.stack(table[name].to_list()).argmax(axis=1) == labels for name in STREAM_LABELS if name in table}

    def over_folds(values: list[float]) -> dict[str, float]:
        return {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0}

    def accuracy(correct: np.ndarray, label: int | None = None) -> list[float]:
        chosen = np.ones(len(labels), bool) if label is None else labels == label
        parts = [correct[chosen & (folds == fold)] for fold in sorted(set(folds.tolist()))]
        return [float(part.mean()) for part in parts if len(part)]

    present = sorted(set(labels.tolist()))
    per_class: dict[str, dict[str, Any]] = {
        classes[label]: {"clips": int((labels == label).sum())}
        | {name: over_folds(accuracy(correct, label)) for name, correct in right.items()}
        for label in present
    }
    streams = {
        name: {
            "top1": over_folds(accuracy(correct)),
            "mean_class": {"mean": float(np.mean([per_class[classes[label]][name]["mean"] for label in present]))},
        }
        for name, correct in right.items()
    }
    return {"streams": streams, "classes": per_class}


if __name__ == "__main__":
    crossval()
