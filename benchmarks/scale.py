"""Simulate the planning of ten million clips, and reckon what data sets of any size cost: `make bench-scale`.

    python -m benchmarks.scale [planning] [rates] [workers] [driver] [--quick] [--out FILE]
    python -m benchmarks.scale arithmetic [--core-hour PRICE] [--gb-month PRICE]

`planning` writes indices of 1 and of 10 million made-up clips and plans their stores, each step in a process of its
own, which tells its peak memory; sizes go by turns, and the best of three rounds counts. `rates` measures on one core
what the other benchmarks do not; `workers` and `driver` are about a cluster (`machines`). A part that is not asked for
keeps its rows in the JSON. `arithmetic` prints the tables of docs/scale.md from all benchmarks' results.
"""

from __future__ import annotations

import functools
import math
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks import arithmetic
from benchmarks.arithmetic import (
    ADDED,
    CLASSES,
    FRAME,
    FRAMES,
    GRID,
    HASHED,
    HEAD_HELD,
    INDEX_HELD,
    LISTED,
    MIB,
    MOTION,
    MV_TSN,
    PROBE,
    SPLIT_HELD,
    STILL,
    TOWER,
    TRAINING,
    VIEWS,
)
from benchmarks.common import RESULTS, Row, arguments, make_clips, real_clips, real_data, report, rows_before, say
from moclip.data.clip_folder import scan_folder
from moclip.data.groups import hold_out
from moclip.data.index import INDEX_COLUMNS, build_index
from moclip.store.features import Features, write_features
from moclip.store.layout import SHARD_FRAMES, write_metadata
from moclip.store.reader import FieldReader
from moclip.store.slots import by_shard, plan_slots
from moclip.store.table import write_table as table_write_table
from moclip.video.clip_files import file_md5
from moclip.video.frames import read_frames
from moclip.video.probe import probe
from pipeline.io import write_parquet

SPREAD = 0.5  # of the logarithm of a clip's length: its standard deviation
CHANGED = 0.01  # share of the clips that have changed when a store is planned again
PICTURES = (360, 640)  # (height, width) of the clips that rates are measured on, px
NEEDED = ["id", "md5", "frames"]  # columns that planning asks for


@dataclass(frozen=True)
class Size:
    """How much is measured: clips of the two indices, parts of a divided one, rounds; and of the rates' samples."""

    clips: tuple[int, int]
    parts: int
    rounds: int
    pictures: int
    sample: int
    held: tuple[int, int]
    shards: int
    small: int


FULL = Size(
    clips=(1_000_000, 10_000_000), parts=64, rounds=3, pictures=32, sample=12, held=(1_000, 8_000),
    shards=512, small=20_000,
)  # fmt: skip
QUICK = Size(
    clips=(2_000, 20_000), parts=4, rounds=1, pictures=1, sample=1, held=(10, 40), shards=2, small=4
)  # fmt: skip

Found = dict[str, float]
Part = tuple[list[Row], dict[str, Any]]

# ------------------------------------------------------------------------------------------ a process for each step


