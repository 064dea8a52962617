"""Load models in the hub's format, and refuse those that are incomplete."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from moclip.errors import ModelError
from moclip.models.hub_errors import HubRequest, hub_refusal

if TYPE_CHECKING:
    from moclip.models.encoders.source import EncoderSource

POSITION_BUFFER = "position_ids"
"""Old models store the numbers 0, 1, 2, ... among their weights; newer code does not read them."""

MOST_NAMED = 3
"""How many weights an error names."""

FIX = "set clip.model to a local folder in the hub's format, or to a hub id if the hub can be reached"
REQUEST = HubRequest("clip.model", "clip.revision", FIX)


@contextmanager
def report_load_errors(name: str) -> Iterator[None]:
    """Raise ModelError for any error in the block."""
    try:
        yield
    except ModelError:
        raise
    except Exception as problem:  # a model folder may hold anything
        reason, fix = _reason(problem)
        if fix == FIX and Path(name).exists():
            fix = "download all of its files again, those of one model"
        raise ModelError(f"cannot load this encoder: {reason}", where=name, fix=fix) from None


def _reason(problem: Exception) -> tuple[str, str]:
    """Return the reason in one line, and what to do."""
    refusal = hub_refusal(problem, REQUEST)
    if refusal:
        return refusal
    text = (str(problem).strip() or type(problem).__name__).splitlines()[0]
    if isinstance(problem, SafetensorError):
        return f"its weights file is damaged: {text}", FIX
    if isinstance(problem, KeyError | TypeError | AttributeError):
        return f"a configuration file is damaged or of another kind of model: {type(problem).__name__}: {text}", FIX
    return text, FIX


def load_checked(
    source: EncoderSource, optional: tuple[str, ...] = (), surplus: tuple[str, ...] = ()
) -> tuple[Any, list[str]]:
    """Load a model of `transformers` in float32. Return it and the names of the weights that were missing.

    `optional` are first parts of the names of weights that may be missing, `surplus` of those that may be left over.
    Raises ModelError where other weights are missing, left over or of another shape.
    """
    import torch
    from transformers import AutoModel
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # for loading weights
    model, found = AutoModel.from_pretrained(
        source.model,
        revision=source.revision,
        trust_remote_code=False,  # None would ask on a terminal whether to run the code of a stranger's repository
        weights_only=True,
        dtype=torch.float32,
        ignore_mismatched_sizes=True,  # `check_weights` refuses them by name
        output_loading_info=True,
    )
    check_weights(found, source.model, optional, surplus)
    return model, list(found["missing_keys"])


def check_weights(
    found: dict[str, Any], name: str, optional: tuple[str, ...] = (), surplus: tuple[str, ...] = ()
) -> None:
    """Refuse a model whose weights do not fit its config.json.

    transformers fills missing weights with random numbers and ignores unexpected ones. `found` is its loading
    information.
    """
    mismatched = [key if isinstance(key, str) else key[0] for key in found["mismatched_keys"]]
    for problem, keys, allowed in (
        ("missing weights", found["missing_keys"], optional),
        ("weights of another shape than its config.json says", mismatched, ()),
        ("weights beyond what its config.json says", found["unexpected_keys"], surplus),
    ):
        wrong = sorted(key for key in keys if not key.endswith(POSITION_BUFFER) and not key.startswith(allowed))
        if wrong:
            raise ModelError(
                f"{problem} ({len(wrong)}): {_first_names(wrong)}",
                where=name,
                fix="use weights and config.json of the same model",
            )


def _first_names(keys: Collection[str]) -> str:
    first = ", ".join(list(keys)[:MOST_NAMED])
    return first + (f" and {len(keys) - MOST_NAMED} more" if len(keys) > MOST_NAMED else "")
