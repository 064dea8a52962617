"""Pictures of results, by matplotlib."""

from __future__ import annotations

import itertools
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


STYLES = ("-", "--", ":", "-.")


def accuracy_over_cost(rows: Sequence[Mapping[str, Any]], titles: Mapping[str, str], path: Path) -> None:
    """Plot top-1 of each stream, mean and standard deviation, over the multiply-adds of a video, and write a PNG.

    A row holds `values` (parameter -> value) and `streams` (stream -> `top1_mean`, `top1_sd` or None,
    `multiply_adds_m`). Lines join rows that differ in the first parameter alone; a style of line stands for the values
    of the others. Where the cost is the same in all rows, the x axis is the first parameter.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 5.5), layout="constrained")
    costs = [float(row["streams"]["fusion"]["multiply_adds_m"]) for row in rows]
    by_cost = len({round(cost, 1) for cost in costs}) > 1
    first = next(iter(rows[0]["values"]))
    values = list(dict.fromkeys(str(row["values"].get(first)) for row in rows))
    groups: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(_others(row["values"], first), []).append(number)
    shown = [stream for stream in titles if any(stream in row["streams"] for row in rows)]
    for style, (others, members) in zip(itertools.cycle(STYLES), groups.items(), strict=False):
        for turn, stream in enumerate(shown):
            own = sorted((n for n in members if stream in rows[n]["streams"]), key=lambda n: costs[n])
            aside = turn - (len(shown) - 1) / 2  # or the error bars would hide each other
            places = [
                costs[n] * 1.012**aside if by_cost else _place(rows[n], first, values) + 0.03 * aside for n in own
            ]
            parts = [rows[n]["streams"][stream] for n in own]
            axes.errorbar(
                places,
                [part["top1_mean"] for part in parts],
                yerr=[part["top1_sd"] or 0 for part in parts],
                label=titles[stream] + (f" ({others})" if others and len(groups) > 1 else ""),
                color=COLOURS[stream],
                linestyle=style,
                marker="o",
                markersize=5,
                linewidth=1.5,
                elinewidth=1,
                capsize=3,
            )
        if by_cost:
            for n in members:
                top = max(part["top1_mean"] + (part["top1_sd"] or 0) for part in rows[n]["streams"].values())
                name = f"{first.rsplit('.', 1)[-1]} {rows[n]['values'].get(first)}"
                axes.annotate(
                    name if len(groups) == 1 or not others else f"{name}\n{others}",
                    (costs[n], top),
                    xytext=(0, 6),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8,
                )
    if by_cost:
        axes.set_xscale("log")
        axes.set_xlabel("multiply-adds a video, millions (of both streams)")
    else:
        axes.set_xticks(range(len(values)), values)
        axes.set_xlabel(first)
    axes.set_ylabel("top-1, mean ± standard deviation over the seeds")
    axes.margins(x=0.1, y=0.15)
    axes.grid(alpha=0.25)
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=max(2, len(shown)))
    with file_aside(path) as aside_path:
        figure.savefig(aside_path, dpi=120, format="png", metadata={"Software": None})
    pyplot.close(figure)


def _others(values: Mapping[str, Any], first: str) -> str:
    return ", ".join(f"{key.rsplit('.', 1)[-1]} {value}" for key, value in values.items() if key != first)


def _place(row: Mapping[str, Any], first: str, values: Sequence[str]) -> float:
    return float(values.index(str(row["values"].get(first))))
