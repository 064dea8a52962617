"""`make sync`: write what follows from the code into the files that repeat it, so that a change is made in one place.

In dvc.yaml it writes of each stage the list `params:`, from the keys that the stage declares (`@stage("fusion.lr")`),
and the `.py` files in `deps:`, from what the stage imports. The rest of dvc.yaml is written by hand and stays.
"""

from __future__ import annotations

import importlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moclip.errors import MoclipError
from pipeline import params as parameters
from pipeline.console.command import as_command, run_app
from pipeline.console.output import print_note
from pipeline.io import write_text

if TYPE_CHECKING:
    from grimp import ImportGraph

DVC_YAML = Path("dvc.yaml")

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
    """Write dvc.yaml's lists of parameters and code."""
    texts = generated()
    stale = [path for path, text in texts.items() if path.read_text(encoding="utf-8") != text]
    if check and stale:
        raise MoclipError("not current", where=", ".join(map(str, stale)), fix="run: make sync")
    for path in stale:
        write_text(path, texts[path])
        print_note(f"{path} written")


def generated() -> dict[Path, str]:
    """What each generated file must hold."""
    return {DVC_YAML: dvc_yaml(DVC_YAML.read_text(encoding="utf-8"))}


def dvc_yaml(text: str) -> str:
    """The text of dvc.yaml with each stage's parameters and code set anew."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    tree = yaml.load(text)
    graph = import_graph()
    for name, stage in tree["stages"].items():
        code = code_of(f"stages.{name}", graph)
        first = next((place for place, path in enumerate(stage["deps"]) if path.endswith(".py")), len(stage["deps"]))
        data = [path for path in stage["deps"] if not path.endswith(".py")]
        stage["deps"][:] = [*data[:first], *code, *data[first:]]
        if keys := declared_keys(name):
            stage["params"] = keys
    out = io.StringIO()
    yaml.dump(tree, out)
    return out.getvalue()


def declared_keys(stage: str) -> list[str]:
    """The keys of params.yaml that a stage reads, in the order of the model."""
    keys = getattr(importlib.import_module(f"stages.{stage}"), stage).keys
    return [key for key in parameters.every_key() if key in keys]


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


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(as_command(sync))
    run_app(app, "python -m pipeline.sync")
