"""Batch norms folded into convolutions: the same features, and only where that is what comes out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn

from moclip.models.batch_norm_folding import fold_batch_norms
from moclip.models.mv_tsn import MvTsn, MvTsnConfig


def trained(network: nn.Module) -> nn.Module:
    """As after a training: norms with statistics and weights of their own."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.3)
    return network.eval()


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@torch.no_grad()
def gap(one: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor], shown: Tensor) -> float:
    expected = one(shown)
    return float((other(shown) - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(
    "backbone", ["efficientnet_b0", "resnet10t", "test_resnet", "mobilenetv3_small_050", "test_vit"]
)
def test_folding_batch_norms_keeps_a_backbones_features(backbone: str) -> None:
    size = 160 if backbone == "test_vit" else 64
    network = MvTsn(MvTsnConfig(backbone, ("a", "b"), size, 0.5))
    trained(network)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    frozen = network.frozen()
    assert norms(frozen.backbone) == 0
    assert gap(network.features, frozen.features, torch.rand(3, 2, size, size) * 2 - 1) < 1e-5
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items()), "it is a copy"


class Unfoldable(nn.Module):
    """A network in which a norm cannot go into its convolution, `how` says why, before one that can."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.conv, self.norm = nn.Conv2d(2, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.other, self.second = nn.BatchNorm2d(8), nn.Conv2d(2, 8, 3)
        self.plain = nn.Sequential(nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4))

    def forward(self, shown: Tensor) -> Tensor:
        return self.plain(self.first(shown, self.conv(shown)))

    def first(self, shown: Tensor, seen: Tensor) -> Tensor:
        if self.how == "added":
            return self.norm(seen) + seen
        if self.how == "run twice":
            return self.norm(seen) + self.conv(shown + 1)
        if self.how == "changed in place":
            return self.norm(seen.relu_())
        if self.how == "two norms":
            return self.norm(seen) + self.other(seen)
        if self.how == "one norm for two":
            return self.norm(seen) + self.norm(self.second(shown))
        return self.norm(seen.relu())


@pytest.mark.parametrize(
    ("how", "left"),
    [
        ("two norms", 2), ("one norm for two", 2), ("something between", 2),
        ("added", 3), ("run twice", 3), ("changed in place", 3),  # seen by what comes out: nothing is folded
    ],
)  # fmt: skip
def test_layers_that_cannot_be_folded_stay_unchanged(how: str, left: int) -> None:
    network, shown = trained(Unfoldable(how)), torch.randn(2, 2, 16, 16)
    made = fold_batch_norms(network, shown)
    assert norms(made) == left
    assert gap(network, made, shown) < 1e-5


def test_a_network_with_nan_outputs_is_not_folded() -> None:
    network = trained(timm.create_model("test_resnet", num_classes=0))
    nn.init.constant_(next(network.parameters()), float("nan"))
    assert norms(fold_batch_norms(network, torch.randn(1, 3, 32, 32))) == norms(network)


def test_timms_norms_keep_their_activation() -> None:
    network = trained(timm.create_model("test_efficientnet", num_classes=0))
    shown = torch.randn(2, 3, 64, 64)
    made = fold_batch_norms(network, shown)
    assert norms(network) > norms(made) == 0
    assert gap(network, made, shown) < 1e-5
