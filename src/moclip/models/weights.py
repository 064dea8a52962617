"""Save and load models: safetensors files with the model's configuration as JSON in their metadata. Never pickle."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open

from moclip.errors import ModelError, missing_model
from moclip.files.atomic import write_atomically

if TYPE_CHECKING:
    import torch

PROVENANCE = "made"
"""Key of a model's configuration: the parameters and inputs it was trained with. The network does not depend on it."""


def save_weights(path: Path, tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
    """Write `tensors` and `config` atomically; the same values give the same bytes."""
    from safetensors.torch import save  # imports PyTorch, which reading a configuration does not need

    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    write_atomically(path, save(on_cpu, metadata={"config": json.dumps(config, sort_keys=True)}))


def load_weights(path: Path, stage: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read what `save_weights` wrote. Raises ModelError that names the `stage` that writes the file."""
    with _report_read_errors(path, stage), safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  the file has no iterator
        return tensors, _config(file)


def read_config(path: Path, stage: str) -> dict[str, Any]:
    """Read a model's configuration alone. Raises ModelError that names the `stage` that writes the file."""
    with _report_read_errors(path, stage), safe_open(path, framework="numpy") as file:
        return _config(file)


def read_tensor(path: Path, stage: str, name: str) -> np.ndarray | None:
    """Read one tensor of a model as an array, without importing PyTorch; None if there is none of that name.

    Raises ModelError.
    """
    with _report_read_errors(path, stage), safe_open(path, framework="numpy") as file:
        return np.asarray(file.get_tensor(name)) if name in file.keys() else None  # noqa: SIM118


def network_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a model's configuration that describes the network itself."""
    return {key: value for key, value in config.items() if key not in ("kind", PROVENANCE)}


def _config(file: Any) -> dict[str, Any]:
    return dict(json.loads((file.metadata() or {})["config"]))


@contextmanager
def _report_read_errors(path: Path, stage: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise missing_model(path, stage) from None
    except (SafetensorError, KeyError, json.JSONDecodeError) as problem:
        what = f"not a model file of this pipeline: {problem}"
        raise ModelError(what, where=path, fix=f"run: moclip {stage}") from None
