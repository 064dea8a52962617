"""Make a project in a folder of its own: git, DVC, dvc.yaml, params.yaml and the files that the stages read."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moclip.data.clip_folder import ClipFolder
from moclip.data.list_notes import folder_problems, layout_notes
from moclip.errors import DatasetError, MoclipError
from moclip.files.folders import home_expanded, is_url
from moclip.wording import counted
from pipeline import code_digests, paths, presets
from pipeline import params as parameters
from pipeline.clip_source import check_folder, find_clips
from pipeline.console.output import print_note
from pipeline.io import write_text
from pipeline.yaml_text import load_yaml

DVC_CONFIG = "[core]\n    analytics = false\n    check_update = false\n"
SAME_CLIPS = ("dataset.root", "dataset.manifest")
"""The keys that say which clips a project is for."""


@dataclass(frozen=True)
class Source:
    """What a project is made for. Paths are absolute, or URLs; `preset` and `encoder` are as in `moclip use`."""

    root: str | None
    manifest: str | None = None
    splits: str | None = None
    preset: str = "folder"
    encoder: str | None = None

    def params_text(self, project: Path) -> str:
        """Return the params.yaml of a project in the folder `project`. Raises MoclipError for bad values."""
        with contextlib.chdir(project):
            return presets.params_text(self.preset, self.root, self.splits, None, self.encoder, self.manifest)


def clip_source(
    clips: str | None,
    manifest: str | None,
    splits: str | None,
    preset: str,
    encoder: str | None,
    clips_option: str = "--clips",
) -> Source:
    """Return a `Source` for paths relative to the current folder. Raises MoclipError if one does not exist.

    `clips_option` is how the command line names `clips`.
    """
    if clips is None and manifest is None:
        fix = "add --clips DIR, the folder with one folder per class, or --manifest FILE"
        raise DatasetError("which clips?", where="moclip new", fix=fix)
    if preset == "demo":
        raise MoclipError("the demo renders its clips in moclip's repository", where="--preset demo", fix="make demo")
    if encoder is not None and home_expanded(encoder).is_dir():
        encoder = str(home_expanded(encoder).resolve())
    if manifest is not None:
        if not home_expanded(manifest).is_file():
            raise DatasetError("no table of clips here", where=manifest, fix="--manifest takes a table that exists")
        manifest = str(home_expanded(manifest).resolve())
        clips = clips if clips is not None else str(Path(manifest).parent)
    root, splits = _absolute_folder(clips, clips_option), _absolute_folder(splits, "--splits")
    return Source(root, manifest, splits, preset, encoder)


def _absolute_folder(path: str | None, option: str) -> str | None:
    if path is None or is_url(path):
        return path
    folder = home_expanded(path)
    if not folder.is_dir():
        raise DatasetError("no such folder", where=path, fix=f"{option} takes a folder that exists")
    return str(folder.resolve())


def make_project(folder: Path, source: Source) -> ClipFolder:
    """Make a project in a folder that does not exist or is empty, and commit it. Return its clips.

    Raises MoclipError if the folder holds something, lies among the clips, or if there are no clips. It then leaves
    nothing behind.
    """
    check_outside(folder, source)
    _check_path(folder)
    with _new_folder(folder):
        text = source.params_text(folder)
        params = parameters.validate(load_yaml(text), source="moclip new")
        clips, manifest = find_clips(params.dataset)
        check_folder(params.dataset.root, clips, is_listed=manifest is not None)
        _write_files(folder, text)
        _run(folder, "git", "init", "--quiet")
        _run(folder, sys.executable, "-m", "dvc", "init", "--quiet")
        write_text(folder / ".dvc" / "config", DVC_CONFIG)
    count, classes = counted(len(clips.clips), "clip"), counted(len(clips.classes), "class", "classes")
    print_note(f"{folder}: a project for {count} of {classes}")
    for note in [*([] if manifest else layout_notes(clips)), *folder_problems(clips)]:
        print_note(f"  {note}")
    commit(folder, ["."], "Project made by moclip new")
    return clips


def check_clips(folder: Path) -> None:
    """Raise MoclipError if a project's clips cannot be found, or the stages would fail on them at once."""
    with contextlib.chdir(folder):
        dataset = parameters.load(paths.PARAMS).dataset
        clips, manifest = find_clips(dataset)
    check_folder(dataset.root, clips, is_listed=manifest is not None)


def check_outside(folder: Path, source: Source) -> None:
    """Raise DatasetError if a project's folder lies in its folder of clips: DVC would watch the project itself."""
    if source.root and not is_url(source.root) and folder.resolve().is_relative_to(source.root):
        fix = "name a folder outside of it"
        if source.manifest:
            fix += ", or the folder that the paths in the table are relative to: --clips DIR"
        raise DatasetError(f"lies in the folder of the clips, {source.root}", where=folder, fix=fix)


def _check_path(folder: Path) -> None:
    """Raise MoclipError for a folder with a brace in its path: DVC fails there."""
    if set("{}") & set(str(folder.resolve())):
        raise MoclipError("DVC cannot run in a folder with { or } in its path", where=folder, fix="name another folder")


