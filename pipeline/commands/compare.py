"""`moclip compare`: two experiments on the same test clips: differences, and the clips that only one gets right."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moclip.errors import MoclipError
from moclip.wording import counted
from pipeline import paths
from pipeline.console.command import while_importing
from pipeline.console.label_scores import CLASS_SHARES, NOT_SCORED
from pipeline.console.output import STREAM_LABELS, print_lines, print_note, print_result, wrapped
from pipeline.io import write_text
from pipeline.stage import command

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from moclip.evaluation.comparison import Difference
    from pipeline.experiment_predictions import PairedPredictions

SEED = 0
"""Of the resamplings, so that the same two experiments always have the same intervals."""

MOST_ON_PAGE = 200
"""Most clips of a list on the page."""


@dataclass(frozen=True)
class Table:
    """A table of the answer. `texts` says whether its cells are names, not figures."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: bool = False

    def first(self, most: int) -> dict[str, Any]:
        """Return the table with at most so many rows, and how many more there are."""
        return {
            "title": self.title,
            "columns": self.columns,
            "rows": self.rows[:most],
            "texts": self.texts,
            "more": max(0, len(self.rows) - most),
        }


@command()
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="Git revision, DVC experiment, or folder of a project.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The same; . is this project as it is.")] = ".",
    stream: Annotated[str, typer.Option(help=f"Whose classes and clips to list: {', '.join(paths.STREAM_JSON)}.")] = (
        "fusion"
    ),
    count: Annotated[int, typer.Option("--count", "-n", min=0, help="How many rows of each list to print.")] = 10,
    page: Annotated[Path | None, typer.Option("--page", metavar="FILE", help="Also write it as a page: HTML.")] = None,
    csv_file: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Also write each clip's predicted classes in A and B."),
    ] = None,
) -> None:
    """Compare two experiments on the test clips that both have.

    Prints the top-1 of each stream in A and B, the difference B - A with its 95 % interval over the sources, the same
    for each class, and the clips that are right in one and wrong in the other. Reads data/predictions.parquet and
    data/index.parquet of both: of a revision or an experiment from DVC's cache, of a folder as they are there. With
    several labels a clip, it compares the mean average precision of each stream only.
    """
    with while_importing():
        from moclip.data.label_sets import is_multi_label
        from pipeline.experiment_predictions import pair_predictions, read_experiment
        from pipeline.logits import clip_sources

    if stream not in paths.STREAM_JSON:
        raise MoclipError("no such stream", where=f"--stream {stream}", fix=f"one of {', '.join(paths.STREAM_JSON)}")
    pair = pair_predictions(read_experiment(first), read_experiment(second))
    sources, several = clip_sources(pair.rows), is_multi_label(pair.rows)
    if several and csv_file:
        what = "clips with several labels have no one predicted class to write"
        raise MoclipError(what, where=f"--csv {csv_file}", fix="leave out --csv")
    if stream not in pair.first or (several and stream in NOT_SCORED):
        raise MoclipError("not scored in both experiments", where=f"--stream {stream}", fix="name another --stream")
    found, tables = _compare_maps(pair, sources) if several else _compare_answers(pair, sources, stream)
    answer = answer_text(stream, found[stream], "mAP" if several else "top-1")
    counts = {"clips": len(pair.rows), "sources": len(set(sources.tolist()))}
    print_note(
        f"A: {first}; B: {second}; {counted(counts['clips'], 'test clip')} of "
        f"{counted(counts['sources'], 'source')} in both"
    )
    for note in pair.notes:
        print_note(note)
    for table in tables:
        shown = table.first(len(table.rows) if table is tables[0] else count)
        if shown["rows"]:
            print_result(table.title, table.columns, shown["rows"])
        else:
            print_note(f"{table.title}\n")
        if shown["rows"] and shown["more"]:
            print_note(f"and {shown['more']} more: --count, --page or --csv\n")
    print_lines(wrapped(answer), sys.stdout)
    if csv_file:
        write_text(csv_file, _clip_table(pair, sources).to_csv(index=False, lineterminator="\n"))
        print_note(f"compare: {csv_file}, {counted(len(pair.rows), 'row')}")
    if page:
        _write_page(page, (first, second), (answer, found[stream].better), tables, counts | {"notes": pair.notes})


# --------------------------------------------------------------------------------------------------------- one label


