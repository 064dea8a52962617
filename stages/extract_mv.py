"""Stage `extract_mv`: read the motion vectors of usable clips -> data/features/mv.zarr and its table mv.parquet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from moclip.errors import StoreError
from moclip.wording import counted
from pipeline import paths
from pipeline.code_digests import running_code, stages_with_other_code
from pipeline.console.command import while_importing
from pipeline.console.output import print_failures, print_note
from pipeline.console.progress import show_progress
from pipeline.io import write_json
from pipeline.options import RayAddress, Workers, connected_cluster, cpu_count
from pipeline.params import Params
from pipeline.stage import stage

if TYPE_CHECKING:
    import pandas as pd


@stage(
    "store",
    "dataset.root",
    "index.transcode",
    "mv.backend",
    "mv.canvas",
    "mv.cell",
    "mv.clip",
    "mv.accumulate",
    "mv.per",
    "mv.shard",
)
def extract_mv(
    params: Params,
    workers: Workers = cpu_count(),
    ray: RayAddress = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Remove the store and extract everything again.")] = False,
) -> None:
    """Read every clip's motion vectors into the store of motion fields.

    A video that several clips are spans of is read once. Resumes a killed run, and extracts only the shards whose clips
    or parameters changed. The other clips keep their places, so a store that has grown has another layout than one that
    --rebuild writes, with the same fields. A clip that cannot be read keeps a row with the reason. Writes
    data/features/mv.zarr, its table data/features/mv.parquet and metrics/counts/extract_mv.json. If `store` is a URL,
    the arrays go there and mv.zarr is a link.
    """
    with while_importing():
        from moclip.data.selection import usable_clips
        from moclip.data.spans import videos_of
        from moclip.motion.extract import Output, code_of_store, extract
        from moclip.video.transcode import transcoded_name
        from pipeline.field_source import field_recipe
        from pipeline.index_file import read_index

    index = read_index(params)
    clips = usable_clips(index)
    videos = videos_of(clips)
    root, recipe = params.dataset.root, field_recipe(params)
    if params.index.transcode:
        root, videos = str(paths.TRANSCODED), videos.assign(path=videos["path"].map(transcoded_name))
    output = Output(paths.MV_STORE, paths.MV_TABLE, params.store or None)
    code = running_code()["extract_mv"]
    made_by = code_of_store(output, recipe)
    by_other_code = made_by != code if made_by else "extract_mv" in stages_with_other_code()
    with show_progress("extract_mv", len(videos)) as advance, connected_cluster(ray) as cluster:
        table = extract(
            videos,
            root,
            output,
            recipe,
            workers=workers,
            cluster=cluster,
            rebuild=rebuild or by_other_code,
            code=code,
            advance=advance,
        )
    counts = _counts(index, clips, table)
    write_json(paths.EXTRACT_COUNTS, counts)
    backends = ", ".join(f"{count:,} by {name}" for name, count in counts["exact_by"].items())
    of_videos = f" of {counted(len(videos), 'video')}" if len(videos) < len(clips) else ""
    print_note(
        f"extract_mv: {counts['extracted']:,} of {counted(counts['indexed'], 'clip')}{of_videos} read ({backends}), "
        f"{counted(counts['frames'], 'frame')} in {counted(counts['shards'], 'shard')}"
    )
    print_failures(table)
    if not counts["extracted"]:
        raise StoreError("no clip gave motion vectors", where=params.dataset.root)


def _counts(index: pd.DataFrame, clips: pd.DataFrame, table: pd.DataFrame) -> dict:
    """Return counts of clips, and of frames and shards of the store, whose `table` has a row per video."""
    import pandas as pd

    from moclip.data.selection import tally
    from moclip.data.spans import fields_of_clips

    of_clips = fields_of_clips(clips, table)
    ok, stored = of_clips[of_clips["status"] == "ok"], table[table["status"] == "ok"]
    unlisted = index[(index["status"] == "ok") & (index["split"] == "none")].assign(reason="in no split list")
    unread = of_clips.drop(ok.index)
    left_out = pd.concat([rows["reason"] for rows in (index[index["status"] != "ok"], unlisted, unread)])
    return {
        "indexed": len(index),
        "extracted": len(ok),
        "exact_by": tally(ok["backend"]),
        "not_usable": tally(left_out),
        "frames": int(stored["length"].sum()),
        "shards": int(stored["shard"].nunique()),
    }


if __name__ == "__main__":
    extract_mv()
