"""`moclip suspects`: clips whose label may be wrong, by their neighbours and by networks that did not see them."""

from __future__ import annotations

from typing import Annotated

import typer

from moclip.wording import counted
from pipeline.ask.answer import FOLDER, By, CsvFile, Page, Row, show_rows
from pipeline.console.command import while_importing
from pipeline.console.output import STREAM_LABELS, print_note
from pipeline.options import Workers, cpu_count
from pipeline.params import Params
from pipeline.stage import command

COLUMNS = ("rank", "clip", "class", "split", "score", "neighbours", "prediction", "suggested", "features")


@command("seed", "dataset.root", "dataset.shots", "dataset.base_to_new", "clip.model", "fit.folds", "fit.refit")
def suspects(
    params: Params,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many clips to show.")] = 20,
    by: By = None,
    csv_file: CsvFile = FOLDER / "suspects.csv",
    page: Page = None,
    workers: Workers = cpu_count(),
) -> None:
    """Show the clips whose label is most likely wrong, with a score from 0 to 1.

    The score is the mean of two disagreements with the label. Neighbours: the share of the 10 nearest clips of other
    sources that have another label. Prediction: 1 - the probability of the label by the stream to trust, from a network
    that did not see the clip; with fit.folds there is one for every clip of train and val, without only for val and
    test. Where there is none, the neighbours alone count. Writes ask/suspects.csv.
    """
    with while_importing():
        import numpy as np

        from moclip.evaluation.label_suspicion import commonest_label, suspicion
        from pipeline.ask.disagreement import neighbour_evidence, predicted_probabilities
        from pipeline.ask.features import compared_clips, note_left_out
        from pipeline.ask.page import Card, Section, facts, show_page
        from pipeline.inputs import Inputs
        from pipeline.multi_label import refuse_command

    inputs = Inputs(params)
    refuse_command(
        inputs, "suspects", "it asks whether the label is that of similar clips, and sets of labels only overlap"
    )
    compared = compared_clips(inputs, by)
    clips, names = compared.clips, inputs.clips.classes
    labels = clips["label"].to_numpy()
    evidence = neighbour_evidence(inputs, compared)
    probabilities, stream = predicted_probabilities(inputs, clips["id"])
    against = 1 - probabilities[np.arange(len(labels)), labels]
    scores = suspicion(evidence.disagreement, against)
    predicted = np.isfinite(against)
    suggested = commonest_label(evidence.labels, len(names))
    suggested[predicted] = probabilities[predicted].argmax(axis=1)
    rows: list[Row] = []
    for row in np.argsort(-scores, kind="stable")[:count].tolist():  # NaN comes last
        if np.isfinite(scores[row]):
            clip = clips.iloc[row]
            rows.append(
                {"rank": len(rows) + 1, "clip": clip["id"], "class": clip["class"], "split": clip["split"]}
                | {"score": float(scores[row]), "neighbours": _known(evidence.disagreement[row])}
                | {"prediction": _known(against[row]), "suggested": names[suggested[row]]}
                | {"features": "held out" if evidence.held_out[row] else "trained on"}
            )
    title = f"{len(rows)} of {len(clips)} clips whose label disagrees most with other clips, by {compared.kinds}"
    show_rows("suspects", title, COLUMNS, rows, csv_file)
    if predicted.any():
        by_stream = f"by the stream to trust, {STREAM_LABELS[stream]}"
        print_note(f"suspects: {counted(int(predicted.sum()), 'clip')} with a held-out prediction, {by_stream}")
    if not predicted.all():
        trained = int((~evidence.held_out).sum())
        print_note(
            f"suspects: {counted(int((~predicted).sum()), 'clip')} without one; {counted(trained, 'clip')} compared by "
            "features that were trained with their label; for better scores set fit.folds and run: dvc repro"
        )
    if unknown := int((~np.isfinite(scores)).sum()):
        print_note(f"suspects: {counted(unknown, 'clip')} not scored: no clip of another source has such a label")
    note_left_out("suspects", inputs, clips["id"])
    sections = [Section("", [Card(row["clip"], facts(row, COLUMNS[2:])) for row in rows])]
    text = "Score: from 0, all agree with the label, to 1. Suggested: the class that the others say."
    show_page("suspects", title, text, sections, inputs, page, workers)


def _known(value: float) -> float | None:
    return float(value) if value == value else None


if __name__ == "__main__":
    suspects()
