"""Make a fusion head by its name, and load a saved one. The heads are in `moclip.models.heads`, one per file."""

from __future__ import annotations

from pathlib import Path

from moclip.models.heads.base import Fusion, HeadInputs
from moclip.models.heads.config import SETTINGS, FusionConfig, head_config
from moclip.models.heads.registry import head_class
from moclip.models.weights import load_weights

__all__ = ["Fusion", "FusionConfig", "HeadInputs", "build_head", "load_fusion"]


def build_head(name: str, config: FusionConfig, inputs: HeadInputs) -> Fusion:
    """Make a head that is not trained yet. Raises ModelError for an unknown name."""
    return head_class(name).create(config, inputs)


def load_fusion(path: Path) -> Fusion:
    """Load a trained head in eval mode. Raises ModelError."""
    tensors, saved = load_weights(path, "train_fusion")
    model = head_class(saved["kind"]).restore(head_config(saved), tensors)
    model.load_state_dict(tensors)
    model.settings |= saved.get(SETTINGS, {})
    return model.eval()
