"""Plots of results, with matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from moclip.files.atomic import atomic_file

STREAM_COLOURS = {
    "majority": "#1b1f24",
    "zero_shot": "#8a94a6",
    "still": "#2a9db0",
    "mv_image": "#a3568f",
    "motion_probe": "#b3372f",
    "mv_tsn": "#d98324",
    "score_sum": "#3f9d6b",
    "fusion": "#2563c9",
}
"""The same as in the report."""

Row = Mapping[str, Any]
"""A row of a sweep: `values` (parameter -> value), and `streams` (stream -> `top1_mean`, `top1_sd` or None,
`multiply_adds_m`, and with validation clips `val_top1_mean` and `val_top1_sd`). With variants also `variant`, its name.
"""


def plot_accuracy_over_cost(rows: Sequence[Row], titles: Mapping[str, str], path: Path) -> None:
    """Plot top-1 of each stream, mean and standard deviation, over the multiply-adds of a video; write a PNG.

    Rows that differ only in the first parameter share a panel. Where the cost is the same in all rows, the x axis is
    the first parameter.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    by_cost = len({round(_cost(row), 1) for row in rows}) > 1
    parameter = next(iter(rows[0]["values"]))
    values = list(dict.fromkeys(_value(row, parameter) for row in rows))
    panels: dict[str, list[Row]] = {}
    for row in rows:
        panels.setdefault(_panel_title(row, parameter), []).append(row)
    streams = [stream for stream in titles if any(stream in row["streams"] for row in rows)]

    def position(row: Row, shift: float) -> float:
        return _cost(row) * 1.02**shift if by_cost else values.index(_value(row, parameter)) + 0.04 * shift

    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    size = (4 + 4.5 * columns, 1.2 + 4 * lines)
    figure, grid = pyplot.subplots(
        lines, columns, figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for axes, (title, members) in zip(grid.flat, panels.items(), strict=False):
        axes.set_title(title, fontsize=10)
        _draw_streams(axes, members, streams, titles, position)
        if by_cost:
            axes.set_xscale("log")
            _label_points(axes, members, parameter)
        else:
            axes.set_xticks(range(len(values)), values)
        axes.margins(x=0.12, y=0.15)
        axes.grid(alpha=0.25)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    figure.supxlabel("multiply-adds a video, millions (of both streams)" if by_cost else parameter, fontsize=10)
    figure.supylabel("top-1, mean ± standard deviation over the seeds", fontsize=10)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=9, loc="outside upper center", ncols=len(streams))
    _save(figure, path)


def plot_variants(rows: Sequence[Row], titles: Mapping[str, str], path: Path) -> None:
    """Plot top-1 of each variant on test and validation clips, mean and standard deviation; write a PNG.

    The streams with validation scores have a panel each, or all streams where none has, except those whose scores no
    variant changes. The dotted line is the first row's mean on the test clips.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    present = [stream for stream in titles if all(stream in row["streams"] for row in rows)]
    scored = [stream for stream in present if "val_top1_mean" in rows[0]["streams"][stream]] or present
    streams = [s for s in scored if any(row["streams"][s] != rows[0]["streams"][s] for row in rows)] or scored
    size = (3.2 + 3.4 * len(streams), 1.8 + 0.45 * len(rows))
    figure, grid = pyplot.subplots(
        1, len(streams), figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for axes, stream in zip(grid.flat, streams, strict=True):
        axes.set_title(titles[stream], fontsize=10)
        _draw_variants(axes, [row["streams"][stream] for row in rows], STREAM_COLOURS[stream])
        axes.grid(axis="x", alpha=0.25)
    grid[0, 0].set_yticks(range(len(rows)), _variant_titles(rows))
    grid[0, 0].invert_yaxis()
    figure.supxlabel(
        "top-1, mean ± standard deviation over the seeds (dotted: the first row on the test clips)", fontsize=10
    )
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=9, loc="outside upper center", ncols=2)
    _save(figure, path)


def _draw_variants(axes: Any, results: Sequence[Mapping[str, Any]], colour: str) -> None:
    """Draw a stream's results, one below the other, and a dotted line through the first."""
    axes.axvline(results[0]["top1_mean"], linestyle=":", linewidth=1, color=colour)
    for name, label, marker, fill, shift in (
        ("val_top1", "validation clips", "o", "white", -0.14),
        ("top1", "test clips", "s", colour, 0.14),
    ):
        shown = [(place + shift, result) for place, result in enumerate(results) if f"{name}_mean" in result]
        axes.errorbar(
            [result[f"{name}_mean"] for _, result in shown],
            [place for place, _ in shown],
            xerr=[result[f"{name}_sd"] or 0 for _, result in shown],
            label=label,
            color=colour,
            marker=marker,
            markerfacecolor=fill,
            markersize=6,
            linestyle="none",
            elinewidth=1.2,
            capsize=3,
        )


