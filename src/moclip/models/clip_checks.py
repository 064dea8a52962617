"""Refuse CLIP models that are incomplete, or of another family."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from moclip.errors import ModelError

FAMILY = "clip"
"""What a CLIP's config.json has as `model_type`."""

BUFFERS = "position_ids"
"""Old CLIPs have these numbers, 0, 1, 2 and so on, among their weights; newer code counts by itself."""

LEGACY_END = 2
"""What early CLIPs' config.json has as `eos_token_id`, whatever it is; the tower then takes the highest token."""

ALIKE = 1e-6
"""Two classes whose features are as near as this, the cosine's distance from 1, are the same to every score."""

NAMED = 3
"""Keys of weights that an error names."""


@contextmanager
def loading(name: str) -> Iterator[None]:
    try:
        yield
    except ModelError:
        raise
    except Exception as problem:  # a folder of somebody else's may hold anything
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        raise ModelError(
            f"cannot load this CLIP: {reason}",
            where=name,
            fix="clip.model is a local folder in the hub's format, or a hub id with the hub in reach",
        ) from None


def check_family(config: dict[str, Any], name: str) -> None:
    if not config:
        raise OSError("no config.json")
    family = config.get("model_type")
    if family != FAMILY:
        what = f"its config.json has model_type {family!r}; wanted is {FAMILY!r}"
        raise ModelError(what, where=name, fix="clip.model wants a CLIP with both towers")


def check_weights(found: dict[str, Any], name: str) -> None:
    """Refuse a model that is not whole: transformers fills gaps with random numbers, and drops what is left over."""
    mismatched = [key if isinstance(key, str) else key[0] for key in found["mismatched_keys"]]
    for what, keys in (
        ("lacks", found["missing_keys"]),
        ("has of another shape than its config.json says", mismatched),
        ("has beyond what its config.json says", found["unexpected_keys"]),
    ):
        if odd := sorted(key for key in keys if not key.endswith(BUFFERS)):
            raise ModelError(
                f"it {what} {_counted(odd)}", where=name, fix="take the whole model: weights and config.json of one"
            )


def _counted(keys: Collection[str]) -> str:
    few = ", ".join(list(keys)[:NAMED])
    more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
    return f"{len(keys)} of the weights: {few}{more}"
