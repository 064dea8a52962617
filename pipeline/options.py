"""Options that several commands share, and the options that stand for keys of params.yaml."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline import params as parameters
from pipeline.console.help import ADVANCED

if TYPE_CHECKING:
    from moclip.workers.cluster import Cluster

Workers = Annotated[
    int,
    typer.Option("--workers", "-j", min=1, help="Worker processes or threads; the result does not depend on it."),
]

RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray",
        envvar="MOCLIP_RAY",
        metavar="ADDRESS",
        help="Work on a Ray cluster: auto, HOST:6379, or local; the result does not depend on it.",
    ),
]


@contextmanager
def connected_cluster(address: str | None) -> Iterator[Cluster | None]:
    """Connect to the Ray cluster at `address` while the block runs. Without an address, yield None."""
    if not address:
        yield None
        return
    from moclip.workers.cluster import Cluster

    with Cluster(address) as cluster:
        yield cluster


def cpu_count() -> int:
    """Return the number of cores that this process may use.

    In a container that is its share of the host's cores. macOS does not report a share, so there it is all cores.
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def key_argument(key: str) -> str:
    """Return the name of the Python argument that stands for a key: `fusion.lr` -> `fusion__lr`."""
    return key.replace(".", "__")


def key_option(key: str, in_file: dict[str, Any]) -> inspect.Parameter:
    """Return the option that overrides a key of params.yaml: `--fusion-lr`. `in_file` is what the file holds."""
    _, allowed = parameters.describe(key)
    option = typer.Option(
        f"--{key.replace('.', '-').replace('_', '-')}",
        help=f"{_key_help(key)}  [{_value_now(key, in_file)}]",
        show_default=False,
        metavar="VALUE",
        rich_help_panel=ADVANCED,
        autocompletion=lambda incomplete: [word for word in _choices(allowed) if word.startswith(incomplete)],
    )
    annotation = Annotated[str | None, option]
    return inspect.Parameter(key_argument(key), inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _key_help(key: str) -> str:
    """Return sentences on a key: what it is, and which values it allows."""
    description, allowed = parameters.describe(key)
    starts_with_value = re.match(r"\S+:", description)  # "mpeg4: ..." keeps its spelling
    sentence = f"{description if starts_with_value else description[:1].upper() + description[1:]}."
    return sentence if allowed == "text" else f"{sentence} Allowed: {allowed}."


def _value_now(key: str, in_file: dict[str, Any]) -> str:
    """Return the value that holds without the option: that of params.yaml, the default where there is no such file."""
    value = parameters.value_at(in_file, key)
    if value is not None:
        return f"params.yaml: {value_text(value)}"
    if in_file:
        return "missing in params.yaml"
    default = parameters.default_of(key)
    return "set in params.yaml" if default is None else f"default: {value_text(default)}"


def value_text(value: Any) -> str:
    """Return a value as params.yaml has it: `false`, not `False`; a list for a tuple."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value) if isinstance(value, tuple) else value)


def _choices(allowed: str) -> list[str]:
    """Return the words of "false | grid | pixel", for the shell to complete."""
    return [word for word in allowed.split(" | ") if " " not in word] if " | " in allowed else []
