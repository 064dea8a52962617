"""Measure extraction against bare decoding loops on the same files: `make bench-extract`.

    python -m benchmarks.extract [--quick] [--out FILE]

Every figure is a ratio within one run. Both sides read the same files, by turns, with warm file cache and the same
number of processes, their start included; the best of three runs counts. Ours is everything between index and
store: open, decode, field, compress, write. A bare loop stops at the vectors.
"""

from __future__ import annotations

import functools
import multiprocessing
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pandas as pd

from benchmarks.common import (
    HD_SIZE,
    REAL_DATA,
    RESULTS,
    UCF_SIZE,
    Row,
    arguments,
    by_turns,
    encode,
    indexed,
    make_clips,
    prolong,
    real_clips,
    real_data,
    rendered,
    report,
    say,
)
from moclip.motion.extract import extract
from moclip.motion.field import motion_field
from moclip.store.layout import SHARD_FRAMES
from moclip.store.table import rows_of
from moclip.video.vector_records import Vectors
from moclip.video.vectors import choose_backend, has_mvextractor, read_vectors
from moclip.workers.processes import worker_pool

SHARD = 1024  # frames: several shards for each of two workers also where clips are few
FULL_HD = (1080, 1920)
WORKERS = (1, 2)
Seconds = dict[tuple[str, int], float]


@dataclass(frozen=True)
class Size:
    """How much is measured: clips, repetitions, seconds of the long clip."""

    times: int
    frames: int  # of each clip encoded, at most
    ucf: int  # names given to the one UCF-101 clip
    made: int  # clips encoded at UCF-101's size
    made_names: int  # names given to each of them
    hd: int
    hd_names: int
    real: int | None  # of the real clips, all if None
    real_names: int
    long: int


FULL = Size(times=3, frames=160, ucf=240, made=8, made_names=16, hd=4, hd_names=6, real=None, real_names=4, long=600)
QUICK = Size(times=1, frames=24, ucf=2, made=1, made_names=2, hd=1, hd_names=1, real=3, real_names=1, long=1)


# ------------------------------------------------------------------------------------------------ contenders


def bare_mvextractor(path: str) -> int:
    """Read all vectors as mvextractor's documentation shows; returns the frames."""
    from mvextractor.videocap import VideoCap

    capture = VideoCap()
    capture.open(path)
    capture.set_decode_frames(False)
    frames = 0
    while capture.read()[0]:
        frames += 1
    capture.release()
    return frames


def bare_pyav(path: str, thread_type: str | None = None) -> int:
    """Read all vectors as PyAV's documentation shows, with its own choice of threads or none; returns the frames."""
    frames = 0
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.options = {"flags2": "+export_mvs"}
        if thread_type:
            stream.thread_type = thread_type
        for frame in container.decode(stream):
            side = frame.side_data.get("MOTION_VECTORS")
            if side is not None:
                side.to_ndarray()
            frames += 1
    return frames


bare_single = functools.partial(bare_pyav, thread_type="NONE")
BARE: dict[str, Callable[[str], int]] = {
    "bare mvextractor": bare_mvextractor,
    "bare PyAV": bare_pyav,
    "bare PyAV (1 thread)": bare_single,
}


def run_bare(loop: Callable[[str], int], clips: pd.DataFrame, workers: int) -> None:
    """Read all clips with a bare loop, on as many processes as ours, started as ours are."""
    with worker_pool(workers) as pool:
        frames = sum(pool.map(loop, clips["path"], chunksize=2))
    if frames < clips["frames"].sum():
        say(f"  (a bare loop gave {frames} of {clips['frames'].sum()} frames)")


def run_ours(clips: pd.DataFrame, backend: str, workers: int, folder: Path, shard: int = SHARD) -> None:
    """Extract all clips into a new store."""
    shutil.rmtree(folder, ignore_errors=True)
    table = extract(
        clips,
        root=folder,
        zarr_path=folder / "mv.zarr",
        table_path=folder / "mv.parquet",
        backend=backend,
        shard_frames=shard,
        workers=workers,
    )
    failed = table[table["status"] != "ok"]
    if len(failed):
        raise SystemExit(f"{len(failed)} clips failed, the first: {failed['reason'].iloc[0]}")


def contend(name: str, clips: pd.DataFrame, contenders: list[str], times: int, folder: Path) -> Seconds:
    """Time each contender with each number of workers on the same clips, s."""
    say(f"{name}: {len(clips)} clips, {clips['frames'].sum()} frames")
    runs: dict[tuple[str, int], Callable[[], object]] = {}
    for workers in WORKERS:
        for who in contenders:
            if who in BARE:
                runs[who, workers] = functools.partial(run_bare, BARE[who], clips, workers)
            else:
                runs[who, workers] = functools.partial(run_ours, clips, who, workers, folder / "store")
    return by_turns(runs, times)


