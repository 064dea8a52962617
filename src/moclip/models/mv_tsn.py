"""MV-TSN (arXiv 2509.17084; segments and consensus after TSN, arXiv 1608.00859): a small CNN on motion vectors.

fields (B, S, 2, H, W) -> BatchNorm2d(2) -> timm backbone -> (B, S, D) -> linear head -> mean over S -> (B, classes)

With `channels` 3 it is the image classifier of the baselines: the field becomes an RGB picture, as a viewer would see
it, and goes into the backbone as any photo does.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from moclip.errors import ModelError
from moclip.models.batch_norm_folding import folded
from moclip.models.weights import MADE, load_weights, network_config, save_weights


@dataclass(frozen=True)
class MvTsnConfig:
    """What it takes to build the network again: backbone and head, and how its input is made."""

    backbone: str
    classes: tuple[str, ...]
    size: int  # px of the square the network sees
    dropout: float
    stem_stride: int = 2  # of the first convolution; 1: the network runs at twice the resolution
    channels: int = 2  # 2: dx and dy; 3: an RGB picture of them


AT_ONCE = 8 * 224**2
"""Pixels that go through a network at once on a CPU; half or twice as many are as quick."""


class MvTsn(nn.Module):
    """`pretrained` is False, "hub" or a local weights file. Raises ModelError where timm cannot give the backbone."""

    def __init__(self, config: MvTsnConfig, pretrained: bool | str = False) -> None:
        super().__init__()
        self.config = config
        self.input_norm: nn.Module = nn.BatchNorm2d(2) if config.channels == 2 else Picture()
        self.backbone = _backbone(config.backbone, pretrained, config.channels)
        if config.stem_stride == 1:
            _unstride(self.backbone, config.backbone)
        self.width = _width(self.backbone)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(self.width, len(config.classes))
        nn.init.normal_(self.head.weight, 0, 0.001)  # TSN's initialisation
        nn.init.zeros_(self.head.bias)

    def features(self, fields: Tensor) -> Tensor:
        """(N, 2, H, W) in [-1, 1] -> (N, D)."""
        return self.backbone(self.input_norm(fields).contiguous(memory_format=torch.channels_last))

    def frozen(self) -> MvTsn:
        """A copy, of a network in eval mode, for inference alone: the backbone's batch norms are in its convolutions.

        A fifth to a third quicker; its features are those of the network but for rounding. Not to be trained or saved.
        """
        made = copy.deepcopy(self).cpu()  # a GPU's TensorFloat-32 rounds more than folding may change
        draw = torch.Generator().manual_seed(0)
        shown = torch.randn(2, self.config.channels, self.config.size, self.config.size, generator=draw)
        made.backbone = folded(made.backbone, shown)
        return made.to(self.head.weight.device)

    def encode(self, fields: Tensor) -> Tensor:
        """The `features` of a network in eval mode, on a CPU a few fields at a time.

        What a layer hands to the next then stays in the processor's cache: half the time (docs/performance.md), and
        the same values but for a last bit at most.
        """
        if fields.device.type != "cpu":
            return self.features(fields)
        few = max(1, AT_ONCE // (self.config.size * 2 // self.config.stem_stride) ** 2)
        return torch.cat([self.features(part) for part in fields.split(few)])

    def forward(self, fields: Tensor) -> Tensor:
        """(B, S, 2, H, W) -> logits (B, classes), the mean over the segments."""
        features = self.features(fields.flatten(0, 1))
        return self.head(self.dropout(features)).unflatten(0, fields.shape[:2]).mean(1)

    def save(self, path: Path, made: Mapping[str, Any] | None = None) -> None:
        """Write weights and configuration; `made` tells what the network was made with and from."""
        config = {"kind": "mv_tsn", **asdict(self.config)}
        save_weights(path, self.state_dict(), config | ({MADE: made} if made else {}))


def load_mv_tsn(path: Path, stage: str = "train_mv") -> MvTsn:
    """A trained MV-TSN in eval mode. Raises ModelError naming the `stage` that makes it."""
    tensors, config = load_weights(path, stage)
    model = MvTsn(MvTsnConfig(**{key: _tuple(value) for key, value in network_config(config).items()}))
    model.load_state_dict(tensors)
    return model.eval()


class Picture(nn.Module):
    """(N, 2, H, W) in [-1, 1] -> (N, 3, H, W): dx in red and dy in green around mid-grey, their length in blue,
    then normalised as ImageNet's photos are."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, values in (("mean", IMAGENET_DEFAULT_MEAN), ("std", IMAGENET_DEFAULT_STD)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, fields: Tensor) -> Tensor:
        length = fields.norm(dim=1, keepdim=True).clamp(max=1)
        rgb = torch.cat([(fields + 1) / 2, length], dim=1)
        return (rgb - self.mean) / self.std


