"""`moclip doctor`: what this machine and this project have, and what to do about it. Not a stage of the DAG."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from moclip.errors import MoclipError
from moclip.files.folders import is_url
from pipeline import params as parameters
from pipeline import paths
from pipeline.console.command import while_importing
from pipeline.console.output import print_note, print_result
from pipeline.console.progress import show_progress
from pipeline.doctor.finding import OK, PROBLEM, WARNING, Finding
from pipeline.params import NO_FILE, Params
from pipeline.stage import stage

STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}
ARTIFACTS = (
    paths.INDEX,
    paths.MV_STORE,
    paths.CLIP_TEXT,
    paths.CLIP_IMAGE,
    paths.MV_TSN,
    paths.MV_EMBED,
    paths.FUSION,
    paths.PREDICTIONS,
    paths.REPORT,
)


@stage()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON on stdout instead of tables.")] = False,
) -> None:
    """Say what this machine has, and how exactly it reads motion vectors.

    Versions, processor and GPU, codecs, the model hub, the project in this folder if there is one, and the readers of
    motion vectors on clips whose motion is known. Each line is ok, a warning or a problem, with what to do about it.
    The exit code is 1 where a problem keeps the pipeline from running.
    """
    found = _examined()
    if as_json:
        print(json.dumps({part: [asdict(one) for one in findings] for part, findings in found.items()}, indent=2))
    else:
        for part, findings in found.items():
            _show(part, findings)
    states = [one.state for findings in found.values() for one in findings]
    counts = f"{states.count(PROBLEM)} problem(s), {states.count(WARNING)} warning(s)"
    if PROBLEM in states:
        raise MoclipError(counts, fix="what to do stands beside each")
    if not as_json:
        print_note(counts)


def _examined() -> dict[str, list[Finding]]:
    """The findings of each part."""
    from pipeline.doctor.codecs import check_codecs
    from pipeline.doctor.exactness import check_exactness
    from pipeline.doctor.hub import check_hub
    from pipeline.doctor.machine import check_machine
    from pipeline.doctor.versions import PIPELINE, check_versions

    parts = {"device": check_machine, "codecs": check_codecs, "exactness": check_exactness}
    with ThreadPoolExecutor(1) as aside, show_progress("doctor", len(parts) + 3, "part") as advance:
        hub = aside.submit(check_hub)  # it may take seconds to say that it does not answer
        with while_importing():
            found = {"versions": check_versions()}  # and with it PyTorch
        advance(1)
        for name, part in parts.items():
            found[name] = part()
            advance(1)
        found["hub"] = hub.result()
        advance(1)
        lacking = [one.what for one in found["versions"] if one.what in PIPELINE and one.state != OK]
        found["project"] = _project(lacking, reachable=all(one.state == OK for one in found["hub"]))
        advance(1)
    return found


def _show(part: str, findings: list[Finding]) -> None:
    columns = ["", "state", "found", *["what to do"] * any(one.advice for one in findings)]
    rows = [(one.what, one.state, one.found, one.advice)[: len(columns)] for one in findings]
    print_result(part, columns, rows, STYLES)


def _project(lacking: list[str], reachable: bool) -> list[Finding]:
    """What the pipeline meets in this folder; `lacking` are packages that it needs, `reachable` is the hub."""
    if not paths.PARAMS.exists():
        above = parameters.project_above()
        advice = f"the project's folder: cd {above}" if above else "for a project here: moclip use demo"
        return [Finding("params.yaml", "not in this folder", OK, advice)]
    try:
        params = parameters.load(paths.PARAMS)
    except MoclipError as problem:
        return [Finding("params.yaml", problem.what, PROBLEM, problem.fix or "correct it, or: moclip use demo")]
    artifacts = [Finding(str(path), "there" if path.exists() else "not made yet") for path in ARTIFACTS]
    packages = Finding("packages", "those of the pipeline are installed")
    if lacking:
        packages = Finding(
            "packages", f"not installed: {', '.join(lacking)}", PROBLEM, "pip install 'moclip[pipeline]'"
        )
    valid = Finding("params.yaml", "valid")
    clips = [] if "pandas" in lacking else [_clips(params)]
    return [valid, packages, *clips, _model(params, reachable), *_dvc_cache(), *artifacts]


def _clips(params: Params) -> Finding:
    from moclip.data.clip_folder import scan_folder
    from moclip.data.list_notes import list_notes

    root = params.dataset.root
    if not is_url(root) and not Path(root).is_dir():
        return _absent("dataset.root", Path(root), "moclip use folder --root DIR")
    try:
        folder = scan_folder(root)
    except MoclipError as problem:
        return Finding("dataset.root", f"{root}: {problem.what}", PROBLEM, problem.fix or "")
    advice = "; ".join(list_notes(root, folder, None))
    return Finding("dataset.root", f"{root}: {len(folder.clips)} clips", WARNING if advice else OK, advice)


def _absent(key: str, folder: Path, advice: str) -> Finding:
    """A folder that is not there: a problem, unless the pipeline makes it."""
    if _is_made(folder):
        return Finding(key, f"{folder}: not made yet", OK, "dvc repro makes it")
    return Finding(key, f"{folder}: no such folder", PROBLEM, advice)


def _is_made(path: Path) -> bool:
    """Whether a DVC pipeline further down than the root's makes it, as the demo's does."""
    return any((parent / "dvc.yaml").exists() for parent in path.parents if parent not in (Path(), Path("/")))


def _model(params: Params, reachable: bool) -> Finding:
    name = params.clip.model
    if Path(name).is_dir():
        return Finding("clip.model", f"{name}: a local folder")
    if params.clip.files != NO_FILE:
        return _absent("clip.model", Path(name), "name a folder in the hub's format")
    from huggingface_hub import try_to_load_from_cache

    if isinstance(try_to_load_from_cache(name, "config.json", revision=params.clip.revision or None), str):
        return Finding("clip.model", f"{name}: in the hub's cache")
    if reachable:
        return Finding("clip.model", f"{name}: not in the hub's cache", OK, "clip_text downloads it")
    advice = "copy the model here and name its folder in clip.model and clip.files"
    return Finding("clip.model", f"{name}: not in the hub's cache, and the hub does not answer", PROBLEM, advice)


def _dvc_cache() -> list[Finding]:
    from pipeline.doctor.machine import check_disk

    try:
        from dvc.exceptions import DvcException
        from dvc.repo import Repo
    except ImportError:  # said among the packages
        return []
    try:
        return [check_disk("DVC cache", Repo().cache.local.path)]
    except DvcException as problem:
        return [Finding("DVC cache", str(problem).splitlines()[0], WARNING, "for dvc repro: git init, dvc init")]


if __name__ == "__main__":
    doctor()