def rows_for(
    title: str, clips: pd.DataFrame, took: Seconds, ours: str, theirs: str, target: float | None = None
) -> list[Row]:
    """A row for each number of workers, in frames/s."""
    frames = int(clips["frames"].sum())
    return [
        Row(
            f"{title}, {workers} w.: {ours} / {theirs}",
            frames / took[ours, workers],
            frames / took[theirs, workers],
            target=target,
        )
        for workers in WORKERS
    ]


# --------------------------------------------------------------------------------------------------- subjects


def without_b(title: str, clips: pd.DataFrame, over_pyav: float, size: Size, folder: Path) -> list[Row]:
    """Streams that both backends read exactly: ours against both bare loops, and the backends against each other."""
    both = has_mvextractor()
    contenders = ["auto", "bare PyAV"] + (["mvextractor", "bare mvextractor"] if both else [])
    took = contend(title, clips, contenders, size.times, folder)
    rows = rows_for(title, clips, took, "auto", "bare PyAV", over_pyav)
    if both:
        rows += rows_for(title, clips, took, "auto", "bare mvextractor", 0.85)
        rows += rows_for(title, clips, took, "mvextractor", "bare mvextractor")
        rows += rows_for(title, clips, took, "auto", "mvextractor")
    return rows


def with_b(title: str, clips: pd.DataFrame, size: Size, folder: Path) -> list[Row]:
    """Streams that PyAV alone reads exactly; and what a second worker adds, on clips enough for many seconds."""
    took = contend(title, clips, ["auto", "bare PyAV (1 thread)"], size.times, folder)
    frames = int(clips["frames"].sum())
    one, two = (frames / took["auto", workers] for workers in WORKERS)
    say(f"  one worker took {took['auto', 1]:.1f} s")
    rows = rows_for(title, clips, took, "auto", "bare PyAV (1 thread)", 0.85)
    return [*rows, Row(f"{title}: 2 workers / 1, start-up included", two, one, target=1.8)]


