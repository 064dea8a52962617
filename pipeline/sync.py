"""`make sync`: write what follows from the code into the files that repeat it, so that a change is made in one place.

- dvc.yaml: each stage's list `params:`, from the keys that the stage declares (`@stage("fusion.lr")`), and the `.py`
  files in its `deps:`, from what the stage imports. The rest is written by hand and stays.
- params.yaml: new keys at their defaults, and the comments. Values stay.
- docs/parameters.md.
"""

from __future__ import annotations

import importlib.util
import inspect
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moclip.errors import MoclipError
from pipeline import params as parameters
from pipeline import paths, presets
from pipeline.console.command import as_command, run_app
from pipeline.console.output import print_note
from pipeline.io import write_text

if TYPE_CHECKING:
    from grimp import ImportGraph
    from ruamel.yaml import YAML

DVC_YAML = Path("dvc.yaml")
PARAMETERS_PAGE = Path("docs/parameters.md")

UNWATCHED = {
    "moclip": "the library's public names; no stage calls them",
    "moclip.workers.cluster": "where work is done; the results do not depend on it",
    "moclip.errors": "words of messages",
    "moclip.files.atomic": "how a file gets into its place, not what is in it",
    "moclip.workers.processes": "worker processes, and how long to wait for one that hangs",
    "pipeline": "empty",
    "pipeline.run_lock": "keeps a second run out",
    "moclip.workers.time_limit": "how long to wait for a decoder that gives nothing",
    "pipeline.console.command": "how a command ends",
    "pipeline.console.output": "what the terminal shows",
    "pipeline.console.progress": "what the terminal shows",
    "pipeline.consistency": "refuses to work, or changes nothing",
    "pipeline.dag": "the list of stages",
    "pipeline.params": "checks params.yaml, whose values DVC watches",
    "pipeline.paths": "where artifacts lie, which dvc.yaml says too",
    "pipeline.stage": "makes commands of stages",
}
"""Modules that cannot change what a stage writes, and why: DVC need not run a stage again when they change."""


def sync(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit with 1 and name the files that are not current.")
    ] = False,
) -> None:
    """Write dvc.yaml's lists, docs/parameters.md, and new keys of params.yaml, from the code."""
    texts = generated()
    stale = [path for path, text in texts.items() if path.read_text(encoding="utf-8") != text]
    if check and stale:
        raise MoclipError("not current", where=", ".join(map(str, stale)), fix="run: make sync")
    for path in stale:
        write_text(path, texts[path])
        print_note(f"{path} written")


def generated() -> dict[Path, str]:
    """What each generated file must hold."""
    dvc = _yaml().load(DVC_YAML.read_text(encoding="utf-8"))
    keys = {name: declared_keys(name) for name in dvc["stages"]}
    return {
        DVC_YAML: dvc_yaml(dvc, keys),
        PARAMETERS_PAGE: parameters_page({name: keys[name] + inserted_keys(dvc["stages"][name]) for name in keys}),
        paths.PARAMS: params_yaml(paths.PARAMS.read_text(encoding="utf-8")),
    }


def declared_keys(stage: str) -> list[str]:
    """The keys of params.yaml that a stage reads, in the order of the model."""
    keys = getattr(importlib.import_module(f"stages.{stage}"), stage).keys
    return [key for key in parameters.every_key() if key in keys]


def inserted_keys(stage: Any) -> list[str]:
    """The keys whose values dvc.yaml inserts in a stage's dependencies: `${clip.files}`."""
    return [path[2:-1] for path in stage["deps"] if path.startswith("${")]


def params_yaml(text: str) -> str:
    """The text of params.yaml with its values and heading as they are, new keys at their defaults, comments anew."""
    return presets.complete(parameters.read_raw(paths.PARAMS), presets.heading(text), source=str(paths.PARAMS))


# --------------------------------------------------------------------------------------------------- dvc.yaml


def dvc_yaml(tree: Any, keys: dict[str, list[str]]) -> str:
    """The text of dvc.yaml with each stage's parameters and code set anew."""
    graph = import_graph()
    for name, stage in tree["stages"].items():
        code = code_of(f"stages.{name}", graph)
        first = next((place for place, path in enumerate(stage["deps"]) if path.endswith(".py")), len(stage["deps"]))
        data = [path for path in stage["deps"] if not path.endswith(".py")]
        stage["deps"][:] = [*data[:first], *code, *data[first:]]
        if keys[name]:
            stage["params"] = keys[name]
    out = io.StringIO()
    _yaml().dump(tree, out)
    return out.getvalue()


def _yaml() -> YAML:
    """Reads and writes YAML with its comments, in the style of dvc.yaml."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def import_graph() -> ImportGraph:
    """Which module of the product imports which, within functions too; not for types alone, not by `UNWATCHED`."""
    import grimp

    graph = grimp.build_graph("moclip", "pipeline", "stages", exclude_type_checking_imports=True, cache_dir=None)
    for module in UNWATCHED:
        if module not in graph.modules:
            raise MoclipError(f"no module {module}", where="pipeline/sync.py, UNWATCHED", fix="remove or rename it")
        for imported in graph.find_modules_directly_imported_by(module):
            graph.remove_import(importer=module, imported=imported)
    return graph


def code_of(module: str, graph: ImportGraph) -> list[str]:
    """The files that a module's results depend on: its own first, then those of all that it imports."""
    imported = graph.find_upstream_modules(module) - UNWATCHED.keys()
    return [_file(module), *sorted(map(_file, imported))]


def _file(module: str) -> str:
    """Where a module's code lies, relative to the project's root."""
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
    """The text of docs/parameters.md: a table per group of keys. `keys` are those that each stage depends on."""
    every = parameters.every_key()
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
        shown = "" if default is None else presets.yaml_value(default)
        cells = (shown, ", ".join(differ), allowed, description, ", ".join(readers))
        rows.append((f"`{key}`", *(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells)))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(as_command(sync))
    run_app(app, "python -m pipeline.sync")
