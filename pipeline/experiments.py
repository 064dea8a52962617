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
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from moclip.errors import MoclipError
from pipeline import params as parameters
from pipeline import paths
from pipeline.provenance import made_with

PRODUCT = ("src", "pipeline", "stages", "data", "dvc.yaml", "*.dvc", ":(exclude)*dvc.lock")
"""What git knows of that results come from, beside params.yaml: code, stages, prompts, the clips that DVC tracks."""

FILES = ("dataset.splits", "dataset.phrases", "clip.prompts", "clip.files", "tsn.files")
"""Keys of params.yaml that name what results come from, too, wherever it lies."""

METRICS = {**paths.STREAM_JSON, paths.COST_JSON.stem: paths.COST_JSON}
"""The files of metrics that are read, by stream or part."""

TOLD = 12
"""Last lines of a failed run that are shown."""


@dataclass(frozen=True)
class Finished:
    """An experiment that is done: its params.yaml, and its metrics by stream ("fusion") or part ("cost")."""

    params: dict[str, Any]
    metrics: dict[str, dict[str, Any]]


def finished() -> list[Finished]:
    """Every experiment on the current commit that ended well and ran with the product's files as they are now.

    Raises MoclipError outside of a git and DVC project.
    """
    import dvc.api
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            rows = dvc.api.exp_show(repo.root_dir)
            folder = Path(repo.root_dir).relative_to(repo.scm.root_dir)
    except DvcException as error:
        raise MoclipError(str(error), where="dvc exp show") from None
    # of others (queued, running, failed) DVC may show the commit's metrics
    ended = [str(row["rev"]) for row in rows if row["typ"] != "baseline" and row["State"] in (None, "Success")]
    found = [_results(revision, folder) for revision in ended if not changes(revision)]
    return [one for one in found if one.metrics]


def _results(revision: str, folder: Path) -> Finished:
    """The parameters and metrics of a commit. The project lies in this `folder` of the git repository."""
    from dvc.api import DVCFileSystem

    files = DVCFileSystem(rev=revision)
    metrics = {}
    for stem, path in METRICS.items():
        with suppress(FileNotFoundError):
            metrics[stem] = json.loads(files.read_text(str(folder / path)))
    return Finished(yaml.safe_load(files.read_text(str(folder / paths.PARAMS))), metrics)


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
    command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", "--name", name]
    for key, value in values.items():
        command += ["--set-param", f"{key}={json.dumps(value, separators=(',', ':'), ensure_ascii=False)}"]
    # src: the code of the folder that a run happens in, not that of the workspace, which may be edited meanwhile
    search = os.pathsep.join(filter(None, ("src", os.environ.get("PYTHONPATH"))))
    # and this Python for the stages, whether or not its environment is activated
    programs = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": search, "PATH": programs}
    printed: list[str] = []
    with (
        tempfile.TemporaryFile("w+") as aside,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=aside, text=True, env=environment) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            printed.append(line)
            if verbose:
                sys.stderr.write(line)
        process.wait()
        aside.seek(0)
        errors = [line for line in aside if line.strip()]
    if process.returncode:
        # a stage's own message comes before DVC's words on it
        last = (errors or printed)[-TOLD:]
        raise MoclipError("\n  ".join(line.rstrip() for line in last), where="dvc exp run")
