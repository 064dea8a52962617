"""Stage `report`: the results of the last run -> data/report/index.html, one page without outside resources."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from moclip import metrics
from pipeline import console, paths
from pipeline.io import read_json, read_parquet, write_text
from pipeline.params import Params
from pipeline.stage import stage


@stage("clip.model", "dataset.root")
def report(params: Params) -> None:
    """Write the results as one static page.

    Reads what evaluate and the training stages left; writes data/report/index.html.
    """
    predictions = read_parquet(paths.PREDICTIONS, "evaluate")
    cost = read_json(paths.COST_JSON, "evaluate")
    streams = [_stream(name, cost) for name in console.STREAMS if name in predictions]
    best = max(streams, key=lambda stream: stream["top1"])
    best["best"] = True
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(
        resources.files("moclip").joinpath("templates/report.html").read_text(encoding="utf-8")
    )
    counts, extracted = read_json(paths.INDEX_COUNTS, "index"), read_json(paths.EXTRACT_COUNTS, "extract_mv")
    page = template.render(
        data_root=params.dataset.root,
        clip_model=params.clip.model,
        counts=counts,
        streams=streams,
        parameters=cost["parameters"],
        classes=_classes(predictions),
        matrix=_matrix(predictions),
        charts=[
            _chart(f"{title}, {what}", folder, metric)
            for title, folder in (("MV-TSN", paths.TRAIN_MV_LOG), ("fusion head", paths.TRAIN_FUSION_LOG))
            for what, metric in (("cross-entropy", "loss"), ("top-1", "top1"))
        ],
        facts=_facts(counts, extracted),
    )
    write_text(paths.REPORT, page)
    console.note(f"report: {paths.REPORT}")


def _stream(name: str, cost: dict[str, Any]) -> dict[str, Any]:
    scores = read_json(paths.STREAM_JSON[name], "evaluate")
    video = cost["multiply_adds_m"]["video"][name]
    missing = sum(scores["skipped"].values())
    return scores | {
        "name": name,
        "title": console.STREAMS[name],
        "cost": video,
        "missing": missing,
        "best": False,
    }


def _classes(predictions: pd.DataFrame) -> list[dict[str, Any]]:
    labels = predictions["label"].to_numpy()
    streams = [name for name in console.STREAMS if name in predictions]
    right = {name: metrics.class_accuracy(_choice(predictions, name), labels) for name in streams}
    names = predictions.drop_duplicates("label").set_index("label")["class"]
    return [{"name": names[label]} | {name: right[name][label] for name in streams} for label in sorted(names.index)]


def _matrix(predictions: pd.DataFrame) -> list[dict[str, Any]]:
    names = predictions.drop_duplicates("label").set_index("label")["class"].sort_index()
    chosen = pd.Series(_choice(predictions, "fusion"))
    table = pd.crosstab(predictions["label"], chosen).reindex(index=names.index, columns=names.index, fill_value=0)
    return [
        {
            "name": str(name),
            "cells": [{"count": int(count), "percent": round(80 * count / max(1, row.sum()))} for count in row],
        }
        for name, row in zip(names, table.to_numpy(), strict=True)
    ]


def _choice(predictions: pd.DataFrame, stream: str) -> np.ndarray:
    return np.stack(predictions[stream].to_list()).argmax(axis=1)


def _chart(title: str, folder: Path, metric: str) -> dict[str, Any]:
    """Two curves over the epochs as points of an SVG of 320 x 180."""
    curves = {}
    for part in ("train", "val"):
        path = folder / "plots" / "metrics" / f"{part}_{metric}.tsv"
        curves[part] = pd.read_csv(path, sep="\t")[f"{part}_{metric}"].to_numpy(float)
    epochs = len(curves["train"])
    top = 1.0 if metric == "top1" else max(curve.max() for curve in curves.values())
    lines = []
    for part, curve in curves.items():
        x = 40 + 272 * np.arange(epochs) / max(1, epochs - 1)
        y = 155 - 130 * curve / top
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        lines.append({"name": part, "points": points})
    return {"title": title, "top": f"{top:.2g}", "bottom": "0", "epochs": epochs, "lines": lines}


def _facts(counts: dict[str, Any], extracted: dict[str, Any]) -> list[tuple[str, Any]]:
    return [
        ("clips indexed", counts["clips"]),
        *((f"split: {name}", count) for name, count in counts["splits"].items()),
        *((f"codec: {name}", count) for name, count in counts["codecs"].items()),
        *((f"vectors exact by {name}", count) for name, count in extracted["exact_by"].items()),
        ("frames with motion vectors read", f"{extracted['frames']:,}"),
        *((f"not usable: {reason}", count) for reason, count in extracted["not_usable"].items()),
    ]


if __name__ == "__main__":
    report()
