"""Extraction: compare it with loops that only decode, on one and two workers; measure its steps and peak memory.

python -m benchmarks.extract [--quick] [--out FILE]
"""

from __future__ import annotations

import functools
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd

from benchmarks.common import (
    HD_SIZE,
    UCF_SIZE,
    encode,
    index_clips,
    make_clips,
    print_progress,
    real_data,
    rendered_pictures,
    repeat_clip,
)
from benchmarks.comparison import Part, Run, import_peer, peak_memory, run_as_program, run_on_pool, warm_pool
from moclip.motion.extract import Output, extract
from moclip.motion.extract_plan import FieldRecipe
from moclip.motion.field import CODEC_CELL
from moclip.motion.quantise import quantise
from moclip.motion.windows import motion_fields
from moclip.store.layout import SHARD_FRAMES, encode_shard
from moclip.store.reader import FieldReader
from moclip.video.clip_files import file_md5
from moclip.video.vectors import has_mvextractor, vector_windows

FULL_HD, CANVAS = (1080, 1920), (240, 320)  # (height, width), px
LONG = 600  # s of the clip whose extraction's peak memory is measured
SIZES = {"320x240": (UCF_SIZE, 4, 160, 16), "1280x720": (HD_SIZE, 2, 100, 6), "1920x1080": (FULL_HD, 1, 100, 6)}
"""Shape; clips, their frames, and names for each clip, so that a round takes about a second."""
CODECS = {"MPEG-4": ("mpeg4", 0), "H.264": ("h264", 0), "H.264 with B": ("h264", 2)}
QUICK_SIZES = {"320x240": (UCF_SIZE, 1, 8, 2)}
QUICK_CODECS = {"MPEG-4": ("mpeg4", 0), "H.264": ("h264", 0)}
ON_WORKERS = ("UCF-101 AVI", "320x240 MPEG-4", "320x240 H.264 with B", "1280x720 H.264", "1920x1080 MPEG-4")
OURS, FLOOR = "ours", "ffmpeg, 1 thread"
SETUP = {
    OURS: "`extract`, backend auto (PyAV, one thread): MD5, decode, field, compress, write, table",
    "mvextractor": "`VideoCap`, `set_decode_frames(False)`, `read()` to the end; threads as it chooses: all cores",
    "PyAV auto, slice, none": "`flags2=+export_mvs`, `to_ndarray()` of every frame's vectors; `thread_type` AUTO and "
    "SLICE use all cores, NONE one thread, exact",
}


def measure(part: Part) -> None:
    """Measure every codec and size in one process, then two workers, the share of each step, and peak memory."""
    part.setup |= SETUP
    clips = subjects(part)
    binary = None
    if part.peer("imageio_ffmpeg", FLOOR, "`ffmpeg -threads 1 -flags2 +export_mvs -i ... -f null -`: the floor"):
        binary = str(import_peer("imageio_ffmpeg").get_ffmpeg_exe())
    extract_clips(next(iter(clips.values())).head(2), part.folder / "store")  # pays for the imports
    for name, table in clips.items():
        print_progress(f"{name}: {len(table)} clips, {table['frames'].sum()} frames")
        paths = list(table["path"])
        runs: dict[str, Run] = {OURS: functools.partial(extract_clips, table, part.folder / "store")}
        for who in loops(part, name, table):
            runs[who] = functools.partial(run_each, LOOPS[who], paths)
        if binary is not None:
            runs[FLOOR] = functools.partial(run_ffmpeg, binary, write_concat_list(paths, part.folder / "floor.txt"))
        add_rows(part, name, table, runs, 28, aims_of(name))
    on_workers = ON_WORKERS if part.clock is time.perf_counter else ()  # that of running workers is not counted
    for name in [name for name in on_workers if name in clips][: 1 if part.quick else None]:
        measure_on_workers(part, name, clips[name], binary)
    for name in list(clips)[: 1 if part.quick else None]:
        part.facts.setdefault("shares", {})[name] = step_shares(part, clips[name])
    part.facts["contents"] = "rendered" if real_data() is None else "re-encoded from real clips"
    measure_long_clip(part)