def apart(step: Callable[..., Found], *given: Any) -> Found:
    """What a step finds in a process of its own, and its peak memory there, MiB."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_with_peak, step, *given).result()


def _with_peak(step: Callable[..., Found], *given: Any) -> Found:
    found = step(*given)
    # Not `ru_maxrss`: that also knows the peak of the process this one was started from.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return {**found, "peak": int(peak[1]) / 1024 if peak else float("nan")}


@contextmanager
def clock(found: Found) -> Iterator[None]:
    """Note the seconds that passed, and those of the processor."""
    begun, busy = time.perf_counter(), time.process_time()
    yield
    found["seconds"], found["busy"] = time.perf_counter() - begun, time.process_time() - busy


# ------------------------------------------------------------------------------------------------- planning: clips


def metadata(part: int, parts: int, clips: int) -> pd.DataFrame:
    """One of `parts` of an index of made-up clips (`dataset.COLUMNS`), sorted by id."""
    rng = np.random.default_rng([part, parts, clips])
    number = np.arange(clips * part // parts, clips * (part + 1) // parts)
    each = -(-clips // CLASSES)
    label, turn = number // each, number % each
    name = _joined("Action", _digits(label, 4))
    group = _joined("g", _digits(turn // 10, 5))
    ids = _joined(name, "/v_", name, "_", group, "_c", _digits(turn % 10, 2), ".avi")
    count = len(number)
    columns = {
        "id": ids, "path": ids, "class": name, "label": label, "split": _same("train", count), "group": group,
        "codec": _same("h264", count), "w": np.full(count, 320), "h": np.full(count, 240), "fps": np.full(count, 25.0),
        "frames": _lengths(rng, count), "gop": np.full(count, 50), "has_b": np.ones(count, bool),
        "bytes": rng.integers(10**5, 10**7, count), "status": _same("ok", count), "reason": _same("", count),
        "md5": _md5s(rng, count), "damage": _same("", count), "seekable": np.ones(count, bool),
    }  # fmt: skip
    return pa.table(columns).to_pandas().astype(INDEX_COLUMNS)


def _joined(*parts: Any) -> Any:
    texts = (pa.scalar(part, pa.large_string()) if isinstance(part, str) else part for part in parts)
    return pc.binary_join_element_wise(*texts, pa.scalar("", pa.large_string()))


def _digits(values: np.ndarray, width: int) -> Any:
    return pc.utf8_lpad(pa.array(values).cast(pa.large_string()), width, "0")


def _same(text: str, count: int) -> Any:
    return pa.repeat(pa.scalar(text, pa.large_string()), count)


def _lengths(rng: np.random.Generator, count: int) -> np.ndarray:
    """Frames of clips: lognormal, most from 100 to 700."""
    return np.maximum(2, np.rint(rng.lognormal(math.log(FRAMES) - SPREAD**2 / 2, SPREAD, count))).astype(np.int64)


def _md5s(rng: np.random.Generator, count: int) -> Any:
    text = pa.py_buffer(rng.bytes(16 * count).hex().encode())
    return pa.Array.from_buffers(pa.large_string(), count, [None, pa.py_buffer(np.arange(count + 1) * 32), text])


# ------------------------------------------------------------------------------------------------- planning: steps


def write_whole(folder: Path, clips: int, parts: int) -> Found:
    """Write the index as one file; beside it what planning needs of one where some clips have changed."""
    table = pd.concat([metadata(part, parts, clips) for part in range(parts)], ignore_index=True)
    found: Found = {}
    with clock(found):
        write_parquet(folder / "index.parquet", table)
    rng = np.random.default_rng(1)
    changed = rng.random(clips) < CHANGED
    frames = np.where(changed, _lengths(rng, clips), table["frames"])
    write_parquet(
        folder / "later.parquet", table[NEEDED].assign(frames=frames, md5=table["md5"].mask(changed, "0" * 32))
    )
    return found | {"bytes": _weight(folder / "index.parquet")}


def write_parts(folder: Path, clips: int, parts: int) -> Found:
    """Write the same index divided by class and clip."""
    found: Found = {}
    with clock(found):
        for part in range(parts):
            write_parquet(folder / f"part-{part:02d}.parquet", metadata(part, parts, clips))
    return found | {"bytes": sum(_weight(path) for path in folder.glob("part-*.parquet"))}


def _weight(path: Path) -> int:
    return path.stat().st_size


def imports(folder: Path, clips: int, parts: int) -> Found:
    """Nothing: what every step has in memory besides its own."""
    return {"seconds": 0.0, "busy": 0.0}


def read_whole(folder: Path, clips: int, parts: int) -> Found:
    """Read all columns of the index, as a stage does."""
    found: Found = {}
    with clock(found):
        table = pd.read_parquet(folder / "index.parquet")
    assert len(table) == clips
    return found


def read_needed(folder: Path, clips: int, parts: int) -> Found:
    """Read the columns that planning needs."""
    found: Found = {}
    with clock(found):
        table = pd.read_parquet(folder / "index.parquet", columns=NEEDED)
    assert len(table) == clips
    return found


def plan_fresh(folder: Path, clips: int, parts: int) -> Found:
    """Plan an empty store."""
    videos = pd.read_parquet(folder / "index.parquet", columns=NEEDED)
    found: Found = {}
    with clock(found):
        planned = plan_slots(videos)
    shards = int(planned["shard"].max()) + 1
    return found | {"shards": shards, "filled": videos["frames"].sum() / shards / SHARD_FRAMES}


def lay_out(folder: Path, clips: int, parts: int) -> Found:
    """Write the places that a first plan gives, for the steps that begin with them."""
    videos = pd.read_parquet(folder / "index.parquet", columns=NEEDED)
    found: Found = {}
    with clock(found):
        write_parquet(folder / "places.parquet", plan_slots(videos).assign(md5=videos["md5"]))
    return found


def plan_again(folder: Path, clips: int, parts: int) -> Found:
    """Plan the store in which those places are taken, where some clips have changed."""
    videos = pd.read_parquet(folder / "later.parquet")
    previous = pd.read_parquet(folder / "places.parquet", columns=["id", "md5", "offset", "slots"])
    found: Found = {}
    with clock(found):
        planned = plan_slots(videos, previous=previous)
    return found | {"moved": float((planned["offset"] != previous["offset"]).sum())}


def cut_jobs(folder: Path, clips: int, parts: int) -> Found:
    """Group the clips into jobs, and make every one of them."""
    places = pd.read_parquet(folder / "places.parquet", columns=["offset", "slots"])
    found: Found = {}
    with clock(found):
        jobs = by_shard(places["offset"].to_numpy(), places["slots"].to_numpy(), SHARD_FRAMES)
        cut = sum(len(job.rows) for job in jobs)
    assert cut == clips
    return found | {"jobs": len(jobs)}


def plan_parts(folder: Path, clips: int, parts: int) -> Found:
    """Plan and cut a divided index, part after part, each in a range of shards of its own."""
    found: Found = {"shards": 0}
    with clock(found):
        for part in range(parts):
            videos = pd.read_parquet(folder / f"part-{part:02d}.parquet", columns=NEEDED)
            planned = plan_slots(videos)
            jobs = by_shard(planned["offset"].to_numpy(), planned["slots"].to_numpy(), SHARD_FRAMES)
            assert sum(len(job.rows) for job in jobs) == len(videos)
            below = int(found["shards"]) * SHARD_FRAMES
            write_parquet(folder / f"places-{part:02d}.parquet", planned.assign(offset=planned["offset"] + below))
            found["shards"] += int(planned["shard"].max()) + 1
    return found


def write_table(folder: Path, clips: int, parts: int) -> Found:
    """Write the table of a store with so many clips, and what it takes to open it."""
    places = pd.read_parquet(folder / "places.parquet")
    same: dict[str, Any] = {"length": FRAMES, "backend": "pyav", "status": "ok", "reason": "", "checksum": 0}
    table = places.assign(**same, key=places["md5"].str[:16])
    table["checksum"] = np.random.default_rng(0).integers(2**32, size=clips)
    found: Found = {}
    with clock(found):
        table_write_table(folder / "mv.parquet", table)
    write_metadata(folder / "mv.zarr", np.zeros(SHARD_FRAMES, np.uint8), GRID, SHARD_FRAMES, {})
    return found | {"bytes": _weight(folder / "mv.parquet")}


def open_store(folder: Path, clips: int, parts: int) -> Found:
    """Open that store, as every process does that reads fields."""
    found: Found = {}
    with clock(found):
        reader = FieldReader(folder / "mv.zarr", folder / "mv.parquet")
    assert len(reader.table) == clips
    return found


ONCE = {"index written whole": write_whole, "index written in parts": write_parts, "planned and written": lay_out}
STEPS = {
    "imports alone": imports,
    "index read whole": read_whole,
    "index read, three columns": read_needed,
    "planned afresh": plan_fresh,
    "planned again": plan_again,
    "cut into jobs": cut_jobs,
    "read, planned and cut in parts": plan_parts,
}
LAST = {"table written": write_table, "store opened": open_store}
GOALS = {"planned afresh": (5.0, 60.0), "planned again": (5.0, 60.0)}  # s, at either number of clips
ROOM = 3 * 1024  # MiB, of planning the larger index


def planning(size: Size, folder: Path) -> Part:
    """Indices of two sizes, by turns: seconds, memory and growth of each step."""
    seen: dict[tuple[str, int], list[Found]] = {}

    def run(name: str, step: Callable[..., Found]) -> None:
        for clips in size.clips:
            here = folder / str(clips)
            here.mkdir(exist_ok=True)
            found = apart(step, here, clips, size.parts)
            say(f"  {clips:,} clips, {name}: {found['seconds']:.3g} s, {found['peak']:,.0f} MiB")
            seen.setdefault((name, clips), []).append(found)

    for name, step in ONCE.items():
        run(name, step)
    for _ in range(size.rounds):
        for name, step in STEPS.items():
            run(name, step)
    for name, step in LAST.items():
        run(name, step)
    few, many = size.clips
    rows = [row for name in (*ONCE, *STEPS, *LAST) for row in _rows_of(name, seen[name, few], seen[name, many], size)]
    return rows, {
        "clips": list(size.clips),
        "parts": size.parts,
        "steps": {f"{name}, {clips:,} clips": _facts(found) for (name, clips), found in seen.items()},
    }


def _rows_of(name: str, small: Sequence[Found], large: Sequence[Found], size: Size) -> list[Row]:
    few, many = size.clips
    ours, theirs = _least(large, "seconds"), _least(small, "seconds")
    goals = GOALS.get(name, (None, None))
    rows = [Row(f"{name}: {many:,} clips / {few:,}", ours, theirs, "s")] if theirs else []
    for clips, seconds, goal in ((few, theirs, goals[0]), (many, ours, goals[1])):
        if goal:
            rows.append(Row(f"{name}: {clips:,} clips", seconds, unit="s", target=goal, at_most=True))
    peak = max(found["peak"] for found in large)
    room = ROOM if name in GOALS else None
    rows.append(Row(f"{name}: peak memory, {many:,} clips", peak, unit="MiB", target=room, at_most=True))
    if "bytes" in large[0]:
        rows.append(Row(f"{name}: file", large[0]["bytes"] / many, unit="B/clip"))
    return rows


def _least(found: Sequence[Found], what: str) -> float:
    return min(one[what] for one in found)


def _facts(found: Sequence[Found]) -> dict[str, list[float]]:
    """What a step gave in each round, to four digits."""
    return {what: [float(f"{one[what]:.4g}") for one in found] for what in found[0]}


# ------------------------------------------------------------------------------------------------------- rates


def rates(size: Size, folder: Path) -> Part:
    """Seconds of one core for what the other benchmarks do not measure, and memory of what is held as objects."""
    real = real_data()
    clips = make_clips(folder, "h264", PICTURES, size.sample, FRAMES, b_frames=2)
    weighed = clips if real is None else real_clips(real)
    names = [str(clip) for clip in clips]
    rows = [
        *(_core_time(name, step, size.pictures, 1, size.rounds) for name, step in NETWORKS.items()),
        *(_core_time(name, step, names, len(clips), size.rounds) for name, step in FILES.items()),
        Row(FRAME, sum(map(_weight, weighed)) / sum(probe(clip).frames for clip in weighed), unit="B"),
    ]
    least = functools.partial(index_memory, str(min(weighed, key=_weight).resolve()))
    for name, step in ((INDEX_HELD, least), (SPLIT_HELD, split_memory), (HEAD_HELD, head_memory)):
        few, many = (apart(step, folder / name, count)["peak"] for count in size.held)
        say(f"  {name}: {many - few:.3g} MiB")
        rows.append(Row(f"{name}: memory", max(1.0, (many - few) * MIB / (size.held[1] - size.held[0])), unit="B"))
    kind = "rendered" if real is None else "re-encoded from real ones"
    about = f"{len(clips)} of {PICTURES[1]} x {PICTURES[0]} px and {FRAMES} frames, H.264 with B-frames, {kind}"
    return rows + dvc_rates(size, folder), {"clips": about, "repetitions": size.rounds}


def _core_time(name: str, step: Callable[..., Found], given: Any, count: int, rounds: int) -> Row:
    """Processor time of a step for each of `count`, the least of all rounds."""
    busy = min(apart(step, given)["busy"] for _ in range(rounds)) / count
    say(f"  {name}: {busy:.3g} s")
    return Row(name, 1000 * busy, unit="ms")


def tower(pictures: int) -> Found:
    """ViT-B/32 with random weights, a picture."""
    import torch
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.set_num_threads(1)
    network = CLIPVisionModelWithProjection(CLIPVisionConfig(patch_size=32, projection_dim=512)).eval()
    shown = torch.randn(pictures, 3, 224, 224)
    with torch.inference_mode():
        return _each(lambda: network(shown), pictures)


def segment(pictures: int) -> Found:
    """EfficientNet-B0 at 224 px, frozen, a segment."""
    import torch

    network, shown = _mv_tsn(), torch.randn(pictures, 1, 2, 224, 224)
    with torch.inference_mode():
        return _each(lambda: network.eval()(shown), pictures)


def training_step(pictures: int) -> Found:
    """EfficientNet-B0 at 224 px forward and back, a clip of three segments; random numbers for fields."""
    import torch

    clips = -(-pictures // 4)
    network, shown = _mv_tsn().train(), torch.randn(clips, 3, 2, 224, 224)
    return _each(lambda: network(shown).sum().backward(), clips)


def _mv_tsn() -> Any:
    import torch

    from moclip.models.mv_tsn import MvTsn, MvTsnConfig

    torch.set_num_threads(1)
    return MvTsn(MvTsnConfig("efficientnet_b0", ("a", "b"), 224, 0.5)).to(memory_format=torch.channels_last)


def _each(run: Callable[[], object], count: int) -> Found:
    """Seconds for each of `count`, the second time: the first also makes room."""
    run()
    found: Found = {}
    with clock(found):
        run()
    return {what: seconds / count for what, seconds in found.items()}


def probed(clips: Sequence[str]) -> Found:
    """What the index asks of a file: its pictures without their pixels, its MD5."""
    found: Found = {}
    with clock(found):
        for clip in clips:
            probe(clip)
            file_md5(clip)
    return found


def stills(clips: Sequence[str]) -> Found:
    """The middle frame, decoded."""
    known = [probe(clip) for clip in clips]
    found: Found = {}
    with clock(found):
        for clip, about in zip(clips, known, strict=True):
            read_frames(clip, [about.frames // 2], about.seekable)
    return found


def index_memory(clip: str, folder: Path, count: int) -> Found:
    """Index one file under many names."""
    for number in range(count):
        name = folder / str(count) / f"Action{number % 2}" / f"v_g{number % 50:02d}_{number:06d}{Path(clip).suffix}"
        name.parent.mkdir(parents=True, exist_ok=True)
        name.symlink_to(clip)
    build_index(folder / str(count), scan_folder(folder / str(count)), None, 0.2, 0.3, 0)
    return {}


def split_memory(folder: Path, count: int) -> Found:
    """Hold a tenth of the clips out, where no name tells that two come from one source."""
    names = pd.Series(np.arange(count)).astype("str")
    hold_out(names, pd.Series(np.arange(count) % CLASSES), 0.1, 0)
    return {}


def head_memory(folder: Path, count: int) -> Found:
    """Hold what the head trains on, as read from the feature store."""
    ids, path = [f"{number:09d}" for number in range(count)], folder / f"{count}.zarr"
    apart(_write_views, path, ids)
    assert len(Features(path, "embed_mv").rows("features", ids)) == count
    return {}


def _write_views(path: Path, ids: Sequence[str]) -> Found:
    views = np.random.default_rng(0).standard_normal((len(ids), VIEWS, MOTION), np.float32)
    write_features(path, ids, {"features": (views, ("view", "feature"))}, {})
    return {}


NETWORKS = {TOWER: tower, MV_TSN: segment, TRAINING: training_step}
FILES = {PROBE: probed, STILL: stills}


def dvc_rates(size: Size, folder: Path) -> list[Row]:
    """What DVC needs to take a folder in and to look at it again: by the file, and by the byte."""
    alone, small, big = (
        _dvc_add(folder / name, count, weight)
        for name, count, weight in (("one", 1, 1), ("small", size.small, 1024), ("shards", size.shards, 2 * MIB))
    )
    each = max(1e-6, small["add"] - alone["add"]) / (size.small - 1)
    looked = max(1e-6, small["status"] - alone["status"]) / (size.small - 1)
    rate = size.shards * 2 * MIB / max(1e-3, big["add"] - alone["add"] - size.shards * each)
    return [
        Row(ADDED, 1000 * each, unit="ms"),
        Row(HASHED, rate / MIB, unit="MiB/s"),
        Row("dvc status, a file more", 1000 * looked, unit="ms"),
        Row(LISTED, small["list"] / size.small, unit="B"),
    ]


def _dvc_add(folder: Path, count: int, weight: int) -> Found:
    rng = np.random.default_rng(0)
    (folder / "out").mkdir(parents=True)
    for number in range(count):
        (folder / "out" / f"{number:06d}").write_bytes(rng.bytes(weight))
    around = {**os.environ, "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(folder / "site")}

    def dvc(*words: str) -> float:
        begun = time.perf_counter()
        subprocess.run((sys.executable, "-m", "dvc", *words), cwd=folder, env=around, check=True, capture_output=True)
        return time.perf_counter() - begun

    dvc("init", "--no-scm", "--quiet")
    found = {"add": dvc("add", "--quiet", "out"), "status": min(dvc("status") for _ in range(3))}
    say(f"  dvc, {count} files of {weight:,} B: add {found['add']:.3g} s, status {found['status']:.3g} s")
    return found | {"list": sum(_weight(path) for path in folder.glob(".dvc/cache/files/md5/*/*.dir"))}


# --------------------------------------------------------------------------------------------------------- main


def workers(size: Size, folder: Path) -> Part:
    """What a second machine of a cluster gains."""
    from benchmarks import machines

    return machines.workers(size.rounds, size is QUICK), {}


def driver(size: Size, folder: Path) -> Part:
    """What the process holds that drives a cluster."""
    from benchmarks import machines

    return machines.driver(size is QUICK), {}


PARTS: dict[str, Callable[[Size, Path], Part]] = {
    "planning": planning,
    "rates": rates,
    "workers": workers,
    "driver": driver,
}


def main() -> None:
    """Measure the parts asked for and write the JSON, or print the tables."""
    parser = arguments(__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all), or arithmetic")
    parser.add_argument(
        "--core-hour", type=float, default=arithmetic.Prices.core_hour, help="of arithmetic: assumed price, $"
    )
    parser.add_argument(
        "--gb-month", type=float, default=arithmetic.Prices.gb_month, help="of arithmetic: assumed price, $"
    )
    given = parser.parse_args()
    if given.parts == ["arithmetic"]:
        prices = arithmetic.Prices(given.core_hour, given.gb_month)
        print("\n\n".join(arithmetic.tables(prices)))
        return
    if strange := sorted(set(given.parts) - set(PARTS)):
        parser.error(f"no part {strange[0]!r}: there are {', '.join(PARTS)}, or arithmetic alone")
    size = QUICK if given.quick else FULL
    out = given.out or (None if given.quick else RESULTS / "scale.json")
    wanted = given.parts or list(PARTS)
    rows, facts = rows_before(out, wanted)
    for part in wanted:
        say(part)
        with tempfile.TemporaryDirectory(prefix="bench-scale-") as folder:
            found, facts[part] = PARTS[part](size, Path(folder))
        facts[part]["rows"] = [row.name for row in found]
        rows += found
    report("scale", rows, [], facts, out)


if __name__ == "__main__":
    main()
