"""Many clips on one core and on all of them: `python -m benchmarks.cores [--quick]`, about 4 minutes.

`moclip predict` with the paper's networks and with those of the preset `folder`, and `clip_image`, on clips of
UCF-101's size. All have ViT-B/32 and untrained weights. Each runs in a process that has only so many cores, with as
many worker processes, and labels or encodes a few clips before timing starts. Matrix products in independent processes,
one on each core, show how much the cores of this machine slow each other down: nothing can scale better.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

# Each process imports PyTorch in a function, after its cores are set: that decides the number of threads.
CLIPS = {"predict, the paper's networks": 48, "predict, preset folder": 256, "clip_image": 512}
PRODUCTS = 2000  # of matrices of 512 x 512, which each process computes
FRAMES = 180  # in the mean clip of UCF-101


def clips_per_second(task: str, cores: int, folder: str, paths: list[Path], times: int) -> float:
    """Return how many clips a second a task takes on so many cores, if it is given each clip this many times."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    run = _encoding(folder, paths, cores) if task == "clip_image" else _prediction(task, paths, cores)
    run(1)  # starts the worker processes
    begun = time.perf_counter()
    run(times)
    return len(paths) * times / (time.perf_counter() - begun)


def _prediction(task: str, paths: list[Path], cores: int) -> Callable[[int], object]:
    from benchmarks.predict import folder_models, models

    predictor = models() if "paper" in task else folder_models(True, False)
    return lambda times: list(predictor.predict_in_processes(paths * times, cores))


def _encoding(folder: str, paths: list[Path], cores: int) -> Callable[[int], object]:
    from benchmarks.stills import encode_clips, stills_table, stills_worker

    worker, turns = stills_worker(folder, 1, cores), itertools.count()
    return lambda times: encode_clips(worker, stills_table(paths, times), turns)


def products_per_second(count: int) -> float:
    """Return how many matrix products a second this process computes on one thread."""
    import torch

    torch.set_num_threads(1)
    matrix = torch.eye(512)
    begun = time.perf_counter()
    for _ in range(count):
        matrix @ matrix
    return count / (time.perf_counter() - begun)


def bare_processes(processes: int, count: int) -> float:
    """Return how many matrix products a second so many processes compute that do nothing else."""
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as executor:
        for _ in range(2):  # the first time they start
            rates = list(executor.map(products_per_second, [count] * processes))
    return sum(rates)


def main() -> None:
    """Print a table in Markdown."""
    from benchmarks.common import UCF_SIZE, describe_processor, make_clips
    from benchmarks.comparison import asked_quick
    from benchmarks.predict import write_clip

    quick = asked_quick(__doc__, "a tiny encoder, few clips and the last task alone")
    cores = len(os.sched_getaffinity(0))
    print(f"{describe_processor()}, load {os.getloadavg()[0]:.1f}\n")
    print(f"| task | clips/s on 1 core | clips/s on {cores} cores | ratio |\n|---|---|---|---|", flush=True)
    one, several = (bare_processes(some, 20 if quick else PRODUCTS) for some in (1, cores))
    print(f"| matrix products | {one:.2f} | {several:.2f} | {several / one:.2f} |", flush=True)
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        write_clip(f"{folder}/clip", quick)
        paths = make_clips(Path(folder), "mpeg4", UCF_SIZE, 4, 16 if quick else FRAMES)
        for task, count in list(CLIPS.items())[-1 if quick else 0 :]:
            given = (folder, paths, 1 if quick else count // len(paths))
            rates = []
            for some in (1, cores):
                with ProcessPoolExecutor(1, mp_context=spawn) as executor:
                    rates.append(executor.submit(clips_per_second, task, some, *given).result())
            print(f"| {task} | {rates[0]:.2f} | {rates[1]:.2f} | {rates[1] / rates[0]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
