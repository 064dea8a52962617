"""The training recipe of MV-TSN and of the image baseline, from the group `tsn` of params.yaml."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.params import Params

if TYPE_CHECKING:
    from moclip.data.clip_batches import SampledFields
    from moclip.models.mv_tsn import MvTsnConfig
    from moclip.training.mv_recipe import MvTsnRecipe
    from pipeline.inputs import Inputs


RECIPE_KEYS = (
    "seed",
    "tsn.pretrained",
    "tsn.size",
    "tsn.stem_stride",
    "tsn.epochs",
    "tsn.batch",
    "tsn.accumulate",
    "tsn.lr",
    "tsn.eps",
    "tsn.weight_decay",
    "tsn.lr_mult.head",
    "tsn.lr_mult.stem",
    "tsn.lr_mult.rest",
    "tsn.lr_steps",
    "tsn.dropout",
    "tsn.crops",
    "tsn.flip",
    "tsn.precision",
    "tsn.compile",
    "evaluate.crop",
)
"""The keys that `training_recipe` and the network depend on, for a stage to declare."""

CHECKPOINT_SECONDS = 20.0
"""Least time between two checkpoints."""


def training_recipe(params: Params, segments: int) -> MvTsnRecipe:
    """Return the recipe for clips of so many segments."""
    from moclip.training.mv_recipe import MvTsnRecipe  # imports torch

    tsn = params.tsn
    return MvTsnRecipe(
        segments=segments,
        epochs=tsn.epochs,
        batch=tsn.batch,
        lr=tsn.lr,
        eps=tsn.eps,
        weight_decay=tsn.weight_decay,
        lr_mult_head=tsn.lr_mult.head,
        lr_mult_stem=tsn.lr_mult.stem,
        lr_mult_rest=tsn.lr_mult.rest,
        lr_steps=tuple(tsn.lr_steps),
        crops=tuple(tsn.crops),
        flip=tsn.flip,
        precision=tsn.precision,
        test_crop=params.evaluate.crop,
        seed=params.seed,
        accumulate=tsn.accumulate,
        compile=tsn.compile,
    )


def run_fingerprint(
    params: Params,
    recipe: MvTsnRecipe,
    network: MvTsnConfig,
    pretrained: bool | str,
    inputs: Inputs,
    fields: SampledFields,
) -> str:
    """Return a text that is the same for two runs if one may resume from the checkpoint of the other."""
    from moclip.training.mv_recipe import recipe_fingerprint
    from moclip.video.clip_files import file_md5

    return recipe_fingerprint(
        recipe,
        network=asdict(network),
        pretrained=[pretrained, file_md5(Path(str(pretrained))) if Path(str(pretrained)).is_file() else ""],
        clips=inputs.clips.fingerprint(),
        shots=params.dataset.shots,
        base_to_new=params.dataset.base_to_new,
        store=fields.reader.attributes["recipe"],
    )
