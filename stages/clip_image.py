"""Stage `clip_image`: encode one or a few frames of each clip with CLIP -> data/features/clip_image.zarr."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from moclip.errors import StoreError
from moclip.files.folders import absolute_path
from pipeline import paths
from pipeline.console.command import while_importing
from pipeline.console.output import print_note
from pipeline.console.progress import show_progress
from pipeline.io import write_parquet
from pipeline.options import RayAddress, Workers, connected_cluster, cpu_count
from pipeline.params import Params
from pipeline.stage import stage

if TYPE_CHECKING:
    import pandas as pd

    from moclip.inference.encode import StillsTask
    from moclip.store.resumable import ResumableParts


@stage(
    "seed",
    "store",
    "dataset.root",
    "index.transcode",
    "clip.model",
    "clip.revision",
    "clip.frames",
    "clip.choice",
    "clip.batch",
)
def clip_image(params: Params, workers: Workers = cpu_count(), ray: RayAddress = None) -> None:
    """Encode one or a few frames of each clip with CLIP's image tower.

    Takes a frame from each of clip.frames equal parts of the clip. Resumes a killed run. Writes
    data/features/clip_image.zarr: `features` of unit length and `raw` ones, each (clips, frames, width), and the
    `frame` numbers. If `store` is a URL, they go there and clip_image.zarr is a link. Writes
    data/features/clip_image.parquet with a row per clip, with the reason if no frame could be read.
    """
    with while_importing():
        from moclip.data.selection import usable_clips
        from moclip.inference.encode import EncodingPart, ImageEncoderWorker, encode_parts
        from moclip.store.resumable import ResumableParts, part_slices
        from pipeline.index_file import read_index

    clips = usable_clips(read_index(params))
    task = _stills_task(params, clips, workers)
    columns = clips[["id", "path", "md5", "frames", "seekable"]]
    parts = [EncodingPart(f"stills-{n:06d}", columns.iloc[rows]) for n, rows in enumerate(part_slices(len(clips)))]
    folder = ResumableParts(task.parts_folder, task.key)
    finished = folder.start()
    unfinished = [part for part in parts if part.name not in finished]
    with show_progress("clip_image", len(clips)) as advance:
        advance(len(clips) - sum(len(part.rows) for part in unfinished))
        with connected_cluster(ray) as cluster:
            encode_parts(ImageEncoderWorker, task, unfinished, cluster, advance)
    _write_features(params, clips, folder, [part.name for part in parts])
    folder.remove()


def _write_features(params: Params, clips: pd.DataFrame, parts: ResumableParts, names: list[str]) -> None:
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
    width = next(parts.arrays(names[:1]))["raw"].shape[-1]
    shape = (params.clip.frames, width)
    layouts = {
        "features": ArrayLayout(shape, "<f4", ("still", "feature")),
        "raw": ArrayLayout(shape, "<f4", ("still", "feature")),
        "frame": ArrayLayout(shape[:1], "<i4", ("still",)),
    }
    pieces = ({**arrays, "features": to_unit_length(arrays["raw"])} for arrays in parts.arrays(names))
    seed = ("seed",) if params.clip.choice == "random" else ()
    attributes = {
        "made_with": made_with(params, "clip.model", "clip.revision", "clip.frames", "clip.choice", *seed),
        "clips": clips_digest(clips),
        "clip": files_digest(params.clip.model, params.clip.revision or None),
        "model": params.clip.model,
        "choice": params.clip.choice,
        "vision": notes[0]["vision"],
    }
    with folder_to_fill(paths.CLIP_IMAGE, params.store or None) as store:
        write_group_in_pieces(store, ids, layouts, pieces, attributes)
    reasons = [skipped.get(str(name), "") for name in clips["id"]]
    status = ["failed" if reason else "ok" for reason in reasons]
    write_parquet(paths.CLIP_TABLE, clips[["id", "md5"]].assign(status=status, reason=reasons))
    print_note(
        f"clip_image: {len(ids)} clips x {params.clip.frames} frames, {width} features; {len(skipped)} not readable"
    )
    for name, reason in skipped.items():
        print_note(f"  not usable: {name}: {reason}")


def _stills_task(params: Params, clips: pd.DataFrame, workers: int) -> StillsTask:
    from moclip.inference.encode import StillsTask, library_versions
    from moclip.models.hub_files import files_digest
    from moclip.store.resumable import run_key

    clip, revision = params.clip, params.clip.revision or None
    local_model = Path(clip.model)
    root = absolute_path(params.dataset.root)
    key = run_key(
        clips=[clips[name].tolist() for name in ("id", "md5", "frames")],
        model=[clip.model, revision, files_digest(clip.model, revision)],
        given=[root, clip.frames, clip.choice, clip.batch, params.seed],
        versions=library_versions(),
    )
    return StillsTask(
        model=str(local_model.absolute()) if local_model.exists() else clip.model,
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
        revision=revision,
    )


if __name__ == "__main__":
    clip_image()
