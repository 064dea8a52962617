"""Names of styles and output forms, in a module that imports quickly for `moclip draw --help`."""

from __future__ import annotations

from typing import Literal

Style = Literal["arrows", "hsv", "components"]
Form = Literal["mp4", "gif", "webp", "png", "mean", "max"]
