"""Work on many machines, through Ray Data: tasks for what needs a core, a pool of actors for what holds a model.

Ray Data schedules, holds work back when it piles up, adds actors as machines join, and repeats what is lost with a
machine. A job is small (paths, places, numbers); its output is written by the worker, and only its number comes back.
"""

from __future__ import annotations

import functools
import logging
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol, TypeVar

from moclip.errors import MoclipError

ATTEMPTS = 5  # at one job: its worker is lost with a machine, hardly five times in a row
AHEAD = 2  # jobs that an actor has at once: the next one waits where it will be done
WAVE = 4096  # jobs that Ray holds at a time, so that memory does not grow with their number

Job = TypeVar("Job")
Job_contra = TypeVar("Job_contra", contravariant=True)


class Worker(Protocol[Job_contra]):
    """What an actor holds: a model, ready to do jobs."""

    def do(self, job: Job_contra) -> None: ...


class ClusterError(MoclipError):
    """The cluster cannot be reached or has nothing to work on, or a job keeps losing its worker."""


class Cluster:
    """A connection to a Ray cluster: `address` is "auto" (the one this machine belongs to), "local" (a new one on this
    machine), or host:port of the cluster's head.

    Raises ClusterError where Ray is not installed, there is no such cluster, or it has no core.
    """

    def __init__(self, address: str) -> None:
        try:
            import ray
            import ray.data
            import ray.util.scheduling_strategies
        except ImportError:
            raise ClusterError("Ray is not installed", where="--ray", fix="pip install 'moclip[ray]'") from None
        self.ray: Any = ray
        where = f"--ray {address}"
        if address.startswith("ray://"):
            fix = "run the command on a machine of the cluster, with --ray auto"
            raise ClusterError("Ray Data does not work through Ray's client (ray://)", where=where, fix=fix)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what matters of it comes as an exception
        try:
            _call_at(os.environ.get("RAY_ADDRESS", "") if address == "auto" else address)
            ray.init(address, logging_level=logging.CRITICAL, log_to_driver=False, ignore_reinit_error=True)
        except (ConnectionError, ValueError, RuntimeError, OSError) as problem:
            reason = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
            fix = "start one: ray start --head (and ray start --address=HOST:6379 on the other machines)"
            raise ClusterError(f"no Ray cluster there: {reason}", where=where, fix=fix) from None
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        ray.data.DataContext.get_current().enable_progress_bars = False
        if not self._count("CPU"):
            ray.shutdown()
            raise ClusterError("no machine of the cluster has a core to give", where=where, fix="see: ray status")

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.ray.shutdown()

    def run(self, work: Callable[[Job, int], None], jobs: Iterable[Job]) -> Iterator[int]:
        """Do jobs, a core each, begun in their order; yield the number of each as it is completed.

        `work` gets a job and how often a worker was lost at it before. It must write the same each time: a worker that
        is taken for lost may still be at it. `WAVE` jobs are made at a time.

        Raises
        ------
        MoclipError
            As a job raised it.
        ClusterError
            `ATTEMPTS` workers were lost at the same job, or Ray itself failed.
        """
        return self._stream(jobs, _do_task, {"num_cpus": 1, "fn_kwargs": {"work": work}})

    def run_actors(self, make: Callable[..., Worker[Job]], given: Sequence[Any], jobs: Sequence[Job]) -> Iterator[int]:
        """Do jobs on workers that live on, each `make(*given)`: a GPU each where there are any, else a core each.

        What `make` raises ends the run too; otherwise like `run`.
        """
        gpus = self._count("GPU")
        pool = self.ray.data.ActorPoolStrategy(
            min_size=1,
            initial_size=max(1, min(gpus or self._count("CPU"), len(jobs))),
            max_tasks_in_flight_per_actor=AHEAD,
            max_concurrent_calls_per_actor=AHEAD if gpus else 1,
            enable_true_multi_threading=gpus > 0,  # decode the next clips while the GPU works
        )
        needs = {"num_gpus": 1} if gpus else {"num_cpus": 1}
        return self._stream(jobs, _Actor, {"compute": pool, "fn_constructor_args": (make, given), **needs})

    def _count(self, resource: str) -> int:
        """How many of a resource ("CPU", "GPU") the machines have that are there now."""
        return int(self.ray.cluster_resources().get(resource, 0))

    def _stream(self, jobs: Iterable[Job], function: Any, options: dict[str, Any]) -> Iterator[int]:
        """Run a function over blocks of one job each, a wave of jobs at a time."""
        node = self.ray.get_runtime_context().get_node_id()  # this one: without it there is no run
        here = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
        attempts = self.ray.remote(num_cpus=0, scheduling_strategy=here)(_Attempts).remote()
        options.setdefault("fn_kwargs", {})["attempts"] = attempts
        left = enumerate(jobs)
        while rows := [{"number": number, "job": job} for number, job in islice(left, WAVE)]:
            dataset = self.ray.data.from_items(rows, override_num_blocks=len(rows))
            results = dataset.map_batches(function, batch_size=None, **options)
            try:
                for batch in results.iter_batches(batch_size=None, prefetch_batches=0):
                    if isinstance(problem := batch["problem"][0], MoclipError):
                        raise problem
                    yield int(batch["number"][0])
            except self.ray.exceptions.RayTaskError:
                raise  # a mistake in the program
            except self.ray.exceptions.RayError as problem:
                what = f"Ray gave the run up: {type(problem).__name__}"
                raise ClusterError(what, where="--ray", fix="see: ray status, /tmp/ray; run again to go on") from None


