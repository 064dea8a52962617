"""Reckon what data sets of any size cost, from what the benchmarks have measured: the tables of docs/scale.md.

Printed by `python -m benchmarks.scale arithmetic`.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import RESULTS
from moclip.files.links import write_link
from moclip.store.layout import CHUNK_FRAMES, SHARD_FRAMES

GRID = (30, 40)  # cells of a field
PICTURE, MOTION, VIEWS = 512, 1280, 4  # numbers of an embedding, and augmented views of a clip
SEGMENTS = 32 + VIEWS * 3  # that a clip is embedded by: test protocol 32x1, views of three
EPOCHS = 200  # of MV-TSN in the paper
CLASSES, FRAMES = 700, 300  # of Kinetics; of a clip of 10 s
UCF_CLIPS, UCF_FRAMES, UCF_BYTES = 13_320, 2_400_000, 6.5e9
READS = 3  # of a clip's file: index, extraction, CLIP
MEMORY, WAIT, CORES = 16e9, 3600.0, 64  # a usual machine, bytes; what is felt, s; a large machine
MIB = 2**20

# Names of rows, as they stand in benchmarks/results.
TOWER, MV_TSN = "ViT-B/32, a picture", "EfficientNet-B0 at 224 px, a segment"
TRAINING = "EfficientNet-B0 at 224 px, a training step on a clip of 3 segments"
PROBE, STILL = "index, a clip: decoded without its pixels, MD5", "CLIP's frame of a clip, decoded"
FRAME = "a frame of real H.264, in its file"
INDEX_HELD = "a clip in the index stage"
SPLIT_HELD = f"a clip that is its own source in a split by sources, {CLASSES} classes"
HEAD_HELD = f"a clip in the head's training, {VIEWS} views"
ADDED, HASHED, LISTED = "dvc add, a file more", "dvc add, the bytes", "DVC's list of a folder, a file"
STORED = "13,320 clips: size of the store"
DRIVER = "memory of the driver, more for each clip"
HEAD = "dvc exp run -S fusion.lr=1e-4, 100 epochs"
MPEG4 = "UCF-101 AVI, 1 w.: auto / bare PyAV"
H264 = "real H.264 with B, 1 w.: auto / bare PyAV (1 thread)"

Table = list[Sequence[str]]


@dataclass(frozen=True)
class Prices:
    """Assumed, in dollars: of a core for an hour, and of a gigabyte (10^9 bytes) kept for a month."""

    core_hour: float = 0.04
    gb_month: float = 0.023


@dataclass(frozen=True)
class DataSet:
    """A data set to reckon with. `frame_bytes` is of a frame in its file, `speed` in frames/s of one core."""

    name: str
    clips: int
    frames: float
    frame_bytes: float
    speed: float
    classes: int = CLASSES

    @property
    def all_frames(self) -> float:
        return self.clips * self.frames


class Figures:
    """What has been measured, from benchmarks/results."""

    def __init__(self) -> None:
        names = ("extract", "read", "head", "scale")
        self.files = {name: json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")) for name in names}
        self.planning = self.files["scale"]["facts"]["planning"]
        self.field = self.row("read", STORED) * MIB / UCF_FRAMES  # bytes of a stored field
        self.filled = self.step("planned afresh", "filled")  # share of the shards
        self.head = (
            self.row("head", HEAD) * self.files["head"]["machine"]["cores"] / self.files["head"]["facts"]["train"]
        )

    def row(self, file: str, name: str) -> float:
        """The figure of a row, ours."""
        return float(next(row["ours"] for row in self.files[file]["rows"] if row["name"] == name))

    def rate(self, name: str) -> float:
        """A row of scale.json that is in ms, in s."""
        return self.row("scale", name) / 1000

    def both(self, step: str) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
        """What a step of planning gave in each round, on the smaller index and on the larger."""
        few, many = (self.planning["steps"][f"{step}, {clips:,} clips"] for clips in self.planning["clips"])
        return few, many

    def held(self, step: str) -> float:
        """Bytes of memory that a further clip takes in a step of planning."""
        (few, many), clips = self.both(step), self.planning["clips"]
        return max(0.0, max(many["peak"]) - max(few["peak"])) * MIB / (clips[1] - clips[0])

    def exponents(self, step: str) -> list[float]:
        """How a step's processor time grows with the clips: by the best rounds; the least and the most of a round."""
        (few, many), clips = self.both(step), self.planning["clips"]
        rounds = [large / small for small, large in zip(few["busy"], many["busy"], strict=True)]
        ratios = (min(many["busy"]) / min(few["busy"]), min(rounds), max(rounds))
        return [math.log(ratio) / math.log(clips[1] / clips[0]) for ratio in ratios]

    def step(self, step: str, what: str) -> float:
        """What a step of planning gave on the larger index, the best of its rounds."""
        return float(min(self.both(step)[1][what]))

    def each(self, step: str, what: str) -> float:
        """The same for each clip."""
        return self.step(step, what) / float(self.planning["clips"][1])

    def data_set(self, name: str, clips: int) -> DataSet:
        """Clips of 10 s as the real ones measured here are."""
        return DataSet(name, clips, FRAMES, self.row("scale", FRAME), self.row("extract", H264))

    def data_sets(self) -> list[DataSet]:
        frames, frame_bytes = UCF_FRAMES / UCF_CLIPS, UCF_BYTES / UCF_FRAMES
        return [
            DataSet("UCF-101", UCF_CLIPS, frames, frame_bytes, self.row("extract", MPEG4), 101),
            self.data_set("Kinetics-700", 650_000),
            self.data_set("100 million clips", 100_000_000),
        ]


