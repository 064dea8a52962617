"""`moclip timing`: measure how long a clip takes from file to class, step by step -> metrics/timing.json.

Times differ on every run and machine, so neither DVC nor git tracks the file.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moclip.errors import DatasetError
from moclip.files.folders import join_path
from moclip.wording import counted
from pipeline import paths
from pipeline.commands.predict import PREDICT_KEYS, load_predictor
from pipeline.console.command import while_importing
from pipeline.console.output import print_result
from pipeline.console.progress import show_progress
from pipeline.io import write_json
from pipeline.params import Params
from pipeline.stage import command

if TYPE_CHECKING:
    import pandas as pd


@command("dataset.root", *PREDICT_KEYS)
def timing(
    params: Params,
    clips: Annotated[
        int, typer.Option("--clips", min=1, help="Number of test clips, spread evenly over the classes.")
    ] = 40,
) -> None:
    """Measure how long a clip takes from file to class, step by step.

    Runs one clip at a time, after two to warm up, with the models that `dvc repro` trained. Spans of longer videos are
    left out: predict reads whole files. Writes metrics/timing.json: milliseconds per clip, median and 90th percentile.
    """
    with while_importing():
        from moclip.data.balance import spaced_rows
        from moclip.data.selection import usable_clips
        from moclip.data.spans import are_cut
        from moclip.files.local_copies import local_copy
        from pipeline.index_file import read_index

    rows = usable_clips(read_index(params), "test")
    if rows.empty:
        raise DatasetError("no usable test clip", where=paths.INDEX)
    rows = rows[~are_cut(rows)]
    if rows.empty:
        what = "all test clips are spans of longer videos, and only whole files can be timed"
        raise DatasetError(what, where=paths.INDEX, fix="add test clips that are files of their own")
    chosen = rows.iloc[spaced_rows(len(rows), clips)]
    with ExitStack() as copies:
        urls = (join_path(params.dataset.root, path) for path in chosen["path"])
        _measure(params, chosen, [copies.enter_context(local_copy(url)) for url in urls])


def _measure(params: Params, chosen: pd.DataFrame, files: list[Path]) -> None:
    with while_importing():
        import numpy as np
        import torch

        from moclip.inference.predictor import STEPS

    predictor = load_predictor(params)
    for path in files[:2]:
        predictor(path)
    spent: dict[str, list[float]] = {name: [] for name in (*STEPS, "clip_to_class")}

    @contextmanager
    def part(name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        if predictor.device.type == "cuda":
            torch.cuda.synchronize()  # or the part that waits for the GPU would include the time of earlier parts
        spent[name].append(time.perf_counter() - started)

    with show_progress("timing", len(files)) as advance:
        for path in files:
            with part("clip_to_class"):
                with part("decode"):
                    read = predictor.read(path)
                predictor.classify(read, part)
            advance(1)
    milliseconds = {
        name: {"median": 1e3 * float(np.median(values)), "p90": 1e3 * float(np.quantile(values, 0.9))}
        for name, values in spent.items()
    }
    write_json(
        paths.TIMING_JSON,
        {
            "clips": len(files),
            "device": str(predictor.device),
            "threads": torch.get_num_threads(),
            "mean_frames": float(chosen["frames"].mean()),
            "milliseconds": milliseconds,
        },
    )
    print_result(
        f"ms per clip, {counted(len(files), 'clip')} of {chosen['frames'].mean():.0f} frames, "
        f"{counted(torch.get_num_threads(), 'thread')}",
        ("", "median", "90 % are below"),
        [(name.replace("_", " "), f"{ms['median']:.1f}", f"{ms['p90']:.1f}") for name, ms in milliseconds.items()],
    )


if __name__ == "__main__":
    timing()
