"""DVC experiments of the current commit: run one, and read what those have given that are done.

Experiments count as done only where they ran with the product's files as they are now, changes that are not committed
among them.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moclip.errors import MoclipError
from pipeline import params as parameters
from pipeline import paths
from pipeline.provenance import made_with

PRODUCT = ("src", "pipeline", "stages", "data", "dvc.yaml", "*.dvc", ":(exclude)*dvc.lock")
"""What git knows of that results come from, beside params.yaml: code, stages, prompts, the clips that DVC tracks."""

FILES = ("dataset.splits", "dataset.phrases", "clip.prompts", "clip.files", "tsn.files")
"""Keys of params.yaml that name what results come from, too, wherever it lies."""

TOLD = 12
"""Last lines of a failed run that are shown."""


@dataclass(frozen=True)
class Finished:
    """An experiment that is done: its params.yaml, and its metrics by stream ("fusion") or part ("cost")."""

    name: str
    params: dict[str, Any]
    metrics: dict[str, dict[str, Any]]


def finished() -> list[Finished]:
    """Every experiment on the current commit that ended well and ran with the product's files as they are now.

    Raises MoclipError outside of a git and DVC project.
    """
    shown = json.loads(_dvc("exp", "show", "--json", "--num", "1"))
    found = []
    for baseline in shown:
        for experiment in baseline.get("experiments") or []:
            if (experiment.get("executor") or {}).get("state", "success") != "success":
                continue  # waiting, running or failed: the metrics that DVC shows may be the commit's
            revision = experiment["revs"][0]
            params = (revision.get("data") or {}).get("params", {}).get("params.yaml", {}).get("data")
            same = not changes(str(revision["rev"]))
            metrics = _metrics_at(str(revision["rev"])) if params and same else {}
            if metrics:
                found.append(Finished(str(experiment["name"]), params, metrics))
    return found


def _metrics_at(revision: str) -> dict[str, dict[str, Any]]:
    """The metrics files that git holds of a commit, by their names' stems."""
    files = {**paths.STREAM_JSON, paths.COST_JSON.stem: paths.COST_JSON}
    read = {stem: _git_show(revision, path) for stem, path in files.items()}
    return {stem: dict(json.loads(text)) for stem, text in read.items() if text}


def _git_show(revision: str, path: Path) -> str:
    """A file as it is in a commit; empty where it is in none."""
    command = ["git", "show", f"{revision}:./{path.as_posix()}"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def changes(revision: str) -> str:
    """How the product's files differ from those of a commit. Raises MoclipError where git cannot tell."""
    named = [Path(place) for place in made_with(parameters.load(paths.PARAMS), *FILES).values()]
    places = [str(place) for place in named if place.exists() and place.resolve().is_relative_to(Path.cwd())]
    command = ["git", "diff", "--no-ext-diff", "--binary", revision, "--", *PRODUCT, *places]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise MoclipError(done.stderr.decode(errors="replace").strip(), where=f"git diff {revision}")
    return done.stdout.decode(errors="replace")


def name_of(prefix: str, params: dict[str, Any]) -> str:
    """A name that no experiment of this commit with other parameters, or other files of the product, has."""
    digest = hashlib.sha256(f"{json.dumps(params, sort_keys=True)}{changes('HEAD')}".encode()).hexdigest()
    return f"{prefix}-{digest[:6]}"


def run(name: str, values: dict[str, Any], verbose: bool = False) -> None:
    """Run one experiment beside the workspace, which stays as it is. Raises MoclipError with the end of its output."""
    command = ["exp", "run", "--temp", "--name", name]
    for key, value in values.items():
        command += ["--set-param", f"{key}={json.dumps(value, separators=(',', ':'), ensure_ascii=False)}"]
    _dvc(*command, show=verbose)


def _dvc(*arguments: str, show: bool = False) -> str:
    """What a DVC command prints; with `show` it goes on to stderr line by line."""
    # src: the code of the folder that a run happens in, not that of the workspace, which may be edited meanwhile
    search = os.pathsep.join(filter(None, ("src", os.environ.get("PYTHONPATH"))))
    # and this Python for the stages, whether or not its environment is activated
    programs = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": search, "PATH": programs}
    command = [sys.executable, "-m", "dvc", *arguments]
    lines: list[str] = []
    with (
        tempfile.TemporaryFile("w+") as aside,  # warnings must not get into what is parsed
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=aside, text=True, env=environment) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if show:
                sys.stderr.write(line)
        process.wait()
        aside.seek(0)
        told = aside.read().splitlines()
    if process.returncode:
        # a stage's own message comes before DVC's words on it
        said = [line.rstrip() for line in told if line.strip()] or lines
        raise MoclipError("\n  ".join(said[-TOLD:]), where=f"dvc {' '.join(arguments[:2])}")
    return "".join(lines)