def memory(clips: pd.DataFrame, size: Size, folder: Path) -> list[Row]:
    """Peak memory of a worker: with four times the clips, and on a long film."""
    few = clips.groupby("md5").head(max(1, len(clips) // clips["md5"].nunique() // 4))
    say(f"memory: {len(few)} and {len(clips)} clips")
    # The least of several: whether one shard's buffer is gone when the next one comes is a matter of chance.
    peaks = [min(_peak_apart(part, folder / "store") for _ in range(size.times)) for part in (clips, few)]
    name = f"peak memory, {len(clips)} clips / {len(few)}"
    rows = [Row(name, peaks[0], peaks[1], unit="MiB", target=1.1, at_most=True)]
    say("memory: a long film of 1080 lines with B-frames")
    short = encode(folder / "short.mp4", rendered(FULL_HD, 0), "h264", FULL_HD, 2, min(250, size.long * 25))
    frames = prolong(short, folder / "long.mp4", size.long)
    film = indexed([folder / "long.mp4"])
    if not film["has_b"].all() or film["frames"].sum() != frames:
        raise SystemExit("the long film is not what it should be")
    begun = time.perf_counter()
    peak = _peak_apart(film, folder / "store")
    say(f"  {frames} frames in {time.perf_counter() - begun:.0f} s")
    name = f"peak memory, {size.long / 60:.3g} min of 1080p with B-frames"
    return [*rows, Row(name, peak, unit="MiB", target=1024, at_most=True)]


def _peak_apart(clips: pd.DataFrame, folder: Path) -> float:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak, clips, folder).result()


def _peak(clips: pd.DataFrame, folder: Path) -> float:
    """Extract in this process and return its peak memory, MiB."""
    run_ours(clips, "auto", 0, folder, SHARD_FRAMES)
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


def field_share(title: str, clips: pd.DataFrame, times: int) -> list[Row]:
    """Decoding, the step from vectors to fields, and numpy's averaging scatter of the same vectors, by turns."""
    once = clips.drop_duplicates("md5")
    backends = [choose_backend(row.codec, row.has_b) for row in rows_of(once)]
    whole = [read_vectors(path, backend) for path, backend in zip(once["path"], backends, strict=True)]
    say(f"{title}: {len(whole)} clips, {sum(len(vectors.blocks) for vectors in whole)} vectors")

    def decode() -> None:
        for path, backend in zip(once["path"], backends, strict=True):
            read_vectors(path, backend)

    def fields() -> None:
        for vectors in whole:
            motion_field(vectors)

    def scatter() -> None:
        for vectors in whole:
            averaged(vectors)

    took = by_turns({"decode": decode, "field": fields, "scatter": scatter}, max(3, times))
    frames = int(once["frames"].sum())
    return [
        Row(f"{title}: field step / with decoding", took["field"], took["field"] + took["decode"], unit="s"),
        Row(f"{title}: field step / np.add.at", frames / took["field"], frames / took["scatter"]),
    ]


def averaged(vectors: Vectors) -> np.ndarray:
    """The plain way to a field: add every block's vector to its cells of 8 px, and divide by how many came.

    Returns float64 (T, 2, rows, columns), px of the coded picture.
    """
    blocks = vectors.blocks.astype(np.int64)
    rows, columns = -(-vectors.height // 8), -(-vectors.width // 8)
    total = np.zeros((len(vectors.frame_types), 2, rows, columns))
    count = np.zeros((len(vectors.frame_types), rows, columns))
    sign = np.where(blocks[:, 0] > 0, 1, -1)
    moved = sign[:, None] * blocks[:, 7:9] / blocks[:, 9:10]
    left, top = (blocks[:, 5] - blocks[:, 1] // 2) // 8, (blocks[:, 6] - blocks[:, 2] // 2) // 8
    for right in (0, 1):
        for down in (0, 1):
            x, y = left + right, top + down
            inside = (8 * right < blocks[:, 1]) & (8 * down < blocks[:, 2])
            inside &= (x >= 0) & (y >= 0) & (x < columns) & (y < rows)
            frame, x, y = vectors.frame[inside], x[inside], y[inside]
            np.add.at(count, (frame, y, x), 1)
            for component in (0, 1):
                np.add.at(total[:, component], (frame, y, x), moved[inside, component])
    return np.asarray(total / np.maximum(count, 1)[:, None])


# ------------------------------------------------------------------------------------------------------ main


def main() -> None:
    """Measure everything, print the table, write the JSON."""
    given = arguments(__doc__).parse_args()
    size = QUICK if given.quick else FULL
    real = real_data()
    left_out = [] if has_mvextractor() else ["all rows with mvextractor: it is not installed"]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        say("encoding clips")
        made = functools.partial(make_clips, folder, count=size.made, frames=size.frames)
        mpeg4 = indexed(made("mpeg4", UCF_SIZE), size.made_names)
        h264 = indexed(made("h264", UCF_SIZE), size.made_names)
        hd = indexed(make_clips(folder, "h264", HD_SIZE, size.hd, size.frames), size.hd_names)
        if real is None:
            left_out.append(f"real clips: {REAL_DATA} is not set; clips with B-frames are rendered ones")
            steady = indexed(made("h264", UCF_SIZE, b_frames=2), size.made_names * 4)
        else:
            ucf = indexed(sorted((real / "codecs").glob("*.avi")), size.ucf)
            rows += without_b("UCF-101 AVI", ucf, 1.0, size, folder)
            steady = indexed(real_clips(real)[: size.real], size.real_names)
        rows += without_b("320x240 MPEG-4", mpeg4, 1.0, size, folder)
        rows += without_b("320x240 H.264", h264, 1.0, size, folder)
        rows += without_b("1280x720 H.264", hd, 1.5, size, folder)
        rows += with_b("H.264 with B" if real is None else "real H.264 with B", steady, size, folder)
        rows += memory(mpeg4 if real is None else ucf, size, folder)
        if real is not None:
            rows += field_share("UCF-101 AVI", ucf, size.times)
        rows += field_share("320x240 H.264", h264, size.times)
        rows += field_share("1280x720 H.264", hd, size.times)
        rows += field_share("H.264 with B", steady, size.times)
    facts = {
        "contents": "rendered" if real is None else "real clips, the made ones re-encoded from them",
        "clips": {
            title: {"clips": len(table), "frames": int(table["frames"].sum())}
            for title, table in (("320x240 MPEG-4", mpeg4), ("320x240 H.264", h264), ("1280x720 H.264", hd),
                                 ("H.264 with B", steady), *((("UCF-101 AVI", ucf),) if real else ()))
        },
        "quick": given.quick,
        "repetitions": size.times,
    }  # fmt: skip
    title = "extraction against bare decoding loops (w.: worker processes)"
    report(title, rows, left_out, facts, given.out or (None if given.quick else RESULTS / "extract.json"))


if __name__ == "__main__":
    main()
