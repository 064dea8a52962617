"""Stage `transcode`: if index.transcode is set, re-encode every clip as CoViAR did -> data/transcoded/."""

from __future__ import annotations

from moclip.wording import counted
from pipeline import paths
from pipeline.console.command import while_importing
from pipeline.console.output import print_failures, print_note
from pipeline.console.progress import show_progress
from pipeline.io import write_json, write_unused
from pipeline.options import Workers, cpu_count
from pipeline.params import Params
from pipeline.stage import stage


@stage("dataset.root", "dataset.manifest", "dataset.follow_links", "index.transcode")
def transcode(params: Params, workers: Workers = cpu_count()) -> None:
    """Re-encode every clip to MPEG-4 Part 2, if index.transcode is set.

    The motion vectors of all clips then come from one encoder: 340 x 256 px, a key frame every 12 frames, no B-frames,
    qscale 1. Resumes a killed run. Reports the reason for each clip that cannot be decoded. Writes data/transcoded,
    with only unused.txt if index.transcode is false, and metrics/counts/transcode.json.
    """
    with while_importing():
        import pandas as pd

        from moclip.data.selection import tally
        from moclip.video.transcoded_folder import transcode_clips
        from pipeline.clip_source import find_clips

    if params.index.transcode is False:
        write_unused(paths.TRANSCODED, "index.transcode is false: the clips are read as they are")
        write_json(paths.TRANSCODE_COUNTS, {"clips": 0, "encoded": 0, "failed": {}})
        print_note("transcode: nothing to do, index.transcode is false")
        return
    clips = find_clips(params.dataset)[0].clips
    with show_progress("transcode", len(clips)) as advance:
        failed = transcode_clips(params.dataset.root, clips, paths.TRANSCODED, workers, advance)
    reasons = pd.DataFrame({"id": list(failed), "status": "failed", "reason": list(failed.values())})
    encoded = len(clips) - len(failed)
    write_json(
        paths.TRANSCODE_COUNTS,
        {"clips": len(clips), "encoded": encoded, "failed": tally(reasons["reason"])},
    )
    print_note(f"transcode: {encoded:,} of {counted(len(clips), 'clip')} re-encoded")
    print_failures(reasons)


if __name__ == "__main__":
    transcode()
