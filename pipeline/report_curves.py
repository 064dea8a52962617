"""The training curves of the report: loss and accuracy over the epochs, and which epoch was chosen by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from moclip.training.epochs import epoch_rank
from pipeline import paths

LEFT, RIGHT, TOP, BOTTOM = 40, 312, 25, 155
"""Where the axes are in a chart of 320 x 180 px."""

Curves = dict[str, np.ndarray]


def trainings(multi_label: bool, folds: int | None) -> list[dict[str, Any]]:
    """Return both trainings: the charts of loss and top-1, with several labels a clip also mAP, and the chosen epoch.

    `folds` is the number of parts of the clips that the epoch was chosen on if the networks were then trained again on
    train and val: 1 if that is the split val, more with cross-validation. It is None if they were not trained again.
    """
    metrics = {"cross-entropy": "loss", "top-1": "top1"} | ({"mAP": "map"} if multi_label else {})
    found = []
    for title, folder in (("MV-TSN", paths.TRAIN_MV_LOG), ("Fusion head", paths.TRAIN_FUSION_LOG)):
        curves = {what: _read_curves(folder, metric) for what, metric in metrics.items()}
        epoch = chosen_epoch({f"val_{metrics[what]}": of["val"] for what, of in curves.items()})
        found.append(
            {
                "title": title,
                "text": _choice_text("mAP" if multi_label else "top-1", curves, epoch, folds),
                "charts": [_chart(what, of, epoch) for what, of in curves.items()],
            }
        )
    return found


def chosen_epoch(curves: Curves) -> int:
    """Return the epoch that the training kept, from 1, by its curves of the validation clips, each (epochs,).

    They are "val_loss", "val_top1" and, with several labels a clip, "val_map". It is the first of equally good ones.
    """
    epochs = range(len(curves["val_loss"]))
    ranks = [epoch_rank({name: float(curve[epoch]) for name, curve in curves.items()}) for epoch in epochs]
    return max(epochs, key=ranks.__getitem__) + 1


def _read_curves(folder: Path, metric: str) -> Curves:
    """Return the curves of train and val; of mAP only that of val is logged."""
    curves = {}
    for part in ("val",) if metric == "map" else ("train", "val"):
        path = folder / "plots" / "metrics" / f"{part}_{metric}.tsv"
        curves[part] = pd.read_csv(path, sep="\t")[f"{part}_{metric}"].to_numpy(float)
    return curves


def _choice_text(metric: str, curves: dict[str, Curves], epoch: int, folds: int | None) -> str:
    """Say which epoch was chosen by `metric`, on which clips, and what was trained after that."""
    curve = curves[metric]["val"]
    clips = f"clips held out: the curves are means over {folds} folds" if folds and folds > 1 else "validation clips"
    text = f"Epoch {epoch} of {len(curve)} was chosen, with {metric} {100 * curve[epoch - 1]:.1f} % on the {clips}."
    if folds is None:
        return text
    times = f"{epoch} epoch{'s' if epoch > 1 else ''}"
    return f"{text} The final network was then trained for {times} on train and val together, which no curve shows."


def _chart(title: str, curves: Curves, epoch: int) -> dict[str, Any]:
    """Return the curves as points in an SVG of 320 x 180 px, and where the chosen epoch is in it."""
    epochs = len(curves["val"])
    top = max(curve.max() for curve in curves.values()) if title == "cross-entropy" else 1.0
    x = LEFT + (RIGHT - LEFT) * np.arange(epochs) / max(1, epochs - 1)
    y = {part: BOTTOM - (BOTTOM - TOP) * curve / top for part, curve in curves.items()}
    return {
        "title": title,
        "top": f"{top:.2g}",
        "epochs": epochs,
        "lines": [
            {"name": part, "points": " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, of, strict=True))}
            for part, of in y.items()
        ],
        "chosen": {"epoch": epoch, "x": f"{x[epoch - 1]:.1f}", "y": f"{y['val'][epoch - 1]:.1f}"},
    }
