"""Models on disk: safetensors with the model's configuration as JSON in the file's metadata. Never pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from moclip.errors import ModelError, no_model
from moclip.files import write_atomically


def save_weights(path: Path, tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
    """Write `tensors` and `config` atomically; the same values give the same bytes."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    write_atomically(path, save(whole, metadata={"config": json.dumps(config, sort_keys=True)}))


def load_weights(path: Path, stage: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read what `save_weights` wrote. Raises ModelError naming the `stage` that makes the file."""
    fix = f"run: python -m stages.{stage}"
    try:
        with safe_open(path, framework="pt") as file:
            config = json.loads((file.metadata() or {})["config"])
            return {name: file.get_tensor(name) for name in file.keys()}, config  # noqa: SIM118  no iterator there
    except FileNotFoundError:
        raise no_model(path, stage) from None
    except (SafetensorError, KeyError, json.JSONDecodeError) as problem:
        raise ModelError(f"not a model of ours: {problem}", where=path, fix=fix) from None
