"""What the parts share: contenders in turn until their ratio is steady, rows of figures, peers that may be missing."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from benchmarks.common import ROOT, rounded, say

SPREAD = 0.05  # of a ratio: from its first to its third quartile, as a share of its median
LEAST, MOST = 3, 9  # rounds
Result = TypeVar("Result")
Run = Callable[[], object]


# ---------------------------------------------------------------------------------------------------- timing


class Ratio(NamedTuple):
    """How many times less time ours took than theirs: median, first and third quartile of the rounds."""

    middle: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        return (self.high - self.low) / self.middle


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
        return quartiles(np.divide(self.seconds[theirs], self.seconds[ours]))


def quartiles(values: Sequence[float] | np.ndarray) -> Ratio:
    low, middle, high = np.percentile(values, (25, 50, 75))
    return Ratio(float(middle), float(low), float(high))


def interleaved(
    contenders: Mapping[str, Run],
    seconds: float,
    ours: Sequence[str] | None = None,
    spread: float = SPREAD,
    least: int = LEAST,
    most: int = MOST,
    warm: bool = True,
) -> Turns:
    """Run all contenders one after the other, in rounds, until the ratios hold still or the time is spent.

    A round is taken by all before the next begins, so what disturbs the machine hits all of them; every other round
    goes backwards. Each contender runs once before the clock does, if `warm`. Still: for each of `ours` (the first, if
    none is named) beside each other contender, the quartiles of the rounds' ratios lie within `spread` of their median.
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
        if done >= least and (passed + passed / (done + 1) > seconds or steady(turns, ours or names[:1], spread)):
            break
        for name in names if done % 2 == 0 else reversed(names):
            start = time.perf_counter()
            contenders[name]()
            took[name].append(time.perf_counter() - start)
    say(f"  {turns.rounds} rounds: " + ", ".join(f"{name} {turns.median(name):.3g} s" for name in names))
    return turns


def steady(turns: Turns, ours: Sequence[str], spread: float) -> bool:
    """Whether every ratio's quartiles are near enough to each other."""
    pairs = ((one, other) for one in ours for other in turns.seconds if other != one)
    return all(turns.ratio(one, other).spread <= spread for one, other in pairs)


# -------------------------------------------------------------------------------------------------- findings


@dataclass
class Part:
    """What one part of the benchmark finds. A ratio above 1 always speaks for us."""

    quick: bool
    share: float  # of the time a full run takes
    folder: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)
    setup: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def limit(self, seconds: float) -> float:
        """The seconds that a comparison may take."""
        return 0.0 if self.quick else seconds * self.share

    def turns(self, contenders: Mapping[str, Run], seconds: float, **options: Any) -> Turns:
        """`interleaved`, once round in the quick form."""
        rounds = {"least": 1, "most": 1} if self.quick else {}
        return interleaved(contenders, self.limit(seconds), **(options | rounds))

    def versus(
        self, name: str, turns: Turns, ours: str, theirs: str, amount: float | None, unit: str, **more: Any
    ) -> None:
        """Ours beside theirs, in `amount` a second, or in the time it takes (amount None, in s or ms)."""
        scale = 1e3 if unit.startswith("ms") else 1.0
        values = [
            amount / turns.median(who) if amount is not None else turns.median(who) * scale for who in (ours, theirs)
        ]
        ratio = turns.ratio(ours, theirs)
        self.row(name, unit, values[0], values[1], who=(ours, theirs), ratio=ratio, rounds=turns.rounds, **more)

    def row(
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
        spread: Ratio | None = None,
    ) -> None:
        """A figure. `less`: the smaller the better; `target`: of the ratio, or of `ours` where it stands alone.

        `spread`: quartiles of what `ours` could have been, where it stands alone.
        """
        if ratio is None and theirs is not None:
            ratio = Ratio(*[theirs / ours if less else ours / theirs] * 3)
        aim = ours if ratio is None else ratio.middle
        self.rows.append(
            {
                "name": name,
                "unit": unit,
                "who": who[0],
                "beside": None if theirs is None else who[1],
                "ours": rounded(ours),
                "theirs": rounded(theirs),
                "ratio": None if ratio is None else rounded(ratio.middle),
                "quartiles": None if ratio is None else [rounded(ratio.low), rounded(ratio.high)],
                "rounds": rounds,
                "spread": None if spread is None else [rounded(spread.low), rounded(spread.high)],
                "target": None if target is None else f"{'<=' if at_most else '>='} {target:,g}",
                "met": None if target is None else bool(aim <= target if at_most else aim >= target),
            }
        )

    def leave_out(self, name: str, reason: str) -> None:
        say(f"  left out: {name}: {reason}")
        self.left_out.append({"name": name, "reason": reason})

    def peer(self, module: str, name: str, how: str) -> bool:
        """Whether a peer is there; notes how it is set up, or that it is left out."""
        if importlib.util.find_spec(module) is None:
            self.leave_out(name, f"{module} is not installed; `make bench` installs it")
            return False
        self.setup[name] = how
        return True

    def try_(self, name: str, run: Run) -> bool:
        """Whether a contender runs at all; if not, it is left out with its error."""
        try:
            run()
        except Exception as problem:  # whatever a peer does
            text = (str(problem).strip() or type(problem).__name__).splitlines()[0]
            self.leave_out(name, text[:200])
            return False
        return True


