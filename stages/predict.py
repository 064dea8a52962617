"""`moclip predict`: which action a clip shows, by the models that `dvc repro` left. Not a stage of the DAG."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from moclip.clip import Clip
from moclip.errors import DatasetError, VideoError
from moclip.features import Features
from moclip.fusion import load_fusion
from moclip.mv_tsn import load_mv_tsn
from moclip.predictor import FieldSettings, Predictor, ViewSettings
from moclip.video import clips_in
from pipeline import console, paths
from pipeline.io import rounded
from pipeline.params import Params
from pipeline.stage import stage

PREDICT_KEYS = (
    "seed",
    "index.transcode",
    "mv.canvas",
    "mv.cell",
    "mv.clip",
    "mv.accumulate",
    "clip.model",
    "clip.frames",
    "clip.choice",
    "evaluate.protocol",
    "evaluate.crop",
)
"""What it takes to look at a clip as the models were trained to."""


@stage(*PREDICT_KEYS)
def predict(
    params: Params,
    clips: Annotated[list[Path], typer.Argument(help="Clips, or folders of clips.", show_default=False)],
    top: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout instead of a table.")] = False,
) -> None:
    """Say which action a clip shows, with the models that `dvc repro` left.

    Names the most probable classes by fusion, by motion alone and by zero-shot CLIP. A clip that cannot be read is
    reported, the others are answered; the exit code is 1 where none could be.
    """
    files = clips_in(clips)
    if not files:
        raise DatasetError("no clips in it", where=", ".join(map(str, clips)))
    predictor, classes = load_predictor(params)
    results = []
    with console.progress("predict", len(files)) as advance:
        for path in files:
            try:
                named = {name: _top(values, classes, top) for name, values in predictor(path).items()}
                results.append({"clip": str(path), **named})
            except VideoError as problem:
                results.append({"clip": str(path), "error": problem.what})
            advance(1)
    if as_json:
        print(json.dumps(rounded(results), indent=2))
    else:
        for result in results:
            _show(result, top)
    if all("error" in result for result in results):
        raise VideoError("no clip could be read", fix="\n  ".join(f"{r['clip']}: {r['error']}" for r in results))


def load_predictor(params: Params) -> tuple[Predictor, list[str]]:
    """The models that `dvc repro` left, and the names of the classes."""
    mv_tsn, text = load_mv_tsn(paths.MV_TSN), Features(paths.CLIP_TEXT, "clip_text")
    mv = params.mv
    segments, crops = params.evaluate.views
    predictor = Predictor(
        mv_tsn,
        load_fusion(paths.FUSION),
        Clip(params.clip.model),
        text.array("features"),
        text.attributes["logit_scale"],
        FieldSettings(bool(params.index.transcode), mv.canvas, mv.cell, mv.clip, mv.accumulate),
        ViewSettings(segments, crops, params.evaluate.crop, params.clip.frames, params.clip.choice, params.seed),
    )
    return predictor, list(mv_tsn.config.classes)


def _top(probabilities: np.ndarray, classes: list[str], top: int) -> list[dict[str, object]]:
    order = np.argsort(-probabilities, kind="stable")[:top]
    return [{"class": classes[label], "probability": float(probabilities[label])} for label in order]


def _show(result: dict, top: int) -> None:
    if "error" in result:
        console.error(f"{result['clip']}: {result['error']}")
        return
    rows = [
        (console.STREAMS[name], *(f"{one['class']} {one['probability']:.2f}" for one in result[name]))
        for name in ("fusion", "mv_tsn", "zero_shot")
    ]
    console.table(result["clip"], ("", *(str(place + 1) for place in range(len(rows[0]) - 1))), rows)


if __name__ == "__main__":
    predict()