# ------------------------------------------------------------------------------------------------------ arithmetic


def kept(figures: Figures, data: DataSet) -> dict[str, float]:
    """Bytes of everything that is kept of a data set."""
    return {
        "the clips themselves": data.all_frames * data.frame_bytes,
        "fields, int8 2 x 30 x 40 a frame": data.all_frames * 2 * math.prod(GRID),
        "fields as stored": data.all_frames * figures.field,
        "CLIP embeddings, raw and of unit length": data.clips * 2 * 4.0 * PICTURE,
        f"MV embeddings, {VIEWS} views and the protocol": data.clips * 4.0 * ((VIEWS + 1) * MOTION + data.classes),
        "index": data.clips * figures.each("index written whole", "bytes"),
        "table of the store": data.clips * figures.each("table written", "bytes"),
        "frame types": data.all_frames / figures.filled,
        "DVC's list of the shards": shards(figures, data) * figures.row("scale", LISTED),
        "a link in its place": _link(),
    }


def shards(figures: Figures, data: DataSet) -> float:
    return math.ceil(data.all_frames / SHARD_FRAMES / figures.filled)


def _link() -> float:
    with tempfile.TemporaryDirectory() as folder:
        write_link(Path(folder) / "mv.zarr", f"s3://bucket/project/mv-{'0' * 16}.zarr", "0" * 16)
        return float(sum(path.stat().st_size for path in Path(folder).rglob("*.json")))


def busy(figures: Figures, data: DataSet) -> dict[str, float]:
    """Seconds of one core for everything that is done to a data set."""
    return {
        "index": data.clips * figures.rate(PROBE),
        "planning": data.clips * figures.each("planned afresh", "seconds"),
        "extraction": data.all_frames / data.speed,
        "CLIP, one frame": data.clips * (figures.rate(STILL) + figures.rate(TOWER)),
        f"MV embedding, {SEGMENTS} segments a clip": data.clips * SEGMENTS * figures.rate(MV_TSN),
        "MV-TSN, an epoch": data.clips * figures.rate(TRAINING),
        f"MV-TSN, {EPOCHS} epochs": data.clips * EPOCHS * figures.rate(TRAINING),
        "head, 100 epochs": data.clips * figures.head,
    }


def sent(figures: Figures, data: DataSet) -> dict[str, float]:
    """Bytes over the network where clips and features lie in an object store."""
    files, chunk = kept(figures, data), CHUNK_FRAMES * figures.field
    return {
        f"clips, read {READS} times": READS * files["the clips themselves"],
        "fields, written": files["fields as stored"],
        "fields, read for the embedding": data.clips * SEGMENTS * chunk,
        "fields, read in an epoch": data.clips * 3 * chunk,
    }


