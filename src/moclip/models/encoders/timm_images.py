"""Image models of timm: by name (`timm:NAME`) with a weights file or from the hub, or in the hub's format."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import safe_open
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor

from moclip.errors import ModelError
from moclip.models.encoders.base import Encoder
from moclip.models.encoders.checks import report_load_errors
from moclip.models.encoders.preparing import TransformedPictures
from moclip.models.encoders.source import EncoderSource
from moclip.models.timm_checks import check_weights_file, unknown_model


class TimmEncoder(Encoder):
    """A timm model without its classifier. Pictures are prepared as its configuration says."""

    model: Any

    def __init__(self, source: EncoderSource, device: torch.device) -> None:
        super().__init__(source, device)
        name = source.timm_name
        if name is not None and not timm.is_model(name):
            raise unknown_model(name, source.model)
        with report_load_errors(source.model):
            self._place(_create(source).to(memory_format=torch.channels_last))
        settings = resolve_model_data_config(self.model)
        self.preparer = TransformedPictures(create_transform(**settings, is_training=False))

    def picture_features(self, prepared: dict[str, Tensor]) -> Tensor:
        return self.model(prepared["pixels"].contiguous(memory_format=torch.channels_last))

    def save(self, folder: Path) -> None:
        options = dict(self.model.pretrained_cfg) | {"num_classes": 0}
        timm.models.save_for_hf(
            copy.deepcopy(self.model).to(memory_format=torch.contiguous_format),
            str(folder),
            model_config={"pretrained_cfg": options},
            safe_serialization=True,
        )


def _create(source: EncoderSource) -> torch.nn.Module:
    """Create the model with its weights, then without its classifier.

    It is loaded with the classifier, because timm otherwise does not notice weights of another model.
    """
    if source.timm_name is None:
        revision = f"@{source.revision}" if source.revision else ""
        where = f"local-dir:{source.model}" if Path(source.model).exists() else f"hf-hub:{source.model}{revision}"
        model = timm.create_model(where, pretrained=True)
    elif source.revision:
        fix = "set clip.revision=false, or clip.model to the model's hub id"
        raise ModelError("timm takes no revision of a model's name", where=source.model, fix=fix)
    elif source.weights is None:
        model = timm.create_model(source.timm_name, pretrained=True)
    else:
        model = _create_from_file(source.timm_name, Path(source.weights))
    model.reset_classifier(0)
    return model


def _create_from_file(name: str, file: Path) -> torch.nn.Module:
    check_weights_file(file, "set clip.files to the weights")
    with report_load_errors(str(file)), safe_open(file, framework="pt") as weights:
        outputs = f"{timm.get_pretrained_cfg_value(name, 'classifier')}.weight"
        classes = weights.get_slice(outputs).get_shape()[0] if outputs in list(weights.keys()) else 0
    overlay = {"file": str(file), "num_classes": classes}
    with report_load_errors(str(file)):
        return timm.create_model(name, pretrained=True, num_classes=classes, pretrained_cfg_overlay=overlay)
