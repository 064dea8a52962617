"""How long the training of MV-TSN will take on this machine, from the time of a few steps."""

from __future__ import annotations

import math
import time

from pipeline.params import Params

TIMED_STEPS = 3


def training_seconds(params: Params, clips: int, classes: int) -> float:
    """Return roughly how many seconds the training takes, for so many clips and classes.

    A refit is counted with all epochs, though it may have fewer; reading clips and validating are not counted.
    """
    tsn, fit = params.tsn, params.fit
    train = clips * (1 - params.dataset.test_fraction) * (1 - params.dataset.val_fraction)
    batch = max(2, min(tsn.batch, round(train)))
    epoch_steps = max(math.ceil(train / batch), math.ceil(tsn.min_steps / tsn.epochs))
    trainings = (fit.folds or 1) + bool(fit.refit or fit.folds)
    return trainings * tsn.epochs * epoch_steps * _step_seconds(params, batch, classes)


def _step_seconds(params: Params, batch: int, classes: int) -> float:
    """Return the seconds of a step of the optimiser, measured on noise."""
    import torch

    from moclip.models.device import pick_device
    from moclip.models.mv_tsn import MvTsn, MvTsnConfig

    tsn, device = params.tsn, pick_device()
    names = tuple(map(str, range(classes)))
    config = MvTsnConfig(
        tsn.backbone, names, tsn.size, tsn.dropout, tsn.stem_stride, 2 * tsn.stack, moments=tsn.moments
    )
    network = MvTsn(config).to(device).to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(network.parameters())
    fields = torch.rand(batch, tsn.segments, 2 * tsn.stack, tsn.size, tsn.size, device=device)
    labels = torch.arange(batch, device=device) % classes
    for step in range(1 + TIMED_STEPS):
        if step == 1:  # the first one prepares the others
            started = time.perf_counter()
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(fields), labels)
        loss.backward()
        optimiser.step()
        loss.item()  # waits for a GPU
    return (time.perf_counter() - started) / TIMED_STEPS


def rough_time(seconds: float) -> str:
    """Return a rough time in words: "about 2 minutes"."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    if minutes < 90:
        return f"about {minutes} minute{'s' if minutes > 1 else ''}"
    return f"about {round(seconds / 3600)} hours"
