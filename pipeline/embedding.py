"""A trained MV-TSN, or the image baseline, over every clip under the test protocol, part by part.

Called by the stages `embed_mv` and `embed_image`.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from moclip import storage
from moclip.encoding import Part, encode, versions
from moclip.parts import Parts, run_key, slices
from moclip.store import FieldReader
from moclip.video import md5
from moclip.views import Views, ViewsWorker
from pipeline import console, paths
from pipeline.params import Params
from pipeline.stage import machines

COLUMNS = ["id", "offset", "length", "slots", "shard", "codec", "label", "status"]
"""Of a clip, what a worker needs to know."""


def views_of(
    params: Params,
    model: Path,
    stage: str,
    reader: FieldReader,
    clips: list[pd.DataFrame],
    scales: tuple[float, ...] = (),
    flip: bool = False,
) -> Views:
    """How a model is to see the clips; `scales` and `flip` are of augmented views."""
    segments, crops = params.evaluate.views
    key = run_key(
        model=md5(model),
        store=[reader.attributes["recipe"], reader.attributes["contents"]],
        clips=[rows[name].tolist() for rows in clips for name in ("id", "offset", "length")],
        given=[segments, crops, params.evaluate.crop, scales, flip, params.embed.batch, params.seed],
        versions=versions(),
    )
    return Views(
        model=model.read_bytes(),
        store=storage.absolute(reader.folder.url),
        segments=segments,
        crops=crops,
        crop=params.evaluate.crop,
        scales=scales,
        flip=flip,
        batch=params.embed.batch,
        seed=params.seed,
        place=paths.work(stage, params.store),
        key=key,
        versions=versions(),
    )


def protocol_parts(clips: pd.DataFrame) -> list[Part]:
    """The parts of all clips under the test protocol."""
    return [Part(f"protocol-{n:06d}", clips.iloc[rows]) for n, rows in enumerate(slices(len(clips)))]


def encoded(stage: str, given: Views, every: list[Part], ray: str | None) -> Parts:
    """Do the parts that a killed run has not done; all of them lie in what is returned."""
    parts = Parts(given.place, given.key)
    done = parts.begin()
    todo = [part for part in every if part.name not in done]
    with console.progress(stage, sum(len(part.rows) for part in every)) as advance:
        advance(sum(len(part.rows) for part in every if part.name in done))
        with machines(ray) as cluster:
            encode(ViewsWorker, given, todo, cluster, advance)
    return parts
