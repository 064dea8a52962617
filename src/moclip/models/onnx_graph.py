"""Write networks as ONNX graphs, and run the backbones with onnxruntime, which is about twice as fast on a CPU."""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from moclip.errors import ModelError
from moclip.models.encoders.base import Encoder
from moclip.models.mv_tsn import MvTsn

OPSET = 18
TOLERANCE = 1e-4
"""How far onnxruntime's outputs may lie from PyTorch's, absolute and relative."""
FIELDS_AT_ONCE = 4
"""Their layers' outputs stay in the processor's cache."""


def import_onnxruntime() -> ModuleType:
    """Return the package. Raises ModelError where those of the extra "onnx" are missing."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ImportError as problem:
        raise ModelError(f"the package {problem.name} is not installed", fix="pip install 'moclip[onnx]'") from None
    return onnxruntime


def write_graph(
    network: nn.Module,
    inputs: tuple[Tensor, ...],
    input_names: Sequence[str],
    output_names: Sequence[str],
    path: Path,
) -> None:
    """Write a network as a graph that takes any number of rows; `inputs` are an example."""
    rows = torch.export.Dim("rows")
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # the exporter prints a lot
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            inputs,
            path,
            input_names=input_names,
            output_names=output_names,
            dynamic_shapes=tuple({0: rows} for _ in inputs),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
            optimize=False,  # takes most of the time; a runtime optimises the graph when it loads it
        )


class _Features(nn.Module):
    def __init__(self, network: MvTsn) -> None:
        super().__init__()
        self.network = network

    def forward(self, fields: Tensor) -> Tensor:
        return self.network.features(fields)


def _session(network: nn.Module, example: tuple[Tensor, ...], names: Sequence[str]) -> Any:
    """Return a session that runs a network on as many threads as PyTorch uses."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only: it warns of constants that it does not fold
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "graph.onnx")
        write_graph(network.eval(), example, names, ["features"], path)
        return onnxruntime.InferenceSession(path.read_bytes(), options, ["CPUExecutionProvider"])


def _check_equal(expected: Tensor, found: Tensor, what: str) -> None:
    if not torch.allclose(expected, found, rtol=TOLERANCE, atol=TOLERANCE):
        gap = float((expected - found).abs().max())
        what = f"onnxruntime's features of {what} differ from PyTorch's by up to {gap:.1e}"
        raise ModelError(what, fix="use the runtime torch")


class OnnxFeatures:
    """Computes `MvTsn.features` with onnxruntime on the CPU. Making one takes some seconds.

    Raises ModelError where the packages of the extra "onnx" are missing, or its features are not those of PyTorch.
    """

    def __init__(self, network: MvTsn) -> None:
        frozen, config = network.frozen().cpu(), network.config
        generator = torch.Generator().manual_seed(0)
        example = torch.rand(FIELDS_AT_ONCE, config.channels, config.size, config.size, generator=generator) * 2 - 1
        self._session = _session(_Features(frozen), (example,), ["fields"])
        with torch.inference_mode():
            _check_equal(frozen.features(example), self(example), config.backbone)

    def __call__(self, fields: Tensor) -> Tensor:
        """Compute features (n, width) of fields (n, C, H, W) in [-1, 1], float32."""
        parts = [
            torch.from_numpy(self._session.run(["features"], {"fields": part.contiguous().numpy()})[0])
            for part in fields.split(FIELDS_AT_ONCE)
        ]
        return torch.cat(parts)


class _PictureFeatures(nn.Module):
    def __init__(self, encoder: Encoder, name: str) -> None:
        super().__init__()
        self.network = encoder.model
        self.encoder, self.name = encoder, name

    def forward(self, pictures: Tensor) -> Tensor:
        return self.encoder.picture_features({self.name: pictures})


class OnnxPictures:
    """Does what `Encoder.encode_images` does, with onnxruntime on the CPU. Making one takes some seconds.

    Raises ModelError where the packages of the extra "onnx" are missing, or its features are not those of PyTorch. Not
    every family of encoders can be exported; PyTorch raises errors of its own for those.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._preparer = encoder.preparer
        rng = np.random.default_rng(0)
        pictures = [rng.integers(256, size=(64, 80, 3)).astype(np.uint8) for _ in range(2)]
        prepared = self._preparer(pictures)
        if len(prepared) > 1:
            raise ModelError(f"its image tower takes {', '.join(prepared)}", where=encoder.source.model)
        ((self._name, values),) = prepared.items()
        self._session = _session(_PictureFeatures(encoder, self._name), (values,), [self._name])
        expected = torch.from_numpy(encoder.encode_prepared(prepared))
        for count in (2, 1):
            _check_equal(expected[:count], torch.from_numpy(self(pictures[:count])), encoder.source.model)

    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Compute the features (n, width) float32 of RGB pictures, each (h, w, 3) uint8, not normalised."""
        prepared = self._preparer(images)[self._name]
        return np.asarray(self._session.run(["features"], {self._name: prepared.contiguous().numpy()})[0], np.float32)
