"""What `clip.model` names.

It is one of:

false                         no encoder
an id of the hub, or a folder in the hub's format: a model of `transformers`, or of timm (its config.json has
                              "architecture")
hf-hub:ID, or a folder with open_clip_config.json: a model of open_clip
timm:NAME                     a timm model by its name, with the weights in `clip.files` or from the hub
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

TIMM, OPEN_CLIP = "timm:", "hf-hub:"


@dataclass(frozen=True)
class EncoderSource:
    """Where an encoder comes from and how it runs: the keys model, files, revision, precision and pool of `clip`."""

    model: str
    weights: str | None = None
    revision: str | None = None
    precision: str = "fp32"
    pool: str = "frames"

    @property
    def timm_name(self) -> str | None:
        """The name in timm, None of another model."""
        return self.model.removeprefix(TIMM) if self.model.startswith(TIMM) else None

    @property
    def is_local(self) -> bool:
        """Whether no hub is needed."""
        return Path(self.model).exists() or bool(self.timm_name and self.weights)
