"""The optimiser of MV-TSN's training, the schedule of its learning rate, and how many steps an epoch has."""

from __future__ import annotations

import math

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, MultiStepLR, OneCycleLR

from moclip.models.mv_tsn import MvTsn, parameter_groups
from moclip.training.mv_batches import slice_batches
from moclip.training.mv_recipe import MvTsnRecipe

SGD_MOMENTUM = 0.9


def make_optimiser(model: MvTsn, recipe: MvTsnRecipe) -> torch.optim.Optimizer:
    """Return the recipe's optimiser: adam, adamw or sgd, with its parameter groups."""
    groups = parameter_groups(
        model, recipe.lr, recipe.weight_decay, recipe.lr_mult_head, recipe.lr_mult_stem, recipe.lr_mult_rest
    )
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(groups, momentum=SGD_MOMENTUM)
    kind = torch.optim.AdamW if recipe.optimiser == "adamw" else torch.optim.Adam
    return kind(groups, eps=recipe.eps)


def make_schedules(optimiser: torch.optim.Optimizer, recipe: MvTsnRecipe, epoch_steps: int) -> list[LRScheduler]:
    """Return the schedules of the learning rates, each to be advanced after every step of the optimiser.

    `steps` divides the rates by ten at each epoch in `recipe.lr_steps`. `cosine` lowers them to 0 along half a cosine.
    With a warm-up, both are multiplied by a factor that rises linearly to 1. `onecycle` is PyTorch's OneCycleLR, which
    rises and falls, and moves the momentum the other way.
    """
    steps = recipe.epochs * epoch_steps
    if recipe.schedule == "onecycle":
        return [_one_cycle(optimiser, recipe.warmup, steps)]
    schedules: list[LRScheduler] = []
    if recipe.schedule == "cosine":
        schedules.append(CosineAnnealingLR(optimiser, steps))
    else:
        milestones = [epoch * epoch_steps for epoch in sorted(recipe.lr_steps)]
        schedules.append(MultiStepLR(optimiser, milestones, gamma=0.1))
    rising = round(recipe.warmup * steps)
    if rising > 1:
        schedules.append(LinearLR(optimiser, start_factor=1 / rising, total_iters=rising - 1))
    return schedules


def _one_cycle(optimiser: torch.optim.Optimizer, warmup: float, steps: int) -> OneCycleLR:
    """Return a cycle that ends after `steps` advances. It rises for one step at least: OneCycleLR cannot do less."""
    rates = [group["lr"] for group in optimiser.param_groups]
    points = steps + 1  # the rate before the first step, and that after each one
    return OneCycleLR(optimiser, rates, total_steps=points, pct_start=max(warmup, 2 / points))


def steps_per_epoch(recipe: MvTsnRecipe, one_pass: int) -> int:
    """Return the steps of an epoch, of which one pass through the clips takes `one_pass`.

    It is one pass, or as many steps as the training needs to have `recipe.min_steps`.
    """
    return max(one_pass, math.ceil(recipe.min_steps / recipe.epochs))


def epoch_steps(recipe: MvTsnRecipe, clips: int) -> int:
    """Return the steps of an epoch of a training on so many clips in one process.

    Several processes may make fewer, because batches too small for them join the one before.
    """
    return steps_per_epoch(recipe, len(slice_batches(clips, recipe.batch, 2)))
