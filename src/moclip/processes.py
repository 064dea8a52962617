"""Worker processes that outlive neither their parent nor, together, a decoder that crashes.

What `extract` and `transcode` share: jobs on spawned processes, the ones in flight when a process dies set apart.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait as wait_for
from typing import TypeVar

DIED = "its decoder died"
"""The reason of a video that takes its process with it."""

Name = TypeVar("Name")
Job = TypeVar("Job")
Result = TypeVar("Result")


def run(
    work: Callable[[Job], Result], waiting: list[Job], workers: int, died: Callable[[Job], Result]
) -> Iterator[tuple[Job, Result]]:
    """Work off `waiting` from its end, yielding (job, result) in the order of completion.

    A process that dies costs the job alone that kills it: its result is `died(job)`.
    """
    suspects: list[Job] = []
    with one_thread_a_process():
        while waiting:  # a new pool after each one that broke
            yield from run_pool(work, waiting, suspects, workers, _itself)
        while suspects:  # each in a process of its own, to know which one it was
            job, alone = suspects.pop(), list[Job]()
            yield from run_pool(work, [job], alone, 1, _itself)
            if alone:
                yield job, died(job)


def run_pool(
    work: Callable[[Job], Result],
    waiting: list[Name],
    suspects: list[Name],
    workers: int,
    load: Callable[[Name], Job],
) -> Iterator[tuple[Name, Result]]:
    """Work off `waiting` from its end, yielding (name, result) in the order of completion.

    What waits is a name of a job; `load` makes the job when its turn has come. When a process dies it ends early, with
    names left in `waiting`; those in flight are put into `suspects`.
    """
    running: dict[Future[Result], Name] = {}
    with pool(workers) as executor:
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    running[executor.submit(work, load(waiting[-1]))] = waiting[-1]
                    waiting.pop()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    result = future.result()
                    yield running.pop(future), result
        except BrokenProcessPool:
            suspects += running.values()


def pool(workers: int) -> ProcessPoolExecutor:
    """Spawned processes: a fork would copy decoders' and tensorstore's threads in an unknown state."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent stops; what is in flight is finished
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_die_with, args=(parent.sentinel,), daemon=True).start()


def _die_with(sentinel: int) -> None:
    wait_for([sentinel])
    os._exit(1)  # the parent was killed: nobody waits for this job, and the next run does it again


@contextmanager
def one_thread_a_process() -> Iterator[None]:
    """Tell the processes started meanwhile to calculate on one thread each."""
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _itself(job: Job) -> Job:
    return job
