"""Run a trained MV-TSN, or the image baseline, on every clip: what the stages `embed_mv` and `embed_image` share.

The work is done in parts, so a killed run resumes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from moclip.files.folders import absolute_path
from moclip.inference.embed_views import ViewsTask, ViewsWorker
from moclip.inference.encode import EncodingPart, encode_parts, library_versions
from moclip.models.mv_tsn import MvTsn, load_mv_tsn
from moclip.models.weights import PROVENANCE, read_config
from moclip.store.features import ArrayLayout, write_group_in_pieces
from moclip.store.reader import FieldReader
from moclip.store.resumable import ResumableParts, part_slices, run_key
from moclip.video.clip_files import file_md5
from pipeline import paths
from pipeline.code_digests import running_code
from pipeline.console.progress import show_progress
from pipeline.options import connected_cluster
from pipeline.params import Params

COLUMNS = ["id", "offset", "length", "slots", "shard", "codec", "label", "status"]
"""The columns of a clip that a worker needs."""


def embedding_task(
    params: Params,
    model: Path,
    stage: str,
    group: str,
    reader: FieldReader,
    clips: list[pd.DataFrame],
    scales: tuple[float, ...] = (),
    flip: bool = False,
) -> ViewsTask:
    """Return what workers need to run a model of a stage on clips. `scales` and `flip` are those of augmented views."""
    segments, crops = params.evaluate.views
    key = run_key(
        model=file_md5(model),
        store=[reader.attributes["recipe"], reader.attributes["contents"]],
        clips=[rows[name].tolist() for rows in clips for name in ("id", "offset", "length")],
        given=[segments, crops, params.evaluate.crop, scales, flip, params.embed.batch, params.seed],
        versions=library_versions(),
        code=running_code()[stage],
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
        parts_folder=paths.parts_folder(_name(stage, group), params.store),
        key=key,
        versions=library_versions(),
    )


def _name(stage: str, group: str) -> str:
    return f"{stage}_{group}" if group else stage


@dataclass(frozen=True)
class EmbeddedNetwork:
    """What a network gave for the clips, in finished parts that are not yet in the feature store.

    `group` is the group of the store that it goes into; "" is the store itself.
    """

    group: str
    clips: list[str]
    train: list[str]
    model: MvTsn
    parts: ResumableParts
    protocol: list[str]
    views: list[list[str]]

    def write(self, store: Path, attributes: Mapping[str, Any]) -> None:
        """Write the groups `protocol` and `views` into a feature store. `attributes` are those of `protocol`."""
        layouts = {
            "features": ArrayLayout((self.model.width,), "<f4", ("feature",)),
            "logits": ArrayLayout((len(self.model.config.classes),), "<f4", ("class",)),
        }
        views = {"features": ArrayLayout((len(self.views[0]), self.model.width), "<f4", ("view", "feature"))}
        folder = store / self.group
        write_group_in_pieces(folder / "protocol", self.clips, layouts, self.parts.arrays(self.protocol), attributes)
        write_group_in_pieces(folder / "views", self.train, views, self._stacked_views(), {})

    def _stacked_views(self) -> Iterator[dict[str, np.ndarray]]:
        """Yield `features` (clips, views, width) for each slice of the training clips."""
        for names in self.views:
            yield {"features": np.stack([part["features"] for part in self.parts.arrays(names)], axis=1)}


def embed_network(
    params: Params,
    file: Path,
    group: str,
    reader: FieldReader,
    clips: pd.DataFrame,
    train: pd.DataFrame,
    ray: str | None,
) -> EmbeddedNetwork:
    """Run an MV-TSN on `clips` under the test protocol, and on augmented views of the clips `train`."""
    clips, train = clips[COLUMNS], train[COLUMNS]
    mirrored = bool(read_config(file, "train_mv")[PROVENANCE]["mirrored_views"])
    task = embedding_task(params, file, "embed_mv", group, reader, [clips, train], tuple(params.tsn.crops), mirrored)
    protocol = protocol_parts(clips)
    views = [  # for each slice of the clips, a part per view
        [EncodingPart(f"view{view}-{n:06d}", train.iloc[rows], view) for view in range(params.embed.views)]
        for n, rows in enumerate(part_slices(len(train)))
    ]
    parts = embed_parts(
        _name("embed_mv", group), task, [*protocol, *(part for slices in views for part in slices)], ray
    )
    return EmbeddedNetwork(
        group,
        list(clips["id"]),
        list(train["id"]),
        load_mv_tsn(file),
        parts,
        [part.name for part in protocol],
        [[part.name for part in slices] for slices in views],
    )


@dataclass(frozen=True)
class EmbeddedBaseline:
    """What an image baseline gave for the clips, in finished parts; `group` as in `EmbeddedNetwork`."""

    group: str
    clips: list[str]
    parts: ResumableParts
    protocol: list[str]

    def write_logits(self, store: Path, classes: int, attributes: Mapping[str, Any]) -> None:
        """Write `logits` into a feature store."""
        layouts = {"logits": ArrayLayout((classes,), "<f4", ("class",))}
        pieces = ({"logits": arrays["logits"]} for arrays in self.parts.arrays(self.protocol))
        write_group_in_pieces(store / self.group, self.clips, layouts, pieces, attributes)


def embed_image_baseline(
    params: Params, file: Path, group: str, reader: FieldReader, clips: pd.DataFrame, ray: str | None
) -> EmbeddedBaseline:
    """Run an image baseline on `clips` under the test protocol."""
    clips = clips[COLUMNS]
    task = embedding_task(params, file, "embed_image", group, reader, [clips])
    protocol = protocol_parts(clips)
    parts = embed_parts(_name("embed_image", group), task, protocol, ray)
    return EmbeddedBaseline(group, list(clips["id"]), parts, [part.name for part in protocol])


def protocol_parts(clips: pd.DataFrame) -> list[EncodingPart]:
    """Return all clips under the test protocol, in parts."""
    return [EncodingPart(f"protocol-{n:06d}", clips.iloc[rows]) for n, rows in enumerate(part_slices(len(clips)))]


def embed_parts(stage: str, task: ViewsTask, parts: list[EncodingPart], ray: str | None) -> ResumableParts:
    """Run the model on the parts that a killed run has not finished. Return the folder, which then has all parts."""
    folder = ResumableParts(task.parts_folder, task.key)
    finished = folder.start()
    unfinished = [part for part in parts if part.name not in finished]
    with show_progress(stage.replace("_fold", ", fold "), sum(len(part.rows) for part in parts)) as advance:
        advance(sum(len(part.rows) for part in parts if part.name in finished))
        with connected_cluster(ray) as cluster:
            encode_parts(ViewsWorker, task, unfinished, cluster, advance)
    return folder
