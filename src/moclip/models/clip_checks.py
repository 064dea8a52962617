"""Refuse models that are not CLIP, and CLIP models that are incomplete."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from moclip.errors import ModelError

CLIP_MODEL_TYPE = "clip"
"""The `model_type` in config.json."""

POSITION_BUFFER = "position_ids"
"""Old CLIPs store the numbers 0, 1, 2, ... among their weights; newer code does not read them."""

LEGACY_EOS_TOKEN = 2
"""The `eos_token_id` in early CLIPs' config.json, which is wrong; the tower then takes the highest token as the end."""

SAME_FEATURES = 1e-6
"""Two classes score the same on every clip if the cosine of their text features is closer to 1 than this."""

MOST_NAMED = 3
"""How many weights an error names."""


@contextmanager
def report_load_errors(name: str) -> Iterator[None]:
    """Raise ModelError for any error in the block."""
    try:
        yield
    except ModelError:
        raise
    except Exception as problem:  # a model folder may hold anything
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        raise ModelError(
            f"cannot load this CLIP: {reason}",
            where=name,
            fix="set clip.model to a local folder in the hub's format, or to a hub id if the hub can be reached",
        ) from None


def check_model_type(config: dict[str, Any], name: str) -> None:
    if not config:
        raise OSError("no config.json")
    model_type = config.get("model_type")
    if model_type != CLIP_MODEL_TYPE:
        what = f"its config.json has model_type {model_type!r}, not {CLIP_MODEL_TYPE!r}"
        raise ModelError(what, where=name, fix="set clip.model to a CLIP with both towers")


def check_weights(found: dict[str, Any], name: str) -> None:
    """Refuse a model whose weights do not fit its config.json.

    transformers fills missing weights with random numbers and ignores unexpected ones. `found` is its loading
    information.
    """
    mismatched = [key if isinstance(key, str) else key[0] for key in found["mismatched_keys"]]
    for problem, keys in (
        ("missing weights", found["missing_keys"]),
        ("weights of another shape than its config.json says", mismatched),
        ("weights beyond what its config.json says", found["unexpected_keys"]),
    ):
        if wrong := sorted(key for key in keys if not key.endswith(POSITION_BUFFER)):
            raise ModelError(
                f"{problem} ({len(wrong)}): {_first_names(wrong)}",
                where=name,
                fix="use weights and config.json of the same model",
            )


def _first_names(keys: Collection[str]) -> str:
    first = ", ".join(list(keys)[:MOST_NAMED])
    return first + (f" and {len(keys) - MOST_NAMED} more" if len(keys) > MOST_NAMED else "")
