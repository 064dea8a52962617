"""What fusion is compared with: the commonest class, the same head on the still alone, a linear probe on the motion."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from moclip.data.fusion_data import FusionData
from moclip.models.fusion import Fusion, load_fusion
from moclip.models.linear_probe import LinearProbe, load_linear_probe
from moclip.models.weights import read_config
from moclip.video.clip_files import file_md5
from pipeline import paths
from pipeline.inputs import Inputs
from pipeline.provenance import check_digest, stale_error


@dataclass(frozen=True)
class Heads:
    """The trained heads on cached features: fusion, the same head on the still alone, the probe on the motion."""

    fusion: Fusion
    still: Fusion
    motion_probe: LinearProbe


def load_heads(inputs: Inputs) -> Heads:
    """Load the heads. Raises MoclipError if one is missing, or was not trained on what there is now."""
    still = inputs.artifacts.check_model(paths.STILL, "train_fusion")
    check_digest(file_md5(paths.FUSION), still["fusion"], "another fusion head", paths.STILL, "train_fusion")
    return Heads(load_fusion(paths.FUSION), load_fusion(paths.STILL), load_motion_probe(inputs))


def load_motion_probe(inputs: Inputs) -> LinearProbe:
    """Load the linear probe. Raises MoclipError if it is missing, or was not trained on what there is now."""
    model = inputs.artifacts.mv_embed.attributes["model"]  # first, because it names an earlier stage if it is stale
    recorded = inputs.artifacts.check_model(paths.MOTION_PROBE, "train_probe")
    check_digest(model, recorded["mv_tsn"], "another MV-TSN", paths.MOTION_PROBE, "train_probe")
    if "strength" not in read_config(paths.MOTION_PROBE, "train_probe"):
        raise stale_error("it has no strength: an earlier version made it", paths.MOTION_PROBE, "train_probe")
    return load_linear_probe(paths.MOTION_PROBE)


def without_motion(data: FusionData) -> FusionData:
    """Return the clips with a constant, one 0, in place of their motion: a head then learns from the stills alone."""
    return replace(data, motion=torch.zeros(len(data.labels), 1, 1))


def still_logits(head: Fusion, stills: np.ndarray) -> np.ndarray:
    """Compute the logits (n, classes) of a head that was trained `without_motion`, for stills (n, K, width)."""
    with torch.inference_mode():
        return np.asarray(head(torch.zeros(len(stills), 1), torch.from_numpy(stills)))


def majority_logits(inputs: Inputs, count: int) -> np.ndarray:
    """Return the same logits (count, classes) float32 for every clip: the classes' shares of train.

    With several labels a clip they are the log-odds of the share of the clips that have a label.

    The commonest class has the highest logit, of equally common ones the first. One clip is added to each class, for
    those without any.
    """
    rows = inputs.fused_rows("train")
    if inputs.multi_label:
        shares = (1 + inputs.targets(rows).sum(axis=0)) / (2 + len(rows))
        return np.tile(np.log(shares / (1 - shares)).astype(np.float32), (count, 1))
    counts = 1 + np.bincount(rows["label"], minlength=len(inputs.clips.classes))
    return np.tile(np.log(counts / counts.sum()).astype(np.float32), (count, 1))
