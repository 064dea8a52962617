"""MV-TSN (arXiv 2509.17084; segments and consensus after TSN, arXiv 1608.00859): a small CNN on motion vectors.

fields (B, S, C, H, W) -> BatchNorm2d(C) -> timm backbone -> (B, S, D) -> linear head -> mean over S -> (B, classes)

With `moments` above 1, the features are first weighted by the segment's place in time (`MvTsn.in_time`).

C is 2 (dx and dy), or 2 for each of several neighbouring fields. With C = 3 it is the image baseline: the field
becomes an RGB picture (`FieldToRgb`) and goes into the backbone like a photo.
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
from moclip.models.batch_norm_folding import fold_batch_norms
from moclip.models.timm_checks import check_weights_file, unknown_model
from moclip.models.weights import PROVENANCE, load_weights, network_config, save_weights


@dataclass(frozen=True)
class MvTsnConfig:
    """What defines the network: backbone, head, and how its input is made."""

    backbone: str
    classes: tuple[str, ...]
    size: int  # px of the square the network sees
    dropout: float
    stem_stride: int = 2  # of the first convolution; 1: the network runs at twice the resolution
    channels: int = 2  # dx and dy of each neighbouring field; 3: an RGB picture of one
    stabilise: str | bool = False  # how the camera's motion is taken out of the fields: "median", "affine"
    moments: int = 1  # of the features over time; 1: their mean, which knows no order

    @property
    def stack(self) -> int:
        """How many neighbouring fields the network sees at once."""
        return 1 if self.channels == RGB else self.channels // 2


RGB = 3
"""The channels of the image baseline. Neighbouring fields always have an even number."""


CPU_BATCH_PIXELS = 4 * 224**2
"""Pixels that go through a network in one pass on a CPU. Twice as many are as quick on some, and slower on others."""


class MvTsn(nn.Module):
    """The network. `pretrained` is False, "hub" or a local weights file.

    Raises ModelError where timm cannot create the backbone or load its weights.
    """

    def __init__(self, config: MvTsnConfig, pretrained: bool | str = False) -> None:
        super().__init__()
        self.config = config
        self.input_norm: nn.Module = FieldToRgb() if config.channels == RGB else nn.BatchNorm2d(config.channels)
        self.backbone = _create_backbone(config.backbone, pretrained, config.channels)
        if config.stem_stride == 1:
            _remove_stem_stride(self.backbone, config.backbone)
        self.width = config.moments * _feature_width(self.backbone)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(self.width, len(config.classes))
        nn.init.normal_(self.head.weight, 0, 0.001)  # TSN's initialisation
        nn.init.zeros_(self.head.bias)

    def features(self, fields: Tensor) -> Tensor:
        """Compute features: (N, C, H, W) in [-1, 1] -> (N, D)."""
        return self.backbone(self.input_norm(fields).contiguous(memory_format=torch.channels_last))

    def frozen(self) -> MvTsn:
        """Return a copy, of a network in eval mode, for inference only: its batch norms are folded.

        It takes a fifth to a third less time and gives the same features except for rounding. Do not train or save it.
        """
        result = copy.deepcopy(self).cpu()  # a GPU's TensorFloat-32 rounds more than folding may change
        generator = torch.Generator().manual_seed(0)
        example = torch.randn(2, self.config.channels, self.config.size, self.config.size, generator=generator)
        result.backbone = fold_batch_norms(result.backbone, example)
        return result.to(self.head.weight.device)

    def encode(self, fields: Tensor) -> Tensor:
        """Compute the `features` of a network in eval mode; on a CPU a few fields at a time.

        The layers' outputs then stay in the processor's cache: half the time (docs/performance.md), and the same values
        except for the last bit.
        """
        if fields.device.type != "cpu":
            return self.features(fields)
        batch = max(1, CPU_BATCH_PIXELS // (self.config.size * 2 // self.config.stem_stride) ** 2)
        return torch.cat([self.features(part) for part in fields.split(batch)])

    def forward(self, fields: Tensor) -> Tensor:
        """Compute logits: (B, S, C, H, W) -> (B, classes), the mean over the segments."""
        features = self.features(fields.flatten(0, 1)).unflatten(0, fields.shape[:2])
        return self.head(self.dropout(self.in_time(features))).mean(1)

    def in_time(self, features: Tensor) -> Tensor:
        """Weight the features of a clip's segments by their place in time: (..., S, D) -> (..., S, moments * D).

        Moment k of a segment in the middle of part s of S has the weight sqrt(2) cos(pi k (s + 1/2) / S), and moment 0
        the weight 1. Their means over the segments are the first coefficients of the discrete cosine transform (Ahmed
        et al. 1974). So they tell a clip from one that runs backwards, whatever the number of segments.
        """
        if self.config.moments == 1:
            return features
        segments = features.shape[-2]
        place = (torch.arange(segments, device=features.device) + 0.5) / segments
        order = torch.arange(self.config.moments, device=features.device)
        weights = torch.cos(torch.pi * order * place[:, None]) * torch.where(order > 0, 2**0.5, 1.0)  # (S, moments)
        return (weights[..., None] * features[..., None, :]).flatten(-2)

    def pool(self, features: Tensor) -> Tensor:
        """Return the feature of each clip from those of its views: (B, S, views, D) -> (B, width)."""
        if self.config.moments == 1:
            return features.flatten(1, 2).mean(1)
        return self.in_time(features.mean(2)).mean(1)

    def save(self, path: Path, provenance: Mapping[str, Any] | None = None) -> None:
        """Write weights, configuration, and what the network was trained with."""
        config = {"kind": "mv_tsn", **asdict(self.config)}
        save_weights(path, self.state_dict(), config | ({PROVENANCE: provenance} if provenance else {}))


def load_mv_tsn(path: Path, stage: str = "train_mv") -> MvTsn:
    """Load a trained MV-TSN in eval mode. Raises ModelError that names the `stage` that writes it."""
    tensors, config = load_weights(path, stage)
    settings = network_config(config)
    model = MvTsn(MvTsnConfig(**settings | {"classes": tuple(settings["classes"])}))
    model.load_state_dict(tensors)
    return model.eval()


class FieldToRgb(nn.Module):
    """Turn fields (N, 2, H, W) in [-1, 1] into pictures (N, 3, H, W), normalised as ImageNet's photos.

    Red is dx and green is dy, both around mid-grey; blue is their length.
    """

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


def parameter_groups(
    model: MvTsn, lr: float, weight_decay: float, lr_mult_head: float, lr_mult_stem: float, lr_mult_rest: float
) -> list[dict]:
    """Return optimiser groups with learning-rate multipliers for the head, the stem with the input norm, and the rest.

    Biases and norms have no weight decay (CoViAR's recipe, which the paper follows). Empty groups are left out.
    """
    stem = tuple(f"backbone.{name}." for name in _first_convolutions(model.backbone))
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if name.startswith("head."):
            part = "head"
        elif name.startswith(("input_norm.", *stem)):
            part = "stem"
        else:
            part = "rest"
        groups.setdefault((part, parameter.ndim > 1), []).append(parameter)
    lr_mult = {"head": lr_mult_head, "stem": lr_mult_stem, "rest": lr_mult_rest}
    return [
        {
            "name": f"{part}{'' if decayed else ', no decay'}",
            "params": parameters,
            "lr": lr * lr_mult[part],
            "weight_decay": weight_decay if decayed else 0.0,
        }
        for (part, decayed), parameters in sorted(groups.items())
    ]


def _first_convolutions(backbone: nn.Module) -> list[str]:
    """Return the names of the convolutions that take the input, from timm's configuration."""
    config: Any = backbone.pretrained_cfg
    first = (config or {}).get("first_conv") or []
    return [first] if isinstance(first, str) else list(first)


def _remove_stem_stride(backbone: nn.Module, name: str) -> None:
    """Set the first convolution's stride to 1; its weights fit unchanged."""
    modules = dict(backbone.named_modules())
    stems = [modules.get(first) for first in _first_convolutions(backbone)]
    strided = [stem for stem in stems if isinstance(stem, nn.Conv2d) and stem.stride == (2, 2)]
    if not strided or len(strided) < len(stems):
        raise ModelError("its first convolution has no stride of 2 to remove", where=name, fix="set tsn.stem_stride=2")
    for stem in strided:
        stem.stride = (1, 1)


PRETRAINED_FIX = "set tsn.pretrained to false, hub (if the hub can be reached) or a file with this model's weights"


def _create_backbone(name: str, pretrained: bool | str, channels: int) -> nn.Module:
    if name not in timm.list_models():
        raise unknown_model(name, name)
    options: dict[str, Any] = {"in_chans": channels, "num_classes": 0, "pretrained": bool(pretrained)}
    is_file = bool(pretrained) and pretrained != "hub"
    if is_file:
        check_weights_file(Path(str(pretrained)), "see tsn.pretrained")
        options["pretrained_cfg_overlay"] = {"file": str(pretrained)}
    before = torch.get_rng_state()
    try:
        backbone: nn.Module = timm.create_model(name, **options)
    except (OSError, RuntimeError, ValueError) as problem:
        reason = str(problem).strip().splitlines()[0]
        if "loading state_dict" in reason:  # the names and sizes follow in many lines
            reason = "they are of another network"
        raise ModelError(
            f"cannot load the weights: {reason}",
            where=f"{name} from {pretrained}",
            fix=PRETRAINED_FIX,
        ) from None
    if is_file:
        _check_loaded(backbone, before, options | {"model_name": name, "pretrained": False}, str(pretrained))
    return backbone


def _check_loaded(backbone: nn.Module, before: Tensor, options: dict[str, Any], file: str) -> None:
    """Raise ModelError if a weight is still as it was drawn: timm skips what a file lacks, and renames what it holds.

    `before` is the state of the random numbers before the network was made; it is made once more with them.
    """
    after = torch.get_rng_state()
    torch.set_rng_state(before)
    drawn = dict(timm.create_model(**options).named_parameters())
    torch.set_rng_state(after)
    missing = [name for name, weight in backbone.named_parameters() if weight.ndim > 1 and weight.equal(drawn[name])]
    if missing:
        what = f"{len(missing)} of the weights are not in the file: {', '.join(missing[:3])}"
        raise ModelError(what, where=f"{options['model_name']} from {file}", fix=PRETRAINED_FIX)


def _feature_width(backbone: nn.Module) -> int:
    """Return the width of the backbone's output; some timm models have a wider layer behind their last block."""
    width: Any = getattr(backbone, "head_hidden_size", None) or backbone.num_features
    return int(width)