# ---------------------------------------------------------------------------------------------------------- tables


def sources(figures: Figures) -> Table:
    """The figures that all others are made of."""

    def ms(what: str, seconds: float, file: str = "scale") -> tuple[str, str, str]:
        return what, f"{_number(1000 * seconds)} ms", file

    return [
        ("of one core, or of one clip", "", "benchmarks/results"),
        ("fields read from MPEG-4 at 320 x 240", f"{_number(figures.row('extract', MPEG4))} frames/s", "extract"),
        (
            "from real H.264 of mixed sizes with B-frames",
            f"{_number(figures.row('extract', H264))} frames/s",
            "extract",
        ),
        ("a frame of these in its file", f"{_number(figures.row('scale', FRAME))} B", "scale"),
        (f"a field as stored, of {2 * math.prod(GRID):,} B", f"{_number(figures.field)} B", "read"),
        ms("index: decoded without its pixels, MD5", figures.rate(PROBE)),
        ms("CLIP: a frame decoded", figures.rate(STILL)),
        ms("CLIP: ViT-B/32, a picture", figures.rate(TOWER)),
        ms("MV-TSN: EfficientNet-B0 at 224 px, a segment", figures.rate(MV_TSN)),
        ms("MV-TSN: a training step, three segments", figures.rate(TRAINING)),
        ms("head: 100 epochs, DVC included", figures.head, "head"),
        ("planning afresh", f"{_number(1e6 * figures.each('planned afresh', 'seconds'))} µs", "scale"),
        ("index, Parquet", f"{_number(figures.each('index written whole', 'bytes'))} B", "scale"),
        ("table of the store, Parquet", f"{_number(figures.each('table written', 'bytes'))} B", "scale"),
        ("DVC: a file more, and the bytes", _hashing(figures), "scale"),
    ]


def _hashing(figures: Figures) -> str:
    return f"{_number(figures.row('scale', ADDED))} ms, {_number(figures.row('scale', HASHED))} MiB/s"


def sizes(figures: Figures) -> Table:
    """Clips, frames, shards and bytes of each data set, kept and sent."""
    sets = figures.data_sets()
    return [
        ("", *(one.name for one in sets)),
        ("clips", *(_count(one.clips) for one in sets)),
        ("frames", *(_count(one.all_frames) for one in sets)),
        (f"shards of {SHARD_FRAMES:,} frames", *(_count(shards(figures, one)) for one in sets)),
        *_side_by_side([kept(figures, one) for one in sets], _bytes),
        *(("network: " + row[0], *row[1:]) for row in _side_by_side([sent(figures, one) for one in sets], _bytes)),
    ]


def times(figures: Figures) -> Table:
    """Core-hours of each data set."""
    sets = figures.data_sets()
    hours = [{what: seconds / 3600 for what, seconds in busy(figures, one).items()} for one in sets]
    return [("core-hours", *(one.name for one in sets)), *_side_by_side(hours, _number)]


def costs(figures: Figures, prices: Prices) -> Table:
    """What a million clips of 300 frames cost at the assumed prices."""
    data = figures.data_set("a million", 10**6)
    hours = {what: seconds / 3600 for what, seconds in busy(figures, data).items()}
    month = [what for what, size in kept(figures, data).items() if size > 1e9 and not what.startswith("fields, int8")]
    return [
        (f"a million clips of {FRAMES} frames", "", "dollars"),
        *((what, f"{_number(one)} core-h", _number(one * prices.core_hour)) for what, one in hours.items()),
        *((f"a month of: {what}", *_month(kept(figures, data)[what], prices)) for what in month),
    ]


def _month(size: float, prices: Prices) -> tuple[str, str]:
    return _bytes(size), _number(size / 1e9 * prices.gb_month)