def _compare_answers(
    pair: PairedPredictions, sources: np.ndarray, stream: str
) -> tuple[dict[str, Difference], list[Table]]:
    """Return the difference of each stream, and the tables of streams, classes and clips."""
    from moclip.evaluation.comparison import compare_classes, compare_top1

    said = [_predicted(of, classes) for of, classes in _sides(pair)]
    actual = pair.rows["class"].to_numpy(dtype=str)
    right = [{name: predicted == actual for name, predicted in one.items()} for one in said]
    streams = compare_top1(right[0], right[1], sources, SEED)
    one, two = right[0][stream], right[1][stream]
    classes = compare_classes(one, two, actual, sources, SEED)
    named = STREAM_LABELS[stream]
    tables = [
        Table("top-1", _columns("stream"), [_row(STREAM_LABELS[name], of) for name, of in streams.items()]),
        Table(
            f"accuracy of each class, {named}; the largest difference first",
            _columns("class", "clips"),
            [_row(name, of, str(of.clips)) for name, of in classes.items()],
        ),
    ]
    for title, rows, wrong, side in (
        ("right in A, wrong in B", one & ~two, said[1], "B"),
        ("right in B, wrong in A", two & ~one, said[0], "A"),
    ):
        lines = list(zip(pair.rows["id"][rows], actual[rows], wrong[stream][rows], strict=True))
        tables.append(
            Table(f"{title}, {named}: {counted(len(lines), 'clip')}", ("clip", "class", f"{side} says"), lines, True)
        )
    return streams, tables


def _sides(pair: PairedPredictions) -> list[tuple[dict[str, np.ndarray], list[str]]]:
    return [(pair.first, pair.first_classes), (pair.second, pair.second_classes)]


def _predicted(logits: dict[str, np.ndarray], classes: list[str]) -> dict[str, np.ndarray]:
    """Return the name of the class that each stream predicts for each clip, (clips,) str."""
    import numpy as np

    return {name: np.array(classes, dtype=str)[of.argmax(axis=1)] for name, of in logits.items()}


def _clip_table(pair: PairedPredictions, sources: np.ndarray) -> pd.DataFrame:
    """Return a row per clip: its class and source, and the class that each stream predicts in A and in B."""
    said = {side: _predicted(of, classes) for side, (of, classes) in zip("ab", _sides(pair), strict=True)}
    table = pair.rows[["id", "class"]].rename(columns={"id": "clip"}).assign(source=sources)
    return table.assign(**{f"{name}_{side}": said[side][name] for name in pair.first for side in said})


# ------------------------------------------------------------------------------------------------------ several labels


def _compare_maps(pair: PairedPredictions, sources: np.ndarray) -> tuple[dict[str, Difference], list[Table]]:
    """Return the difference of each stream, and the table of them."""
    from moclip.data.label_sets import targets
    from moclip.evaluation.comparison import compare_map

    if pair.first_classes != pair.second_classes:
        other = sorted(set(pair.first_classes) ^ set(pair.second_classes))
        what = f"mean average precisions of other classes are not comparable: {', '.join(other) or 'their order'}"
        raise MoclipError(what, where="moclip compare")
    scored = [{name: of for name, of in side.items() if name not in NOT_SCORED} for side, _ in _sides(pair)]
    found = compare_map(scored[0], scored[1], targets(pair.rows, pair.first_classes), sources, SEED)
    titles = STREAM_LABELS | {"majority": CLASS_SHARES}
    title = "mean average precision of clips with several labels"
    return found, [Table(title, _columns("stream"), [_row(titles[name], of) for name, of in found.items()])]


# ------------------------------------------------------------------------------------------------------------ in words


def _columns(*names: str) -> tuple[str, ...]:
    return (*names, "A", "B", "B - A", "95 % interval")


def _row(name: str, of: Difference, *more: str) -> tuple[str, ...]:
    return (name, *more, f"{100 * of.first:.1f} %", f"{100 * of.second:.1f} %", *_difference_texts(of))


def _difference_texts(of: Difference) -> tuple[str, str]:
    interval = "" if of.low is None or of.high is None else f"{100 * of.low:+.1f} to {100 * of.high:+.1f}"
    return f"{100 * of.difference:+.1f}", interval


def answer_text(stream: str, found: Difference, metric: str) -> str:
    """Return in a sentence which experiment is better."""
    names = {2: "B is better than A", 1: "A is better than B", 0: "Cannot tell whether A or B is better"}
    if found.low == found.high == 0:
        names[0] = "A and B score the same"
    difference, interval = _difference_texts(found)
    figures = f"{metric} {100 * found.first:.1f} % in A, {100 * found.second:.1f} % in B, {difference} points"
    reason = f"95 % interval {interval}" if interval else "too few sources for an interval"
    return f"{names[found.better]} by the {STREAM_LABELS[stream]}: {figures} ({reason})."


def _write_page(
    file: Path,
    names: tuple[str, str],
    answer: tuple[str, int],
    tables: Sequence[Table],
    counts: dict[str, Any],
) -> None:
    from pipeline.pages import template

    text = template("compare.html").render(
        first=names[0],
        second=names[1],
        answer=answer[0],
        better=answer[1],
        tables=[table.first(MOST_ON_PAGE if table.texts else len(table.rows)) for table in tables],
        **counts,
    )
    write_text(file, text)
    print_note(f"compare: {file}")


if __name__ == "__main__":
    compare()
