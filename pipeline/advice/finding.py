"""A finding of `moclip advise`: what a data set suffers from, and what to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipeline import params as parameters


@dataclass(frozen=True)
class Finding:
    """What it is about, what was found, and what to do. `figures` holds the numbers and names for programs."""

    about: str
    found: str
    advice: str
    figures: dict[str, Any] = field(default_factory=dict)


def share_text(count: float, total: float) -> str:
    """Return a share in percent: "12 %", "< 1 %"."""
    percent = 100 * count / total
    return "< 1 %" if 0 < percent < 1 else f"{percent:.0f} %"


def has_key(key: str) -> bool:
    """Return whether params.yaml has a key, so that advice may name it."""
    return key in parameters.all_keys()
