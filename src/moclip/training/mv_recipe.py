"""The hyperparameters of MV-TSN's training, and the fingerprint that decides whether a checkpoint may be resumed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class MvTsnRecipe:
    """The hyperparameters of MV-TSN's training, as in the group `tsn` of params.yaml.

    The defaults are those of the paper: Adam, a rate that falls in steps, and nothing else.
    """

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
    optimiser: str = "adam"
    schedule: str = "steps"
    warmup: float = 0.0  # share of the training in which the learning rate rises
    label_smoothing: float = 0.0
    ema: float = 0.0  # decay of the average of the weights; 0: no average
    min_steps: int = 0  # least number of optimiser steps in the whole training
    balance: str = "none"  # of the classes: "loss", "sampler"
    stop_after: int = 0  # epochs to train, where a run without validation clips shall end earlier; 0: all
    # the label of a mirrored clip, by its label; -1: its class is not mirrored; (): all keep their label
    mirror_labels: tuple[int, ...] = ()


def recipe_fingerprint(recipe: MvTsnRecipe, **inputs: object) -> str:
    """Return a text of the recipe and all other inputs. A checkpoint may be resumed if it is the same."""
    return json.dumps({"recipe": asdict(recipe), **inputs}, sort_keys=True, default=str)
