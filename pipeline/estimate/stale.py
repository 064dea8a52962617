"""Which stages `dvc repro` would run."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from moclip.errors import MoclipError
from pipeline import paths
from pipeline.code_digests import stages_with_other_code
from pipeline.dag import STAGES
from pipeline.repro import stage_environment
from pipeline.run_lock import running_stage
from pipeline.yaml_text import load_yaml

DVC_SHARE = 0.3
"""What DVC takes for each stage that it runs, by what `dvc status` takes for all: hashing, copying, dvc.lock."""


def stale_stages(folder: Path) -> tuple[set[str], float]:
    """Return the names of the stages that `dvc repro` runs in a project, and the seconds that DVC takes for each stage.

    They are those that changed, and what follows them, though DVC leaves out a stage whose inputs turn out the same.
    Where there is no dvc.yaml, all run. Raises MoclipError where DVC cannot say.
    """
    if not (folder / "dvc.yaml").exists():
        return set(STAGES), 0.0
    before = _children_seconds()
    command = [sys.executable, "-m", "dvc", "status", "--json"]
    done = subprocess.run(command, cwd=folder, env=stage_environment(), capture_output=True, text=True, check=False)
    seconds = _children_seconds() - before
    if done.returncode:
        raise _dvc_error(folder, done.stderr or done.stdout)
    status: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
    changed = {name for name in status if name in STAGES} | stages_with_other_code()
    return changed | following(folder / "dvc.yaml", changed), DVC_SHARE * seconds


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _dvc_error(folder: Path, said: str) -> MoclipError:
    """Return the error for what DVC said. While it runs stages, it refuses to look at them."""
    if "is busy" in said or "Unable to acquire lock" in said:
        return MoclipError(f"{running_stage() or 'dvc is running in this project'}: wait until it ends")
    what = " ".join(said.split()) or "no answer"
    if str(paths.CODE) in said:
        return MoclipError("it is damaged", where=paths.CODE, fix="run: dvc repro code")
    return MoclipError(f"dvc status failed: {what}", where=folder, fix="moclip doctor checks the project")


def following(dvc_yaml: Path, changed: set[str]) -> set[str]:
    """Return the stages that read what the changed ones write, directly or not."""
    stages = load_yaml(dvc_yaml.read_bytes())["stages"]
    outs = {name: {_name(out) for kind in ("outs", "metrics") for out in stages[name].get(kind, [])} for name in STAGES}
    found: set[str] = set()
    for name in STAGES:  # in the order of the DAG
        read = {str(dep) for dep in stages[name]["deps"]}
        if any(_overlap(read, outs[other]) for other in changed | found):
            found.add(name)
    return found


def _name(out: Any) -> str:
    return str(next(iter(out)) if isinstance(out, dict) else out)


def _overlap(read: set[str], written: set[str]) -> bool:
    return any(one == other or one.startswith(f"{other}/") for one in read for other in written)
