"""Models on disk: safetensors with the model's configuration as JSON in the file's metadata. Never pickle."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from moclip.errors import ModelError, missing_model
from moclip.files.atomic import write_atomically

MADE = "made"
"""In a model's configuration: what it was made with and from (`pipeline.made`). The network does not depend on it."""


def save_weights(path: Path, tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
    """Write `tensors` and `config` atomically; the same values give the same bytes."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    write_atomically(path, save(whole, metadata={"config": json.dumps(config, sort_keys=True)}))


def load_weights(path: Path, stage: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read what `save_weights` wrote. Raises ModelError naming the `stage` that makes the file."""
    with _reading(path, stage), safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no iterator there
        return tensors, _config(file)


def read_config(path: Path, stage: str) -> dict[str, Any]:
    """The configuration of a model, without its weights. Raises ModelError naming the `stage` that makes the file."""
    with _reading(path, stage), safe_open(path, framework="pt") as file:
        return _config(file)


def network_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a model's configuration describes the network itself."""
    return {key: value for key, value in config.items() if key not in ("kind", MADE)}


def _config(file: Any) -> dict[str, Any]:
    return dict(json.loads((file.metadata() or {})["config"]))


@contextmanager
def _reading(path: Path, stage: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise missing_model(path, stage) from None
    except (SafetensorError, KeyError, json.JSONDecodeError) as problem:
        raise ModelError(f"not a model of ours: {problem}", where=path, fix=f"run: python -m stages.{stage}") from None
