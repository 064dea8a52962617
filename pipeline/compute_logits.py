"""Compute the logits of every stream from the cached features."""

from __future__ import annotations

import numpy as np
import torch

from moclip.evaluation.metrics import EQUAL_WEIGHTS, SumWeights, score_sum
from moclip.store.features import Features
from pipeline.baselines import Heads, majority_logits, still_logits
from pipeline.inputs import Inputs


def compute_logits(
    inputs: Inputs,
    heads: Heads,
    ids: list[str],
    mv_embed: Features,
    image_baseline: Features | None = None,
    weights: SumWeights = EQUAL_WEIGHTS,
) -> dict[str, np.ndarray]:
    """Return the logits of each stream, (clips, classes) float32, with MV-TSN's features and logits in `mv_embed`.

    "mv_image" is only there with the image baseline's store, "still" only with an encoder, "zero_shot" and "score_sum"
    only with one that encodes texts. `weights` are those of "score_sum", which is not there with several labels a clip.
    """
    texts = inputs.text_features()
    motion, stills = mv_embed.rows("features", ids), inputs.still_features(ids)
    with torch.inference_mode():
        fused = heads.fusion(torch.from_numpy(motion), torch.from_numpy(stills)).numpy()
    zero_shot = texts.scores(inputs.mean_still_features(ids)) if texts else None
    mv_tsn = mv_embed.rows("logits", ids)
    return {
        "majority": majority_logits(inputs, len(ids)),
        **({} if zero_shot is None else {"zero_shot": zero_shot}),
        **({"still": still_logits(heads.still, stills)} if inputs.artifacts.clip_image else {}),
        **({"mv_image": image_baseline.rows("logits", ids)} if image_baseline else {}),
        "motion_probe": heads.motion_probe.logits(motion),
        "mv_tsn": mv_tsn,
        **({} if zero_shot is None or inputs.multi_label else {"score_sum": score_sum(zero_shot, mv_tsn, weights)}),
        "fusion": fused,
    }