@contextmanager
def _new_folder(folder: Path) -> Iterator[None]:
    """Make a folder, or take an empty one. After an error it is again as it was before."""
    try:
        existed = folder.exists()
        if existed and not (folder.is_dir() and not any(folder.iterdir())):
            raise MoclipError("exists, and is not empty", where=folder, fix="name a new folder")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:  # the name is too long, a part of it is a file, ...
        raise MoclipError(
            f"no folder can be made here: {problem.strerror}", where=folder, fix="name another folder"
        ) from None
    try:
        yield
    except BaseException:
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if not existed:
            folder.rmdir()
        raise


def _write_files(folder: Path, params: str) -> None:
    templates = code_digests.TEMPLATES
    readme = (templates / "README.md").read_text(encoding="utf-8")
    write_text(folder / "README.md", readme.replace("{name}", folder.resolve().name))
    write_text(folder / ".gitignore", (templates / "gitignore").read_text(encoding="utf-8"))
    write_text(folder / "dvc.yaml", code_digests.project_dvc_yaml())
    write_text(folder / paths.PARAMS, params)
    with contextlib.chdir(folder):
        _write_data_files()
        code_digests.write_code_digests()  # in the first commit, so that git tracks it


def _write_data_files() -> None:
    """Copy the files that stages read into the project, except for those that are there."""
    source = code_digests.TEMPLATES / "data"
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        target = Path("data", file.relative_to(source))
        if not target.exists():
            write_text(target, file.read_text(encoding="utf-8"))


def update_project(folder: Path) -> None:
    """Bring dvc.yaml, and the keys in params.yaml, up to the installed version. Values in params.yaml stay.

    Raises MoclipError if `moclip new` did not make the project.
    """
    version = code_digests.made_with(folder)
    if version is None:
        fix = "--update takes a project's folder, such as: moclip new . --update"
        raise MoclipError("`moclip new` did not make a project here", where=folder, fix=fix)
    with contextlib.chdir(folder):
        values, text = parameters.read_raw(paths.PARAMS), paths.PARAMS.read_text(encoding="utf-8")
        complete = presets.complete(values, presets.heading(text), source=str(paths.PARAMS))
        changed = [_replace(Path("dvc.yaml"), code_digests.project_dvc_yaml()), _replace(paths.PARAMS, complete)]
        _write_data_files()
        code_digests.write_code_digests()
    if not any(changed):
        print_note(f"{folder}: up to date")


def _replace(path: Path, text: str) -> bool:
    """Write a file if its text is another, and keep the old one as PATH.bak. Return whether it was written."""
    if path.read_text(encoding="utf-8") == text:
        return False
    kept = path.with_name(f"{path.name}.bak")
    shutil.copyfile(path, kept)
    write_text(path, text)
    print_note(f"{path} written; the old one is {kept}")
    return True


def commit(folder: Path, names: list[str], message: str) -> None:
    """Commit files to a project's git, if they changed. Say so if git refuses, or does not know the user's name."""
    try:
        _run(folder, "git", "add", "--", *names)
        if _run(folder, "git", "status", "--porcelain", "--", *names):
            _run_with_any_name(folder, "git", "commit", "--quiet", "-m", message, "--", *names)
    except MoclipError as problem:
        print_note(f"  not committed, which trainings and `dvc exp run` need: {problem.what}")
        print_note(f"  then: cd {shlex.quote(str(folder))}; git commit -m start")


def _run_with_any_name(folder: Path, *commit: str) -> None:
    """Run a git command that commits; as `NOBODY` if git does not know the user's name."""
    try:
        _run(folder, *commit)
    except MoclipError as problem:
        if "tell me who you are" not in problem.what and "ident" not in problem.what:
            raise
        _run(folder, *commit, **NOBODY)
        print_note("  committed as `moclip`, because git does not know your name; to tell it:")
        print_note("  git config --global user.name NAME; git config --global user.email MAIL")


NOBODY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "moclip"), ("EMAIL", "moclip@localhost"))
}
"""Who commits if git does not know the user's name."""


def _run(folder: Path, *command: str, **environment: str) -> str:
    """Run a command in a folder. Return what it printed. Raises MoclipError with what it says on stderr if it fails."""
    kept = {name: value for name, value in os.environ.items() if name not in ("GIT_DIR", "GIT_WORK_TREE")}
    try:
        done = subprocess.run(command, cwd=folder, env=kept | environment, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise MoclipError("not installed", where=command[0], fix=f"install {command[0]}, which DVC needs") from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        raise MoclipError(said or f"exit code {done.returncode}", where=" ".join(map(str, command[:3])))
    return done.stdout


def is_for_same_clips(folder: Path, source: Source) -> bool:
    """Return whether a folder holds a project that `moclip new` made for these clips.

    Raises MoclipError if it was made for other clips, or with another encoder than the one that `source` names.
    """
    if code_digests.made_with(folder) is None:
        return False
    with contextlib.chdir(folder):
        own = parameters.read_raw(paths.PARAMS)
    wanted = load_yaml(source.params_text(folder))
    for key in (*SAME_CLIPS, *(("clip.model",) if source.encoder is not None else ())):
        _check_same(folder, key, parameters.value_at(own, key), parameters.value_at(wanted, key))
    return True


def _check_same(folder: Path, key: str, has: Any, wanted: Any) -> None:
    if has != wanted:
        what = f"a project with {key}: {json.dumps(has)}, not {json.dumps(wanted)}"
        raise MoclipError(what, where=folder, fix="name another folder: --out DIR")
