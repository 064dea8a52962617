"""What `clip.model` names.

It is one of:

false                         no encoder
an id of the hub, or a folder in the hub's format: a model of `transformers`, or of timm (its config.json has
                              "architecture")
hf-hub:ID, or a folder with open_clip_config.json: a model of open_clip
timm:NAME                     a timm model by its name, with the weights in `clip.files` or from the hub
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

TIMM, OPEN_CLIP = "timm:", "hf-hub:"
OPEN_CLIP_CONFIG = "open_clip_config.json"


@dataclass(frozen=True)
class EncoderSource:
    """Where an encoder comes from and how it runs: the keys model, files, revision, precision and pool of `clip`.

    `others` are the encoders of `clip.models`, whose features stand beside those of this one.
    """

    model: str
    weights: str | None = None
    revision: str | None = None
    precision: str = "fp32"
    pool: str = "frames"
    others: tuple[EncoderSource, ...] = ()

    @property
    def each(self) -> list[EncoderSource]:
        """Every encoder by itself."""
        return [replace(self, others=()), *self.others]

    @property
    def timm_name(self) -> str | None:
        """The name in timm, None of another model."""
        return self.model.removeprefix(TIMM) if self.model.startswith(TIMM) else None

    @property
    def is_local(self) -> bool:
        """Whether a hub does not have all of it."""
        local = Path(self.model).exists() or bool(self.timm_name and self.weights)
        return local or any(other.is_local for other in self.others)
