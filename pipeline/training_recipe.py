"""Training recipes from params.yaml: of MV-TSN and the image baseline (group `tsn`), and of the fusion head."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.code_digests import running_code
from pipeline.params import Group, Params

if TYPE_CHECKING:
    from moclip.data.clip_batches import SampledFields
    from moclip.models.mv_tsn import MvTsnConfig
    from moclip.training.mirroring import Mirroring
    from moclip.training.mv_recipe import MvTsnRecipe
    from pipeline.inputs import Inputs

Recipe = TypeVar("Recipe")

RECIPE_KEYS = (
    "seed",
    "dataset.balance",
    "tsn.pretrained",
    "tsn.size",
    "tsn.stem_stride",
    "tsn.stabilise",
    "tsn.epochs",
    "tsn.min_steps",
    "tsn.batch",
    "tsn.accumulate",
    "tsn.optimiser",
    "tsn.lr",
    "tsn.eps",
    "tsn.weight_decay",
    "tsn.lr_mult.head",
    "tsn.lr_mult.stem",
    "tsn.lr_mult.rest",
    "tsn.schedule",
    "tsn.lr_steps",
    "tsn.warmup",
    "tsn.label_smoothing",
    "tsn.ema",
    "tsn.dropout",
    "tsn.crops",
    "tsn.flip",
    "tsn.precision",
    "tsn.compile",
    "fit.folds",
    "fit.refit",
    "evaluate.crop",
)
"""The keys that `training_recipe` and the network depend on, for a stage to declare."""

CHECKPOINT_SECONDS = 20.0
"""Least time between two checkpoints."""


def recipe_from(kind: Callable[..., Recipe], group: Group, **others: Any) -> Recipe:
    """Return a recipe, a dataclass: each field is the key of that name in `group`, or one of `others`."""
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in group} | others
    return kind(**{name: values[name] for name in inspect.signature(kind).parameters})


def training_recipe(params: Params, segments: int, mirroring: Mirroring) -> MvTsnRecipe:
    """Return the recipe for clips of so many segments."""
    from moclip.training.mv_recipe import MvTsnRecipe

    lr_mult = {f"lr_mult_{part}": factor for part, factor in params.tsn.lr_mult}
    others = {"segments": segments, "test_crop": params.evaluate.crop, "seed": params.seed, "stop_after": 0}
    balance = params.dataset.balance
    mirrored = {"flip": mirroring.flip, "mirror_labels": mirroring.labels}
    return recipe_from(MvTsnRecipe, params.tsn, **lr_mult, **others, **mirrored, balance=balance)


def run_fingerprint(
    recipe: MvTsnRecipe,
    network: MvTsnConfig,
    pretrained: bool | str,
    inputs: Inputs,
    fields: SampledFields,
    stage: str,
    part: str,
) -> str:
    """Return a text that is the same for two runs if one may resume from the checkpoint of the other.

    `part` says which of the trainings of a stage it is: which fold, or that on all clips.
    """
    from moclip.training.mv_recipe import recipe_fingerprint
    from moclip.video.clip_files import file_md5

    params = inputs.params
    return recipe_fingerprint(
        recipe,
        network=asdict(network),
        pretrained=[pretrained, file_md5(Path(str(pretrained))) if Path(str(pretrained)).is_file() else ""],
        clips=inputs.clips.fingerprint(),
        shots=params.dataset.shots,
        base_to_new=params.dataset.base_to_new,
        fit=[part, params.fit.folds],
        code=running_code()[stage],
        store=fields.reader.attributes["recipe"],
        **inputs.clips.weights_record(),
    )
