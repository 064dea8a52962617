"""Work on many machines, through Ray: tasks for what needs a core, actors for what holds a model.

A job is small (paths, places, numbers) and so is its result: what a job makes, the worker writes to where it belongs.
Only so many jobs are out at once, so neither this process nor Ray's store grows with their number. A job whose worker
is lost, with its machine or alone, is done again.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from moclip.errors import MoclipError

ATTEMPTS = 5  # at one job: a worker is lost with its machine, hardly five times in a row
AHEAD = 2  # jobs that a worker has at once: the next one waits where it will be done
PATIENCE = 60.0  # seconds without a machine to work on, before this is said

Name = TypeVar("Name")
Job = TypeVar("Job")
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)
Job_contra = TypeVar("Job_contra", contravariant=True)


class Worker(Protocol[Job_contra, Result_co]):
    """What an actor holds: a model, ready to do jobs."""

    def do(self, job: Job_contra) -> Result_co: ...


class ClusterError(MoclipError):
    """The cluster cannot be reached, or has lost a job too often."""


class Cluster:
    """A connection to a Ray cluster: `address` is "auto" (the one this machine belongs to), "local" (a new one on this
    machine), ray://host:10001 or host:port.

    Raises ClusterError where Ray is not installed or there is no such cluster.
    """

    def __init__(self, address: str) -> None:
        try:
            import ray
        except ImportError:
            raise ClusterError("Ray is not installed", where="--ray", fix="pip install 'moclip[ray]'") from None
        self.ray: Any = ray
        self.address = address
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            _call_at(os.environ.get("RAY_ADDRESS", "") if address == "auto" else address)
            ray.init(address, logging_level=logging.CRITICAL, log_to_driver=False, ignore_reinit_error=True)
        except (ConnectionError, ValueError, RuntimeError, OSError) as problem:
            reason = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
            fix = "start one: ray start --head (and ray start --address=HOST:6379 on the other machines)"
            raise ClusterError(f"no Ray cluster there: {reason}", where=f"--ray {address}", fix=fix) from None

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.ray.shutdown()

    def count(self, resource: str) -> int:
        """How many of a resource ("CPU", "GPU") the machines have that are there now."""
        return int(self.ray.cluster_resources().get(resource, 0))

    def run(
        self,
        work: Callable[[Job], Result],
        again: Callable[[Job], Result],
        load: Callable[[Name], Job],
        names: Iterable[Name],
    ) -> Iterator[tuple[Name, Result]]:
        """Do jobs, a core each, from the end of `names`, yielding (name, result) in the order of completion.

        `load` makes a job of its name when its turn has come. After its worker was lost, it is done by `again`: on
        another machine if its own is gone, and so that what kills a process does not kill it a second time.
        Errors that `work` raises end the run.
        """
        remote = {
            careful: self.ray.remote(num_cpus=1, max_retries=0)(function)
            for careful, function in ((False, work), (True, again))
        }
        waiting = [_Try(name) for name in names]
        running: dict[Any, _Try[Name]] = {}
        patience = _Patience(self.address)
        while waiting or running:
            room = AHEAD * self.count("CPU")
            patience.check(room > 0)
            while waiting and len(running) < room:
                attempt = waiting.pop()
                running[remote[attempt.number > 0].remote(load(attempt.name))] = attempt
            ended = self.ray.wait(list(running), timeout=1)[0] if running else []
            for reference in ended:
                attempt = running.pop(reference)
                try:
                    yield attempt.name, self._result(reference)
                except _LostError as lost:
                    waiting.append(attempt.after(lost))
            if not ended:
                time.sleep(0.1)

    def run_actors(
        self, make: Callable[..., Worker[Job, Result]], given: Sequence[Any], jobs: Iterable[Job], *, cpus: int = 1
    ) -> Iterator[tuple[Job, Result]]:
        """Do jobs on workers that live on, each `make(*given)`: a GPU each where there are any, else `cpus` cores each.

        Yields (job, result) in the order of completion. Workers are added as machines join, and taken off the list when
        they are lost; their jobs are done again. Errors that `make` or a job raises end the run.
        """
        gpu = self.count("GPU") > 0
        hosted = self.ray.remote(_Host).options(
            num_cpus=0 if gpu else cpus,
            num_gpus=1 if gpu else 0,
            max_restarts=0,
            max_concurrency=AHEAD if gpu else 1,  # decode the next clips while the GPU works
        )
        waiting = deque(_Try(job) for job in jobs)
        crew: list[_Hand] = []
        out: dict[Any, tuple[_Hand, _Try[Job] | None]] = {}  # None: it is not said yet that the worker is ready
        patience = _Patience(self.address)
        try:
            while left := len(waiting) + sum(attempt is not None for _, attempt in out.values()):
                room = self.count("GPU") if gpu else self.count("CPU") // cpus
                while len(crew) < min(room, left):
                    crew.append(_Hand(hosted.remote(make, given)))
                    out[crew[-1].actor.ready.remote()] = (crew[-1], None)
                for hand in crew:
                    while waiting and hand.ready and hand.jobs < AHEAD:
                        attempt = waiting.popleft()
                        hand.jobs += 1
                        out[hand.actor.do.remote(attempt.name)] = (hand, attempt)
                patience.check(room > 0)
                landed = self.ray.wait(list(out), timeout=1)[0] if out else []
                if not landed:
                    time.sleep(0.1)
                for reference in landed:
                    hand, ended = out.pop(reference)
                    try:
                        result = self._result(reference)
                    except _LostError as lost:
                        crew = [other for other in crew if other is not hand]
                        if ended is not None:
                            waiting.appendleft(ended.after(lost))
                        continue
                    hand.ready = True
                    if ended is not None:
                        hand.jobs -= 1
                        yield ended.name, result
        finally:
            for hand in crew:
                self.ray.kill(hand.actor)

    def _result(self, reference: Any) -> Any:
        """What a job gave, or raised. Raises _LostError where its worker is no more."""
        errors = self.ray.exceptions
        try:
            return self.ray.get(reference)
        except errors.RayTaskError as problem:
            raise (problem.cause if isinstance(problem.cause, MoclipError) else problem) from None
        except errors.RayError as problem:
            raise _LostError(type(problem).__name__) from None


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
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=5).close()


class _LostError(Exception):
    """The worker of a job is no more."""


@dataclass(frozen=True)
class _Try(Generic[Name]):
    """A job, and how often its worker was lost."""

    name: Name
    number: int = 0

    def after(self, lost: _LostError) -> _Try[Name]:
        """The next one. Raises ClusterError where there were enough."""
        if self.number + 1 >= ATTEMPTS:
            what = f"{ATTEMPTS} workers were lost at the same job, at last by {lost}"
            raise ClusterError(what, where="--ray", fix="see Ray's own log (ray status, /tmp/ray); run again to go on")
        return _Try(self.name, self.number + 1)


@dataclass(eq=False)
class _Hand:
    """An actor, and how many jobs it has."""

    actor: Any
    ready: bool = False
    jobs: int = 0


@dataclass
class _Patience:
    """Says when there is no machine for too long."""

    address: str
    since: float = field(default_factory=time.monotonic)

    def check(self, machines: bool) -> None:
        if machines:
            self.since = time.monotonic()
        elif time.monotonic() - self.since > PATIENCE:
            what = f"no machine of the cluster could take a job for {PATIENCE:.0f} s"
            raise ClusterError(what, where=f"--ray {self.address}", fix="see: ray status; run again to go on")


class _Host:
    """The actor: holds a worker."""

    def __init__(self, make: Callable[..., Any], given: Sequence[Any]) -> None:
        self.worker = make(*given)

    def ready(self) -> None:
        """Answers once the worker is made."""

    def do(self, job: Any) -> Any:
        return self.worker.do(job)
