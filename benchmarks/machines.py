"""What a Ray cluster gains, and what the process that drives it holds: parts `workers` and `driver` of scale.py."""

from __future__ import annotations

import logging
import multiprocessing
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.common import UCF_SIZE, Row, indexed, make_clips, real_clips, real_data, say
from moclip.motion.extract import extract
from moclip.workers.cluster import Cluster

SHARD = 256  # frames: several jobs for each of two workers


@contextmanager
def nodes(count: int) -> Iterator[str]:
    """Yield the address of a Ray cluster of `count` nodes with a core each, on this machine."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    logging.getLogger("ray").setLevel(logging.ERROR)
    from ray.cluster_utils import Cluster as Nodes

    cluster = Nodes(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for _ in range(count - 1):
            cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        yield str(cluster.address)
    finally:
        cluster.shutdown()


def run_there(clips: pd.DataFrame, address: str, folder: Path) -> float:
    """Extract all clips on a cluster; seconds, without connecting to it."""
    with Cluster(address) as cluster:
        shutil.rmtree(folder, ignore_errors=True)
        begun = time.perf_counter()
        _extract(clips, folder, cluster=cluster)
        return time.perf_counter() - begun


def _extract(clips: pd.DataFrame, folder: Path, **how: Any) -> None:
    extract(clips, root="/", zarr_path=folder / "mv.zarr", table_path=folder / "mv.parquet", shard_frames=SHARD, **how)


def workers(times: int, quick: bool) -> list[Row]:
    """Extraction with one and two workers of a core each, as processes and as nodes of a cluster: efficiency."""
    folder = real_data()
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        paths = real_clips(folder) if folder else make_clips(place, "h264", UCF_SIZE, 8, 200, b_frames=2)
        clips = indexed(paths[:4] if quick else paths, times=1 if quick else 3)
        best = {(engine, count): float("inf") for engine in ("processes", "ray") for count in (1, 2)}
        for _ in range(times):
            for engine, count in best:
                if engine == "processes":
                    shutil.rmtree(place / "out", ignore_errors=True)
                    begun = time.perf_counter()
                    _extract(clips, place / "out", workers=count)
                    took = time.perf_counter() - begun
                else:
                    with nodes(count) as address:
                        run_there(clips[:2], address, place / "out")  # its workers start
                        took = run_there(clips, address, place / "out")
                say(f"  {engine}, {count} workers: {took:.3g} s")
                best[engine, count] = min(best[engine, count], took)
    frames = float(clips["frames"].sum())
    rows = [
        Row(f"{engine}: 2 workers of a core, frames/s, beside twice those of 1", frames / two, 2 * frames / one)
        for engine, one, two in ((name, best[name, 1], best[name, 2]) for name in ("processes", "ray"))
    ]
    return [
        *rows,
        Row("2 nodes of a cluster beside 2 processes", frames / best["ray", 2], frames / best["processes", 2]),
    ]


def driver(quick: bool) -> list[Row]:
    """The most memory that the process held which drives a cluster, for more and more clips: MB, and its growth."""
    counts = (100, 400) if quick else (4_000, 16_000, 64_000)
    with tempfile.TemporaryDirectory() as made, nodes(2) as address:
        place = Path(made)
        few = indexed(make_clips(place, "mpeg4", (48, 64), 4, 12))
        held = {}
        for count in counts:
            turns = -(-count // len(few))
            clips = pd.concat([few.assign(id=f"{turn:06d}/" + few["id"]) for turn in range(turns)], ignore_index=True)
            clips.to_parquet(place / "clips.parquet")
            held[count] = _apart(_drive, str(place / "clips.parquet"), address, str(place / str(count)))
            say(f"  {count} clips: {held[count]:.0f} MB")
    first, last = counts[0], counts[-1]
    rows = [Row(f"memory of the driver, {count:,} clips", held[count], held[first], "MB") for count in counts[1:]]
    growth = 1e6 * (held[last] - held[first]) / (last - first)
    return [*rows, Row("memory of the driver, more for each clip", growth, None, "bytes", 2000, at_most=True)]


def _apart(work: Any, *given: str) -> float:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return float(pool.apply(work, given))


def _drive(clips: str, address: str, folder: str) -> float:
    """In a process of its own: extract, and tell the most memory that it held in MB."""
    with Cluster(address) as cluster:
        _extract(pd.read_parquet(clips), Path(folder), cluster=cluster)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
