"""Train a linear probe on cached features: L2-regularised multinomial logistic regression, by L-BFGS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from moclip.data.clip_weights import mean_one
from moclip.models.linear_probe import LinearProbe
from moclip.training.average_precision import mean_average_precision
from moclip.training.objective import hits, mean_loss

STRENGTHS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""Strengths of the regularisation to choose from, from strong to weak."""

ITERATIONS = 200
"""Most iterations of L-BFGS for each strength."""


@dataclass(frozen=True)
class LabelledFeatures:
    """Features of n clips, (n, width) float32, and their labels, (n,) int64 or (n, classes) (`objective`).

    weights : (n,), how much each clip counts in training; None: all the same.
    """

    features: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None = None


@dataclass(frozen=True)
class ProbeScore:
    """The strength that was chosen, and the probe's top-1 and loss on the validation split.

    map : the mean average precision there, which the strength is chosen by if clips have several labels; else None.
    """

    strength: float
    top1: float
    loss: float
    map: float | None = None

    @property
    def rank(self) -> tuple[float, float]:
        """What is larger for a better probe."""
        return self.top1 if self.map is None else self.map, -self.loss


def choose_linear_probe(
    folds: Sequence[tuple[LabelledFeatures, LabelledFeatures]], classes: int
) -> tuple[list[LinearProbe], ProbeScore]:
    """Train a probe with each of the `STRENGTHS` in each fold, and return those of the best strength, one per fold.

    A fold is the clips to train on and those held out. The best strength has the highest top-1 on the held-out clips of
    all folds together, with several labels a clip the highest mean average precision. Of equal ones it is that with the
    lowest loss, then the strongest regularisation.
    """
    paths = [_train_path(train, classes, STRENGTHS) for train, _ in folds]
    labels = np.concatenate([held_out.labels for _, held_out in folds])
    found = []
    for strength, probes in zip(STRENGTHS, zip(*paths, strict=True), strict=True):
        logits = [probe.logits(held_out.features) for probe, (_, held_out) in zip(probes, folds, strict=True)]
        found.append((list(probes), _score(np.concatenate(logits), labels, strength)))
    return max(found, key=lambda one: one[1].rank)


def train_linear_probe(train: LabelledFeatures, classes: int, strength: float) -> LinearProbe:
    """Train a probe with this strength of the regularisation.

    The loss is the mean cross-entropy plus strength / 2 times the squared weights (arXiv 2103.00020, appendix A.3, has
    the same classifier). It is minimised on features less their mean, divided by the root of their mean squared length,
    so that a strength means the same for every network. The weights returned are for the features as they are. Nothing
    is random.
    """
    return _train_path(train, classes, (strength,))[0]


def _train_path(train: LabelledFeatures, classes: int, strengths: Sequence[float]) -> list[LinearProbe]:
    """Return a probe per strength. Each training begins at the minimum of the last one, which is near."""
    mean = train.features.mean(axis=0, dtype=np.float64)
    centred = train.features - mean
    scale = float(np.sqrt(np.square(centred).sum(axis=1).mean())) or 1.0
    inputs, labels = torch.from_numpy(centred / scale), torch.from_numpy(train.labels)
    clip_weights = None if train.weights is None else torch.from_numpy(mean_one(train.weights))
    weight = torch.zeros(classes, inputs.shape[1], dtype=torch.float64)
    bias = torch.zeros(classes, dtype=torch.float64)
    probes = []
    for strength in strengths:
        weight, bias = _minimise(inputs, labels, clip_weights, weight, bias, strength)
        own = (weight / scale).numpy()
        probes.append(LinearProbe(own.astype(np.float32), (bias.numpy() - own @ mean).astype(np.float32), strength))
    return probes


def _minimise(
    inputs: Tensor, labels: Tensor, clip_weights: Tensor | None, weight: Tensor, bias: Tensor, strength: float
) -> tuple[Tensor, Tensor]:
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = mean_loss(inputs @ weight.T + bias, labels, clip_weights=clip_weights)
        value = value + strength / 2 * weight.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return weight.detach(), bias.detach()


def _score(logits: np.ndarray, labels: np.ndarray, strength: float) -> ProbeScore:
    scores, wanted = torch.from_numpy(logits), torch.from_numpy(labels)
    top1, loss = hits(scores, wanted).double().mean().item(), mean_loss(scores, wanted).item()
    return ProbeScore(strength, top1, loss, mean_average_precision(logits, labels) if labels.ndim == 2 else None)
