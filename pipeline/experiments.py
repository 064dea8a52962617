"""DVC experiments of the current commit: run one, and read the results of finished ones.

An experiment counts as finished only if it ran with the code and data as they are now, uncommitted changes included.
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

from moclip.errors import MoclipError
from pipeline import params as parameters
from pipeline import paths
from pipeline.code_digests import in_repository, write_code_digests
from pipeline.repro import stage_environment
from pipeline.yaml_text import load_yaml

SOURCES = ("src", "pipeline", "stages", "data", "dvc.yaml", "*.dvc", ":(exclude)*dvc.lock")
"""Files in git that results depend on, beside params.yaml: code, stages, prompts, and which clips DVC tracks."""

FILE_KEYS = ("dataset.splits", "dataset.manifest", "dataset.phrases", "clip.prompts", "clip.files", "tsn.files")
"""Keys of params.yaml that name further files which results depend on."""

METRICS = {**paths.STREAM_JSON, **{path.stem: path for path in (paths.COST_JSON, paths.VERDICT_JSON)}}
"""The metrics files to read, by name."""

ERROR_LINES = 12
"""How many of the last lines of a failed run are shown."""


@dataclass(frozen=True)
class FinishedExperiment:
    """The params.yaml of a finished experiment, and its metrics by file name ("fusion", "cost", "verdict")."""

    params: dict[str, Any]
    metrics: dict[str, dict[str, Any]]


def finished_experiments() -> list[FinishedExperiment]:
    """Return every experiment on the current commit that succeeded with the code and data as they are now.

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
    # for queued, running and failed experiments, DVC may show the metrics of the commit
    succeeded = [str(row["rev"]) for row in rows if row["typ"] != "baseline" and row["State"] in (None, "Success")]
    found = [_results(revision, folder) for revision in succeeded if not source_changes(revision)]
    return [experiment for experiment in found if experiment.metrics]


def _results(revision: str, folder: Path) -> FinishedExperiment:
    """Read the parameters and metrics of a commit. `folder` is the project's folder in the git repository."""
    from dvc.api import DVCFileSystem

    files = DVCFileSystem(rev=revision)
    metrics = {}
    for stem, path in METRICS.items():
        with suppress(FileNotFoundError):
            metrics[stem] = json.loads(files.read_text(str(folder / path)))
    return FinishedExperiment(load_yaml(files.read_text(str(folder / paths.PARAMS))), metrics)


def source_changes(revision: str) -> str:
    """Return the diff of the code and data from a commit. Raises MoclipError if git fails.

    In a project that `moclip new` made, data/code.json stands for the code, which is installed elsewhere. In the
    repository it is left out: it follows from the code, but later.
    """
    from pipeline.provenance import made_with

    sources = [*SOURCES]
    if in_repository():
        sources.append(f":(exclude){paths.CODE}")
    else:
        write_code_digests()
    named = [Path(place) for place in made_with(parameters.load(paths.PARAMS), *FILE_KEYS).values()]
    in_project = [str(path) for path in named if path.exists() and path.resolve().is_relative_to(Path.cwd())]
    command = ["git", "diff", "--no-ext-diff", "--binary", revision, "--", *sources, *in_project]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise MoclipError(done.stderr.decode(errors="replace").strip(), where=f"git diff {revision}")
    return done.stdout.decode(errors="replace")


def experiment_name(prefix: str, params: dict[str, Any]) -> str:
    """Return a name that is different for other parameters, code or data."""
    digest = hashlib.sha256(f"{json.dumps(params, sort_keys=True)}{source_changes('HEAD')}".encode()).hexdigest()
    return f"{prefix}-{digest[:6]}"


def run_experiment(name: str, values: dict[str, Any], verbose: bool = False) -> None:
    """Run an experiment in a copy of the workspace. Raises MoclipError with the end of its output if it fails."""
    command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", "--name", name]
    for key, value in values.items():
        command += ["--set-param", f"{key}={json.dumps(value, separators=(',', ':'), ensure_ascii=False)}"]
    # "src" is relative: the run imports the code of its own copy, not of the workspace, which may be edited
    own_code = ("src",) if Path("src/moclip").is_dir() else ()
    python_path = os.pathsep.join(filter(None, (*own_code, os.environ.get("PYTHONPATH"))))
    environment = stage_environment(PYTHONPATH=python_path)
    output: list[str] = []
    with (
        tempfile.TemporaryFile("w+") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            output.append(line)
            if verbose:
                sys.stderr.write(line)
        process.wait()
        stderr.seek(0)
        errors = [line for line in stderr if line.strip()]
    if process.returncode:
        # the stage's own message comes before DVC's
        last = (errors or output)[-ERROR_LINES:]
        raise MoclipError("\n  ".join(line.rstrip() for line in last), where="dvc exp run")