def check_versions(here: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Raises ClusterError where this machine would compute otherwise than the one that asks for it."""
    for name, version in wanted.items():
        if here.get(name) != version:
            raise ClusterError(
                f"this machine has {name} {here.get(name)}, where the run began with {version}",
                where=socket.gethostname(),
                fix="install the same packages on every machine: pip install -r requirements.lock",
            )


def check_seen(seen: bool, what: str) -> None:
    """Raises ClusterError where this machine does not see what it should read or write."""
    if not seen:
        raise ClusterError(
            f"this machine does not see {what}",
            where=socket.gethostname(),
            fix="share it between the machines under the same path, or keep it at an s3:// URL (store, dataset.root)",
        )


def _call_at(address: str) -> None:
    """Raises OSError where nobody listens at host:port: Ray itself would try for two minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=5).close()


class _Attempts:
    """Counts how often each job was begun: Ray Data itself would begin one again without end."""

    def __init__(self) -> None:
        self.begun: Counter[int] = Counter()

    def begin(self, number: int) -> int:
        """Count one more; how many there were before."""
        self.begun[number] += 1
        return self.begun[number] - 1


def _do_task(batch: Mapping[str, Any], work: Callable[[Any, int], None], attempts: Any) -> dict[str, list[Any]]:
    """Do the one job of a block; what it raises for the user to mend travels as a result."""
    import ray

    number, problem = int(batch["number"][0]), None
    try:
        lost = ray.get(attempts.begin.remote(number))
        if lost == ATTEMPTS:
            what = f"{ATTEMPTS} workers were lost at the same job"
            raise ClusterError(what, where="--ray", fix="see: ray status, /tmp/ray; run again to go on")
        work(batch["job"][0], lost)
    except MoclipError as error:
        problem = error
    return {"number": [number], "problem": [problem]}


class _Actor:
    """Holds a worker. What `make` raises is the result of its jobs: Ray Data would start the actor again and again."""

    def __init__(self, make: Callable[..., Worker[Any]], given: Sequence[Any]) -> None:
        try:
            self.do = make(*given).do
        except MoclipError as problem:
            self.do = functools.partial(_raise, problem)

    def __call__(self, batch: Mapping[str, Any], attempts: Any) -> dict[str, list[Any]]:
        return _do_task(batch, lambda job, lost: self.do(job), attempts)


def _raise(problem: MoclipError, job: Any) -> None:
    raise problem
