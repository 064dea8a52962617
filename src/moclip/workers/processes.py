"""Worker processes for everything that decodes video.

A decoder, a C library, may crash or hang. In a worker it costs one clip, not the run: only another process survives a
crash and can end a hang. Workers exit with their parent.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import tempfile
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from math import inf
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from time import monotonic
from typing import Any, TypeVar

from moclip.errors import MoclipError
from moclip.workers.time_limit import set_time_limit, time_limit, time_limit_seconds

DECODER_DIED = "its decoder died"
DECODER_HUNG = "its decoder gave nothing for {seconds:g} s"
DECODER_KILLED = "its decoder was killed, perhaps because memory ran out"
DECODER_SLOW = "decoding it takes too long"
"""Reasons of a video whose worker process ended."""
LONGEST_TEMPORARY = 75
"""Bytes of the name of TMPDIR: Python adds 32 to name the socket of its fork server, and a socket may have 107."""
JOBS_PER_WORKER = 2  # submitted ahead
PRELOADED_MODULES = [
    "moclip.motion.extract_workers",
    "moclip.inference.encode",
    "moclip.inference.clip_input",
    "google_crc32c",
    "zstandard",
]
"""Imported once, by the process that all workers are forked from."""

Key = TypeVar("Key")
Job = TypeVar("Job")
Result = TypeVar("Result")
Item = TypeVar("Item")


class WorkerDiedError(Exception):
    """The worker process of a job ended. The message is the reason."""


def run_jobs(
    work: Callable[[Job], Result], waiting: list[Job], workers: int, failed: Callable[[Job, str], Result]
) -> Iterator[tuple[Job, Result]]:
    """Run `work` on every job, from the end of `waiting`. Yields (job, result) in the order of completion.

    A job that crashes or hangs its process has the result `failed(job, reason)`. The others are not affected.
    """
    ended: list[Job] = []
    with single_threaded_workers():
        yield from run_jobs_on_pool(work, waiting, ended, workers, lambda job: job)
        with SingleWorker() as worker:
            for job in ended:  # once more, with the machine to itself
                yield job, _run_alone(worker, work, job, failed)


def run_jobs_on_pool(
    work: Callable[[Job], Result],
    waiting: list[Key],
    ended: list[Key],
    workers: int,
    make_job: Callable[[Key], Job],
) -> Iterator[tuple[Key, Result]]:
    """Run `work` on `make_job(key)`, from the end of the keys `waiting`. Yields (key, result) as jobs complete.

    `make_job` is called just before a job is submitted, so few jobs are in memory at once. Keys of jobs whose process
    died are added to `ended` instead.
    """
    running: dict[Future[Result], Key] = {}
    with WorkerPool(workers) as pool:
        while waiting or running:
            while waiting and len(running) < workers:
                running[pool.submit(work, make_job(waiting[-1]))] = waiting[-1]
                waiting.pop()
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                key = running.pop(future)
                try:
                    result = future.result()
                except WorkerDiedError:
                    ended.append(key)
                    continue
                yield key, result


def run_jobs_in_order(
    work: Callable[[Job], Result],
    jobs: Iterable[Job],
    workers: int,
    failed: Callable[[Job, str], Result],
    ahead: int = 0,
) -> Iterator[Result]:
    """Run `work` on every job. Yields the results in the order of `jobs`, of which a few, or `ahead`, are taken ahead.

    A job that crashes or hangs its process has the result `failed(job, reason)`. The others are not affected.
    """
    remaining, most = iter(jobs), max(JOBS_PER_WORKER * workers, ahead)
    running: deque[tuple[Job, Future[Result]]] = deque()
    with single_threaded_workers(), WorkerPool(workers) as pool, SingleWorker() as worker:
        while True:
            running += ((job, pool.submit(work, job)) for job in islice(remaining, most - len(running)))
            if not running:
                return
            job, future = running.popleft()
            try:
                result = future.result()
            except WorkerDiedError:  # once more, in a new process
                result = _run_alone(worker, work, job, failed)
            yield result


class WorkerPool:
    """A pool of worker processes. A thread of this process feeds each, so a process that dies costs its job alone.

    `ProcessPoolExecutor` ends all its processes when one dies. In Python 3.11 it then waits for ever for a process that
    it was starting at that moment.
    """

    def __init__(self, workers: int) -> None:
        self._threads = ThreadPoolExecutor(workers, initializer=self._add_worker)
        self._own = threading.local()
        self._workers: list[SingleWorker] = []

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for running jobs, but not after Ctrl-C meanwhile. Those that have not started are cancelled."""
        try:
            self._threads.shutdown(cancel_futures=True)
        except KeyboardInterrupt:
            for worker in self._workers:
                worker.interrupt()
            raise
        for worker in self._workers:
            worker.__exit__()

    def submit(self, work: Callable[[Job], Result], job: Job) -> Future[Result]:
        """Run a job in a free process. Its future raises WorkerDiedError if the process ends."""
        with _report_limits():  # it may start a thread
            return self._threads.submit(lambda: self._own.worker.run(work, job))

    def _add_worker(self) -> None:
        self._own.worker = SingleWorker()
        self._workers.append(self._own.worker)