def parameter_groups(model: MvTsn, lr: float, weight_decay: float, head: float, stem: float, rest: float) -> list[dict]:
    """Optimiser groups: learning-rate multipliers for head, stem (with the input norm) and rest; no decay on biases
    and norms (CoViAR's recipe, which the paper follows). Empty groups are left out.
    """
    first = tuple(f"backbone.{name}." for name in _first_convolutions(model.backbone))
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if name.startswith("head."):
            part = "head"
        elif name.startswith(("input_norm.", *first)):
            part = "stem"
        else:
            part = "rest"
        groups.setdefault((part, parameter.ndim > 1), []).append(parameter)
    times = {"head": head, "stem": stem, "rest": rest}
    return [
        {
            "name": f"{part}{'' if decayed else ', no decay'}",
            "params": parameters,
            "lr": lr * times[part],
            "weight_decay": weight_decay if decayed else 0.0,
        }
        for (part, decayed), parameters in sorted(groups.items())
    ]


def _first_convolutions(backbone: nn.Module) -> list[str]:
    """Names of the convolutions that see the input, as timm knows them."""
    about: Any = backbone.pretrained_cfg
    first = (about or {}).get("first_conv") or []
    return [first] if isinstance(first, str) else list(first)


def _unstride(backbone: nn.Module, name: str) -> None:
    """Set the first convolution's stride to 1; the weights fit as they are."""
    modules = dict(backbone.named_modules())
    stems = [modules.get(first) for first in _first_convolutions(backbone)]
    strided = [stem for stem in stems if isinstance(stem, nn.Conv2d) and stem.stride == (2, 2)]
    if not strided or len(strided) < len(stems):
        raise ModelError("its first convolution has no stride of 2 to take away", where=name, fix="tsn.stem_stride=2")
    for stem in strided:
        stem.stride = (1, 1)


def _backbone(name: str, pretrained: bool | str, channels: int) -> nn.Module:
    if name not in timm.list_models():
        near = timm.list_models(f"*{name[:6]}*")[:5]
        raise ModelError("no such timm model", where=name, fix=f"near it: {', '.join(near)}" if near else None)
    options: dict[str, Any] = {"in_chans": channels, "num_classes": 0, "pretrained": bool(pretrained)}
    if pretrained and pretrained != "hub":
        if not Path(str(pretrained)).is_file():
            raise ModelError("no such weights file", where=str(pretrained), fix="see tsn.pretrained")
        if Path(str(pretrained)).suffix != ".safetensors":
            raise ModelError("weights are taken as .safetensors only", where=str(pretrained))
        options["pretrained_cfg_overlay"] = {"file": str(pretrained)}
    try:
        return timm.create_model(name, **options)
    except (OSError, RuntimeError, ValueError) as problem:
        raise ModelError(
            f"cannot load the weights: {str(problem).strip().splitlines()[0]}",
            where=f"{name} from {pretrained}",
            fix="tsn.pretrained is false, hub (with the hub in reach) or a file with this model's weights",
        ) from None


def _width(backbone: nn.Module) -> int:
    """Features that the backbone gives: some timm models have a wider layer behind their last block."""
    width: Any = getattr(backbone, "head_hidden_size", None) or backbone.num_features
    return int(width)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
