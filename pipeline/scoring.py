"""Compute and write what the stage `evaluate` reports: scores, a summary, costs and plots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from moclip.data.selection import base_classes
from moclip.evaluation.class_scores import class_scores, macro_f1
from moclip.evaluation.metrics import base_to_new, class_accuracy, complementarity, stream_scores
from moclip.store.features import Features
from pipeline import paths
from pipeline.artifacts import Artifacts
from pipeline.baselines import Heads
from pipeline.calibration import calibration_scores
from pipeline.console.output import STREAM_LABELS
from pipeline.inputs import Inputs
from pipeline.io import write_text
from pipeline.logits import clip_sources
from pipeline.multi_label import LabelRule, label_plots, label_stream_scores
from pipeline.params import Params
from pipeline.provenance import stale_error


def summary(scores: Mapping[str, Mapping[str, Any]], costs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the few figures that `dvc metrics diff` and `dvc exp show` compare experiments by."""
    fusion = scores["fusion"]
    if "map" in fusion:
        return {
            "clips": fusion["n"],
            "map": {name: score["map"] for name, score in scores.items()},
            "macro_f1": {"fusion": fusion["macro_f1"]},
            "calibration_error": {"fusion": fusion["calibration_error"]},
            "multiply_adds_m": costs["multiply_adds_m"]["video"]["fusion"],
        }
    return {
        "clips": fusion["n"],
        "top1": {name: score["top1"] for name, score in scores.items()},
        "mean_class": {"fusion": fusion["mean_class_accuracy"]},
        "macro_f1": {"fusion": fusion["macro_f1"]},
        "calibration_error": {"fusion": fusion["calibration_error"]},
        "multiply_adds_m": costs["multiply_adds_m"]["video"]["fusion"],
    } | ({"base_to_new": fusion["base_to_new"]} if "base_to_new" in fusion else {})


def score_streams(
    inputs: Inputs,
    params: Params,
    rows: pd.DataFrame,
    logits: Mapping[str, np.ndarray],
    temperatures: Mapping[str, float],
) -> dict[str, dict[str, Any]]:
    """Return what the metrics file of each stream holds. `rows` are the index's rows of the scored clips."""
    labels = rows["label"].to_numpy()
    shared, protocols = _shared(inputs, rows), _protocols(inputs, params)
    scores = {
        name: score | shared | {"protocol": protocols[name]}
        for name, score in stream_scores(logits, labels, clip_sources(rows), params.seed).items()
    }
    for name, values in logits.items():
        scores[name] |= class_metrics(values.argmax(axis=1), labels, inputs.clips.classes)
        if name in temperatures:
            scores[name] |= calibration_scores(values, labels, temperatures[name])
    if params.dataset.base_to_new:
        for name, values in logits.items():
            scores[name]["base_to_new"] = base_to_new(values, labels, base_classes(len(inputs.clips.classes)))
    predicted = {name: values.argmax(axis=1) for name, values in logits.items()}
    if "zero_shot" in predicted:
        scores["fusion"]["streams"] = complementarity(predicted["mv_tsn"], predicted["zero_shot"], labels)
    return scores


def score_label_streams(
    inputs: Inputs,
    params: Params,
    rows: pd.DataFrame,
    logits: Mapping[str, np.ndarray],
    rules: Mapping[str, LabelRule],
) -> dict[str, dict[str, Any]]:
    """Do what `score_streams` does for clips with several labels. `rules` make answers of each stream's logits."""
    shared, protocols = _shared(inputs, rows), _protocols(inputs, params)
    found = label_stream_scores(
        logits, inputs.targets(rows), clip_sources(rows), rules, inputs.clips.classes, params.seed
    )
    return {name: score | shared | {"protocol": protocols[name]} for name, score in found.items()}


def _shared(inputs: Inputs, rows: pd.DataFrame) -> dict[str, Any]:
    """Return what the metrics files of all streams hold: which clips were scored by which models."""
    skipped = inputs.skipped_counts("test")
    return {
        "n": len(rows),
        "coverage": len(rows) / (len(rows) + sum(skipped.values())),
        "skipped": skipped,
        "fingerprint": inputs.clips.fingerprint("test"),
        "models": inputs.artifacts.models_digest(),
    }


def class_metrics(predicted: np.ndarray, labels: np.ndarray, names: list[str]) -> dict[str, Any]:
    """Return macro_f1, and per_class: the counts, precision, recall and F1 of each class by its name."""
    found = class_scores(predicted, labels, len(names))
    return {
        "macro_f1": macro_f1(found),
        "per_class": {name: asdict(score) for name, score in zip(names, found, strict=True)},
    }