def aims_of(name: str) -> dict[str, float]:
    """Return the least ratios to contenders on one core; the others decode on all cores."""
    reduced = name in ("1280x720 MPEG-4", "1920x1080 MPEG-4")
    return {"PyAV none": 1.2 if reduced else 0.9, **({FLOOR: 0.7} if name == "UCF-101 AVI" else {})}


def subjects(part: Part) -> dict[str, pd.DataFrame]:
    """Return clips of each codec and size."""
    made = {}
    for size, (shape, count, frames, names) in (QUICK_SIZES if part.quick else SIZES).items():
        for codec, (encoder, b_frames) in (QUICK_CODECS if part.quick else CODECS).items():
            paths = make_clips(part.folder, encoder, shape, count, frames, b_frames=b_frames)
            made[f"{size} {codec}"] = index_clips(paths, names)
    real = real_data()
    if real is not None and not part.quick:
        made = {"UCF-101 AVI": index_clips(sorted((real / "codecs").glob("*.avi")), 120), **made}
    return made


def extract_clips(
    clips: pd.DataFrame, folder: Path, workers: int = 0, shard: int = SHARD_FRAMES, **options: Any
) -> None:
    """Extract all clips into a new store, `folder`/mv.zarr with its table mv.parquet."""
    shutil.rmtree(folder, ignore_errors=True)
    output = Output(folder / "mv.zarr", folder / "mv.parquet")
    table = extract(clips, folder, output, FieldRecipe(shard_frames=shard, **options), workers=workers)
    failed = table[table["status"] != "ok"]
    if len(failed):
        raise SystemExit(f"{len(failed)} clips failed, the first: {failed['reason'].iloc[0]}")


def open_store(
    clips: pd.DataFrame, folder: Path, workers: int = 0, shard: int = SHARD_FRAMES, **options: Any
) -> FieldReader:
    """Extract the clips into a new store, and open it without a cache."""
    extract_clips(clips, folder, workers, shard, **options)
    return FieldReader(folder / "mv.zarr", folder / "mv.parquet", 0)


def read_with_mvextractor(path: str) -> int:
    """Read all vectors as mvextractor's documentation shows. Return the number of frames."""
    from mvextractor.videocap import VideoCap

    capture = VideoCap()
    capture.open(path)
    capture.set_decode_frames(False)
    frames = 0
    while capture.read()[0]:
        frames += 1
    capture.release()
    return frames


def read_with_pyav(path: str, thread_type: str) -> int:
    """Read all vectors as PyAV's documentation shows. Return the number of frames."""
    frames = 0
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.options = {"flags2": "+export_mvs"}
        stream.thread_type = thread_type
        for frame in container.decode(stream):
            side = frame.side_data.get("MOTION_VECTORS")
            if side is not None:
                side.to_ndarray()
            frames += 1
    return frames


LOOPS: dict[str, Callable[[str], int]] = {
    "mvextractor": read_with_mvextractor,
    "PyAV auto": functools.partial(read_with_pyav, thread_type="AUTO"),
    "PyAV slice": functools.partial(read_with_pyav, thread_type="SLICE"),
    "PyAV none": functools.partial(read_with_pyav, thread_type="NONE"),
}


def loops(part: Part, name: str, table: pd.DataFrame) -> Iterator[str]:
    """Yield the names of the loops that run on this machine."""
    for who in LOOPS:
        if who == "mvextractor" and not has_mvextractor():
            part.leave_out(f"{name}: {who}", "it is not installed (wheels for x86-64 Linux only)")
        elif part.runs(f"{name}: {who}", functools.partial(LOOPS[who], table["path"].iloc[0])):
            yield who


def run_each(function: Callable[[Any], object], items: Iterable[Any]) -> None:
    for item in items:
        function(item)


def write_concat_list(paths: Sequence[str], file: Path) -> Path:
    """Write a list of clips that ffmpeg reads as one input, so that it starts only once."""
    file.write_text("".join(f"file '{path}'\n" for path in paths))
    return file


def run_ffmpeg(binary: str, clips: Path) -> None:
    words = ["-threads", "1", "-flags2", "+export_mvs", "-f", "concat", "-safe", "0", "-i", str(clips)]
    end = ["-an", "-fps_mode", "passthrough", "-f", "null", "-"]
    subprocess.run([binary, "-v", "error", "-nostdin", *words, *end], check=True, stderr=subprocess.DEVNULL)


