"""Run a frozen network on many clips in parts.

A worker holds the network and encodes one part after another, in this process or as an actor on a cluster. Its results
depend only on the part, so the bytes do not depend on where it runs. `encode_stills` has the worker for pictures,
`embed_views` the one for MV-TSN.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from moclip.errors import ModelError
from moclip.store.resumable import ResumableParts
from moclip.workers.cluster import Cluster, Worker, check_same_versions, check_visible

Versions = dict[str, str]


def library_versions() -> Versions:
    """Return the versions of the libraries that the bytes of features depend on."""
    return {name: importlib.metadata.version(name) for name in ("av", "torch", "transformers", "timm")}


@dataclass(frozen=True)
class EncodingPart:
    """Clips to encode together: a table with a row per clip. `view` is the number of an augmented view, or None."""

    name: str
    rows: pd.DataFrame = field(repr=False)
    view: int | None = None


def encode_parts(
    make_worker: Callable[..., Any],
    task: Any,
    parts: Sequence[EncodingPart],
    cluster: Cluster | None,
    advance: Callable[[int], object],
) -> None:
    """Encode parts with workers made by `make_worker(task)`: one in this process, or several on a cluster.

    `advance` is called with the number of clips newly encoded.
    """
    if not parts:
        return
    if cluster is None:
        for part in make_worker(task).run(parts):
            advance(len(part.rows))
    else:
        for number in cluster.run_on_actors(_make_checked_worker, (make_worker, task), parts):
            advance(len(parts[number].rows))


def _make_checked_worker(make_worker: Callable[..., Worker[EncodingPart]], task: Any) -> Worker[EncodingPart]:
    """Make a worker on a machine of a cluster.

    Raises ClusterError if the machine has other library versions, or does not see the inputs or the folder of parts.
    """
    check_same_versions(library_versions(), task.versions)
    check_visible(ResumableParts(task.parts_folder, task.key).is_visible(), task.parts_folder)
    task.check_input_visible()
    return make_worker(task)


def check_finite(ids: Sequence[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Raise ModelError if features are NaN or infinite. Each array has a row per clip of `ids`."""
    for name, values in arrays.items():
        bad = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if bad.any():
            which, more = ids[int(bad.argmax())], int(bad.sum()) - 1
            what = f"the network gives NaN or infinite {name} for {which}" + (f" and {more} more" if more else "")
            raise ModelError(what, fix="check its weights, or train it again")