# ----------------------------------------------------------------------------------------------------- peers


def load(module: str) -> Any:
    """A peer's module, which need not be there when types are checked."""
    return importlib.import_module(module)


def versions() -> dict[str, str]:
    """The peers of the extra `bench` that are installed."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    found = {}
    for pin in extras["bench"]:
        name = re.split(r"[=<>;\[ ]", pin)[0]
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def ffmpeg() -> str | None:
    """The program that imageio-ffmpeg brings along."""
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        return None
    return str(load("imageio_ffmpeg").get_ffmpeg_exe())


@contextlib.contextmanager
def pool(workers: int, warm: Callable[[], object] | None = None, **environment: str) -> Iterator[ProcessPoolExecutor]:
    """Spawned processes that have started (and run `warm`) before any clock does."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as executor:
            for future in [executor.submit(_started, warm) for _ in range(workers)]:
                future.result()
            yield executor
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _started(warm: Callable[[], object] | None) -> None:
    time.sleep(0.3)  # so that each process gets one
    if warm is not None:
        warm()


def peak(function: Callable[..., object], *given: Any) -> float:
    """Peak memory of a process that does this and no more, MiB."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        return executor.submit(_peak, function, *given).result()


def _peak(function: Callable[..., object], *given: Any) -> float:
    function(*given)
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


class Ran(NamedTuple):
    """A command that has ended: seconds, and the most memory that it and its children held at once, MiB."""

    seconds: float
    memory: float


def command(*words: str, cwd: Path) -> Ran:
    """Run a Python command; its processes' memory is asked for every 20 ms."""
    import psutil

    environment = os.environ | {"PYTHONPATH": str(cwd / "src"), "DVC_NO_ANALYTICS": "1", "COLUMNS": "120"}
    environment["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), environment["PATH"]))
    most = 0.0
    with tempfile.TemporaryFile() as said:
        begun = time.perf_counter()
        with subprocess.Popen([sys.executable, *words], cwd=cwd, env=environment, stdout=said, stderr=said) as running:
            process = psutil.Process(running.pid)
            while running.poll() is None:
                most = max(most, _held(process))
                time.sleep(0.02)
        took = time.perf_counter() - begun
        if running.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(words)}:\n{said.read().decode(errors='replace')[-2000:]}")
    return Ran(took, most / 2**20)


def _held(process: Any) -> float:
    import psutil

    total = 0.0
    with contextlib.suppress(psutil.Error):
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += one.memory_info().rss
    return total
