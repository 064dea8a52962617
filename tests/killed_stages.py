"""Kill a stage of a small finished project at random moments, run it again, and compare everything it wrote.

The stage runs warm (see warm.py): in a fresh process half of the kills would meet it while it imports its libraries.
Before, its outputs are removed, or made with other parameters. Only a kill of a running stage counts: one that comes
too late is repeated earlier.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import yaml

from tests.conftest import run, surroundings
from tests.damaged_clips import Ran, watched

OPTIONS: dict[str, tuple[str, ...]] = {
    "train_mv": ("--checkpoint-seconds", "0", "--tsn-epochs", "12"),  # with 2, hardly a kill finds a checkpoint
}
"""Options with which a killed stage leaves something to resume from."""
PLACES = ("data", "metrics")
LOADING = 0.3  # share of a stage's time on a small project in which nothing is written yet
SOONER = 0.7  # factor on the time of the next kill after one that came too late
TOO_LATE = 12  # kills in a row


@dataclass
class Trial:
    """Runs of one stage in a copy of a project, from the same state each time."""

    stage: str
    project: Path
    state: Path  # what `PLACES` hold before the stage runs
    wanted: dict[str, str] = field(default_factory=dict)  # digests after an undisturbed run
    seconds: float = 0.0  # of the undisturbed run

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", f"stages.{self.stage}", *OPTIONS.get(self.stage, ())]

    def reset(self) -> None:
        """Restore the state."""
        for place in PLACES:
            shutil.rmtree(self.project / place, ignore_errors=True)
            shutil.copytree(self.state / place, self.project / place, symlinks=True)

    def undisturbed(self) -> None:
        """Run the stage without a kill, and keep the digests of its outputs."""
        self.reset()
        begun = time.perf_counter()
        self.run()
        self.seconds = time.perf_counter() - begun
        self.wanted = written(self.project)

    def run(self, *options: str) -> None:
        """Run the stage to its end, with further options if any."""
        run("python", *self.command[1:], *options, cwd=self.project)

    def check(self, when: str) -> None:
        """Check that all outputs equal those of an undisturbed run, and that no temporary file is left."""
        there = written(self.project)
        differ = [name for name in {*there, *self.wanted} if there.get(name) != self.wanted.get(name)]
        assert not differ, f"{self.stage}, {when}: differs in {sorted(differ)[:5]}"
        assert not leftovers(self.project), f"{self.stage}, {when}: leaves {leftovers(self.project)[:5]}"

    def without_right(self) -> Ran:
        """Run the stage without write permission for any folder."""
        self.reset()
        places = [path for place in PLACES for path in [self.project / place, *(self.project / place).rglob("*")]]
        folders = [path for path in places if path.is_dir() and not path.is_symlink()]
        for path in folders:
            path.chmod(0o555)
        try:
            return watched(*self.command, cwd=self.project)
        finally:
            for path in folders:
                path.chmod(0o755)

    def kill_after(self, seconds: float, everything: bool) -> bool:
        """Start the stage and kill it, alone or with all processes below it; whether it was still at work."""
        shim = subprocess.Popen(
            ("python", *self.command[1:]), cwd=self.project, env=surroundings(), start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        with contextlib.suppress(subprocess.TimeoutExpired):
            shim.wait(seconds)
        at_work = shim.poll() is None
        if everything:
            shim.kill()  # the server kills the stage's group then, and shims in it take theirs with them
            while self.processes(shim.pid):
                time.sleep(0.01)
        elif at_work and (running := self.processes(shim.pid)):
            with contextlib.suppress(psutil.NoSuchProcess):
                running[0].kill()
        shim.wait()
        return at_work and (everything or shim.returncode == -signal.SIGKILL)

    def processes(self, shim: int) -> list[psutil.Process]:
        """The processes that work in this project: the stage itself, then those that it started."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid != shim and process.cwd() == str(self.project):
                    found.append((process.create_time(), process.pid, process))
        return [process for *_, process in sorted(found)]


def written(project: Path) -> dict[str, str]:
    """A digest of every file that stages write and keep."""
    passing = set(leftovers(project))
    return {
        path.relative_to(project).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for place in PLACES
        for path in sorted((project / place).rglob("*"))
        if path.is_file() and path not in passing
    }


def leftovers(project: Path) -> list[Path]:
    """What a run has for itself, which should be gone when it has ended well."""
    return [*(project / "data/work").rglob("*")] + [
        path for place in PLACES for path in (project / place).rglob(".*.tmp*")
    ]


def outputs_of(project: Path, stage: str) -> list[Path]:
    """The files and folders that dvc.yaml says a stage writes."""
    about = yaml.safe_load((project / "dvc.yaml").read_text())["stages"][stage]
    named = [*about.get("outs", []), *about.get("metrics", []), *about.get("plots", [])]
    return [project / (name if isinstance(name, str) else next(iter(name))) for name in named]


def trial(stage: str, finished: Path, folder: Path, other: tuple[str, ...] = ()) -> Trial:
    """A stage whose outputs are not there, or are those of `other` options, and what an undisturbed run leaves."""
    project, state = folder / stage, folder / f"{stage}-state"
    shutil.copytree(finished, project, symlinks=True, ignore=shutil.ignore_patterns(".dvc", ".git"))
    if other:
        Trial(stage, project, project).run(*other)
    else:
        for path in outputs_of(project, stage):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for place in PLACES:
        shutil.copytree(project / place, state / place, symlinks=True)
    made = Trial(stage, project, state)
    made.undisturbed()
    return made


def kill(trial: Trial, times: int) -> None:
    """Kill a stage at random moments after the program has loaded, and each time let it go on to its end."""
    rng = np.random.default_rng(len(trial.stage))
    for turn in range(times):
        for _ in range(TOO_LATE):
            trial.reset()
            moment = rng.uniform(LOADING * trial.seconds, trial.seconds)
            if at_work := trial.kill_after(moment, everything=turn % 2 == 0):
                break
            trial.seconds *= SOONER  # the machine is faster now than when the time was taken
        assert at_work, "every kill came too late"
        trial.run()
        trial.check(f"killed after {moment:.2f} s")
