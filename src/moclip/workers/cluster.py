"""Run jobs on the machines of a Ray cluster, through Ray Data.

Jobs that only need a core run as tasks. Jobs that need a loaded model run in a pool of actors. Ray Data schedules the
jobs, limits how many are in flight, adds actors when machines join, and repeats jobs of lost machines. A job is small
(paths and numbers). The worker writes the job's output itself and returns only the job's number.
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

MAX_ATTEMPTS = 5  # per job: losing a machine costs one; a job that loses more workers probably kills them
JOBS_PER_ACTOR = 2  # submitted at once, so that an actor need not wait for its next job
JOBS_IN_RAY = 4096  # at a time, so that Ray's memory does not grow with the number of jobs

Job = TypeVar("Job")
Job_contra = TypeVar("Job_contra", contravariant=True)


class Worker(Protocol[Job_contra]):
    """What an actor holds: usually a loaded model that runs one job after another."""

    def run_job(self, job: Job_contra) -> None: ...


class ClusterError(MoclipError):
    """The cluster cannot be reached or has no cores, or a job keeps losing its worker."""


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
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # failures are raised as exceptions
        try:
            _check_port(os.environ.get("RAY_ADDRESS", "") if address == "auto" else address)
            ray.init(address, logging_level=logging.CRITICAL, log_to_driver=False, ignore_reinit_error=True)
        except (ConnectionError, ValueError, RuntimeError, OSError) as problem:
            reason = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
            fix = "start one: ray start --head (and ray start --address=HOST:6379 on the other machines)"
            raise ClusterError(f"no Ray cluster there: {reason}", where=where, fix=fix) from None
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        ray.data.DataContext.get_current().enable_progress_bars = False
        if not self._count("CPU"):
            ray.shutdown()
            raise ClusterError("no machine of the cluster offers a core", where=where, fix="see: ray status")

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.ray.shutdown()

    def run(self, work: Callable[[Job, int], None], jobs: Iterable[Job]) -> Iterator[int]:
        """Run jobs on one core each, started in their order. Yields the number of each job when it is done.

        `work` is called with a job and with the number of workers that were lost while they ran it. It must write the
        same output each time: a worker that counts as lost may still be running. At most `JOBS_IN_RAY` jobs are taken
        from `jobs` at a time.

        Raises
        ------
        MoclipError
            A job raised it.
        ClusterError
            `MAX_ATTEMPTS` workers were lost while they ran the same job, or Ray itself failed.
        """
        return self._run_blocks(jobs, _run_task, {"num_cpus": 1, "fn_kwargs": {"work": work}})

    def run_on_actors(
        self, make_worker: Callable[..., Worker[Job]], arguments: Sequence[Any], jobs: Sequence[Job]
    ) -> Iterator[int]:
        """Run jobs on long-lived workers, each made by `make_worker(*arguments)`. Otherwise as `run`.

        Each worker has one GPU if the cluster has GPUs, else one core. An error of `make_worker` ends the run.
        """
        gpus = self._count("GPU")
        pool = self.ray.data.ActorPoolStrategy(
            min_size=1,
            initial_size=max(1, min(gpus or self._count("CPU"), len(jobs))),
            max_tasks_in_flight_per_actor=JOBS_PER_ACTOR,
            max_concurrent_calls_per_actor=JOBS_PER_ACTOR if gpus else 1,
            enable_true_multi_threading=gpus > 0,  # decode the next clips while the GPU works
        )
        options = {"compute": pool, "fn_constructor_args": (make_worker, arguments)}
        return self._run_blocks(jobs, _Actor, options | ({"num_gpus": 1} if gpus else {"num_cpus": 1}))

    def _count(self, resource: str) -> int:
        """Return how many units of a resource ("CPU", "GPU") the cluster has now."""
        return int(self.ray.cluster_resources().get(resource, 0))

    def _run_blocks(self, jobs: Iterable[Job], function: Any, options: dict[str, Any]) -> Iterator[int]:
        """Run a function over blocks of one job each. Yields the number of each job when it is done."""
        node = self.ray.get_runtime_context().get_node_id()  # this machine: if it is lost, the run ends anyway
        here = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
        attempts = self.ray.remote(num_cpus=0, scheduling_strategy=here)(_AttemptCounter).remote()
        options["fn_kwargs"] = options.get("fn_kwargs", {}) | {"attempts": attempts, "max_attempts": MAX_ATTEMPTS}
        numbered = enumerate(jobs)
        while rows := [{"number": number, "job": job} for number, job in islice(numbered, JOBS_IN_RAY)]:
            dataset = self.ray.data.from_items(rows, override_num_blocks=len(rows))
            results = dataset.map_batches(function, batch_size=None, **options)
            try:
                for batch in results.iter_batches(batch_size=None, prefetch_batches=0):
                    if isinstance(problem := batch["problem"][0], MoclipError):
                        raise problem
                    yield int(batch["number"][0])
            except self.ray.exceptions.RayTaskError:
                raise  # a bug in this program
            except self.ray.exceptions.RayError as problem:
                what = f"Ray stopped the run: {type(problem).__name__}"
                raise ClusterError(what, where="--ray", fix=_RAY_FIX) from None


_RAY_FIX = "see: ray status, /tmp/ray; run the same command again to resume"


def check_same_versions(here: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Raise ClusterError if a library has another version here than on the machine that started the run."""
    for name, version in wanted.items():
        if here.get(name) != version:
            raise ClusterError(
                f"this machine has {name} {here.get(name)}, but the run was started with {version}",
                where=socket.gethostname(),
                fix="install the same packages on every machine: pip install -r requirements.lock",
            )


