"""The list of fusion heads. It imports no network, so params.yaml can be checked against it quickly."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from moclip.errors import ModelError

if TYPE_CHECKING:
    from moclip.models.heads.base import Fusion

HEADS = {
    "concat": ("ConcatFusion", "the paper's"),
    "text": ("TextFusion", "compares with class texts, so it also scores new classes"),
    "cache": ("CacheFusion", "compares with the training clips (Tip-Adapter)"),
}
"""Name -> class in the file of that name, and what it does. The name is the value of `fusion.head`."""


def head_class(name: str) -> type[Fusion]:
    """Return the class of a head. Raises ModelError for a name that is not listed."""
    if name not in HEADS:
        raise ModelError(f"no fusion head {name!r}; there are {', '.join(HEADS)}", fix="update moclip")
    module = importlib.import_module(f"moclip.models.heads.{name}")
    return getattr(module, HEADS[name][0])
