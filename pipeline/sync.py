"""`make sync`: update the files that follow from the code, so that you make a change in one place.

- dvc.yaml: each stage's `params:`, from the keys that the stage declares (`@stage("fusion.lr")`). The rest is written
  by hand and stays as it is.
- params.yaml: new keys with their defaults, and the comments. Values stay as they are.
- docs/parameters.md: the whole page.
- pipeline/templates: the code files of each stage, from what it imports; what `moclip new` writes into a project,
  except for its README.md and .gitignore.
"""

from __future__ import annotations

import importlib.util
import inspect
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moclip.errors import MoclipError
from moclip.models.encoders.registry import FAMILIES
from moclip.models.heads.registry import HEADS
from pipeline import params as parameters
from pipeline import paths, presets
from pipeline.code_digests import STAGE_CODE
from pipeline.console.command import as_command, run_app
from pipeline.console.output import print_note
from pipeline.dag import STAGES
from pipeline.io import write_text
from pipeline.project_template import TEMPLATES, template_texts

if TYPE_CHECKING:
    from grimp import ImportGraph
    from ruamel.yaml import YAML

DVC_YAML = Path("dvc.yaml")
PARAMETERS_PAGE = Path("docs/parameters.md")

UNWATCHED = {
    "moclip": "the library's public names; no stage calls them",
    "moclip.workers.cluster": "where work runs; the results do not depend on it",
    "moclip.errors": "error messages",
    "moclip.files.atomic": "how a file is written, not what is in it",
    "moclip.workers.processes": "worker processes, and how long to wait for one that hangs",
    "pipeline": "environment variables that change no result",
    "pipeline.run_lock": "prevents a second run at the same time",
    "moclip.workers.time_limit": "how long to wait for a decoder that hangs",
    "pipeline.advice.notes": "what the terminal shows",
    "pipeline.code_digests": "whether earlier runs had other code; changes no result of this one",
    "pipeline.console.command": "how a command ends",
    "pipeline.console.output": "what the terminal shows",
    "pipeline.console.progress": "what the terminal shows",
    "pipeline.consistency": "refuses stale artifacts; changes no result",
    "pipeline.dag": "the list of stages",
    "pipeline.params": "checks params.yaml, whose values DVC watches",
    "pipeline.multi_label_limits": "refuses parameters; changes no result",
    "pipeline.options": "makes command-line options",
    "pipeline.paths": "paths of artifacts, which dvc.yaml also names",
    "pipeline.stage": "makes commands of functions",
}
"""Modules that cannot change what a stage writes, and why. A stage's digest of its code leaves them out."""

NOT_PYTHON = {"report": ("moclip/templates/report.html", "moclip/templates/report_labels.html")}
"""Files of the code that a stage reads and does not import."""


