"""Run `dvc repro` in a project's folder, with a line per stage in place of DVC's own messages."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path

from moclip.errors import MoclipError
from pipeline.console.output import print_note, screen
from pipeline.dag import STAGES
from pipeline.whole_progress import Parts, WholeProgress, has_bar, show_errors, whole_bar

RUNNING = re.compile(r"Running stage '(\w+)':")
SKIPPED = re.compile(r"Stage '(\w+)' (?:didn't change|is cached)")
DVC_MESSAGES = re.compile(r"> |(Generating|Updating) lock file|Use `dvc push`|Data and pipelines are up to date")
LAST_PART = "To track the changes with git"
"""DVC's advice on git, which comes last."""

PRINTED_LATER = ("evaluate", "report")
"""Stages whose output is left out: the results are printed when all stages have ended."""


def run_stages(folder: Path, parts: Parts | None = None) -> None:
    """Run the stages that are stale. Raises MoclipError if one fails; its own error is on stderr by then.

    `parts` are the estimate of each stage: with it a terminal gets one bar for all of them, and a pipe the percentage.
    """
    progress = WholeProgress(parts or {})
    shows_bar = has_bar() and progress.total > 0
    filtered = _Filter(progress)
    with whole_bar(progress) if shows_bar else nullcontext():
        code = _run_dvc(folder, filtered, shows_bar)
    if code:
        what = f"the stage {filtered.stage} failed; the message is above" if filtered.stage else "dvc repro failed"
        raise MoclipError(what, where=folder, fix="when it is solved, run the same command again: it continues there")


def _run_dvc(folder: Path, filtered: _Filter, shows_bar: bool) -> int:
    """Run `dvc repro` and print its output. Return the exit code."""
    command = [sys.executable, "-m", "dvc", "repro"]
    with subprocess.Popen(
        command,
        cwd=folder,
        env=stage_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if shows_bar else None,
        text=True,
        errors="backslashreplace",
    ) as process:
        assert process.stdout is not None
        errors = None
        if process.stderr is not None:
            errors = threading.Thread(target=show_errors, args=(process.stderr, filtered.progress))
            errors.start()
        try:
            for line in filtered.lines(process.stdout):
                print_note(line)
        except KeyboardInterrupt:
            process.wait()  # DVC and the stage have got the signal, too, and still clean up
            raise
        finally:
            if errors is not None:
                errors.join()
    return process.returncode


def stage_environment(**more: str) -> dict[str, str]:
    """Return the environment for a run of stages: they run `python` from the PATH, which is to be this Python.

    That holds even if this environment is not activated.
    """
    programs = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    return os.environ | {"PYTHONUNBUFFERED": "1", "PATH": programs} | more


class _Filter:
    """The output of `dvc repro` as it is to be shown. `stage` is the one that runs."""

    def __init__(self, progress: WholeProgress) -> None:
        self.progress = progress
        self.stage: str | None = None
        self.number = 0

    def lines(self, output: Iterable[str]) -> Iterator[str]:
        from_dvc = True
        for line in map(str.rstrip, output):
            if line.startswith(LAST_PART) and not screen.verbose:
                break
            if found := RUNNING.match(line) or SKIPPED.match(line):
                self.stage = found[1]
                self.progress.start(found[1])
                yield from self._heading(found)
                from_dvc = True
            elif DVC_MESSAGES.match(line):
                from_dvc = True
            elif line or not from_dvc:  # blank lines after DVC's messages go with them
                from_dvc = False
                if self.stage not in PRINTED_LATER or screen.verbose:
                    yield line
        for _ in output:
            pass  # or DVC could not write its last lines

    def _heading(self, found: re.Match[str]) -> Iterator[str]:
        if self.stage in STAGES:
            self.number += 1
            state = "" if found.re is RUNNING else ": up to date"
            share = f" ({self.progress.percent} % of the time so far)" if self.progress.total and not state else ""
            yield f"stage {self.number} of {len(STAGES)}: {self.stage}{state}{share}"
