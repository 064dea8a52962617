"""Worker processes that outlive neither their parent nor, together, a decoder that crashes or never ends.

What reads videos does it here: a C library may take its process along, and no other process can stop it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from typing import Any, TypeVar

from moclip.workers.time_limit import seconds_allowed, set_limit

DECODER_DIED = "its decoder died"
"""The reason of a video that takes its process with it."""
DECODER_HUNG = "its decoder gave nothing for {seconds:g} s"
DECODER_KILLED = "its decoder was killed, perhaps for want of memory"
JOBS_A_WORKER = 2  # jobs that a worker has at once
PRELOADED = [
    "moclip.motion.extract",
    "moclip.inference.encode",
    "moclip.inference.clip_input",
    "numcodecs",
    "google_crc32c",
]
"""What workers have imported from their start."""

Name = TypeVar("Name")
Job = TypeVar("Job")
Result = TypeVar("Result")


class WorkerDiedError(Exception):
    """The process of a job is no more; says why."""


def run_jobs(
    work: Callable[[Job], Result], waiting: list[Job], workers: int, lost: Callable[[Job, str], Result]
) -> Iterator[tuple[Job, Result]]:
    """Work off `waiting` from its end, yielding (job, result) in the order of completion.

    A process that dies or hangs costs the job alone that it is the fault of: its result is `lost(job, reason)`.
    """
    suspects: list[Job] = []
    with single_threaded_workers():
        while waiting:  # a new pool after each one that broke
            yield from run_jobs_on_pool(work, waiting, suspects, workers, _itself)
        with SingleWorker() as apart:
            for job in suspects:  # each by itself, to know which one it was
                yield job, _done_alone(apart, work, job, lost)


def run_jobs_on_pool(
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
    with worker_pool(workers) as executor:
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


def run_jobs_in_order(
    work: Callable[[Job], Result], jobs: Iterable[Job], workers: int, lost: Callable[[Job, str], Result]
) -> Iterator[Result]:
    """Yield the results of jobs in the order of the jobs, a few of which are taken ahead.

    A process that dies or hangs costs the job alone that it is the fault of: its result is `lost(job, reason)`.
    """
    left = iter(jobs)
    with single_threaded_workers(), SingleWorker() as apart:
        while (first := next(left, None)) is not None:  # a new pool after each one that broke
            flying: deque[tuple[Job, Future[Result]]] = deque()
            with worker_pool(workers) as executor:
                try:
                    flying.append((first, executor.submit(work, first)))
                    while flying:
                        for job in islice(left, JOBS_A_WORKER * workers - len(flying)):
                            flying.append((job, _submitted(executor, work, job)))
                        result = flying[0][1].result()
                        flying.popleft()
                        yield result
                except BrokenProcessPool:
                    pass
            for job, future in flying:
                intact = future.done() and not future.cancelled() and future.exception() is None
                yield future.result() if intact else _done_alone(apart, work, job, lost)


def _submitted(executor: ProcessPoolExecutor, work: Callable[[Job], Result], job: Job) -> Future[Result]:
    """The future of a job, also where the pool has just broken."""
    try:
        return executor.submit(work, job)
    except BrokenProcessPool as broken:
        future: Future[Result] = Future()
        future.set_exception(broken)
        return future


def _done_alone(
    apart: SingleWorker, work: Callable[[Job], Result], job: Job, lost: Callable[[Job, str], Result]
) -> Result:
    try:
        result: Result = apart.do(work, job)
    except WorkerDiedError as reason:
        return lost(job, str(reason))
    return result


def _itself(job: Job) -> Job:
    return job


class SingleWorker:
    """One process beside this one that does one job at a time; a new one whenever a job has taken it along."""

    def __init__(self) -> None:
        self._process: Any = None
        self._line: Connection | None = None

    def __enter__(self) -> SingleWorker:
        return self

    def __exit__(self, *_: object) -> None:
        if self._line is not None:
            self._process.terminate()
            self._process.join()
            self._line.close()
            self._line = None

    def do(self, work: Callable[..., Any], *given: Any) -> Any:
        """What `work(*given)` returns or raises there. Raises LostError where the process does not live to tell."""
        if self._line is None:
            context = _context()
            self._line, there = context.Pipe()
            self._process = context.Process(target=_answer, args=(there, *_given()), daemon=True)
            self._process.start()
            there.close()
        try:
            self._line.send((work, given))
            good, result = self._line.recv()
        except (EOFError, ConnectionError):
            self._line.close()
            self._line = None
            self._process.join()
            raise WorkerDiedError(_reason(self._process.exitcode)) from None
        if not good:
            raise result
        return result


def _answer(line: Connection, seconds: float, environment: dict[str, str]) -> None:
    """Do what comes in, one after the other."""
    _start_worker(seconds, environment)
    while True:
        try:
            work, given = line.recv()
        except EOFError:
            return
        try:
            answer = True, work(*given)
        except Exception as error:  # it is raised where it was asked for
            answer = False, error
        line.send(answer)


def _reason(exit_code: int | None) -> str:
    if exit_code == -signal.SIGALRM:
        return DECODER_HUNG.format(seconds=seconds_allowed())
    return DECODER_KILLED if exit_code == -signal.SIGKILL else DECODER_DIED


def worker_pool(workers: int) -> ProcessPoolExecutor:
    """Processes forked from a clean one: a fork of this one would copy decoders' threads in an unknown state."""
    return ProcessPoolExecutor(workers, mp_context=_context(), initializer=_start_worker, initargs=_given())


def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", *PRELOADED])  # imported once, not by each worker
    return context


def _given() -> tuple[float, dict[str, str]]:
    """What a worker is told: the process that it is forked from knows the environment of its own start alone."""
    return seconds_allowed(), dict(os.environ)


def _start_worker(seconds: float, environment: dict[str, str]) -> None:
    set_limit(seconds)
    os.environ.clear()
    os.environ.update(environment)  # credentials, for one, that were set after the first workers were started
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent stops; what is in flight is finished
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_die_with, args=(parent.sentinel,), daemon=True).start()


def _die_with(sentinel: int) -> None:
    wait_for([sentinel])
    os._exit(1)  # the parent was killed: nobody waits for this job, and the next run does it again


@contextmanager
def single_threaded_workers() -> Iterator[None]:
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
