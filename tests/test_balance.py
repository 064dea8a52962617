"""`dataset.balance`: classes of unequal size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from moclip.data.balance import class_weights, draw_order
from moclip.data.fusion_data import FusionData
from moclip.models.fusion import FusionConfig
from moclip.models.heads.concat import ConcatFusion
from moclip.training.fusion import FusionRecipe, train_fusion_head


def test_rare_classes_weigh_more_and_the_mean_weight_is_one() -> None:
    labels = np.array([0] * 90 + [2] * 10)
    weights = class_weights(labels, 4)
    assert weights.tolist() == pytest.approx([100 / 180, 1, 5, 1])
    assert weights[labels].mean() == pytest.approx(1)


def test_a_pass_holds_each_clip_once_and_the_sampler_draws_classes_equally_often() -> None:
    labels = np.array([0] * 900 + [1] * 100)
    generator = np.random.default_rng(0)
    for balance in ("none", "loss"):
        assert sorted(draw_order(labels, balance, generator)) == list(range(1000))
    drawn = labels[draw_order(labels, "sampler", generator)]
    assert len(drawn) == 1000
    assert 0.44 < drawn.mean() < 0.56
    assert (draw_order(labels, "none", np.random.default_rng(3)) == np.random.default_rng(3).permutation(1000)).all()


def rare_class() -> FusionData:
    """Two overlapping classes, of which one is rare: unbalanced training nearly always answers the other."""
    generator = np.random.default_rng(0)
    labels = (generator.random(600) < 0.08).astype(np.int64)
    motion = generator.normal(size=(600, 1, 4)).astype(np.float32)
    motion[..., 0] += 1.2 * labels[:, None]
    return FusionData(
        torch.from_numpy(motion), torch.nn.functional.normalize(torch.ones(600, 1, 3), dim=-1), torch.from_numpy(labels)
    )


def recall_of_the_rare_class(data: FusionData, balance: str = "none") -> float:
    recipe = FusionRecipe(lr=0.01, weight_decay=0.0, epochs=20, batch=64, seed=0, balance=balance)
    torch.manual_seed(0)
    head = ConcatFusion(FusionConfig(4, 3, 8, 2, 0.0))
    train_fusion_head(head, data, data[:0], recipe, torch.device("cpu"), lambda row: None)
    with torch.inference_mode():
        answers = head(data.motion[:, 0], data.stills).argmax(1)
    return float((answers[data.labels == 1] == 1).float().mean())


@pytest.mark.parametrize("balance", ["loss", "sampler"])
def test_a_rare_class_is_recognised_more_often(balance: str) -> None:
    assert recall_of_the_rare_class(rare_class()) < 0.3
    assert recall_of_the_rare_class(rare_class(), balance) > 0.55


def test_clips_of_more_weight_are_recognised_more_often() -> None:
    data = rare_class()
    weights = torch.where(data.labels == 1, 12.0, 1.0)
    assert recall_of_the_rare_class(replace(data, weights=weights / weights.mean())) > 0.55
