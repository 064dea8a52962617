"""The numbers of a training of MV-TSN, and a text that is equal when a checkpoint may be resumed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class MvTsnRecipe:
    """The numbers of MV-TSN's training, as in params.yaml's group `tsn`."""

    segments: int
    epochs: int
    batch: int  # clips, of all processes together
    lr: float
    eps: float
    weight_decay: float
    lr_mult_head: float
    lr_mult_stem: float
    lr_mult_rest: float
    lr_steps: tuple[int, ...]
    crops: tuple[float, ...]
    flip: bool
    precision: str
    test_crop: float
    seed: int
    accumulate: int = 1  # parts of a batch that go through the network one after the other
    compile: bool = False


def recipe_fingerprint(recipe: MvTsnRecipe, **inputs: object) -> str:
    """A text that is equal exactly if a checkpoint may be resumed: the recipe and all other inputs."""
    return json.dumps({"recipe": asdict(recipe), **inputs}, sort_keys=True, default=str)
