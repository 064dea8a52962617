"""`moclip similar`: the clips of the data set that are most similar to a clip, by the stored features."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.ask.answer import FOLDER, By, CsvFile, Page, Row, show_rows
from pipeline.commands.predict import PREDICT_KEYS, load_predictor
from pipeline.console.command import while_importing
from pipeline.options import Workers, cpu_count
from pipeline.params import Params
from pipeline.stage import command

if TYPE_CHECKING:
    import numpy as np

    from pipeline.ask.features import Compared
    from pipeline.ask.page import Section


@command("dataset.root", *PREDICT_KEYS)
def similar(
    params: Params,
    clip: Annotated[str, typer.Argument(help="An id of the index, or the path of a video file.", show_default=False)],
    count: Annotated[int, typer.Option("--count", "-n", "-k", min=1, help="How many clips to show.")] = 10,
    by: By = None,
    csv_file: CsvFile = FOLDER / "similar.csv",
    page: Page = None,
    workers: Workers = cpu_count(),
) -> None:
    """Show the clips that are most similar to a clip, by the cosine of their stored features.

    Searches all clips of train, val and test that have features. A file that is not in the index is read and embedded
    as `moclip predict` does; this needs the trained models. Writes ask/similar.csv.
    """
    with while_importing():
        from pipeline.ask.features import compared_clips, find_clip, note_left_out
        from pipeline.ask.nearest import nearest_rows
        from pipeline.ask.page import show_page
        from pipeline.inputs import Inputs

    inputs = Inputs(params)
    compared = compared_clips(inputs, by)
    found = find_clip(inputs, clip, compared)
    queries = _read_file(params, found, compared) if isinstance(found, Path) else compared.query(found)
    rows = nearest_rows(compared, queries, -1 if isinstance(found, Path) else found, count)
    name = str(found) if isinstance(found, Path) else compared.clips["id"].iloc[found]
    title = f"most similar to {name}, by {compared.kinds}, of {len(compared.clips)} clips"
    columns = ["rank", "clip", "class", "split", "group", "cosine"]
    columns += list(compared.parts) if len(compared.parts) > 1 else []
    show_rows("similar", title, columns, rows, csv_file)
    note_left_out("similar", inputs, compared.clips["id"])
    sections = _sections(name, isinstance(found, Path), rows, columns[2:])
    show_page("similar", title, f"Cosine of the features: {compared.kinds}.", sections, inputs, page, workers)


def _read_file(params: Params, file: Path, compared: Compared) -> list[np.ndarray]:
    """Return the features of a file, (1, width) for each kind. Raises VideoError where it cannot be read."""
    from pipeline.ask.features import predicted_features

    return predicted_features([load_predictor(params)(file)], compared.parts)


def _sections(name: str, is_file: bool, rows: list[Row], columns: list[str]) -> list[Section]:
    from pipeline.ask.page import Card, Section, facts

    asked = Section("The clip", [Card(name, [], is_file)])
    return [asked, Section("Most similar", [Card(row["clip"], facts(row, columns)) for row in rows])]


if __name__ == "__main__":
    similar()