def _variant_titles(rows: Sequence[Row]) -> list[str]:
    """Return the name of each row's variant, with the values in which the rows differ."""
    differing = [key for key in rows[0]["values"] if len({_value(row, key) for row in rows}) > 1]
    return [
        ", ".join([str(row.get("variant", "")), *(f"{_short(key)} {row['values'].get(key)}" for key in differing)])
        for row in rows
    ]


SHOTS = "dataset.shots"


def plot_fusion_over_shots(rows: Sequence[Row], path: Path) -> None:
    """Plot top-1 of fusion over the clips per class, a line per combination of the other parameters; write a PNG.

    Zero-shot CLIP, which uses none of these clips, is a dashed line.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shots = sorted({row["values"][SHOTS] for row in rows})
    lines: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["values"][SHOTS]):
        lines.setdefault(_panel_title(row, SHOTS), []).append(row)
    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for number, (title, members) in enumerate(lines.items()):
        results = [row["streams"]["fusion"] for row in members]
        places = [shots.index(row["values"][SHOTS]) + 0.04 * (number - (len(lines) - 1) / 2) for row in members]
        means, spreads = [result["top1_mean"] for result in results], [result["top1_sd"] or 0 for result in results]
        axes.errorbar(places, means, yerr=spreads, label=title, marker="o", markersize=5, elinewidth=1, capsize=3)
    baselines = {row["values"][SHOTS]: row["streams"].get("zero_shot") for row in rows}
    if all(baselines.values()):  # not without an encoder of texts
        means = [baselines[count]["top1_mean"] for count in shots]
        axes.plot(means, linestyle="--", color=STREAM_COLOURS["zero_shot"], label="zero-shot CLIP")
    axes.set_xticks(range(len(shots)), [str(count) for count in shots])
    axes.grid(alpha=0.25)
    axes.set_xlabel("training clips per class")
    axes.set_ylabel("top-1 of fusion, mean ± standard deviation over the seeds")
    axes.legend(frameon=False, fontsize=9)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    """Write a figure as PNG and close it. Without metadata the bytes depend only on the picture."""
    from matplotlib import pyplot

    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png", metadata={"Software": None})
    pyplot.close(figure)


def _draw_streams(
    axes: Any,
    rows: Sequence[Row],
    streams: Sequence[str],
    titles: Mapping[str, str],
    position: Callable[[Row, float], float],
) -> None:
    for number, stream in enumerate(streams):
        own = sorted((row for row in rows if stream in row["streams"]), key=_cost)
        shift = number - (len(streams) - 1) / 2  # without it error bars would hide each other
        results = [row["streams"][stream] for row in own]
        axes.errorbar(
            [position(row, shift) for row in own],
            [result["top1_mean"] for result in results],
            yerr=[result["top1_sd"] or 0 for result in results],
            label=titles[stream],
            color=STREAM_COLOURS[stream],
            marker="o",
            markersize=5,
            linewidth=1.5,
            elinewidth=1,
            capsize=3,
        )


def _label_points(axes: Any, rows: Sequence[Row], parameter: str) -> None:
    """Write a parameter's value above the highest point of each row."""
    for row in rows:
        top = max(result["top1_mean"] + (result["top1_sd"] or 0) for result in row["streams"].values())
        label = f"{_short(parameter)} {row['values'].get(parameter)}"
        axes.annotate(label, (_cost(row), top), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8)


def _cost(row: Row) -> float:
    return float(row["streams"]["fusion"]["multiply_adds_m"])


def _value(row: Row, parameter: str) -> str:
    return str(row["values"].get(parameter))


def _panel_title(row: Row, parameter: str) -> str:
    """Return the values of all other parameters."""
    return ", ".join(f"{_short(key)} {value}" for key, value in row["values"].items() if key != parameter)


def _short(parameter: str) -> str:
    return parameter.rsplit(".", 1)[-1]
