"""One fact that `moclip doctor` found, with its verdict and what to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass


OK, WARNING, PROBLEM = "ok", "warning", "problem"
"""As it should be; something does not work that one may do without; nothing works until it is mended."""


@dataclass(frozen=True)
class Finding:
    """A fact: what was looked at, what was found, whether that is well, and what to do where it is not.

    `figures` holds the numbers behind `found`, for programs.
    """

    what: str
    found: str
    state: str = OK
    advice: str = ""
    figures: dict[str, Any] = field(default_factory=dict)