def sync(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing. Exit with 1 and name the files that are out of date.")
    ] = False,
) -> None:
    """Update dvc.yaml, docs/parameters.md, params.yaml and pipeline/templates from the code.

    In params.yaml, values stay. Missing keys get their defaults, and the comment of each key becomes its description.
    """
    parameters.check_project_folder()
    texts = generated_texts()
    outdated = [path for path, text in texts.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if check and outdated:
        raise MoclipError("out of date", where=", ".join(map(str, outdated)), fix="run: make sync")
    for path in outdated:
        write_text(path, texts[path])
        print_note(f"{path} written")


def generated_texts() -> dict[Path, str]:
    """Return the text that each generated file must have."""
    dvc = _yaml().load(DVC_YAML.read_text(encoding="utf-8"))
    keys = {name: declared_keys(name) for name in STAGES}
    text = dvc_yaml(dvc, keys)
    return {
        DVC_YAML: text,
        TEMPLATES / STAGE_CODE.name: json.dumps(code_of_stages(), indent=1) + "\n",
        **template_texts(text, _yaml()),
        PARAMETERS_PAGE: parameters_page({name: keys[name] + inserted_keys(dvc["stages"][name]) for name in keys}),
        paths.PARAMS: params_yaml(),
    }


def declared_keys(stage: str) -> list[str]:
    """Return the keys of params.yaml that a stage declares, in the order of the model."""
    keys = getattr(importlib.import_module(f"stages.{stage}"), stage).keys
    return [key for key in parameters.all_keys() if key in keys]


def inserted_keys(stage: Any) -> list[str]:
    """Return the keys whose values dvc.yaml inserts in a stage's dependencies: `${clip.files}`."""
    return [path[2:-1] for path in stage["deps"] if path.startswith("${")]


def params_yaml() -> str:
    """Return the text of params.yaml with new keys at their defaults and current comments."""
    values = parameters.read_raw(paths.PARAMS)
    heading = presets.heading(paths.PARAMS.read_text(encoding="utf-8"))
    return presets.complete(values, heading, source=str(paths.PARAMS))


# --------------------------------------------------------------------------------------------------- dvc.yaml


def dvc_yaml(tree: Any, keys: dict[str, list[str]]) -> str:
    """Return the text of dvc.yaml with the current parameters of each stage, and the digest of its code."""
    for name, declared in keys.items():
        tree["stages"][name]["params"] = [*declared, {str(paths.CODE): [name]}]
    out = io.StringIO()
    _yaml().dump(tree, out)
    return out.getvalue()


def _yaml() -> YAML:
    """Return a reader and writer of YAML that keeps comments, in the style of dvc.yaml."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


# ------------------------------------------------------------------------------------------- code of each stage


def code_of_stages() -> dict[str, list[str]]:
    """Return the code files that each stage depends on, by their paths in the installed packages."""
    graph = import_graph()
    return {name: [*code_files(f"stages.{name}", graph), *NOT_PYTHON.get(name, ())] for name in STAGES}


def import_graph() -> ImportGraph:
    """Return which module imports which, without imports for type checkers and without those of `UNWATCHED`.

    The registries of heads and encoders import them by name, which the graph would not see.
    """
    import grimp

    graph = grimp.build_graph("moclip", "pipeline", "stages", exclude_type_checking_imports=True, cache_dir=None)
    for head in HEADS:
        graph.add_import(importer="moclip.models.heads.registry", imported=f"moclip.models.heads.{head}")
    for file, _ in FAMILIES.values():
        graph.add_import(importer="moclip.models.encoders.registry", imported=f"moclip.models.encoders.{file}")
    for module in UNWATCHED:
        if module not in graph.modules:
            raise MoclipError(f"no module {module}", where="pipeline/sync.py, UNWATCHED", fix="remove or rename it")
        for imported in graph.find_modules_directly_imported_by(module):
            graph.remove_import(importer=module, imported=imported)
    return graph


def code_files(module: str, graph: ImportGraph) -> list[str]:
    """Return the code files that a module's results depend on: its own, then those of all that it imports."""
    imported = graph.find_upstream_modules(module) - UNWATCHED.keys()
    return [path.removeprefix("src/") for path in (_file(module), *sorted(map(_file, imported)))]


def _file(module: str) -> str:
    """Return the path of a module's code, relative to the project's root."""
    spec: Any = importlib.util.find_spec(module)
    path, root = Path(spec.origin), Path.cwd()
    if not path.is_relative_to(root):
        fix = f"run: PYTHONPATH={root}/src make sync"
        raise MoclipError(f"{module} is imported from outside of this folder", where=path, fix=fix)
    return path.relative_to(root).as_posix()


# ------------------------------------------------------------------------------------------ docs/parameters.md

INTRODUCTION = """# Parameters

<!-- `make sync` writes this page from pipeline/params.py. -->

`params.yaml` holds every key. It is checked before any stage runs: an unknown key, a wrong type or a value out of range
is named in full. The defaults are the paper's recipe for UCF-101; a preset (`moclip use PRESET`) sets some keys
differently. DVC runs a stage again when a key that it reads changes.
"""

COLUMNS = ("key", "default", "presets that differ", "allowed", "what it is", "read by")


def parameters_page(keys: dict[str, list[str]]) -> str:
    """Return the text of docs/parameters.md: a table per group. `keys` are those that each stage depends on."""
    every = parameters.all_keys()
    parts = [INTRODUCTION, _table([key for key in every if "." not in key], keys)]
    for name, field in parameters.Params.model_fields.items():
        if group := parameters.group_of(field):
            parts.append(f"## {name}\n\n{inspect.getdoc(group)}\n")
            parts.append(_table([key for key in every if key.startswith(f"{name}.")], keys))
    return "\n".join(parts)


def _table(members: list[str], keys: dict[str, list[str]]) -> str:
    differences = {preset: presets.differences(preset) for preset in presets.names()}
    rows = [COLUMNS, ("---",) * len(COLUMNS)]
    for key in members:
        description, allowed = parameters.describe(key)
        values = {preset: parameters.value_at(tree, key) for preset, tree in differences.items()}
        differ = [f"{preset}: {presets.yaml_value(value)}" for preset, value in values.items() if value is not None]
        readers = [stage for stage, read in keys.items() if key in read]
        default = parameters.default_of(key)
        default_text = "" if default is None else presets.yaml_value(default)
        cells = (default_text, ", ".join(differ), allowed, description, ", ".join(readers))
        rows.append((f"`{key}`", *(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells)))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(as_command(sync))
    run_app(app, "python -m pipeline.sync")
