"""Save and load the checkpoint that a killed training of MV-TSN resumes from."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from torch import Tensor

from moclip.errors import ModelError
from moclip.models.weights import load_weights, save_weights
from moclip.training.mv_training import MvTsnTraining


class Checkpoint:
    """The checkpoint of a training run. Only a run with the same `fingerprint` resumes from it.

    `seconds` is the least time between two checkpoints, because saving one can take longer than a short epoch.
    """

    def __init__(self, path: Path, fingerprint: str, seconds: float) -> None:
        self.path, self.fingerprint, self.seconds = path, fingerprint, seconds
        self.saved_at = time.monotonic()

    def is_due(self) -> bool:
        return time.monotonic() - self.saved_at >= self.seconds

    def save(self, training: MvTsnTraining) -> None:
        optimiser = training.optimiser.state_dict()
        tensors = {f"model/{name}": tensor for name, tensor in training.model.state_dict().items()}
        tensors |= {f"best/{name}": tensor for name, tensor in training.best.state.items()}
        if training.average:
            tensors |= {f"average/{name}": tensor for name, tensor in training.scored.state_dict().items()}
        tensors |= {
            f"optimiser/{number}/{name}": tensor
            for number, entries in optimiser["state"].items()
            for name, tensor in entries.items()
        }
        plain = {
            "fingerprint": self.fingerprint,
            "history": training.history,
            "best": training.best.row,
            "groups": optimiser["param_groups"],
            "schedules": [_without_milestones(schedule.state_dict()) for schedule in training.schedules],
            "scaler": training.scaler.state_dict(),  # empty except in float16
        }
        save_weights(self.path, tensors, json.loads(json.dumps(plain)))
        self.saved_at = time.monotonic()

    def resume(self, training: MvTsnTraining) -> None:
        """Load the state of the file into a new `training`. Do nothing if there is no file with this fingerprint."""
        try:
            tensors, plain = load_weights(self.path, "train_mv")
        except ModelError:
            return
        if plain["fingerprint"] != self.fingerprint:
            return
        training.model.load_state_dict(_with_prefix(tensors, "model/"))
        if training.average:
            training.scored.load_state_dict(_with_prefix(tensors, "average/"))
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _with_prefix(tensors, "optimiser/").items():
            number, entry = name.split("/")
            state.setdefault(int(number), {})[entry] = tensor
        training.optimiser.load_state_dict({"state": state, "param_groups": plain["groups"]})
        for schedule, values in zip(training.schedules, plain["schedules"], strict=True):
            schedule.load_state_dict(values)
        if plain["scaler"]:
            training.scaler.load_state_dict(plain["scaler"])
        training.best.row, training.best.state = plain["best"], _with_prefix(tensors, "best/")
        training.history = plain["history"]


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _without_milestones(state: dict[str, Any]) -> dict[str, Any]:
    """Return a schedule's state without its milestones, whose keys JSON would turn into texts. The recipe has them."""
    return {key: value for key, value in state.items() if key != "milestones"}
