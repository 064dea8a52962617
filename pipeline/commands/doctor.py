"""`moclip doctor`: check this machine and this project, and say what to do about problems."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from moclip.errors import MoclipError
from moclip.files.folders import is_url
from moclip.models.encoders.source import EncoderSource
from moclip.wording import counted
from pipeline import code_digests, paths
from pipeline import params as parameters
from pipeline.console.command import while_importing
from pipeline.console.output import print_note, print_result
from pipeline.console.progress import show_progress
from pipeline.doctor.finding import OK, PROBLEM, WARNING, Finding
from pipeline.encoder_source import encoder_source
from pipeline.params import NO_FILE, Params
from pipeline.stage import command

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


@command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Check this machine and this project, and how exactly motion vectors are read here.

    Checks versions, processor and GPU, codecs, the model hub, and the project in this folder if there is one. Reads
    motion vectors of clips whose motion is known, with each reader. Each line is ok, a warning or a problem, with what
    to do about it. The exit code is 1 if a problem prevents the pipeline from running.
    """
    findings = _check_all()
    if as_json:
        print(json.dumps({part: [asdict(finding) for finding in found] for part, found in findings.items()}, indent=2))
    else:
        for part, found in findings.items():
            _print_findings(part, found)
    states = [finding.state for found in findings.values() for finding in found]
    counts = f"{counted(states.count(PROBLEM), 'problem')}, {counted(states.count(WARNING), 'warning')}"
    if PROBLEM in states:
        raise MoclipError(counts, fix="see above what to do about each")
    if not as_json:
        print_note(counts)


def _check_all() -> dict[str, list[Finding]]:
    """Return the findings of each part."""
    from pipeline.doctor.codecs import check_codecs
    from pipeline.doctor.exactness import check_exactness
    from pipeline.doctor.hub import check_hub
    from pipeline.doctor.machine import check_machine
    from pipeline.doctor.versions import PIPELINE, check_versions

    parts = {"device": check_machine, "codecs": check_codecs, "exactness": check_exactness}
    with ThreadPoolExecutor(1) as thread, show_progress("doctor", len(parts) + 3, "part") as advance:
        hub = thread.submit(check_hub)  # it may wait seconds for an answer
        with while_importing():
            found = {"versions": check_versions()}  # imports PyTorch
        advance(1)
        for name, check in parts.items():
            found[name] = check()
            advance(1)
        found["hub"] = hub.result()
        advance(1)
        missing = [package.what for package in found["versions"] if package.what in PIPELINE and package.state != OK]
        found["project"] = _check_project(missing, hub_answers=all(finding.state == OK for finding in found["hub"]))
        advance(1)
    return found


def _print_findings(part: str, findings: list[Finding]) -> None:
    columns = ["", "state", "found", *["what to do"] * any(finding.advice for finding in findings)]
    rows = [(finding.what, finding.state, finding.found, finding.advice)[: len(columns)] for finding in findings]
    print_result(part, columns, rows, STYLES)


def _check_project(missing: list[str], hub_answers: bool) -> list[Finding]:
    """Check the project in this folder. `missing` are packages that the pipeline needs."""
    if not paths.PARAMS.exists():
        above = parameters.project_above()
        advice = f"the project's folder: cd {above}" if above else "for a project: moclip new DIR --clips DIR"
        return [Finding("params.yaml", "not in this folder", OK, advice)]
    try:
        params = parameters.load(paths.PARAMS)
    except MoclipError as problem:
        advice = problem.fix or "correct it, or: moclip use demo"
        return [*_check_version(), Finding("params.yaml", problem.what, PROBLEM, advice)]
    artifacts = [Finding(str(path), "exists" if path.exists() else "not made yet") for path in ARTIFACTS]
    packages = Finding("packages", "those of the pipeline are installed")
    if missing:
        what = f"not installed: {', '.join(missing)}"
        packages = Finding("packages", what, PROBLEM, "pip install 'moclip[pipeline]'")
    valid = [Finding("params.yaml", "valid"), *_check_version(), packages]
    clips = [] if "pandas" in missing else [_check_clips(params)]
    return [*valid, *clips, *_check_encoders(params, hub_answers), *_check_dvc_cache(), *artifacts]


