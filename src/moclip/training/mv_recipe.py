"""The hyperparameters of MV-TSN's training, and the fingerprint that decides whether a checkpoint may be resumed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class MvTsnRecipe:
    """The hyperparameters of MV-TSN's training, as in the group `tsn` of params.yaml."""

    segments: int
    epochs: int
    batch: int  # clips per step, over all processes
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
    accumulate: int = 1  # parts of a batch that are processed one after the other
    compile: bool = False


def recipe_fingerprint(recipe: MvTsnRecipe, **inputs: object) -> str:
    """Return a text of the recipe and all other inputs. A checkpoint may be resumed if it is the same."""
    return json.dumps({"recipe": asdict(recipe), **inputs}, sort_keys=True, default=str)
