"""MV-TSN (arXiv 2509.17084; segments and consensus after TSN, arXiv 1608.00859): a small CNN on motion vectors.

fields (B, S, 2, H, W) -> BatchNorm2d(2) -> timm backbone -> (B, S, D) -> linear head -> mean over S -> (B, classes)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from moclip.cost import count_parameters, multiply_adds
from moclip.errors import ModelError
from moclip.weights import load_weights, save_weights


@dataclass(frozen=True)
class MvTsnConfig:
    """What it takes to build the network again: backbone and head, and how its input is made."""

    backbone: str
    classes: tuple[str, ...]
    size: int  # px of the square the network sees
    dropout: float


class MvTsn(nn.Module):
    """`pretrained` is False, "hub" or a local weights file. Raises ModelError where timm cannot give the backbone."""

    def __init__(self, config: MvTsnConfig, pretrained: bool | str = False) -> None:
        super().__init__()
        self.config = config
        self.input_norm = nn.BatchNorm2d(2)
        self.backbone = _backbone(config.backbone, pretrained)
        self.width = _width(self.backbone)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(self.width, len(config.classes))
        nn.init.normal_(self.head.weight, 0, 0.001)  # TSN's initialisation
        nn.init.zeros_(self.head.bias)

    def features(self, fields: Tensor) -> Tensor:
        """(N, 2, H, W) in [-1, 1] -> (N, D)."""
        return self.backbone(self.input_norm(fields).contiguous(memory_format=torch.channels_last))

    def forward(self, fields: Tensor) -> Tensor:
        """(B, S, 2, H, W) -> logits (B, classes), the mean over the segments."""
        features = self.features(fields.flatten(0, 1))
        return self.head(self.dropout(features)).unflatten(0, fields.shape[:2]).mean(1)

    def segment_cost(self) -> dict[str, int]:
        """Parameters, and multiply-adds on one segment."""
        device = next(self.parameters()).device
        segment = torch.zeros(1, 1, 2, self.config.size, self.config.size, device=device)
        return {"parameters": count_parameters(self), "multiply_adds": multiply_adds(self.eval(), segment)}

    def save(self, path: Path) -> None:
        save_weights(path, self.state_dict(), {"kind": "mv_tsn", **asdict(self.config)})


def load_mv_tsn(path: Path) -> MvTsn:
    """A trained MV-TSN in eval mode. Raises ModelError."""
    tensors, config = load_weights(path, "train_mv")
    model = MvTsn(MvTsnConfig(**{key: _tuple(value) for key, value in config.items() if key != "kind"}))
    model.load_state_dict(tensors)
    return model.eval()


def parameter_groups(model: MvTsn, lr: float, weight_decay: float, head: float, stem: float, rest: float) -> list[dict]:
    """Optimiser groups: learning-rate multipliers for head, stem (with the input norm) and rest; no decay on biases
    and norms (CoViAR's recipe, which the paper follows). Empty groups are left out.
    """
    about: Any = model.backbone.pretrained_cfg
    first = (about or {}).get("first_conv") or ()
    first = tuple(f"backbone.{name}." for name in ([first] if isinstance(first, str) else first))
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


def _backbone(name: str, pretrained: bool | str) -> nn.Module:
    if name not in timm.list_models():
        near = timm.list_models(f"*{name[:6]}*")[:5]
        raise ModelError("no such timm model", where=name, fix=f"near it: {', '.join(near)}" if near else None)
    options: dict[str, Any] = {"in_chans": 2, "num_classes": 0, "pretrained": bool(pretrained)}
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
