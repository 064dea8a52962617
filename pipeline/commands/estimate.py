"""`moclip estimate`: the time, disk and memory of `dvc repro` here, from a few timed clips and steps."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline import params as parameters
from pipeline import paths
from pipeline.console.command import while_importing
from pipeline.console.progress import show_progress
from pipeline.options import Workers, cpu_count
from pipeline.stage import command

if TYPE_CHECKING:
    from pipeline.estimate.run import Estimate


@command()
def estimate(
    json_file: Annotated[Path | None, typer.Option("--json-file", help="Also write it to this file, as JSON.")] = None,
    workers: Workers = cpu_count(),
) -> None:
    """Estimate the time, disk and memory of `dvc repro`, stage by stage.

    Reads a sample of the clips and makes some steps of each training on it, which takes ten seconds or more, and
    writes nothing. Without a current index it guesses the rest of the index from the sample. Stages that are up to date
    take no time. The times are those of this machine if nothing else runs on it.
    """
    from pipeline.io import write_json

    found = run_estimate(workers)
    with while_importing():
        from pipeline.estimate.answer import as_json, print_estimate
    print_estimate(found)
    if json_file is not None:
        write_json(json_file, as_json(found))


def run_estimate(workers: int) -> Estimate:
    """Return the estimate for the project in the current folder. Raises MoclipError."""
    bare = time.process_time()
    parameters.check_project_folder()
    params = parameters.load(paths.PARAMS)
    with show_progress("estimate", 4, "part") as advance:
        with while_importing():
            before = time.thread_time()
            from pipeline.estimate.clips import count_clips  # noqa: F401  timed
            from pipeline.estimate.run import Starts, estimate_run
            from pipeline.estimate.stale import stale_stages

            clips = time.thread_time() - before
        stale, dvc = stale_stages(Path())
        advance(1)
        if not stale:
            return _nothing_to_do()
        starts = Starts(bare, bare + clips, 0.0, dvc)
        return estimate_run(params, stale, starts, workers, _import_networks, advance)


def _nothing_to_do() -> Estimate:
    from pipeline.dag import STAGES
    from pipeline.estimate.run import Estimate, StageEstimate

    return Estimate([StageEstimate(name, "up to date", runs=False) for name in STAGES])


def _import_networks() -> float:
    """Import what stages with networks import. Return the seconds."""
    before = time.thread_time()
    with while_importing():
        import dvclive  # noqa: F401
        import tensorstore  # noqa: F401

        import pipeline.consistency
        import pipeline.estimate.encoder
        import pipeline.estimate.networks
        import pipeline.network_fit  # noqa: F401
    return time.thread_time() - before


if __name__ == "__main__":
    estimate()
