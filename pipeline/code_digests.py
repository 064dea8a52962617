"""Digests of the code of each stage.

The first stage of the DAG, `code`, writes a digest per stage, and each stage depends on its own. So a change of the
code, or a new version of moclip, runs those stages again whose code has changed. This imports nothing heavy, because in
a project that `moclip new` made `code` runs at the beginning of each `dvc repro`.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
from pathlib import Path

from moclip.errors import MoclipError
from moclip.files.atomic import write_atomically
from moclip.version import __version__
from pipeline import paths

TEMPLATES = Path(__file__).parent / "templates"
"""The files that `moclip new` writes into a project."""

DVC_TEMPLATE = TEMPLATES / "stages.yaml"
"""A project's dvc.yaml. DVC would take a file of that name in this repository for a pipeline."""

STAGE_CODE = TEMPLATES / "code_of_stages.json"
"""The files of code that each stage depends on, by their paths in the packages. `make sync` writes it."""

_HEADER = "# Made with moclip "


def code_digests() -> dict[str, str]:
    """Return 16 hexadecimal digits for each stage that stand for its code.

    They depend neither on where the packages are installed nor on the ends of lines.
    """
    contents: dict[str, bytes] = {}
    found = {}
    fix = "run: make sync" if in_repository() else "install moclip again"
    try:
        files = json.loads(STAGE_CODE.read_bytes())
    except ValueError:
        raise MoclipError("it is damaged", where=STAGE_CODE, fix=fix) from None
    for stage, names in files.items():
        digest = hashlib.sha256()
        for name in names:
            if name not in contents:
                try:
                    contents[name] = _package_file(name).read_bytes().replace(b"\r\n", b"\n")
                except FileNotFoundError:
                    raise MoclipError(f"no such file, but {STAGE_CODE} lists it", where=name, fix=fix) from None
            digest.update(f"{name} {len(contents[name])}\n".encode() + contents[name])
        found[stage] = digest.hexdigest()[:16]
    return found


@functools.cache
def running_code() -> dict[str, str]:
    """Return the digests of the code as this process began: the files may change while it runs."""
    return code_digests()


def write_code_digests() -> None:
    """Write data/code.json, unless it is current. Raises MoclipError if dvc.yaml has the stages of another version."""
    if not in_repository():
        check_version()
    content = (json.dumps(code_digests(), indent=2) + "\n").encode()
    if not paths.CODE.exists() or paths.CODE.read_bytes() != content:
        write_atomically(paths.CODE, content)


def stages_with_other_code() -> set[str]:
    """Return the stages whose last run, by dvc.lock, was with other code than there is now.

    What such a stage keeps between runs is not to be taken again. Raises MoclipError if dvc.lock is damaged.
    """
    if not paths.CODE.exists() or not Path("dvc.lock").exists():
        return set()
    import yaml

    from pipeline.yaml_text import load_yaml

    try:
        lock = load_yaml(Path("dvc.lock").read_bytes())
        params = {name: of_stage.get("params", {}) for name, of_stage in lock.get("stages", {}).items()}
        recorded = {name: of_stage.get(str(paths.CODE), {}).get(name) for name, of_stage in params.items()}
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError):
        raise MoclipError("it is damaged", where="dvc.lock", fix="restore it: git checkout dvc.lock") from None
    return {name for name, digest in code_digests().items() if recorded.get(name) not in (None, digest)}


def project_dvc_yaml() -> str:
    """Return the text of a new project's dvc.yaml. Its first line names the version of its stages."""
    return f"{_HEADER}{__version__}, stages {_stages_digest()}\n{DVC_TEMPLATE.read_text(encoding='utf-8')}"


def made_with(folder: Path = Path()) -> str | None:
    """Return what the first line of a project's dvc.yaml says it was made with; None if `moclip new` did not."""
    try:
        with (folder / "dvc.yaml").open(encoding="utf-8") as file:
            line = file.readline().strip()
    except (OSError, UnicodeDecodeError):
        return None
    return line.removeprefix(_HEADER) if line.startswith(_HEADER) else None


def in_repository() -> bool:
    """Return whether the working folder is moclip's repository, which holds the code, and no project beside it."""
    return Path("src/moclip").is_dir() and Path("pipeline/code_digests.py").is_file()


def check_version() -> None:
    """Raise MoclipError if this project's dvc.yaml has the stages of another version than the installed one."""
    version = made_with()
    if version is None:
        raise MoclipError("`moclip new` did not make this project", where="dvc.yaml", fix="moclip new DIR --clips DIR")
    if not version.endswith(f" {_stages_digest()}"):
        what = f"made with moclip {version}; the installed version, {__version__}, has other stages"
        raise MoclipError(what, where="dvc.yaml", fix="run: moclip new . --update (values in params.yaml stay)")


def _stages_digest() -> str:
    """Return 8 hexadecimal digits that stand for the stages in the template, whatever its comments say."""
    lines = (line.rstrip() for line in DVC_TEMPLATE.read_text(encoding="utf-8").splitlines())
    meant = "\n".join(line for line in lines if line and not line.lstrip().startswith("#"))
    return hashlib.sha256(meant.encode()).hexdigest()[:8]


def _package_file(name: str) -> Path:
    """Return the path of a file of the code, "moclip/motion/field.py": in the repository, or as it is installed."""
    if in_repository():
        return Path("src", name) if name.startswith("moclip/") else Path(name)
    package, _, rest = name.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MoclipError(f"the package {package} is not installed", fix="install moclip again")
    return Path(spec.submodule_search_locations[0], rest)
