"""Stage `clip_image`: encode one or a few frames of each clip -> data/features/clip_image.zarr."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from moclip.errors import StoreError
from moclip.files.folders import absolute_path
from pipeline import paths
from pipeline.console.command import while_importing
from pipeline.console.output import print_note
from pipeline.console.progress import show_progress
from pipeline.encoder_source import ENCODER_KEYS, PICTURE_KEYS, encoder_source, unused_reason
from pipeline.io import write_parquet, write_unused
from pipeline.options import RayAddress, Workers, connected_cluster, cpu_count
from pipeline.params import Params
from pipeline.stage import stage

if TYPE_CHECKING:
    import pandas as pd

    from moclip.inference.encode_stills import StillsTask
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

    Takes a frame from each of clip.frames equal parts of the clip. Resumes a killed run. Writes
    data/features/clip_image.zarr: `features` of unit length and `raw` ones, each (clips, frames, width), and the
    `frame` numbers. If `store` is a URL, they go there and clip_image.zarr is a link. With clip.pool: clip, a clip has
    one feature of all its frames. Writes data/features/clip_image.parquet with a row per clip, with the reason if no
    frame could be read. If clip.model is false, no frame is read, and clip_image.zarr holds only unused.txt.
    """
    with while_importing():
        from moclip.data.selection import usable_clips
        from moclip.inference.encode import EncodingPart, encode_parts
        from moclip.inference.encode_stills import ImageEncoderWorker
        from moclip.store.resumable import ResumableParts, part_slices
        from pipeline.index_file import read_index

    clips = usable_clips(read_index(params))
    source = encoder_source(params)
    if source is None:
        write_unused(paths.CLIP_IMAGE, unused_reason(params))
        write_parquet(paths.CLIP_TABLE, clips[["id", "md5"]].assign(status="ok", reason=""))
        print_note("clip_image: nothing to do, clip.model is false")
        return
    task = _stills_task(params, source, clips, workers)
    columns = clips[["id", "path", "md5", "frames", "seekable"]]
    parts = [EncodingPart(f"stills-{n:06d}", columns.iloc[rows]) for n, rows in enumerate(part_slices(len(clips)))]
    folder = ResumableParts(task.parts_folder, task.key)
    finished = folder.start()
    unfinished = [part for part in parts if part.name not in finished]
    with show_progress("clip_image", len(clips)) as advance:
        advance(len(clips) - sum(len(part.rows) for part in unfinished))
        with connected_cluster(ray) as cluster:
            encode_parts(ImageEncoderWorker, task, unfinished, cluster, advance)
    _write_features(params, task, clips, folder, [part.name for part in parts])
    folder.remove()


def _write_features(
    params: Params, task: StillsTask, clips: pd.DataFrame, parts: ResumableParts, names: list[str]
) -> None:
    """Write the feature store and its table from the finished parts `names`, and report clips that were skipped."""
    from moclip.files.links import folder_to_fill
    from moclip.models.hub_files import files_digest
    from moclip.store.features import ArrayLayout, to_unit_length, write_group_in_pieces
    from pipeline.provenance import clips_digest, made_with

    notes = list(parts.notes(names))
    skipped: dict[str, str] = {name: reason for note in notes for name, reason in note["skipped"].items()}
    ids = [str(name) for name in clips["id"] if name not in skipped]
    if not ids:
        raise StoreError("no clip gave a frame", where=params.dataset.root, fix=next(iter(skipped.values()), None))
    shape = next(parts.arrays(names[:1]))["raw"].shape[1:]
    layouts = {
        "features": ArrayLayout(shape, "<f4", ("still", "feature")),
        "raw": ArrayLayout(shape, "<f4", ("still", "feature")),
        "frame": ArrayLayout((params.clip.frames,), "<i4", ("frame",)),
    }
    pieces = ({**arrays, "features": to_unit_length(arrays["raw"])} for arrays in parts.arrays(names))
    seed = ("seed",) if params.clip.choice == "random" else ()
    attributes = {
        "made_with": made_with(params, *PICTURE_KEYS, *seed),
        "clips": clips_digest(clips),
        "clip": files_digest(task.source),
        "model": params.clip.model,
        "choice": params.clip.choice,
        "cost": notes[0]["cost"],
    }
    with folder_to_fill(paths.CLIP_IMAGE, params.store or None) as store:
        write_group_in_pieces(store, ids, layouts, pieces, attributes)
    reasons = [skipped.get(str(name), "") for name in clips["id"]]
    status = ["failed" if reason else "ok" for reason in reasons]
    write_parquet(paths.CLIP_TABLE, clips[["id", "md5"]].assign(status=status, reason=reasons))
    print_note(
        f"clip_image: {len(ids)} clips x {params.clip.frames} frames, {shape[-1]} features; {len(skipped)} not readable"
    )
    for name, reason in skipped.items():
        print_note(f"  not usable: {name}: {reason}")


def _stills_task(params: Params, source: EncoderSource, clips: pd.DataFrame, workers: int) -> StillsTask:
    from moclip.inference.encode import library_versions
    from moclip.inference.encode_stills import StillsTask
    from moclip.models.hub_files import files_digest
    from moclip.store.resumable import run_key

    clip = params.clip
    root = absolute_path(params.dataset.root)
    key = run_key(
        clips=[clips[name].tolist() for name in ("id", "md5", "frames")],
        model=[asdict(source), files_digest(source)],
        given=[root, clip.frames, clip.choice, clip.batch, params.seed],
        versions=library_versions(),
    )
    local = {
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
        parts_folder=paths.parts_folder("clip_image", params.store),
        key=key,
        versions=library_versions(),
    )


if __name__ == "__main__":
    clip_image()
