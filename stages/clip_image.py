"""Stage `clip_image`: encode one or a few frames of each clip -> data/features/clip_image.zarr."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moclip.errors import StoreError
from moclip.files.folders import Folder, absolute_path, join_path
from moclip.wording import counted
from pipeline import paths
from pipeline.code_digests import running_code
from pipeline.console.command import while_importing
from pipeline.console.output import print_note
from pipeline.console.progress import show_progress
from pipeline.encoder_source import ENCODER_KEYS, PICTURE_KEYS, encoder_source, unused_reason
from pipeline.io import write_parquet, write_unused
from pipeline.options import RayAddress, Workers, connected_cluster, cpu_count
from pipeline.params import Params
from pipeline.stage import stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import pandas as pd

    from moclip.inference.encode import EncodingPart
    from moclip.inference.prepare_stills import StillsTask
    from moclip.models.encoders.source import EncoderSource
    from moclip.store.resumable import ResumableParts


@stage(
    "seed",
    "store",
    "dataset.root",
    "index.transcode",
    *ENCODER_KEYS,
    "clip.frames",
    "clip.choice",
    "clip.batch",
)
def clip_image(params: Params, workers: Workers = cpu_count(), ray: RayAddress = None) -> None:
    """Encode one or a few frames of each clip with the image tower of clip.model.

    Takes a frame from each of clip.frames equal parts of the clip. Spans of one video are read together. Resumes a
    killed run. Writes data/features/clip_image.zarr: `features` of unit length and `raw` ones, each (clips, frames,
    width), and the `frame` numbers. If `store` is a URL, they go there and clip_image.zarr is a link. With clip.pool:
    clip, a clip has one feature of all its frames. With clip.models, the features of all encoders stand side by side;
    those of each encoder are kept in data/encoded, so that another one can be added. Writes
    data/features/clip_image.parquet with a row per clip, with the reason if no frame could be read. If clip.model is
    false, no frame is read, and clip_image.zarr holds only unused.txt.
    """
    with while_importing():
        from moclip.data.selection import usable_clips
        from moclip.data.spans import ordered_by_video
        from moclip.inference.encode import EncodingPart, encode_parts
        from moclip.inference.encode_stills import ImageEncoderWorker
        from moclip.models.encoders.registry import fetch_configuration
        from moclip.models.hub_files import files_digest, join_digests
        from moclip.store.resumable import ResumableParts, part_slices
        from pipeline.index_file import read_index
        from pipeline.provenance import clips_digest

    clips = usable_clips(read_index(params))
    source = encoder_source(params)
    if source is None:
        write_unused(paths.CLIP_IMAGE, unused_reason(params))
        write_parquet(paths.CLIP_TABLE, clips[["id", "md5"]].assign(status="ok", reason=""))
        print_note("clip_image: nothing to do, clip.model is false")
        return
    for one in source.each:
        fetch_configuration(one)
    digests = [files_digest(one) for one in source.each]
    indexed = clips_digest(clips)
    clips = ordered_by_video(clips, params.clip.frames)
    tasks = [
        _stills_task(params, one, digest, clips, workers) for one, digest in zip(source.each, digests, strict=True)
    ]
    columns = clips[["id", "path", "video_md5", "md5", "frames", "first", "seekable"]]
    parts = [EncodingPart(f"stills-{n:06d}", columns.iloc[rows]) for n, rows in enumerate(part_slices(len(clips)))]
    encoded = [ResumableParts(task.parts_folder, task.key) for task in tasks]
    for number, (task, folder) in enumerate(zip(tasks, encoded, strict=True), start=1):
        finished = folder.start()
        unfinished = [part for part in parts if part.name not in finished]
        label = f"clip_image, encoder {number} of {len(tasks)}" if len(tasks) > 1 else "clip_image"
        with show_progress(label, len(clips)) as advance:
            advance(len(clips) - sum(len(part.rows) for part in unfinished))
            with connected_cluster(ray) as cluster:
                encode_parts(ImageEncoderWorker, task, unfinished, cluster, advance)
    _write_features(params, source, join_digests(digests), clips, indexed, encoded, parts)
    _keep_encoded(params, digests, tasks, encoded, parts)


def _write_features(
    params: Params,
    source: EncoderSource,
    digest: str | None,
    clips: pd.DataFrame,
    indexed: str,
    encoded: list[ResumableParts],
    parts: list[EncodingPart],
) -> None:
    """Write the feature store and its table from each encoder's finished parts, and report clips that were skipped.

    A clip that one of the encoders has no frame of is skipped. `digest` is that of the encoders' files, `indexed` that
    of the clips in the order of the index.
    """
    from moclip.files.links import folder_to_fill
    from moclip.store.features import ArrayLayout, write_group_in_pieces
    from pipeline.provenance import made_with

    names = [part.name for part in parts]
    notes = [list(folder.notes(names)) for folder in encoded]
    costs = [of_encoder[0]["cost"] for of_encoder in notes]
    skipped: dict[str, str] = {
        name: reason for of_encoder in notes for note in of_encoder for name, reason in note["skipped"].items()
    }
    ids = [str(name) for name in clips["id"] if name not in skipped]
    if not ids:
        raise StoreError("no clip gave a frame", where=params.dataset.root, fix=next(iter(skipped.values()), None))
    shape = next(_joined_arrays(encoded, parts[:1]))["features"].shape[1:]
    layouts = {
        "features": ArrayLayout(shape, "<f4", ("still", "feature")),
        "raw": ArrayLayout(shape, "<f4", ("still", "feature")),
        "frame": ArrayLayout((params.clip.frames,), "<i4", ("frame",)),
    }
    seed = ("seed",) if params.clip.choice == "random" else ()
    attributes = {
        "made_with": made_with(params, *PICTURE_KEYS, *seed),
        "clips": indexed,
        "clip": digest,
        "model": ", ".join(one.model for one in source.each),
        "choice": params.clip.choice,
        "cost": {name: sum(cost[name] for cost in costs) for name in costs[0]},
    }
    with folder_to_fill(paths.CLIP_IMAGE, params.store or None) as store:
        write_group_in_pieces(store, ids, layouts, _joined_arrays(encoded, parts), attributes)
    reasons = [skipped.get(str(name), "") for name in clips["id"]]
    status = ["failed" if reason else "ok" for reason in reasons]
    write_parquet(paths.CLIP_TABLE, clips[["id", "md5"]].assign(status=status, reason=reasons))
    print_note(
        f"clip_image: {counted(len(ids), 'clip')}, {counted(params.clip.frames, 'frame')} of each, "
        f"{shape[-1]:,} features; {len(skipped):,} could not be read"
    )
    for name, reason in skipped.items():
        print_note(f"  not usable: {name}: {reason}")


def _joined_arrays(encoded: list[ResumableParts], parts: list[EncodingPart]) -> Iterator[dict[str, np.ndarray]]:
    """Yield the arrays of each part: `raw` and `frame`, and `features` of unit length, those of the encoders joined.

    They have the clips that no encoder skipped.
    """
    import numpy as np

    from moclip.models.encoders.joint import join_pictures
    from moclip.store.features import to_unit_length

    names = [part.name for part in parts]
    of_parts = zip(*(folder.arrays(names) for folder in encoded), strict=True)
    notes_of_parts = zip(*(folder.notes(names) for folder in encoded), strict=True)
    for part, arrays, notes in zip(parts, of_parts, notes_of_parts, strict=True):
        left_out = {name for note in notes for name in note["skipped"]}
        kept = [
            [name not in left_out for name in part.rows["id"] if name not in note["skipped"]] for note in notes
        ]  # for each encoder, a flag for each of its rows
        raw = [own["raw"][rows] for own, rows in zip(arrays, kept, strict=True)]
        features = to_unit_length(raw[0]) if len(raw) == 1 else join_pictures(raw)
        yield {"features": features, "raw": np.concatenate(raw, axis=-1), "frame": arrays[0]["frame"][kept[0]]}


def _keep_encoded(
    params: Params,
    digests: list[str | None],
    tasks: list[StillsTask],
    encoded: list[ResumableParts],
    parts: list[EncodingPart],
) -> None:
    """Remove what the next run must not take: parts with clips that failed, and what other encoders made.

    `digests` are those that the keys of the parts were made with.
    """
    names = [part.name for part in parts]
    for digest, folder in zip(digests, encoded, strict=True):
        if digest is None:  # nothing says whether the encoder is still the same
            folder.remove()
            continue
        for name, note in zip(names, folder.notes(names), strict=True):
            if note["skipped"]:
                folder.forget(name)
    everything = Folder(paths.encoded_folder(params.store))
    kept = {task.key for task in tasks}
    for key in {name.partition("/")[0] for name in everything.sizes()} - kept:
        (everything / key).clear()


def _stills_task(
    params: Params, source: EncoderSource, digest: str | None, clips: pd.DataFrame, workers: int
) -> StillsTask:
    from moclip.inference.encode import library_versions
    from moclip.inference.prepare_stills import StillsTask
    from moclip.store.resumable import run_key

    clip = params.clip
    root = absolute_path(params.dataset.root)
    key = run_key(
        clips=[clips[name].tolist() for name in ("id", "md5", "frames")],
        model=[asdict(source), digest],
        given=[root, clip.frames, clip.choice, clip.batch, params.seed if clip.choice == "random" else None],
        versions=library_versions(),
        code=running_code()["clip_image"],
    )
    local: dict[str, Any] = {
        name: str(Path(path).absolute())
        for name, path in (("model", source.model), ("weights", source.weights))
        if path and Path(path).exists()
    }
    return StillsTask(
        source=replace(source, **local),
        root=root,
        indexed=not params.index.transcode,
        frames=clip.frames,
        choice=clip.choice,
        seed=params.seed,
        batch=clip.batch,
        workers=workers,
        parts_folder=join_path(paths.encoded_folder(params.store), key),
        key=key,
        versions=library_versions(),
    )


if __name__ == "__main__":
    clip_image()
