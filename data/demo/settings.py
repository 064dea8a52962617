"""The demo's params.yaml as typed values. An unknown key or a wrong type is an error that names the key."""

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from scene import COLOURS, MOTIONS

FOLDER = Path(__file__).parent


class ClipSettings(BaseModel):
    """How the tiny CLIP is trained."""

    model_config = ConfigDict(extra="forbid", strict=True)

    stills: int = Field(ge=1)
    steps: int = Field(ge=1)
    batch: int = Field(ge=2)
    lr: float = Field(gt=0, strict=False)  # YAML 1.1 reads 1e-3 as a string


class Settings(BaseModel):
    """What is rendered. The comments in `params.yaml` explain each key."""

    model_config = ConfigDict(extra="forbid", strict=True)

    seed: int = Field(ge=0)
    appearances: int = Field(ge=1, le=len(COLOURS))
    motions: int = Field(ge=1, le=len(MOTIONS))
    train: int = Field(ge=1)
    test: int = Field(ge=1)
    group: int = Field(ge=1)
    frames: list[int] = Field(min_length=2, max_length=2)
    clip: ClipSettings

    @model_validator(mode="after")
    def _frames_are_a_range(self) -> "Settings":
        if not 2 <= self.frames[0] <= self.frames[1]:
            raise ValueError("frames: must be [least, most] with 2 <= least <= most")
        return self

    @property
    def colours(self) -> list[str]:
        """The colours in use."""
        return list(COLOURS)[: self.appearances]


def load_settings(path: Path = FOLDER / "params.yaml") -> Settings:
    """Read the settings. Raises SystemExit with one line for each wrong key."""
    try:
        return Settings.model_validate(yaml.safe_load(path.read_text()))
    except ValidationError as error:
        wrong = "".join(
            f"\n  {'.'.join(map(str, e['loc'])) or 'params'}: {e['msg']} (got {e['input']!r})" for e in error.errors()
        )
        raise SystemExit(f"{path}:{wrong}") from None
