"""Time contenders against each other, and collect the figures. Other tools ("peers") may be missing.

Each benchmark is a part: a module with `measure(part)`. `python -m benchmarks.NAME` runs one part, `benchmarks.peers`
runs all.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import page
from benchmarks.common import ROOT, describe_processor, print_progress, rounded
from moclip.files.atomic import write_atomically

SPREAD = 0.05  # of a steady ratio: the distance between its quartiles, as a share of its median
LEAST, MOST = 3, 9  # rounds
UCF_CLIPS, UCF_TRAIN = 13_320, 9_537  # of UCF-101, split 1
Run = Callable[[], object]


# ---------------------------------------------------------------------------------------------------- timing


class Ratio(NamedTuple):
    """How many times as fast ours is: median, first and third quartile over the rounds."""

    middle: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        return (self.high - self.low) / self.middle


def processor_time() -> float:
    """Return the processor time in seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


@contextlib.contextmanager
def step_timer(spent: dict[str, float], name: str) -> Iterator[None]:
    """Add the seconds of a step to what was spent on it before."""
    begun = time.perf_counter()
    yield
    spent[name] = spent.get(name, 0.0) + time.perf_counter() - begun


@dataclass(frozen=True)
class Turns:
    """Seconds of each contender in each round."""

    seconds: Mapping[str, Sequence[float]]

    @property
    def rounds(self) -> int:
        return len(next(iter(self.seconds.values())))

    def median(self, who: str) -> float:
        return float(np.median(self.seconds[who]))

    def ratio(self, ours: str, theirs: str) -> Ratio:
        low, middle, high = np.percentile(np.divide(self.seconds[theirs], self.seconds[ours]), (25, 50, 75))
        return Ratio(float(middle), float(low), float(high))


def run_interleaved(
    contenders: Mapping[str, Run],
    seconds: float,
    spread: float = SPREAD,
    least: int = LEAST,
    most: int = MOST,
    warm: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> Turns:
    """Run all contenders in rounds, until the ratios are steady or `seconds` have passed.

    A round runs each contender once, so a disturbance of the machine affects all of them. Every other round runs in
    reverse order. With `warm`, each contender runs once before timing starts. A ratio is steady if its quartiles over
    the rounds are within `spread` of its median. All ratios of the first contender to the others must be steady.
    """
    names = list(contenders)
    took: dict[str, list[float]] = {name: [] for name in names}
    begun = time.perf_counter()
    if warm and most > 1:
        for run in contenders.values():
            run()
    turns = Turns(took)
    while (done := len(took[names[0]])) < most:
        passed = time.perf_counter() - begun
        if done >= least and (passed + passed / (done + 1) > seconds or is_steady(turns, spread)):
            break
        for name in names if done % 2 == 0 else reversed(names):
            start = clock()
            contenders[name]()
            took[name].append(clock() - start)
    print_progress(f"  {turns.rounds} rounds: " + ", ".join(f"{name} {turns.median(name):.3g} s" for name in names))
    return turns


def is_steady(turns: Turns, spread: float) -> bool:
    """Return whether all ratios of the first contender to the others are steady."""
    first, *others = turns.seconds
    return all(turns.ratio(first, other).spread <= spread for other in others)


# -------------------------------------------------------------------------------------------------- findings


@dataclass
class Part:
    """The figures of one benchmark. A ratio above 1 always means that ours is better."""

    quick: bool
    share: float  # of the time of a full run that this run may take
    folder: Path
    clock: Callable[[], float] = time.perf_counter
    rows: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)
    setup: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def turns(self, contenders: Mapping[str, Run], seconds: float, **options: Any) -> Turns:
        """Call `run_interleaved` for about this many seconds. With --quick, run one round."""
        rounds = {"least": 1, "most": 1} if self.quick else {}
        return run_interleaved(contenders, seconds * self.share, clock=self.clock, **(options | rounds))

    def add_ratio(
        self,
        name: str,
        turns: Turns,
        ours: str,
        theirs: str,
        unit: str,
        *,
        amounts: tuple[float, float] | None = None,
        **more: Any,
    ) -> None:
        """Add a ratio from timed rounds, as rates if both processed an amount per round, else as seconds or ms."""
        seconds = [turns.median(who) for who in (ours, theirs)]
        ratio = turns.ratio(ours, theirs)
        if amounts is None:
            values = [one * (1e3 if unit.startswith("ms") else 1) for one in seconds]
        else:
            values = [amount / one for amount, one in zip(amounts, seconds, strict=True)]
            ratio = Ratio(*(value * amounts[0] / amounts[1] for value in ratio))
        self.add_figure(name, unit, values[0], values[1], who=(ours, theirs), ratio=ratio, rounds=turns.rounds, **more)

    def add_figure(
        self,
        name: str,
        unit: str,
        ours: float,
        theirs: float | None = None,
        *,
        who: tuple[str, str] = ("ours", "theirs"),
        ratio: Ratio | None = None,
        less: bool = False,
        rounds: int = 1,
        target: float | None = None,
        at_most: bool = False,
    ) -> None:
        """Add a figure. `less`: smaller is better. `target` is for the ratio, or for `ours` if there are no theirs."""
        if ratio is None and theirs is not None:
            ratio = Ratio(*[theirs / ours if less else ours / theirs] * 3)
        aim = ours if ratio is None else ratio.middle
        self.rows.append(
            {
                "name": name,
                "unit": unit,
                "who": who[0],
                "peer": None if theirs is None else who[1],
                "ours": rounded(ours),
                "theirs": rounded(theirs),
                "ratio": None if ratio is None else rounded(ratio.middle),
                "quartiles": None if ratio is None else [rounded(ratio.low), rounded(ratio.high)],
                "rounds": rounds,
                "target": None if target is None else f"{'<=' if at_most else '>='} {target:,g}",
                "met": None if target is None else bool(aim <= target if at_most else aim >= target),
            }
        )

    def leave_out(self, name: str, reason: str) -> None:
        print_progress(f"  left out: {name}: {reason}")
        self.left_out.append({"name": name, "reason": reason})

    def peer(self, module: str, name: str, how: str) -> bool:
        """Return whether a peer is installed. Record how it is set up, or that it is left out."""
        if importlib.util.find_spec(module) is None:
            self.leave_out(name, f"{module} is not installed; `make bench` installs it")
            return False
        self.setup[name] = how
        return True

    def runs(self, name: str, run: Run) -> bool:
        """Return whether a contender runs. Leave it out with its error if it does not."""
        try:
            run()
        except Exception as problem:  # a peer may raise anything
            text = (str(problem).strip() or type(problem).__name__).splitlines()[0]
            self.leave_out(name, text[:200])
            return False
        return True


