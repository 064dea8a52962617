"""Compute and write what the stage `evaluate` reports: logits, a summary, costs and plots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from moclip.evaluation.metrics import class_accuracy, score_sum
from moclip.models.flops import count_parameters, fusion_cost, picture_cost, segment_cost
from moclip.models.fusion import Fusion
from moclip.models.mv_tsn import load_mv_tsn
from pipeline import paths
from pipeline.console.output import STREAM_LABELS
from pipeline.inputs import Inputs
from pipeline.io import write_parquet, write_text
from pipeline.params import Params


def summary(scores: Mapping[str, Mapping[str, Any]], costs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the few figures that `dvc metrics diff` and `dvc exp show` compare experiments by."""
    fusion = scores["fusion"]
    return {
        "clips": fusion["n"],
        "top1": {name: score["top1"] for name, score in scores.items()},
        "mean_class": {"fusion": fusion["mean_class_accuracy"]},
        "calibration_error": {"fusion": fusion["calibration_error"]},
        "multiply_adds_m": costs["multiply_adds_m"]["video"]["fusion"],
    } | ({"base_to_new": fusion["base_to_new"]} if "base_to_new" in fusion else {})


def stills_protocol(params: Params) -> str:
    return f"{params.clip.frames} frame{'s' if params.clip.frames > 1 else ''}"


def compute_logits(inputs: Inputs, model: Fusion, ids: list[str]) -> dict[str, np.ndarray]:
    """Return the logits of each stream, (clips, classes) float32."""
    text, temperature = inputs.text_features()
    motion = inputs.artifacts.mv_embed.rows("features", ids)
    with torch.inference_mode():
        fused = model(torch.from_numpy(motion), torch.from_numpy(inputs.still_features(ids))).numpy()
    zero_shot = temperature * inputs.mean_still_features(ids) @ text.T
    mv_tsn = inputs.artifacts.mv_embed.rows("logits", ids)
    image = inputs.artifacts.image_baseline
    return {
        "zero_shot": zero_shot,
        **({"mv_image": image.rows("logits", ids)} if image else {}),
        "mv_tsn": mv_tsn,
        "score_sum": score_sum(zero_shot, mv_tsn),
        "fusion": fused,
    }


def video_cost(inputs: Inputs, model: Fusion, params: Params, rows: pd.DataFrame) -> dict[str, Any]:
    """Return parameters, multiply-adds in millions and bytes read, per component and per mean video of `rows`."""
    segments, crops = params.evaluate.views
    tower = picture_cost(inputs.artifacts.clip_image.attributes["vision"])
    network = segment_cost(load_mv_tsn(paths.MV_TSN))
    head = fusion_cost(model, params.clip.frames)
    stills, views = params.clip.frames * tower["multiply_adds"], segments * crops * network["multiply_adds"]
    trained = {"mv_tsn": network["parameters"], "fusion": count_parameters(model)}
    parts = {"clip_frame": tower["multiply_adds"], "mv_segment": network["multiply_adds"], "fusion_head": head}
    video = {"zero_shot": stills, "mv_tsn": views, "score_sum": stills + views, "fusion": stills + views + head}
    picture = segment_cost(load_mv_tsn(paths.IMAGE_MODEL, "train_image")) if inputs.artifacts.image_baseline else None
    if picture:
        parts["image_segment"] = picture["multiply_adds"]
        video["mv_image"] = segments * crops * picture["multiply_adds"]
    field = inputs.artifacts.mv_embed.attributes["field_bytes"]
    features = 4 * (params.clip.frames * model.config.picture + model.config.motion)
    return {
        "parameters": trained
        | {
            "clip_image": tower["parameters"],
            "trained": sum(trained.values()),
            "total": sum(trained.values()) + tower["parameters"],
        }
        | ({"image_baseline": picture["parameters"]} if picture else {}),
        "multiply_adds_m": {name: count / 1e6 for name, count in parts.items()}
        | {"video": {name: count / 1e6 for name, count in video.items()}},
        "bytes_read": {"file": rows["bytes"].mean(), "fields": segments * field, "cached_features": features},
        "protocol": f"{params.evaluate.protocol} + {stills_protocol(params)}",
    }


def write_predictions(rows: pd.DataFrame, logits: Mapping[str, np.ndarray], models: str) -> None:
    table = rows[["id", "class", "label"]].copy()
    table.attrs["models"] = models  # Parquet keeps it
    for name, values in logits.items():
        table[name] = list(values.astype(np.float32))
    write_parquet(paths.PREDICTIONS, table)


def write_plots(
    labels: np.ndarray,
    logits: Mapping[str, np.ndarray],
    classes: list[str],
    scores: Mapping[str, Mapping[str, Any]],
) -> None:
    streams = pd.DataFrame(
        [{"stream": STREAM_LABELS[name], "top1": round(score["top1"], 4)} for name, score in scores.items()]
    )
    write_text(paths.PLOTS / "streams.csv", streams.to_csv(index=False, lineterminator="\n"))
    names = np.array(classes)
    predicted = {stream: values.argmax(axis=1) for stream, values in logits.items()}
    confusion = pd.DataFrame({"actual": names[labels], "predicted": names[predicted["fusion"]]})
    write_text(paths.PLOTS / "confusion.csv", confusion.to_csv(index=False, lineterminator="\n"))
    right = {stream: class_accuracy(choice, labels) for stream, choice in predicted.items()}
    per_class = pd.DataFrame({"class": names[sorted(set(labels.tolist()))]})
    for stream, shares in right.items():
        per_class[stream] = [round(shares[label], 4) for label in sorted(shares)]
    write_text(paths.PLOTS / "per_class.csv", per_class.to_csv(index=False, lineterminator="\n"))
