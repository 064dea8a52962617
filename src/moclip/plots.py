"""Pictures of results, by matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moclip.files import file_aside

COLOURS = {
    "zero_shot": "#8a94a6",
    "mv_image": "#a3568f",
    "mv_tsn": "#d98324",
    "score_sum": "#3f9d6b",
    "fusion": "#2563c9",
}
"""Of the streams, as in the report."""


def accuracy_over_cost(rows: Sequence[Mapping[str, Any]], titles: Mapping[str, str], path: Path) -> None:
    """Plot top-1 of each stream, mean and standard deviation, over the multiply-adds of a video, and write a PNG.

    A row holds `values` (parameter -> value, what the points are named by) and `streams` (stream -> `top1_mean`,
    `top1_sd` or None, `multiply_adds_m`). Where the cost is the same in all rows, the x axis is the first parameter.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    costs = [row["streams"]["fusion"]["multiply_adds_m"] for row in rows]
    by_cost = len({round(cost, 1) for cost in costs}) > 1
    names = [", ".join(f"{key.rsplit('.', 1)[-1]} {value}" for key, value in row["values"].items()) for row in rows]
    first = next(iter(rows[0]["values"]))
    order = sorted(range(len(rows)), key=lambda n: costs[n]) if by_cost else list(range(len(rows)))
    places = {n: costs[n] if by_cost else place for place, n in enumerate(order)}
    for stream, title in titles.items():
        shown = [n for n in order if stream in rows[n]["streams"]]
        if not shown:
            continue
        parts = [rows[n]["streams"][stream] for n in shown]
        axes.errorbar(
            [places[n] for n in shown],
            [part["top1_mean"] for part in parts],
            yerr=[part["top1_sd"] or 0 for part in parts],
            label=title,
            color=COLOURS[stream],
            marker="o",
            markersize=5,
            linewidth=1.5,
            capsize=3,
        )
    if by_cost:
        axes.set_xscale("log")
        axes.set_xlabel("multiply-adds a video, millions (of both streams)")
        for n in order:
            top = max(part["top1_mean"] + (part["top1_sd"] or 0) for part in rows[n]["streams"].values())
            axes.annotate(
                names[n], (places[n], top), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8
            )
    else:
        axes.set_xticks(range(len(order)), [names[n] for n in order])
        axes.set_xlabel(first)
    axes.set_ylabel("top-1, mean ± standard deviation over the seeds")
    axes.margins(x=0.08, y=0.12)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=9)
    with file_aside(path) as aside:
        figure.savefig(aside, dpi=120, format="png", metadata={"Software": None})
    pyplot.close(figure)
