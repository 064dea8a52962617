"""Print the results of the last run: accuracies, cost, and the verdict."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING

from moclip.files.folders import join_path
from pipeline import params as parameters
from pipeline import paths
from pipeline.console.output import print_rejection, print_result, print_scores, print_verdict
from pipeline.demo_clip import demo_clip_warning
from pipeline.io import read_json
from pipeline.params import Params

if TYPE_CHECKING:
    import pandas as pd


def print_results() -> None:
    """Print the accuracies and cost of the last run, and the verdict: which stream to trust, and what it beats."""
    cost = read_json(paths.COST_JSON, "evaluate")["multiply_adds_m"]["video"]
    streams = {name: read_json(path, "evaluate") for name, path in paths.STREAM_JSON.items()}
    print_scores({name: scores for name, scores in streams.items() if scores}, cost, print_result)
    print_verdict(read_json(paths.VERDICT_JSON, "evaluate"), streams["majority"], print)
    rejected = read_json(paths.REJECT_JSON, "evaluate") if paths.REJECT_JSON.exists() else {}
    if rejected:  # earlier versions wrote none, and it is empty for clips with several labels
        print_rejection(rejected, print)
    if paths.PARAMS.exists():
        warn_of_demo_clip(print)


def next_steps(params: Params, index: pd.DataFrame) -> list[str]:
    """Return commands to type when the stages have run, each with what it does; the first one for a test clip."""
    clip = index[(index["status"] == "ok") & (index["split"] == "test")].iloc[0]
    path = shlex.quote(join_path(params.dataset.root, clip["path"]))
    others = {
        "moclip advise": "what the data set suffers from, and what to do",
        "dvc exp run -S fusion.lr=1e-4": "an experiment",
    }
    if params.clip.model is False:
        others = {"moclip advise": others["moclip advise"], "dvc exp run -S tsn.epochs=60": "an experiment"}
    width = max(map(len, others))
    return [f"moclip predict {path}", *(f"{line:<{width}}  # {what}" for line, what in others.items())]


def warn_of_demo_clip(show: Callable[[str], None]) -> None:
    """Say so if the CLIP in params.yaml only knows the demo's clips, and these are others."""
    raw = parameters.read_raw(paths.PARAMS)
    model, models, root = (parameters.value_at(raw, key) for key in ("clip.model", "clip.models", "dataset.root"))
    if warning := demo_clip_warning(model, models or [], root):
        show(f"  {warning}")
