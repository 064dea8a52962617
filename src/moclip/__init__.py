"""MoCLIP-Lite: action recognition from motion vectors and a frozen CLIP (arXiv 2509.17084).

The library: arrays and paths in, arrays out. It knows nothing of params.yaml, DVC or the stages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from moclip.version import __version__ as __version__

if TYPE_CHECKING:
    from pathlib import Path

    from moclip.inference.predictor import Predictor


def load(
    folder: str | Path, device: str | None = None, revision: str | None = None, runtime: str = "torch"
) -> Predictor:
    """Load the models that `moclip export` wrote: a function from a clip's path to its `Prediction`.

    `folder` is a folder or an id of the model hub, such as "me/gym"; a folder of that name comes first. `revision` is a
    branch, tag or commit of the hub: with a commit the models never change. What was downloaded once is loaded from the
    hub's cache, also without network. On the GPU where there is one and no `device` is named. `runtime` "onnxruntime"
    (extra `onnx`) halves the networks' time on a CPU, and takes about ten seconds more to load.

    Raises ModelError (moclip.errors).
    """
    from moclip.inference.bundle import load_bundle

    return load_bundle(folder, device, revision).with_runtime(runtime)
