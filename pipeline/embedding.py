"""Run a trained MV-TSN, or the image baseline, on every clip: what the stages `embed_mv` and `embed_image` share.

The work is done in parts, so a killed run resumes.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from moclip.files.folders import absolute_path
from moclip.inference.embed_views import ViewsTask, ViewsWorker
from moclip.inference.encode import EncodingPart, encode_parts, library_versions
from moclip.store.reader import FieldReader
from moclip.store.resumable import ResumableParts, part_slices, run_key
from moclip.video.clip_files import file_md5
from pipeline import paths
from pipeline.console.progress import show_progress
from pipeline.options import connected_cluster
from pipeline.params import Params

COLUMNS = ["id", "offset", "length", "slots", "shard", "codec", "label", "status"]
"""The columns of a clip that a worker needs."""


def embedding_task(
    params: Params,
    model: Path,
    stage: str,
    reader: FieldReader,
    clips: list[pd.DataFrame],
    scales: tuple[float, ...] = (),
    flip: bool = False,
) -> ViewsTask:
    """Return what workers need to run a model on clips. `scales` and `flip` are those of augmented views."""
    segments, crops = params.evaluate.views
    key = run_key(
        model=file_md5(model),
        store=[reader.attributes["recipe"], reader.attributes["contents"]],
        clips=[rows[name].tolist() for rows in clips for name in ("id", "offset", "length")],
        given=[segments, crops, params.evaluate.crop, scales, flip, params.embed.batch, params.seed],
        versions=library_versions(),
    )
    return ViewsTask(
        model=model.read_bytes(),
        store=absolute_path(reader.folder.url),
        segments=segments,
        crops=crops,
        crop=params.evaluate.crop,
        scales=scales,
        flip=flip,
        batch=params.embed.batch,
        seed=params.seed,
        parts_folder=paths.parts_folder(stage, params.store),
        key=key,
        versions=library_versions(),
    )


def protocol_parts(clips: pd.DataFrame) -> list[EncodingPart]:
    """Return all clips under the test protocol, in parts."""
    return [EncodingPart(f"protocol-{n:06d}", clips.iloc[rows]) for n, rows in enumerate(part_slices(len(clips)))]


def embed_parts(stage: str, task: ViewsTask, parts: list[EncodingPart], ray: str | None) -> ResumableParts:
    """Run the model on the parts that a killed run has not finished. Return the folder, which then has all parts."""
    folder = ResumableParts(task.parts_folder, task.key)
    finished = folder.start()
    unfinished = [part for part in parts if part.name not in finished]
    with show_progress(stage, sum(len(part.rows) for part in parts)) as advance:
        advance(sum(len(part.rows) for part in parts if part.name in finished))
        with connected_cluster(ray) as cluster:
            encode_parts(ViewsWorker, task, unfinished, cluster, advance)
    return folder
