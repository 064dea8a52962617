"""Pictures of results, by matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moclip.files.atomic import atomic_file

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

    A row holds `values` (parameter -> value) and `streams` (stream -> `top1_mean`, `top1_sd` or None,
    `multiply_adds_m`). Rows that differ in the first parameter alone share a panel. Where the cost is the same in all
    rows, the x axis is the first parameter.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    costs = [float(row["streams"]["fusion"]["multiply_adds_m"]) for row in rows]
    by_cost = len({round(cost, 1) for cost in costs}) > 1
    first = next(iter(rows[0]["values"]))
    values = list(dict.fromkeys(str(row["values"].get(first)) for row in rows))
    groups: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(_others(row["values"], first), []).append(number)
    shown = [stream for stream in titles if any(stream in row["streams"] for row in rows)]
    wide = min(3, len(groups))
    high = -(-len(groups) // wide)
    size = (4 + 4.5 * wide, 1.2 + 4 * high)
    figure, panels = pyplot.subplots(
        high, wide, figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for axes, (others, members) in zip(panels.flat, groups.items(), strict=False):
        axes.set_title(others, fontsize=10)
        for turn, stream in enumerate(shown):
            own = sorted((n for n in members if stream in rows[n]["streams"]), key=lambda n: costs[n])
            aside = turn - (len(shown) - 1) / 2  # or the error bars would hide each other
            parts = [rows[n]["streams"][stream] for n in own]
            axes.errorbar(
                [costs[n] * 1.02**aside if by_cost else _place(rows[n], first, values) + 0.04 * aside for n in own],
                [part["top1_mean"] for part in parts],
                yerr=[part["top1_sd"] or 0 for part in parts],
                label=titles[stream],
                color=COLOURS[stream],
                marker="o",
                markersize=5,
                linewidth=1.5,
                elinewidth=1,
                capsize=3,
            )
        if by_cost:
            axes.set_xscale("log")
            for n in members:
                top = max(part["top1_mean"] + (part["top1_sd"] or 0) for part in rows[n]["streams"].values())
                name = f"{first.rsplit('.', 1)[-1]} {rows[n]['values'].get(first)}"
                axes.annotate(name, (costs[n], top), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8)
        else:
            axes.set_xticks(range(len(values)), values)
        axes.margins(x=0.12, y=0.15)
        axes.grid(alpha=0.25)
    for axes in list(panels.flat)[len(groups) :]:
        axes.set_visible(False)
    figure.supxlabel("multiply-adds a video, millions (of both streams)" if by_cost else first, fontsize=10)
    figure.supylabel("top-1, mean ± standard deviation over the seeds", fontsize=10)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=9, loc="outside upper center", ncols=len(shown))
    with atomic_file(path) as aside_path:
        figure.savefig(aside_path, dpi=110, format="png", metadata={"Software": None})
    pyplot.close(figure)


def _others(values: Mapping[str, Any], first: str) -> str:
    return ", ".join(f"{key.rsplit('.', 1)[-1]} {value}" for key, value in values.items() if key != first)


def _place(row: Mapping[str, Any], first: str, values: Sequence[str]) -> float:
    return float(values.index(str(row["values"].get(first))))