def _check_version() -> list[Finding]:
    """Check that the stages of a project that `moclip new` made are those of the installed version."""
    if code_digests.made_with() is None:
        return []
    try:
        code_digests.check_version()
    except MoclipError as problem:
        return [Finding("dvc.yaml", problem.what, PROBLEM, problem.fix or "")]
    return [Finding("dvc.yaml", "the stages of the installed version")]


def _check_clips(params: Params) -> Finding:
    from moclip.data.list_notes import list_notes
    from pipeline.clip_source import find_clips

    root = params.dataset.root
    if not is_url(root) and not Path(root).is_dir():
        return _missing_folder("dataset.root", Path(root), "moclip use folder --root DIR")
    try:
        folder, manifest = find_clips(params.dataset)
    except MoclipError as problem:
        key = "dataset.root" if params.dataset.manifest == NO_FILE else "dataset.manifest"
        return Finding(key, f"{problem.where}: {problem.what}", PROBLEM, problem.fix or "")
    if manifest:
        clips = f"{counted(len(folder.clips), 'clip')} in {counted(len(folder.classes), 'class', 'classes')}"
        return Finding("dataset.manifest", f"{manifest.file}: {clips}", OK, "; ".join(manifest.notes))
    advice = "; ".join(list_notes(folder, None))
    return Finding("dataset.root", f"{root}: {counted(len(folder.clips), 'clip')}", WARNING if advice else OK, advice)


def _missing_folder(key: str, folder: Path, advice: str) -> Finding:
    """Return the finding on a missing folder: a problem, unless `dvc repro` makes the folder."""
    if _is_made_by_dvc(folder):
        return Finding(key, f"{folder}: not made yet", OK, "dvc repro makes it")
    return Finding(key, f"{folder}: no such folder", PROBLEM, advice)


def _is_made_by_dvc(path: Path) -> bool:
    """Return whether a DVC pipeline in a subfolder of the project makes it, as the one in data/demo does."""
    return any((parent / "dvc.yaml").exists() for parent in path.parents if parent not in (Path(), Path("/")))


def _check_encoders(params: Params, hub_answers: bool) -> list[Finding]:
    source = encoder_source(params)
    if source is None:
        return [Finding("clip.model", "false: motion alone")]
    keys = ["clip.model", *("clip.models" for _ in source.others)]
    own_files = [params.clip.files != NO_FILE, *(False for _ in source.others)]
    return [
        _check_encoder(key, one, local, hub_answers)
        for key, one, local in zip(keys, source.each, own_files, strict=True)
    ]


def _check_encoder(key: str, source: EncoderSource, has_files: bool, hub_answers: bool) -> Finding:
    """Check one encoder. `has_files` is whether clip.files says that it is local."""
    from moclip.models.hub_files import files_digest

    name = source.model
    if source.weights:
        if Path(source.weights).is_file():
            return Finding(key, f"{name}: with the weights {source.weights}")
        return Finding("clip.files", f"{source.weights}: no such file", PROBLEM, f"name the weights of {name}")
    if Path(name).is_dir():
        return Finding(key, f"{name}: a local folder")
    if has_files:
        return _missing_folder(key, Path(name), "name a folder in the hub's format")
    if files_digest(source):
        return Finding(key, f"{name}: in the hub's cache")
    if hub_answers:
        return Finding(key, f"{name}: not in the hub's cache", OK, "dvc repro downloads it")
    advice = f"copy the model to this machine and name its folder in {key} and clip.files"
    return Finding(key, f"{name}: not in the hub's cache, and the hub does not answer", PROBLEM, advice)


def _check_dvc_cache() -> list[Finding]:
    from pipeline.doctor.machine import check_disk

    try:
        from dvc.exceptions import DvcException
        from dvc.repo import Repo
    except ImportError:  # the finding on packages says so
        return []
    try:
        return [check_disk("DVC cache", Repo().cache.local.path)]
    except DvcException as problem:
        return [Finding("DVC cache", str(problem).splitlines()[0], WARNING, "for dvc repro: git init, dvc init")]


if __name__ == "__main__":
    doctor()
