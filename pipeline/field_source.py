"""How params.yaml wants motion fields to be made."""

from __future__ import annotations

from moclip.motion.extract_plan import FieldRecipe
from pipeline.params import Params


def field_recipe(params: Params) -> FieldRecipe:
    """Return the recipe of the motion fields, from the group `mv`."""
    mv = params.mv
    return FieldRecipe(mv.canvas, mv.cell, mv.accumulate, mv.clip, mv.backend, mv.shard, mv.per)