def _protocols(inputs: Inputs, params: Params) -> dict[str, str]:
    """Return what each stream sees of a clip."""
    stills = f"{params.clip.frames} frame{'s' if params.clip.frames > 1 else ''}"
    views = params.evaluate.protocol
    both = f"{views} + {stills}" if inputs.artifacts.clip_image else views
    return {
        "majority": "none",
        "zero_shot": stills,
        "still": stills,
        "mv_image": views,
        "motion_probe": views,
        "mv_tsn": views,
        "score_sum": both,
        "fusion": both,
    }


def video_cost(inputs: Inputs, heads: Heads, params: Params, rows: pd.DataFrame) -> dict[str, Any]:
    """Return parameters, multiply-adds in millions and bytes read, per component and per mean video of `rows`.

    What a forward pass costs was counted by the stages that made the features and the heads.
    """
    artifacts, config, probe = inputs.artifacts, heads.fusion.config, heads.motion_probe
    segments, crops = params.evaluate.views
    pictures = artifacts.clip_image
    clip = pictures.attributes["cost"] if pictures else {"parameters": 0, "multiply_adds": 0}
    frames = params.clip.frames if pictures else 0
    mv_tsn = _store_cost(artifacts.mv_embed)
    image = _store_cost(artifacts.image_baseline) if artifacts.image_baseline else None
    fusion, still = (_head_cost(artifacts, path) for path in (paths.FUSION, paths.STILL))
    head = fusion["multiply_adds"]
    stills, views = frames * clip["multiply_adds"], segments * crops * mv_tsn["multiply_adds"]
    component = {"clip_frame": clip["multiply_adds"], "mv_segment": mv_tsn["multiply_adds"], "fusion_head": head}
    video = {
        "majority": 0,
        "zero_shot": stills,
        "still": stills + still["multiply_adds"],
        "motion_probe": views + probe.weight.size,
        "mv_tsn": views,
        "score_sum": stills + views,
        "fusion": stills + views + head,
    }
    trained = {"mv_tsn": mv_tsn["parameters"], "fusion": fusion["parameters"]}
    total = sum(trained.values())
    baselines = {"still": still["parameters"], "motion_probe": probe.weight.size + probe.bias.size}
    clip_image = clip["parameters"]
    parameters = trained | baselines | {"clip_image": clip_image, "trained": total, "total": total + clip_image}
    if image:
        component["image_segment"] = image["multiply_adds"]
        video["mv_image"] = segments * crops * image["multiply_adds"]
        parameters["image_baseline"] = image["parameters"]
    return {
        "parameters": parameters,
        "multiply_adds_m": {name: count / 1e6 for name, count in component.items()}
        | {"video": {name: count / 1e6 for name, count in video.items()}},
        "bytes_read": {
            "file": rows["bytes"].mean(),
            "fields": segments * artifacts.mv_embed.attributes["field_bytes"],
            "cached_features": 4 * (frames * config.picture + config.motion),
        },
        "protocol": _protocols(inputs, params)["fusion"],
    }


def _store_cost(store: Features) -> Mapping[str, int]:
    """Return the parameters of the network that made a store, and its multiply-adds for a segment."""
    return _recorded_cost(store.attributes, store.path, store.stage)


def _head_cost(artifacts: Artifacts, path: Path) -> Mapping[str, int]:
    """Return the parameters of a head, and its multiply-adds for a video."""
    return _recorded_cost(artifacts.check_model(path, "train_fusion"), path, "train_fusion")


def _recorded_cost(record: Mapping[str, Any], where: Path, stage: str) -> Mapping[str, int]:
    if "cost" not in record:
        raise stale_error("it has no cost: an earlier version made it", where, stage)
    found: Mapping[str, int] = record["cost"]
    return found


def write_plots(
    labels: np.ndarray,
    logits: Mapping[str, np.ndarray],
    classes: list[str],
    scores: Mapping[str, Mapping[str, Any]],
) -> None:
    if labels.ndim == 2:
        for name, plotted in label_plots(scores).items():
            write_text(paths.PLOTS / name, plotted.to_csv(index=False, lineterminator="\n"))
        return
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
    table = pd.DataFrame([{"class": name} | row for name, row in scores["fusion"]["per_class"].items() if row["clips"]])
    class_f1 = table.sort_values("f1", kind="stable").round(4)
    write_text(paths.PLOTS / "class_f1.csv", class_f1.to_csv(index=False, lineterminator="\n"))
