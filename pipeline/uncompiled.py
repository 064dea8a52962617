"""PyTorch's compiler stays out of commands until one calls it (`tsn.compile`): its import takes as long as PyTorch's.

torchvision, timm and transformers name a few things of `torch._dynamo` while they are imported, to mark functions of
theirs for it. In a process where `install` was called they find a stand-in that has these things and no others.
Whoever asks it for anything else gets the compiler, imported on the spot.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"


def install() -> None:
    """Let the stand-in be found from here on, unless the compiler has been imported already."""
    if COMPILER not in sys.modules and _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)


def _as_it_is(function: Any = None, *_: object, **__: object) -> Any:
    """Stands for decorators, with arguments and without: they say how to compile, and not what to do."""
    return function if callable(function) else _as_it_is


def _when_called(module: str, name: str) -> Callable[..., Any]:
    def call(*given: Any, **named: Any) -> Any:
        return getattr(_imported(module), name)(*given, **named)

    return call


_STANDING_IN: dict[str, dict[str, Any]] = {
    COMPILER: dict.fromkeys(("allow_in_graph", "assume_constant_result", "disable"), _as_it_is),
    **{
        module: {name: _when_called(module, name)}
        for module, name in (
            (f"{COMPILER}.utils", "is_compile_supported"),
            (f"{COMPILER}._trace_wrapped_higher_order_op", "TransformGetItemToIndex"),
        )
    },
}


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        given = _STANDING_IN.get(self.__name__, {})
        if name in given and _FINDER in sys.meta_path:
            return given[name]
        return getattr(_imported(self.__name__), name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("__") or isinstance(value, _StandIn):
            super().__setattr__(name, value)
        else:
            setattr(_imported(self.__name__), name, value)


def _imported(name: str) -> ModuleType:
    """The compiler itself, or a part of it; from here on nothing stands in for it."""
    if _FINDER in sys.meta_path:
        sys.meta_path.remove(_FINDER)
        for there, module in list(sys.modules.items()):
            if isinstance(module, _StandIn):
                del sys.modules[there]
        vars(sys.modules["torch"]).pop("_dynamo", None)  # PyTorch imports it again when asked
    return importlib.import_module(name)


class _Finder:
    """An importer, as `sys.meta_path` wants them, of the stand-in and its parts."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        ours = name == COMPILER or name.startswith(f"{COMPILER}.")
        return ModuleSpec(name, self, is_package=True) if ours else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """It has all that it needs."""


_FINDER: Any = _Finder()
