"""Stage `clip_image`: one or a few frames of each clip through frozen CLIP -> data/features/clip_image.zarr."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from moclip import dataset, storage
from moclip.encoding import Part, Stills, StillsWorker, encode, versions
from moclip.errors import StoreError
from moclip.features import Layout, normalised, write_pieces
from moclip.parts import Parts, run_key, slices
from pipeline import console, paths
from pipeline.io import read_parquet
from pipeline.made import clips_digest, made_with
from pipeline.params import Params
from pipeline.stage import OnCluster, Workers, cpu_count, machines, stage


@stage("seed", "store", "dataset.root", "index.transcode", "clip.model", "clip.frames", "clip.choice", "clip.batch")
def clip_image(params: Params, workers: Workers = cpu_count(), ray: OnCluster = None) -> None:
    """Encode one or a few frames of each clip with CLIP's image tower.

    A frame from each of clip.frames equal parts of the clip. Goes on where a killed run stood.
    Writes data/features/clip_image.zarr: `features` of unit length and `raw` ones, each (clips, frames, width), and the
    `frame` numbers; with a URL in `store` they go there, and clip_image.zarr is a link to them.
    """
    clips = dataset.usable(read_parquet(paths.INDEX, "index"))
    given = _stills(params, clips, workers)
    columns = clips[["id", "path", "md5", "frames", "seekable"]]
    every = [Part(f"stills-{n:06d}", columns.iloc[rows]) for n, rows in enumerate(slices(len(clips)))]
    parts = Parts(given.place, given.key)
    done = parts.begin()
    todo = [part for part in every if part.name not in done]
    with console.progress("clip_image", len(clips)) as advance:
        advance(len(clips) - sum(len(part.rows) for part in todo))
        with machines(ray) as cluster:
            encode(StillsWorker, given, todo, cluster, advance)
    names = [part.name for part in every]
    notes = list(parts.notes(names))
    skipped: dict[str, str] = {name: reason for note in notes for name, reason in note["skipped"].items()}
    ids = [str(name) for name in clips["id"] if name not in skipped]
    if not ids:
        raise StoreError("no clip gave a frame", where=params.dataset.root, fix=next(iter(skipped.values()), None))
    width = next(parts.arrays(names[:1]))["raw"].shape[-1]
    shape = (params.clip.frames, width)
    layout = {
        "features": Layout(shape, "<f4", ("still", "feature")),
        "raw": Layout(shape, "<f4", ("still", "feature")),
        "frame": Layout(shape[:1], "<i4", ("still",)),
    }
    pieces = ({**arrays, "features": normalised(arrays["raw"])} for arrays in parts.arrays(names))
    about = {
        "made_with": made_with(params, "clip.model", "clip.frames", "clip.choice"),
        "clips": clips_digest(clips),
        "model": params.clip.model,
        "choice": params.clip.choice,
        "skipped": skipped,
        "cost": notes[0]["cost"],
    }
    with storage.folder_for(paths.CLIP_IMAGE, params.store or None) as folder:
        write_pieces(folder, ids, layout, pieces, about)
    parts.end()
    console.note(
        f"clip_image: {len(ids)} clips x {params.clip.frames} frames, {width} features; {len(skipped)} not readable"
    )
    for name, reason in skipped.items():
        console.note(f"  not usable: {name}: {reason}")


def _stills(params: Params, clips: pd.DataFrame, workers: int) -> Stills:
    clip, here = params.clip, Path(params.clip.model)
    root = storage.absolute(params.dataset.root)
    key = run_key(
        clips=[clips[name].tolist() for name in ("id", "md5", "frames")],
        model=[clip.model, storage.digest_of(here) if here.is_dir() else ""],
        given=[root, clip.frames, clip.choice, clip.batch, params.seed],
        versions=versions(),
    )
    return Stills(
        model=str(here.absolute()) if here.exists() else clip.model,
        root=root,
        indexed=not params.index.transcode,
        frames=clip.frames,
        choice=clip.choice,
        seed=params.seed,
        batch=clip.batch,
        threads=workers,
        place=paths.work("clip_image", params.store),
        key=key,
        versions=versions(),
    )


if __name__ == "__main__":
    clip_image()