# ------------------------------------------------------------------------------------------------------ command


def run_part(
    name: str, quick: bool, share: float = 1.0, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Any]:
    """Measure one part in a temporary folder."""
    print_progress(f"--- {name}")
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix=f"bench-{name}-") as folder:
        part = Part(quick, share, Path(folder), clock)
        importlib.import_module(f"benchmarks.{name}").measure(part)
    seconds = round(time.perf_counter() - begun)
    print_progress(f"--- {name}: {seconds} s")
    return {
        "rows": part.rows, "left_out": part.left_out, "setup": part.setup, "facts": part.facts, "seconds": seconds,
        "processor": describe_processor(),
    }  # fmt: skip


def run_as_program(name: str, about: str | None) -> None:
    """Run one part as a program: measure it with the peers that are installed, and print its tables."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few clips, one round: only shows that it runs")
    parser.add_argument("--out", type=Path, help="JSON to write")
    help_ = "compare processor time, which other work on the machine changes less; without running worker processes"
    parser.add_argument("--processor-time", action="store_true", help=help_)
    given = parser.parse_args()
    part = run_part(name, given.quick, clock=processor_time if given.processor_time else time.perf_counter)
    print("\n\n".join(page.tables(name, part)))
    if given.out:
        write_atomically(given.out, (json.dumps(part, indent=1) + "\n").encode())


def asked_quick(about: str | None, help_text: str) -> bool:
    """Return whether a program that is not a part, and has no other option, runs with --quick."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=help_text)
    return bool(parser.parse_args().quick)


# ----------------------------------------------------------------------------------------------------- peers


def import_peer(module: str) -> Any:
    """Import a peer's module. It need not be installed when types are checked."""
    return importlib.import_module(module)


def peer_versions() -> dict[str, str]:
    """Return the versions of the packages of the extra `bench` that are installed."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    found = {}
    for pin in extras["bench"]:
        name = re.split(r"[=<>;\[ ]", pin)[0]
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


@contextlib.contextmanager
def warm_pool(workers: int, warm: Callable[[], object]) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of spawned processes, each of which has run `warm`, so that start-up is not timed."""
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as executor:
        for future in [executor.submit(_started, warm) for _ in range(workers)]:
            future.result()
        yield executor


def run_on_pool(pool: ProcessPoolExecutor, run: Callable[[Any], object], items: Sequence[Any], chunk: int) -> None:
    list(pool.map(run, items, chunksize=chunk))


def _started(warm: Callable[[], object]) -> None:
    time.sleep(0.3)  # so that each process gets one of these jobs
    warm()


def peak_memory(function: Callable[..., object], *given: Any) -> float:
    """Return the peak memory in MiB of a process that only runs this function."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        return executor.submit(_peak, function, *given).result()


def _peak(function: Callable[..., object], *given: Any) -> float:
    function(*given)
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


def init_git_and_dvc(project: Path) -> None:
    """Turn a folder into a git and DVC repository, and commit all its files."""
    who = ("-c", "user.name=bench", "-c", "user.email=bench@example.org")
    for words in (
        ("git", "init", "-q"),
        (sys.executable, "-m", "dvc", "init", "-q"),
        ("git", "add", "-A"),
        ("git", *who, "commit", "-q", "-m", "start"),
    ):
        subprocess.run(words, cwd=project, check=True, capture_output=True)


class FinishedCommand(NamedTuple):
    """A finished command: its seconds, and the peak memory in MiB of it and its children together."""

    seconds: float
    memory: float


def run_command(*words: str, cwd: Path) -> FinishedCommand:
    """Run a Python command, and sample the memory of its processes every 20 ms."""
    import psutil

    environment = os.environ | {"PYTHONPATH": str(cwd / "src"), "DVC_NO_ANALYTICS": "1", "COLUMNS": "120"}
    environment["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), environment["PATH"]))
    most = 0
    with tempfile.TemporaryFile() as output:
        begun = time.perf_counter()
        with psutil.Popen([sys.executable, *words], cwd=cwd, env=environment, stdout=output, stderr=output) as running:
            while running.poll() is None:
                with contextlib.suppress(psutil.Error):
                    most = max(most, sum(one.memory_info().rss for one in (running, *running.children(True))))
                time.sleep(0.02)
        took = time.perf_counter() - begun
        if running.returncode:
            output.seek(0)
            raise SystemExit(f"{' '.join(words)}:\n{output.read().decode(errors='replace')[-2000:]}")
    return FinishedCommand(took, most / 2**20)
