"""A trained MV-TSN, or the image baseline, over every clip under the test protocol, part by part.

Called by the stages `embed_mv` and `embed_image`.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from moclip.files.folders import absolute_path
from moclip.inference.embed_views import Views, ViewsWorker
from moclip.inference.encode import EncodingPart, encode_parts, library_versions
from moclip.store.reader import FieldReader
from moclip.store.resumable import ResumableParts, part_slices, run_key
from moclip.video.clip_files import file_md5
from pipeline import paths
from pipeline.console.progress import show_progress
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
        model=file_md5(model),
        store=[reader.attributes["recipe"], reader.attributes["contents"]],
        clips=[rows[name].tolist() for rows in clips for name in ("id", "offset", "length")],
        given=[segments, crops, params.evaluate.crop, scales, flip, params.embed.batch, params.seed],
        versions=library_versions(),
    )
    return Views(
        model=model.read_bytes(),
        store=absolute_path(reader.folder.url),
        segments=segments,
        crops=crops,
        crop=params.evaluate.crop,
        scales=scales,
        flip=flip,
        batch=params.embed.batch,
        seed=params.seed,
        place=paths.work(stage, params.store),
        key=key,
        versions=library_versions(),
    )


def protocol_parts(clips: pd.DataFrame) -> list[EncodingPart]:
    """The parts of all clips under the test protocol."""
    return [EncodingPart(f"protocol-{n:06d}", clips.iloc[rows]) for n, rows in enumerate(part_slices(len(clips)))]


def encoded(stage: str, given: Views, every: list[EncodingPart], ray: str | None) -> ResumableParts:
    """Do the parts that a killed run has not done; all of them lie in what is returned."""
    parts = ResumableParts(given.place, given.key)
    done = parts.begin()
    todo = [part for part in every if part.name not in done]
    with show_progress(stage, sum(len(part.rows) for part in every)) as advance:
        advance(sum(len(part.rows) for part in every if part.name in done))
        with machines(ray) as cluster:
            encode_parts(ViewsWorker, given, todo, cluster, advance)
    return parts