def check_visible(visible: bool, place: str) -> None:
    """Raise ClusterError unless this machine sees the folder or URL that it should read or write."""
    if not visible:
        raise ClusterError(
            f"this machine does not see {place}",
            where=socket.gethostname(),
            fix="share it between the machines under the same path, or keep it at an s3:// URL (store, dataset.root)",
        )


def _check_port(address: str) -> None:
    """Raise OSError if nothing listens at host:port. Ray itself would try for two minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=5).close()


class _AttemptCounter:
    """Counts how often each job was started, because Ray Data repeats a job without limit."""

    def __init__(self) -> None:
        self.started: Counter[int] = Counter()

    def count(self, number: int) -> int:
        """Count another start of a job. Return how many there were before."""
        self.started[number] += 1
        return self.started[number] - 1


def _run_task(
    batch: Mapping[str, Any], work: Callable[[Any, int], None], attempts: Any, max_attempts: int
) -> dict[str, list[Any]]:
    """Run the one job of a block. A MoclipError is returned, because Ray Data would repeat a job that raises."""
    import ray

    number, problem = int(batch["number"][0]), None
    try:
        lost_workers = ray.get(attempts.count.remote(number))
        if lost_workers == max_attempts:
            what = f"{max_attempts} workers were lost while they ran the same job"
            raise ClusterError(what, where="--ray", fix=_RAY_FIX)
        work(batch["job"][0], lost_workers)
    except MoclipError as error:
        problem = error
    return {"number": [number], "problem": [problem]}


class _Actor:
    """Holds a worker. If the worker cannot be made, each of its jobs fails with that error.

    Raising the error here would make Ray Data start the actor again and again.
    """

    def __init__(self, make_worker: Callable[..., Worker[Any]], arguments: Sequence[Any]) -> None:
        try:
            self.run_job = make_worker(*arguments).run_job
        except MoclipError as problem:
            self.run_job = functools.partial(_raise, problem)

    def __call__(self, batch: Mapping[str, Any], attempts: Any, max_attempts: int) -> dict[str, list[Any]]:
        return _run_task(batch, lambda job, lost_workers: self.run_job(job), attempts, max_attempts)


def _raise(problem: MoclipError, job: Any) -> None:
    raise problem
