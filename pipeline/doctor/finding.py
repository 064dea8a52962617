"""A finding of `moclip doctor`: a fact, whether it is a problem, and what to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

OK, WARNING, PROBLEM = "ok", "warning", "problem"
"""As it should be; an optional part does not work; the pipeline does not work until it is fixed."""


@dataclass(frozen=True)
class Finding:
    """What was checked, what was found, the state, and what to do if it is not ok.

    `figures` holds the numbers in `found`, for programs.
    """

    what: str
    found: str
    state: str = OK
    advice: str = ""
    figures: dict[str, Any] = field(default_factory=dict)