def limits(figures: Figures) -> Table:
    """At how many clips of 300 frames each part of the design meets a limit, the lowest first."""
    clip = figures.data_set("one", 10**6)
    hashed = clip.all_frames * figures.field / MIB / figures.row("scale", HASHED)
    hashed += shards(figures, clip) * figures.rate(ADDED)
    memory = {
        "head: training data, read whole": figures.row("scale", f"{HEAD_HELD}: memory"),
        f"split by sources, each clip its own, {CLASSES} classes": figures.row("scale", f"{SPLIT_HELD}: memory"),
        "index: rows as Python objects": figures.row("scale", f"{INDEX_HELD}: memory"),
        "frame types: one chunk, the old one beside the new": 2 * FRAMES / figures.filled,
        "index: one Parquet, read whole by a stage": figures.held("index read whole"),
        "table of the store, in each process that reads fields": figures.held("store opened"),
        "planning again": figures.held("planned again"),
        "driver of an extraction on a cluster": figures.row("scale", DRIVER),
    }
    wait = {
        "DVC hashing the shards": hashed / clip.clips,
        f"index: one machine of {CORES} cores": figures.rate(PROBE) / CORES,
        "planning afresh, one core": figures.each("planned afresh", "seconds"),
    }
    rows = [(MEMORY / one, what, f"{_number(one)} B a clip", _bytes(MEMORY)) for what, one in memory.items()]
    rows += [(WAIT / one, what, f"{_number(1e6 * one)} µs a clip", "1 h") for what, one in wait.items()]
    return [
        ("what", "measured", "limit", "met at"),
        *((what, one, most, f"{_count(clips)} clips") for clips, what, one, most in sorted(rows)),
    ]


def machines(figures: Figures) -> Table:
    """What a second worker gains, and what the driver of a cluster holds."""
    scale = figures.files["scale"]
    gains = [row for row in scale["rows"] if row["name"] in scale["facts"]["workers"]["rows"]]
    held = [row for row in scale["rows"] if row["name"] in scale["facts"]["driver"]["rows"]]
    return [
        ("", "measured", "beside", "ratio"),
        *((row["name"], _number(row["ours"]), _number(row["theirs"]), f"{row['ratio']:.2f}") for row in gains),
        *((row["name"], f"{_number(row['ours'])} {row['unit']}", "", "") for row in held),
    ]


def simulated(figures: Figures) -> Table:
    """Each step of planning: seconds of the best round at either size, growth, memory."""
    rows = []
    for step in dict.fromkeys(name.rsplit(", ", 1)[0] for name in figures.planning["steps"]):
        few, many = figures.both(step)
        seconds = [f"{_number(min(found['seconds']))} s" if min(found["seconds"]) else "" for found in (few, many)]
        best, least, most = figures.exponents(step) if seconds[0] else (0.0, 0.0, 0.0)
        spread = f" ({least:.2f} to {most:.2f})" if least < most else ""
        growth = f"{best:.2f}{spread}" if seconds[0] else ""
        rows.append((step, *seconds, growth, f"{_number(max(many['peak']))} MiB", f"{_number(figures.held(step))} B"))
    few_clips, many_clips = (f"{_count(clips)} clips" for clips in figures.planning["clips"])
    return [("", few_clips, many_clips, "exponent", "peak memory", "a further clip"), *rows]


def tables(prices: Prices) -> list[str]:
    """All of them, as Markdown."""
    figures = Figures()
    return [_markdown(table) for table in (
        sources(figures), sizes(figures), times(figures), costs(figures, prices), simulated(figures), machines(figures),
        limits(figures),
    )]  # fmt: skip


def _side_by_side(columns: Sequence[dict[str, float]], shown: Callable[[float], str]) -> Iterator[tuple[str, ...]]:
    return ((what, *(shown(one[what]) for one in columns)) for what in columns[0])


def _markdown(table: Table) -> str:
    head, *rows = ("| " + " | ".join(cells) + " |" for cells in table)
    return "\n".join([head, "|" + "---|" * len(table[0]), *rows])


def _number(value: float) -> str:
    """Three digits, but large numbers whole: 0.993, 17.3, 1,730."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if rounded >= 100 else f"{rounded:g}"


def _count(value: float) -> str:
    for unit, name in ((1e9, "billion"), (1e6, "million")):
        if value >= unit:
            return f"{_number(value / unit)} {name}"
    return _number(value) if value > 1e5 else f"{value:,.0f}"


def _bytes(value: float) -> str:
    for unit, name in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= unit:
            return f"{_number(value / unit)} {name}"
    return f"{_number(value)} B"
