"""Extraction: ours from file to store beside loops that only decode, by codec, size and workers; the share of time."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd

from benchmarks.common import HD_SIZE, UCF_SIZE, indexed, make_clips, real_data, say
from benchmarks.extract import FULL_HD, bare_mvextractor, bare_pyav, run_ours
from benchmarks.peers.core import Part, Run, ffmpeg, pool
from moclip import motion
from moclip.files.folders import Folder
from moclip.video import vectors
from moclip.video.vectors import has_mvextractor, vector_windows

OURS = "ours"
SIZES = {"320x240": UCF_SIZE, "1280x720": HD_SIZE, "1920x1080": FULL_HD}
CODECS = {"MPEG-4": ("mpeg4", 0), "H.264": ("h264", 0), "H.264 with B": ("h264", 2)}
ON_WORKERS = ("UCF-101 AVI", "320x240 MPEG-4", "320x240 H.264 with B", "1280x720 H.264", "1920x1080 MPEG-4")
FLOOR = "ffmpeg, 1 thread"
LOOPS: dict[str, Callable[[str], int]] = {
    "mvextractor": bare_mvextractor,
    "PyAV auto": functools.partial(bare_pyav, thread_type="AUTO"),
    "PyAV slice": functools.partial(bare_pyav, thread_type="SLICE"),
    "PyAV none": functools.partial(bare_pyav, thread_type="NONE"),
}
SETUP = {
    OURS: "`moclip.extract.extract`, backend auto (PyAV, one thread): MD5, decode, field, compress, write, table",
    "mvextractor": "`VideoCap`, `set_decode_frames(False)`, `read()` to the end; its own choice of threads: all cores",
    "PyAV auto": "`flags2=+export_mvs`, `thread_type` AUTO: all cores; `to_ndarray()` of every frame's vectors",
    "PyAV slice": "the same, SLICE: all cores",
    "PyAV none": "the same, NONE: one thread, exact",
}


def measure(part: Part) -> None:
    """Every codec at 320 x 240, every size; then on two workers."""
    part.setup |= SETUP
    clips = subjects(part)
    binary = ffmpeg()
    if binary is None:
        part.leave_out(FLOOR, "imageio-ffmpeg is not installed; `make bench` installs it")
    else:
        part.setup[FLOOR] = "`ffmpeg -threads 1 -flags2 +export_mvs -i ... -f null -`, one process: the floor"
    run_ours(next(iter(clips.values())).head(2), "auto", 0, part.folder / "store")  # imports, and nothing else
    for name, table in clips.items():
        say(f"{name}: {len(table)} clips, {table['frames'].sum()} frames")
        runs: dict[str, Run] = {OURS: functools.partial(run_ours, table, "auto", 0, part.folder / "store")}
        for who in loops(part, name, table):
            runs[who] = functools.partial(one_by_one, LOOPS[who], list(table["path"]))
        if binary is not None:
            runs[FLOOR] = functools.partial(run_ffmpeg, binary, listed(list(table["path"]), part.folder / "floor.txt"))
        add_rows(part, name, table, runs, seconds=28)
    if part.quick:
        part.leave_out("two workers", "not in the quick form")
    for name in ON_WORKERS:
        if name in clips and not part.quick:
            with contextlib.ExitStack() as stack:
                on_workers(part, name, clips[name], binary, stack)
    for name in clips if not part.quick else list(clips)[:1]:
        part.facts.setdefault("shares", {})[name] = shares(clips[name], part.folder / "store")
    part.facts["clips"] = {
        name: {"clips": len(table), "frames": int(table["frames"].sum())} for name, table in clips.items()
    }
    part.facts["contents"] = "rendered" if real_data() is None else "re-encoded from real clips"


def subjects(part: Part) -> dict[str, pd.DataFrame]:
    """Clips of each codec and size, about a second's work each."""
    frames, names = ({"320x240": 160}, {"320x240": 16}) if not part.quick else ({"320x240": 8}, {"320x240": 2})
    made = {}
    for size, shape in SIZES.items():
        for codec, (encoder, b_frames) in CODECS.items():
            if part.quick and (size != "320x240" or b_frames):
                continue
            count = {"320x240": 4, "1280x720": 2, "1920x1080": 1}[size] if not part.quick else 1
            paths = make_clips(part.folder, encoder, shape, count, frames.get(size, 100), b_frames=b_frames)
            made[f"{size} {codec}"] = indexed(paths, names.get(size, 4))
    real = real_data()
    if real is not None and not part.quick:
        made = {"UCF-101 AVI": indexed(sorted((real / "codecs").glob("*.avi")), 60), **made}
    return made


def loops(part: Part, name: str, table: pd.DataFrame) -> Iterator[str]:
    """The loops that run here."""
    for who in LOOPS:
        if who == "mvextractor" and not has_mvextractor():
            part.leave_out(f"{name}: {who}", "it is not installed (wheels for x86-64 Linux only)")
        elif part.try_(f"{name}: {who}", functools.partial(LOOPS[who], table["path"].iloc[0])):
            yield who


def one_by_one(loop: Callable[[str], int], paths: Sequence[str]) -> None:
    for path in paths:
        loop(path)