def _run_alone(
    worker: SingleWorker, work: Callable[[Job], Result], job: Job, failed: Callable[[Job, str], Result]
) -> Result:
    try:
        result: Result = worker.run(work, job)
    except WorkerDiedError as reason:
        return failed(job, str(reason))
    return result


_CHILDREN = threading.Lock()
"""Held while a process is started or joined. Both read the exit codes of ended processes, which can be read once."""


class SingleWorker:
    """One worker process that runs one job at a time. After a crash the next job gets a new process."""

    def __init__(self) -> None:
        self._process: Any = None
        self._connection: Connection | None = None

    def __enter__(self) -> SingleWorker:
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._process.terminate()
            self._join()
            self._connection.close()
            self._connection = None

    def run(self, work: Callable[..., Any], *args: Any) -> Any:
        """Return what `work(*args)` returns, or raise what it raises. Raises WorkerDiedError if the process ends."""
        self._send((work, args, False))
        return self._receive()[1]

    def stream(self, work: Callable[..., Iterator[Item]], *args: Any, seconds: float = inf) -> Iterator[Item]:
        """Yield what the iterator `work(*args)` yields, or raise what it raises. The process waits for who takes it.

        Each item must come within the decoders' time limit. Raises WorkerDiedError if the process ends, or if waiting
        for it takes more than `seconds` in all.
        """
        self._send((work, args, True))
        answer, item, waited = self._wait(seconds)
        try:
            while answer == _ITEM:
                yield item
                seconds -= waited
                answer, item, waited = self._wait(seconds)
        finally:
            if answer == _ITEM:  # what is on its way is for nobody
                self.__exit__()

    def interrupt(self) -> None:
        """End the process, whatever it does. Another thread that waits for its answer gets WorkerDiedError."""
        if self._connection is not None:
            self._process.kill()

    def _send(self, request: tuple[Any, ...]) -> None:
        if self._connection is None:
            context = _process_context()
            with _CHILDREN, _report_limits(), _interrupts_blocked():
                connection, worker_end = context.Pipe()
                process = context.Process(target=_serve, args=(worker_end, *_worker_settings()), daemon=True)
                process.start()
            worker_end.close()
            self._process, self._connection = process, connection  # not before: Ctrl-C may come while it starts
        try:
            self._connection.send(request)
        except ConnectionError:
            raise self._died() from None

    def _wait(self, seconds: float) -> tuple[str, Any, float]:
        """Return an answer, and how many seconds it took."""
        assert self._connection is not None
        started = monotonic()
        if not self._connection.poll(None if seconds == inf else max(0.0, seconds)):
            self.__exit__()
            raise WorkerDiedError(DECODER_SLOW)
        return *self._receive(), monotonic() - started

    def _receive(self) -> tuple[str, Any]:
        assert self._connection is not None
        try:
            answer, result = self._connection.recv()
        except (EOFError, OSError):  # OSError: it ended in the middle of its answer
            raise self._died() from None
        if answer == _FAILED:
            raise result
        return answer, result

    def _died(self) -> WorkerDiedError:
        assert self._connection is not None
        self._connection.close()
        self._connection = None
        self._join()
        return WorkerDiedError(_death_reason(self._process.exitcode))

    def _join(self) -> None:
        with _CHILDREN:
            self._process.join()


