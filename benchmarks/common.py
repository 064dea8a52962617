"""What the benchmarks share: the machine, a copy of the product, and the clips to measure on."""

from __future__ import annotations

import importlib.metadata
import itertools
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd

from moclip.video.clip_files import VIDEO_SUFFIXES, file_md5
from moclip.video.probe import probe

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = (
    "dvc.yaml", ".dvcignore", ".gitignore", "pipeline", "stages", "src", "data/none", "data/prompts.json",
    "data/classes",
)  # fmt: skip
REAL_DATA = "MOCLIP_REAL_DATA"
LIBRARIES = (
    "av", "motion-vector-extractor", "numpy", "opencv-python-headless", "opencv-python", "tensorstore",
    "timm", "torch", "transformers", "zarr", "zstandard",
)  # fmt: skip
UCF_SIZE, HD_SIZE = (240, 320), (720, 1280)  # (height, width), px


def copy_product(folder: Path) -> None:
    """Copy the code and files that a new project needs, without data and parameters."""
    for name in PRODUCT:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, target)


def print_progress(text: str) -> None:
    """Print a line of progress to stderr."""
    print(text, file=sys.stderr, flush=True)


def rounded(value: float | None) -> float | None:
    """Round to the four digits that the results file keeps."""
    return None if value is None else float(f"{value:.4g}")


def describe_machine() -> dict[str, Any]:
    """Describe what the figures depend on, except the code."""
    import torch

    installed = {found.metadata["Name"].lower(): found.version for found in importlib.metadata.distributions()}
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "ffmpeg of av": str(av.ffmpeg_version_info),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "libraries": {name: installed[name] for name in LIBRARIES if name in installed},
    }


def describe_processor() -> str:
    """Return the processor's name, and its widest instructions for products of matrices."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor() or platform.machine()
    entries = dict(re.findall(r"^(model name|flags)\s*: (.*)$", cpuinfo.read_text(), re.MULTILINE))
    flags = set(entries.get("flags", "").split())
    widest = [name for name in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if name in flags][:1]
    return " with ".join([entries.get("model name", platform.machine()), *widest])


def real_data() -> Path | None:
    """Return the folder of real clips, if this machine has one."""
    folder = os.environ.get(REAL_DATA)
    return Path(folder) if folder else None


def real_clips(folder: Path) -> list[Path]:
    """Return the surveillance clips: H.264, most with B-frames."""
    return sorted(path for path in (folder / "fight_surv" / "videos").rglob("*") if path.suffix in VIDEO_SUFFIXES)


def index_clips(paths: Sequence[Path], times: int = 1) -> pd.DataFrame:
    """Return the table that `extract` needs, with each clip under `times` names. This also warms the file cache."""
    rows = []
    for path in paths:
        info = probe(path)
        row = {
            "path": str(path.resolve()),
            "md5": file_md5(path),
            "frames": info.frames,
            "codec": info.codec,
            "has_b": info.has_b,
            "damage": info.damage,
        }
        rows += [{"id": f"{turn:03d}/{path.stem}", **row} for turn in range(times)]
    return pd.DataFrame(rows).sort_values("id", ignore_index=True)


def make_clips(
    folder: Path, codec: str, size: tuple[int, int], count: int, frames: int, *, b_frames: int = 0
) -> list[Path]:
    """Encode `count` clips of at most `frames` frames, of real clips if there are any, else of a texture."""
    suffix = ".avi" if codec == "mpeg4" else ".mp4"
    sources = _sources(size, count)
    return [
        encode(folder / f"{codec}_{size[0]}_{b_frames}_{number}{suffix}", pictures, codec, size, b_frames, frames)
        for number, pictures in enumerate(sources)
    ]


def _sources(size: tuple[int, int], count: int) -> list[Iterator[av.VideoFrame]]:
    folder = real_data()
    if folder is None:
        return [rendered_pictures(size, seed) for seed in range(count)]
    fits = [path for path in real_clips(folder) if size[0] < 720 or _coded_height(path) >= 720]
    return [_decoded(itertools.islice(itertools.cycle(fits), number, None, count)) for number in range(count)]


def _coded_height(path: Path) -> int:
    with av.open(str(path)) as container:
        return container.streams.video[0].height


def _decoded(paths: Iterable[Path]) -> Iterator[av.VideoFrame]:
    for path in paths:
        with av.open(str(path)) as container:
            yield from container.decode(container.streams.video[0])


def rendered_pictures(size: tuple[int, int], seed: int) -> Iterator[av.VideoFrame]:
    """Yield endless pictures of a swaying texture and a square that crosses it."""
    rng = np.random.default_rng(seed)
    height, width = size
    reach = 64
    coarse = rng.integers(0, 256, (height // 4 + reach, width // 4 + reach), np.uint8)
    texture = np.kron(coarse, np.ones((4, 4), np.uint8))
    for number in itertools.count():
        top, left = (round(reach / 2 * (1 + np.sin(number / pace + seed))) for pace in (9, 13))
        picture = texture[top : top + height, left : left + width].copy()
        side, across = height // 4, (5 * number) % (width - height // 4)
        picture[side : 2 * side, across : across + side] = texture[:side, :side]
        yield av.VideoFrame.from_ndarray(picture, format="gray")


def encode(
    path: Path, pictures: Iterable[av.VideoFrame], codec: str, size: tuple[int, int], b_frames: int, frames: int
) -> Path:
    """Encode the first `frames` pictures, scaled to `size` (height, width), at 25 per second and usual quality."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264" if codec == "h264" else codec, rate=25)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = 12 if codec == "mpeg4" else 50
        stream.codec_context.max_b_frames = b_frames
        x264 = {"crf": "23", "preset": "veryfast", "x264-params": f"bframes={b_frames}"}
        stream.options = x264 if codec == "h264" else {"flags": "+qscale", "global_quality": str(3 * 118)}
        for number, picture in enumerate(itertools.islice(pictures, frames)):
            scaled = picture.reformat(size[1], size[0], "yuv420p")
            scaled.pts, scaled.time_base, scaled.pict_type = number, Fraction(1, 25), 0
            container.mux(stream.encode(scaled))
        container.mux(stream.encode(None))
    return path


def repeat_clip(source: Path, path: Path, seconds: int) -> int:
    """Repeat the packets of `source` until the clip has this length. Return its number of frames."""
    with av.open(str(source)) as once, av.open(str(path), "w") as container:
        stream = once.streams.video[0]
        packets = [packet for packet in once.demux(stream) if packet.size]
        copy = container.add_stream_from_template(stream)
        length = int(len(packets) / 25 / stream.time_base)  # of one round, in the stream's unit of time
        times = [(packet.pts, packet.dts) for packet in packets]
        rounds = -(-seconds * 25 // len(packets))
        for turn in range(rounds):
            for packet, (pts, dts) in zip(packets, times, strict=True):
                packet.stream = copy
                packet.pts, packet.dts, packet.time_base = pts + turn * length, dts + turn * length, stream.time_base
                container.mux(packet)
                packet.time_base = stream.time_base
    return rounds * len(packets)