def listed(paths: Sequence[str], file: Path) -> Path:
    """The clips as one input of ffmpeg, so that its start is paid once."""
    file.write_text("".join(f"file '{path}'\n" for path in paths))
    return file


def run_ffmpeg(binary: str, clips: Path) -> None:
    words = ["-threads", "1", "-flags2", "+export_mvs", "-f", "concat", "-safe", "0", "-i", str(clips)]
    end = ["-an", "-fps_mode", "passthrough", "-f", "null", "-"]
    subprocess.run([binary, "-v", "error", "-nostdin", *words, *end], check=True, stderr=subprocess.DEVNULL)


def add_rows(
    part: Part, name: str, table: pd.DataFrame, runs: dict[str, Run], seconds: float, target: float = 0.85
) -> None:
    turns, frames = part.turns(runs, seconds, warm=False), int(table["frames"].sum())
    for who in runs:
        if who != OURS:
            aim = target if who == "PyAV none" else None  # the others decode on all cores, ours on one
            part.versus(name, turns, OURS, who, frames, "frames/s", target=aim)


def on_workers(part: Part, name: str, clips: pd.DataFrame, binary: str | None, stack: contextlib.ExitStack) -> None:
    """The same on two processes. Theirs have started before; ours start anew."""
    table = pd.concat([clips.assign(id=[f"{turn}/{id_}" for id_ in clips["id"]]) for turn in range(4)])
    table = table.sort_values("id", ignore_index=True)
    say(f"{name}, 2 workers: {len(table)} clips")
    paths, folder = list(table["path"]), part.folder / "store"
    shard = max(64, -(-int(table["frames"].sum()) // 64) * 8)  # eight shards to share
    one, two = f"{OURS}, 1 worker", f"{OURS}, 2 workers"
    runs: dict[str, Run] = {
        OURS: functools.partial(run_ours, table, "auto", 2, folder, shard),
        one: functools.partial(run_ours, table, "auto", 1, folder, shard),
    }
    executor = stack.enter_context(pool(2, functools.partial(bare_pyav, paths[0])))
    for who in ("mvextractor", "PyAV auto", "PyAV none"):
        if who != "mvextractor" or has_mvextractor():
            runs[who] = functools.partial(on_processes, executor, LOOPS[who], paths)
    if binary is not None:
        halves = [listed(paths[half::2], part.folder / f"half{half}.txt") for half in (0, 1)]
        runs["two of ffmpeg"] = functools.partial(two_of_ffmpeg, binary, halves)
    turns, frames = part.turns(runs, 34, warm=False), int(table["frames"].sum())
    for who in runs:
        if who not in (OURS, one):
            aim = 0.85 if who in ("mvextractor", "PyAV none") else None
            part.versus(f"{name}, 2 workers", turns, OURS, who, frames, "frames/s", target=aim)
    rates = [frames / turns.median(who) for who in (OURS, one)]
    label = f"{name}: a second worker"
    part.row(label, "frames/s", *rates, who=(two, one), ratio=turns.ratio(OURS, one), rounds=turns.rounds)


def on_processes(executor: ProcessPoolExecutor, loop: Callable[[str], int], paths: Sequence[str]) -> None:
    sum(executor.map(loop, paths, chunksize=2))


def two_of_ffmpeg(binary: str, halves: Sequence[Path]) -> None:
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(functools.partial(run_ffmpeg, binary), halves))


# ------------------------------------------------------------------------------------------------------ shares


def shares(clips: pd.DataFrame, folder: Path) -> dict[str, float]:
    """The share of an extraction's time that goes into each step, in one process."""
    spent: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        for owner, name, step in (
            (motion, "field", "field"),
            (motion, "quantise", "field"),
            (store, "encode_shard", "compress"),
            (Folder, "write", "write"),
            (video, "md5", "MD5, checksum"),
            (store, "checksum", "MD5, checksum"),
        ):
            stack.enter_context(mock.patch.object(owner, name, _timed(getattr(owner, name), step, spent)))
        stack.enter_context(mock.patch.object(vectors, "vector_windows", _timed_steps(vector_windows, "decode", spent)))
        begun = time.perf_counter()
        run_ours(clips, "auto", 0, folder)
        whole = time.perf_counter() - begun
    assert motion is motion  # what is patched is what is called
    rest = whole - sum(spent.values())
    named = {step: spent.get(step, 0.0) for step in ("decode", "field", "compress", "write", "MD5, checksum")}
    return {step: round(seconds / whole, 4) for step, seconds in {**named, "plan, table, rest": rest}.items()}


def _timed(call: Callable[..., Any], step: str, spent: dict[str, float]) -> Callable[..., Any]:
    def timed(*given: Any, **named: Any) -> Any:
        begun = time.perf_counter()
        try:
            return call(*given, **named)
        finally:
            spent[step] = spent.get(step, 0.0) + time.perf_counter() - begun

    return timed


def _timed_steps(call: Callable[..., Any], step: str, spent: dict[str, float]) -> Callable[..., Any]:
    def timed(*given: Any, **named: Any) -> Iterator[Any]:
        steps = iter(call(*given, **named))
        while True:
            begun = time.perf_counter()
            found = next(steps, None)
            spent[step] = spent.get(step, 0.0) + time.perf_counter() - begun
            if found is None:
                return
            yield found

    return timed
