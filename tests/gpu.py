"""A GPU for tests on machines without one: tensors that say they are on it, and that no tensor on the CPU may meet.

The values lie in memory and are calculated as ever, so what runs here must end where the CPU ends. PyTorch's own fake
tensors have no values, and cannot run a backward pass where PyTorch is built for CUDA and finds no GPU; which tensors
may meet is held to theirs by a test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")


class OnGpu(Tensor):
    """A tensor that says it is on a GPU."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            made = self.detach().clone()
            memo[id(self)] = nn.Parameter(made, self.requires_grad) if isinstance(self, nn.Parameter) else made
        return memo[id(self)]


class Machine(TorchFunctionMode):
    """A machine with a GPU, as far as PyTorch's functions can tell. `done` counts those that the GPU has run."""

    done = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        given = _tensors((args, kwargs))
        there = [isinstance(one, OnGpu) for one in given]
        if func in (Tensor.to, Tensor.cpu, Tensor.cuda):
            return _moved(func, args, kwargs)
        if func == Tensor.device.__get__ and there[0]:
            return GPU
        if func in (Tensor.numpy, Tensor.__array__) and there[0]:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if func is torch._has_compatible_shallow_copy_type:  # asked by modules: whether the old parameter can be kept
            return there[0] == there[1]
        if func is Tensor.copy_ or (func is Tensor.__setitem__ and not _tensors(args[1])):
            return func(*args, **kwargs)  # values may come from anywhere
        if any(there) and any(one.dim() for one, on_gpu in zip(given, there, strict=True) if not on_gpu):
            raise RuntimeError(f"Expected all tensors to be on the same device, in {func.__name__}")
        on_gpu = any(there)
        self.done += on_gpu
        if kwargs.get("device") is not None:  # of a new tensor
            on_gpu = _is_gpu(kwargs["device"])
            kwargs["device"] = CPU if on_gpu else kwargs["device"]
        if not any(there):
            return _placed(func, args, kwargs, on_gpu)
        with torch.autocast("cpu", torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")):
            return _placed(func, args, kwargs, on_gpu)


def _tensors(given: Any) -> list[Tensor]:
    return [one for one in tree_leaves(given) if isinstance(one, Tensor)]


def _is_gpu(device: str | torch.device) -> bool:
    return torch.device(device).type == GPU.type


def _placed(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], on_gpu: bool) -> Any:
    """What `func` returns, its tensors on the GPU or not."""
    with torch._C.DisableTorchFunctionSubclass():
        result = func(*args, **kwargs)
    for tensor in _tensors(result):
        if on_gpu and type(tensor) is Tensor:
            tensor.__class__ = OnGpu
    return result


def _moved(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """`Tensor.to` and its kin, with a device, a dtype or a memory format."""
    tensor, *rest = args
    rest = [*rest, *kwargs.values()] if func is Tensor.to else [GPU if func is Tensor.cuda else CPU]
    devices = [one for one in rest if isinstance(one, str | torch.device)]
    was = isinstance(tensor, OnGpu)
    is_now = _is_gpu(devices[0]) if devices else was
    changes = {name: kwargs[name] for name in ("dtype", "memory_format") if kwargs.get(name) is not None}
    for one in rest:
        if isinstance(one, torch.dtype):
            changes["dtype"] = one
    if not changes and was == is_now:
        return tensor
    return _placed(Tensor.to, (tensor, tensor.device), {**changes, "copy": was != is_now}, is_now)


@contextmanager
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Meanwhile this machine has a GPU. Modules that move there get new parameters instead of new values in the old."""
    generator = torch.Generator
    with monkeypatch.context() as patch, Machine() as machine:
        patch.setattr(torch, "Generator", lambda device=CPU: generator())  # on a GPU it needs a driver
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
        patch.setattr(torch.accelerator, "current_stream", lambda: SimpleNamespace(is_capturing=lambda: False))
        yield machine