_ITEM, _DONE, _FAILED = "item", "done", "failed"
"""What an answer of a SingleWorker's process is."""


def _serve(connection: Connection, seconds: float, environment: dict[str, str]) -> None:
    """Run the jobs that arrive at a SingleWorker's process until its parent closes the connection."""
    _start_worker(seconds, environment)
    while True:
        try:
            work, args, streams = connection.recv()
        except EOFError:
            return
        try:
            result = work(*args)
            if streams:
                _send_items(connection, result)
                result = None
            answer = _DONE, result
        except Exception as error:  # `SingleWorker` raises it
            error.add_note(f"In a worker process:\n{traceback.format_exc()}")
            answer = _FAILED, error
        try:
            connection.send(answer)
        except Exception as error:  # of many types: the answer cannot be pickled
            connection.send((_FAILED, error))


def _send_items(connection: Connection, items: Iterator[Any]) -> None:
    while True:
        with time_limit():
            item = next(items, _DONE)
        if item is _DONE:
            return
        connection.send((_ITEM, item))


def stream_from_worker(
    work: Callable[..., Iterator[Item]], *args: Any, seconds: float = inf
) -> Generator[Item, None, None]:
    """Do what `SingleWorker.stream` does, in a process of its own. It ends when the iterator is closed."""
    with SingleWorker() as worker:
        yield from worker.stream(work, *args, seconds=seconds)


def _death_reason(exit_code: int | None) -> str:
    if exit_code == -signal.SIGALRM:
        return DECODER_HUNG.format(seconds=time_limit_seconds())
    return DECODER_KILLED if exit_code == -signal.SIGKILL else DECODER_DIED


def start_fork_server(*modules: str) -> None:
    """Start the process that workers are forked from, which also imports `modules`. Returns at once."""
    with single_threaded_workers(), _report_limits(), _interrupts_blocked():
        _process_context(*modules)
        multiprocessing.forkserver.ensure_running()


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach: the fork server would print a traceback while it imports."""
    multiprocessing.resource_tracker.ensure_running()  # where Python starts it, it unblocks SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _report_limits() -> Iterator[None]:
    """Raise MoclipError where this machine's limits allow no further process, thread or open file."""
    try:
        yield
    except (OSError, EOFError, RuntimeError) as problem:  # EOFError: the fork server could not fork
        if isinstance(problem, RuntimeError) and "new thread" not in str(problem):
            raise
        what = f"a worker process cannot be started ({problem or type(problem).__name__})"
        raise MoclipError(what, fix="use fewer workers (--workers), or raise the limits (ulimit -a)") from problem


def _process_context(*modules: str) -> Any:
    """Return the way to start processes: they are forked from a clean server process, which also imports `modules`.

    A fork of this process would copy the locks of its decoders' threads in an unknown state.
    """
    if len(os.fsencode(tempfile.gettempdir())) > LONGEST_TEMPORARY:
        what = "the name of the folder for temporary files is too long for a socket in it"
        raise MoclipError(what, where=tempfile.gettempdir(), fix="set TMPDIR to another folder, such as /tmp")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", *PRELOADED_MODULES, *modules])
    return context


def _worker_settings() -> tuple[float, dict[str, str]]:
    """Return the time limit and the environment. The fork server knows only the environment at its own start."""
    return time_limit_seconds(), dict(os.environ)


def _start_worker(seconds: float, environment: dict[str, str]) -> None:
    set_time_limit(seconds)
    os.environ.clear()
    os.environ.update(environment)  # may hold credentials that were set after the first workers were started
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent stops and running jobs finish
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_with_parent, args=(parent.sentinel,), daemon=True).start()


def _exit_with_parent(sentinel: int) -> None:
    wait_for([sentinel])
    os._exit(1)  # the parent was killed: nobody waits for this job, and the next run repeats it


@contextmanager
def single_threaded_workers() -> Iterator[None]:
    """Make numerical libraries use one thread in each process started inside this block."""
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)  # another thread may have done it
            else:
                os.environ[name] = value