def add_rows(
    part: Part, name: str, table: pd.DataFrame, runs: dict[str, Run], seconds: float, aims: Mapping[str, float]
) -> None:
    turns, frames = part.turns(runs, seconds, warm=False), int(table["frames"].sum())
    for who in runs:
        if who != OURS:
            part.add_ratio(name, turns, OURS, who, "frames/s", amounts=(frames, frames), target=aims.get(who))


def measure_on_workers(part: Part, name: str, clips: pd.DataFrame, binary: str | None) -> None:
    """Measure on two processes. The loops use running processes; ours forks its processes in each round."""
    table = pd.concat([clips.assign(id=[f"{turn}/{id_}" for id_ in clips["id"]]) for turn in range(4)])
    table = table.sort_values("id", ignore_index=True)
    print_progress(f"{name}, 2 workers: {len(table)} clips")
    paths, folder = list(table["path"]), part.folder / "store"
    extract_clips(table.head(2), folder, 2)  # starts the server that they are forked from, once for all rounds
    shard = max(64, -(-int(table["frames"].sum()) // 64) * 8)  # eight shards to share
    runs: dict[str, Run] = {
        OURS: functools.partial(extract_clips, table, folder, 2, shard),
        f"{OURS}, 1 worker": functools.partial(extract_clips, table, folder, 1, shard),
    }
    with ThreadPoolExecutor(2) as threads, warm_pool(2, functools.partial(LOOPS["PyAV none"], paths[0])) as executor:
        for who in ("mvextractor", "PyAV auto", "PyAV none"):
            if who != "mvextractor" or has_mvextractor():
                runs[who] = functools.partial(run_on_pool, executor, LOOPS[who], paths, 2)
        if binary is not None:
            halves = [write_concat_list(paths[half::2], part.folder / f"half{half}.txt") for half in (0, 1)]
            runs["two of ffmpeg"] = lambda: list(threads.map(functools.partial(run_ffmpeg, binary), halves))
        add_rows(part, f"{name}, 2 workers", table, runs, 34, {"mvextractor": 1.0, "PyAV none": 0.85})


def step_shares(part: Part, clips: pd.DataFrame) -> dict[str, float]:
    """Return the share of each step in the time of an extraction in one process. Each step is timed alone."""
    folder, paths = part.folder / "store", list(clips["path"])
    fields = open_store(clips, folder).read_all()

    def decode(path: str) -> None:
        for _ in vector_windows(path, "pyav", moving_only=True, damaged=False):
            pass

    def decode_and_field(path: str) -> None:
        for made, _ in motion_fields(
            vector_windows(path, "pyav", moving_only=True, damaged=False), CANVAS, CODEC_CELL, False
        ):
            quantise(made)

    steps: dict[str, Run] = {
        "decode": functools.partial(run_each, decode, paths),
        "field": functools.partial(run_each, decode_and_field, paths),
        "compress": functools.partial(
            run_each, encode_shard, np.split(fields, range(SHARD_FRAMES, len(fields), SHARD_FRAMES))
        ),
        "MD5": functools.partial(run_each, file_md5, paths),
    }
    turns = part.turns({"whole": functools.partial(extract_clips, clips, folder), **steps}, 8)
    took = {name: turns.median(name) for name in turns.seconds}
    took["field"] -= took["decode"]
    found = {name: round(took[name] / took["whole"], 4) for name in steps}
    return {**found, "rest": round(1 - sum(found.values()), 4)}


def measure_long_clip(part: Part) -> None:
    """Measure the peak memory of a process that extracts one long 1080p clip with B-frames."""
    seconds = 1 if part.quick else LONG
    short = encode(part.folder / "short.mp4", rendered_pictures(FULL_HD, 0), "h264", FULL_HD, 2, min(250, 25 * seconds))
    clip = part.folder / "long.mp4"
    print_progress(f"a clip of {seconds} s at 1920x1080: {repeat_clip(short, clip, seconds)} frames")
    held = peak_memory(extract_clips, index_clips([clip]), part.folder / "store", 0, SHARD_FRAMES)
    part.add_figure(f"peak memory, {seconds} s of 1080p H.264 with B", "MiB", held, target=1024, at_most=True)


if __name__ == "__main__":
    run_as_program("extract", __doc__)
