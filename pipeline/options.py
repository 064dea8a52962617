"""Options that several commands share, and the options that stand for keys of params.yaml."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline import params as parameters

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


def key_option(key: str, current: Any) -> inspect.Parameter:
    """Return the option that overrides a key of params.yaml: `--fusion-lr`. `current` is the key's value there."""
    description, allowed = parameters.describe(key)
    in_file = "missing in params.yaml" if current is None else f"params.yaml: {value_text(current)}"
    option = typer.Option(
        f"--{key.replace('.', '-').replace('_', '-')}",
        help=f"{description + '; ' if description else ''}{allowed}  [{in_file}]",
        show_default=False,
        metavar=key.rsplit(".", 1)[-1].upper(),
        autocompletion=lambda incomplete: [word for word in _choices(allowed) if word.startswith(incomplete)],
    )
    annotation = Annotated[str | None, option]
    return inspect.Parameter(key_argument(key), inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def value_text(value: Any) -> str:
    """Return a value as `--help` and tables show it: `false`, not `False`."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _choices(allowed: str) -> list[str]:
    """Return the words of "false | grid | pixel", for the shell to complete."""
    return [word for word in allowed.split(" | ") if " " not in word] if " | " in allowed else []
