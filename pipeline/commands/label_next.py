"""`moclip label-next`: which clips to annotate next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moclip.errors import DatasetError, VideoError
from moclip.wording import counted
from pipeline.ask.answer import FOLDER, By, CsvFile, Page, Row, show_rows
from pipeline.commands.predict import PREDICT_KEYS, load_predictor
from pipeline.console.command import while_importing
from pipeline.console.output import print_note
from pipeline.console.progress import show_progress
from pipeline.options import Workers, cpu_count
from pipeline.params import NO_FILE, Params
from pipeline.stage import command

if TYPE_CHECKING:
    from moclip.inference.predictor import Prediction
    from pipeline.inputs import Inputs

UNLABELLED = "unlabelled"
COLUMNS = ("rank", "clip", "score", "uncertainty", "distance", "predicted", "probability")


@command("dataset.root", *PREDICT_KEYS)
def label_next(
    params: Params,
    count: Annotated[int, typer.Argument(min=1, metavar="N", help="How many clips to choose.", show_default=False)],
    pool: Annotated[
        str, typer.Option(help="unlabelled: the clips of the index that are in no list; or a folder of clips.")
    ] = UNLABELLED,
    by: By = None,
    csv_file: CsvFile = FOLDER / "label-next.csv",
    page: Page = None,
    workers: Workers = cpu_count(),
) -> None:
    """Choose the clips to annotate next: those that the models are uncertain of, and unlike all others.

    Clips in no list have no stored features, so they are read and classified as `moclip predict` does; spans of longer
    videos are left out, because it reads whole files. The score is the uncertainty (entropy of the calibrated
    probabilities of the stream to trust; with several labels a clip the mean over the labels) times the distance to the
    nearest clip that has a label or was chosen before. Writes ask/label-next.csv.
    """
    with while_importing():
        import numpy as np

        from moclip.data.label_choice import choose_next, label_uncertainty, uncertainty
        from moclip.store.neighbours import nearest
        from pipeline.ask.features import compared_clips, predicted_features
        from pipeline.ask.page import Card, Section, facts, show_page
        from pipeline.inputs import Inputs

    inputs = Inputs(params)
    names = _pool(inputs, pool)
    compared = compared_clips(inputs, by)
    answers = _predict(params, list(names.values()), workers)
    read = {name: answer for name, answer in zip(names, answers, strict=True) if not isinstance(answer, VideoError)}
    if failed := [str(answer.what) for answer in answers if isinstance(answer, VideoError)]:
        print_note(f"label-next: {len(failed):,} of {counted(len(names), 'clip')} left out, not readable: {failed[0]}")
    if not read:
        raise VideoError(f"none of {len(names)} clips could be read", where=pool, fix="see: moclip predict")
    ids, predictions = list(read), list(read.values())
    features = predicted_features(predictions, compared.parts)
    shares = np.stack([answer.probabilities[answer.trusted] for answer in predictions]).astype(np.float64)
    uncertain = label_uncertainty(shares) if predictions[0].thresholds else uncertainty(shares)
    _, cosines = nearest(list(compared.parts.values()), features, 1)
    chosen, distances = choose_next(features, uncertain, cosines[:, 0], count)
    rows: list[Row] = []
    for rank, (row, distance) in enumerate(zip(chosen, distances, strict=True), start=1):
        name, probability = predictions[row].top(1)[0]
        unsure = float(uncertain[row])
        values = (rank, ids[row], unsure * distance, unsure, distance, name, probability)
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    title = f"annotate next: {len(rows)} of {len(ids)} clips, by {compared.kinds}"
    show_rows("label-next", title, COLUMNS, rows, csv_file)
    cards = [Card(str(names[row["clip"]]), facts(row, COLUMNS[2:]), is_file=True) for row in rows]
    text = "Score: uncertainty times distance to the nearest clip that has a label or comes before."
    show_page("label-next", title, text, [Section("", cards)], inputs, page, workers)


def _pool(inputs: Inputs, pool: str) -> dict[str, str]:
    """Return the name and the path of each clip to choose from. Raises DatasetError if there are none."""
    from moclip.data.spans import are_cut
    from moclip.files.folders import join_path
    from moclip.video.clip_files import find_clips

    if pool != UNLABELLED:
        if not Path(pool).is_dir():
            raise DatasetError("no such folder", where=f"--pool {pool}", fix=f"name a folder of clips, or {UNLABELLED}")
        return {str(path): str(path) for path in find_clips([Path(pool)])}
    index = inputs.clips.index
    readable = (index["status"] == "ok") | ((index["label"] == -1) & (index["status"] == "failed"))
    rows = index[(index["split"] == "none") & readable]
    if cut := int(are_cut(rows).sum()):
        print_note(f"label-next: {counted(cut, 'clip')} left out: spans of longer videos, and whole files are read")
        rows = rows[~are_cut(rows)]
    if rows.empty:
        what = "every clip is in a list: the index has no clips in the split none"
        where = "give clips the split none in dataset.manifest"
        if inputs.params.dataset.manifest == NO_FILE:
            where = "leave clips out of the split lists (dataset.splits)"
        fix = f"{where}, or name a folder of clips: --pool FOLDER"
        raise DatasetError(what, where="--pool unlabelled", fix=fix)
    return {str(row.id): join_path(inputs.params.dataset.root, str(row.path)) for row in rows.itertuples()}


def _predict(params: Params, files: list[str], workers: int) -> list[Prediction | VideoError]:
    from contextlib import ExitStack

    from moclip.files.local_copies import local_copy

    predictor = load_predictor(params)
    with ExitStack() as copies, show_progress("label-next", len(files)) as advance:
        answers = []
        local = [copies.enter_context(local_copy(file)) for file in files]
        for answer in predictor.predict_in_processes(local, workers):
            answers.append(answer)
            advance(1)
    return answers


if __name__ == "__main__":
    label_next()
