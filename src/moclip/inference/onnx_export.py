"""Export MV-TSN and the fusion head as one ONNX graph, for runtimes without Python (`moclip export --onnx`).

fields int8 (B, S, C, rows, columns), stills float32 (B, K, P)
-> fusion, mv_tsn: logits; fusion_probabilities, mv_tsn_probabilities: calibrated; float32 (B, classes)

C is 2, or 2 for each of several neighbouring fields. The fields are those of the store; the graph crops, mirrors and
enlarges them. The stills are CLIP's features of pictures, of unit length.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from moclip.data.crops import crop_and_resize, protocol_crops
from moclip.errors import ModelError
from moclip.files.atomic import atomic_file
from moclip.inference.predictor import Predictor
from moclip.models.onnx_graph import TOLERANCE, import_onnxruntime, write_graph

INPUTS, LOGITS = ("fields", "stills"), ("fusion", "mv_tsn")
OUTPUTS = (*LOGITS, *(f"{stream}_probabilities" for stream in LOGITS))


class ExportedNetworks(nn.Module):
    """The two trained networks, connected as in a predictor."""

    def __init__(self, predictor: Predictor, grid: tuple[int, int]) -> None:
        super().__init__()
        self.mv_tsn, self.fusion = predictor.mv_tsn, predictor.fusion
        self.crops = protocol_crops(grid, predictor.views.crop, predictor.views.crops)
        self.count = predictor.views.crops

    def forward(self, fields: Tensor, stills: Tensor) -> tuple[Tensor, ...]:
        clips, segments = fields.shape[:2]
        all_fields = fields.flatten(0, 1)
        # one crop at a time, so that the graph takes any number of clips: a box's weights are constants of the graph
        boxes = [self.crops[number : number + 1] for number in range(self.count)]
        views = [
            crop_and_resize(all_fields, box, self.mv_tsn.config.size, self.mv_tsn.config.stabilise) for box in boxes
        ]
        features = torch.stack([self.mv_tsn.features(view) for view in views], dim=1)
        motion = self.mv_tsn.pool(features.unflatten(0, (clips, segments)))
        logits = self.fusion(motion, stills), self.mv_tsn.head(motion)
        return *logits, *(self.fusion.probabilities(name, one) for name, one in zip(LOGITS, logits, strict=True))


def export_onnx(predictor: Predictor, path: Path, fields: np.ndarray, stills: np.ndarray) -> float:
    """Write the graph, and check it with onnxruntime on `fields` (B, S, C, rows, columns) and `stills` (B, K, P).

    Returns the largest difference of an output from those of the networks themselves.

    Raises
    ------
    ModelError
        The packages of the extra "onnx" are missing, or an output differs by more than `TOLERANCE` (absolute +
        relative).
    """
    onnxruntime = import_onnxruntime()
    inputs = torch.from_numpy(fields), torch.from_numpy(stills)
    networks = copy.deepcopy(ExportedNetworks(predictor, (fields.shape[-2], fields.shape[-1]))).cpu().eval()
    with atomic_file(path) as temporary:
        write_graph(networks, inputs, INPUTS, OUTPUTS, temporary)
        session = onnxruntime.InferenceSession(str(temporary), providers=["CPUExecutionProvider"])
        found = session.run(list(OUTPUTS), dict(zip(INPUTS, (fields, stills), strict=True)))
        with torch.inference_mode():
            expected = [output.numpy() for output in networks(*inputs)]
        gap = max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))
        if not all(np.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE) for a, b in zip(found, expected, strict=True)):
            what = f"onnxruntime's outputs differ from PyTorch's by up to {gap:.1e}"
            raise ModelError(what, where=path, fix="export without --onnx")
    return gap
