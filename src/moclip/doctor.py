"""What this machine has, and how exactly it reads motion vectors: facts, each with a verdict and what to do about it.

Called by `moclip doctor`, which adds what concerns the project. Everything here works where packages are missing, too.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from moclip.video import Vectors

OK, WARNING, PROBLEM = "ok", "warning", "problem"
"""As it should be; something does not work that one may do without; nothing works until it is mended."""

ROOM = 2e9
"""Bytes of memory, or of free disk, below which there is a warning."""
HUB_SECONDS = 3.0
"""How long the hub has to answer."""
READS = 10
"""How often each reader reads each clip. Of ten reads by mvextractor, nine differed where it loses vectors."""
TOLERANCE = 0.25
"""Mean error in px, a codec's finest step, beyond which vectors are wrong."""


@dataclass(frozen=True)
class Finding:
    """A fact: what was looked at, what was found, whether that is well, and what to do where it is not.

    `figures` holds the numbers behind `found`, for programs.
    """

    what: str
    found: str
    state: str = OK
    advice: str = ""
    figures: dict[str, Any] = field(default_factory=dict)


# -------------------------------------------------------------------------------------------------- versions

PIPELINE = ("dvc", "dvclive", "pandas", "tensorstore", "zarr")
"""What exported models work without."""
OPTIONAL = {
    "motion-vector-extractor": "not needed: PyAV reads every clip",
    "onnxruntime": "needed for ONNX models only",
}
_PYAV = "install PyAV from PyPI: pip install av"
_EXTRA = "pip install 'moclip[pipeline]'; without it only exported models work"


def versions() -> list[Finding]:
    """Python, this package and those it is built on; of PyTorch and torchvision also whether they load."""
    found = [Finding("python", platform.python_version()), _package("moclip", PROBLEM, "pip install .")]
    found += [_loaded(_package(name, PROBLEM, f"pip install {name}")) for name in ("torch", "torchvision")]
    found += [_package(name, PROBLEM, f"pip install {name}") for name in ("timm", "transformers", "av")]
    found += [_package(name, WARNING, _EXTRA) for name in PIPELINE]
    found += [_package(name, OK, advice) for name, advice in OPTIONAL.items()]
    return [*found, _ffmpeg()]


def _package(name: str, absent: str, advice: str) -> Finding:
    try:
        return Finding(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "not installed", absent, advice)


def _loaded(package: Finding) -> Finding:
    """A package that is installed may still not load: a torchvision built for another torch, say."""
    if package.state != OK:
        return package
    try:
        importlib.import_module(package.what)
    except Exception as problem:
        found = f"{package.found}, does not load: {_first_line(problem)}"
        return replace(package, found=found, state=PROBLEM, advice="install torch and torchvision as one pair")
    return package


def _ffmpeg() -> Finding:
    try:
        import av
    except Exception as problem:
        return Finding("FFmpeg of av", f"av does not load: {_first_line(problem)}", PROBLEM, _PYAV)
    libraries = ", ".join(
        f"{name} {'.'.join(map(str, number))}"
        for name, number in sorted(av.library_versions.items())
        if name in ("libavcodec", "libavformat", "libswscale")
    )
    return Finding("FFmpeg of av", f"{av.ffmpeg_version_info}: {libraries}")


def _first_line(problem: BaseException) -> str:
    return next(iter(str(problem).splitlines()), type(problem).__name__)


# ---------------------------------------------------------------------------------------------------- device


def device(folder: str | Path = ".") -> list[Finding]:
    """Processor, GPU, memory, and the disk that `folder` lies on."""
    return [
        Finding("processor", _processor()),
        Finding("cores for this process", str(_cores())),
        *_torch(),
        _memory(),
        disk("disk", folder),
    ]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # macOS
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _cores() -> int:
    # macOS has no affinity
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _torch() -> list[Finding]:
    try:
        import torch

        from moclip.training import autocast_type
    except Exception:  # said among the versions
        return []
    native = autocast_type("auto", torch.device("cpu"), dense=True) == torch.bfloat16
    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return [
        Finding("threads of torch", str(torch.get_num_threads())),
        Finding("bfloat16 in the processor", "yes" if native else "no"),
        Finding("GPU", "; ".join(f"{gpu.name}, {_size(gpu.total_memory)}" for gpu in gpus) or "none"),
    ]


def _memory() -> Finding:
    """The machine's, or less where a container has a limit."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # no container, or "max"
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return Finding("memory", _size(total), *_enough(total, "lower tsn.batch, clip.batch, embed.batch"))


def disk(what: str, folder: str | Path, denied: str = PROBLEM) -> Finding:
    """Free space where `folder` is or will be; `denied` is the verdict where this process may not write there."""
    folder = Path(folder).resolve()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if not os.access(there, os.W_OK):
        return Finding(what, f"{folder}: no permission to write", denied, "choose another folder")
    return Finding(what, f"{folder}: {_size(free)} free", *_enough(free, "make room"))


def _enough(size: float, advice: str) -> tuple[str, str]:
    return (OK, "") if size >= ROOM else (WARNING, advice)


def _size(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


# ---------------------------------------------------------------------------------------------------- codecs

SILENT = ("hevc", "vp9", "av1")
"""Codecs of which FFmpeg decodes the pictures and exports no motion vectors."""
ENCODERS = {"mpeg4": "needed by index.transcode: mpeg4", "libx264": "needed to draw into .mp4 files"}
_MOST_USED = ("h264", "mpeg4")
_SIZE = (144, 176)  # height and width in px: H.263 has few sizes


def codecs() -> list[Finding]:
    """Which codecs are decoded here, and which of them give motion vectors: tried on clips encoded for it."""
    try:
        from moclip.video import MOTION_CODECS
    except ImportError:  # said among the versions
        return []
    names = (*_MOST_USED, *sorted(MOTION_CODECS.difference(_MOST_USED)), *SILENT)
    with TemporaryDirectory(prefix="moclip-") as folder:
        found = [_codec(name, Path(folder) / f"{name}.nut") for name in names]  # a container that takes all of them
    return found + [_encoder(name, advice) for name, advice in ENCODERS.items()]


def _codec(codec: str, path: Path) -> Finding:
    found = f"decoder; {_tried(codec, path)}" if _has(codec, "r") else "no decoder"
    if codec in SILENT and _has(codec, "r"):
        return Finding(codec, found, OK, "read such clips with index.transcode: mpeg4")
    if found in (f"decoder; {_EXPORTS}", f"decoder; {_NOT_TRIED}"):
        return Finding(codec, found)
    return Finding(codec, found, PROBLEM if codec in _MOST_USED else WARNING, _PYAV)


_EXPORTS, _NOT_TRIED = "exports motion vectors", "not tried, there is no encoder"


def _tried(codec: str, path: Path) -> str:
    """What comes of reading the motion vectors of a clip encoded at `path`."""
    from moclip import video

    os.environ.setdefault("SVT_LOG", "1")  # of the AV1 encoder: errors only
    try:
        _encode(path, _panning(6, _SIZE), _has(codec, "w"), {"x265-params": "log-level=none"})
    except Exception:  # it may also be one that wants hardware
        return _NOT_TRIED
    try:
        video.read_vectors(path, "pyav")
    except video.VideoError as problem:
        return problem.what
    return _EXPORTS


def _encoder(name: str, use: str) -> Finding:
    return Finding(f"encoder {name}", "here") if _has(name, "w") else Finding(f"encoder {name}", "none", WARNING, use)


def _has(codec: str, mode: str) -> str:
    """The name of FFmpeg's decoder ("r") or encoder ("w"), empty where there is none."""
    from av.codec import Codec

    try:
        return str(Codec(codec, mode).name)
    except ValueError:  # PyAV's UnknownCodecError
        return ""


# ------------------------------------------------------------------------------------------------------- hub

_WITHOUT = "what is in its cache still works, and what is in a folder that clip.model or tsn.pretrained names"


def hub() -> list[Finding]:
    """Whether the model hub answers (or is switched off), where its cache is and how much that holds."""
    try:
        from huggingface_hub import constants
    except ImportError:
        return [Finding("huggingface_hub", "not installed", PROBLEM, "pip install transformers")]
    return [_endpoint(constants.ENDPOINT, constants.HF_HUB_OFFLINE), *_cache(Path(constants.HF_HUB_CACHE))]


def _endpoint(url: str, offline: bool) -> Finding:
    if offline:
        return Finding("hub", f"{url}: not asked, the environment says offline", WARNING, _WITHOUT)
    said: list[str] = []
    # a name that does not resolve may keep a request for longer than its own time limit
    asking = threading.Thread(target=lambda: said.append(_asked(url)), daemon=True)
    asking.start()
    asking.join(HUB_SECONDS)
    answer = said[0] if said else f"no answer in {HUB_SECONDS:.0f} s"
    return Finding("hub", url) if not answer else Finding("hub", f"{url}: {answer}", WARNING, _WITHOUT)


def _asked(url: str) -> str:
    """Empty where the hub answered, else why it did not."""
    from huggingface_hub.utils import get_session

    try:
        status = get_session().head(url, timeout=HUB_SECONDS).status_code
    except Exception as problem:  # of whichever HTTP library this version has
        return _first_line(problem)
    return "" if status < 400 or status in (404, 405) else f"status {status}"  # a mirror may have no page at its root


def _cache(folder: Path) -> list[Finding]:
    held = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    space = disk("hub cache", folder, WARNING)
    return [replace(space, found=f"{space.found}, holds {_size(held)}")]


# ------------------------------------------------------------------------------------------------- exactness

STEP = (3, 1)  # px a frame, right and down
_LOOK = {"preset": "veryfast", "crf": "20", "threads": "1"}
_X264 = "ref=1:b-adapt=0:scenecut=0:weightp=0:"
CLIPS: dict[str, tuple[str, str, dict[str, str], int]] = {
    "MPEG-4": ("mpeg4", ".avi", {"flags": "+qscale", "global_quality": str(2 * 118), "threads": "1"}, 1),
    "H.264": ("libx264", ".mp4", _LOOK | {"x264-params": _X264 + "bframes=0"}, 1),
    # B-frames that others refer to are x264's habit, and those whose vectors frame threads lose
    "H.264, B-frames": ("libx264", ".mp4", _LOOK | {"x264-params": _X264 + "bframes=2:b-pyramid=normal"}, 3),
}
"""Encoder, container, its options, and the most frames from a block to the one it is predicted from."""


def exactness(reads: int = READS) -> list[Finding]:
    """How exactly each reader reads clips whose motion is known: encoded here, and read `reads` times by each.

    Of each: whether all answers are the same, how many of the blocks are equal to those of PyAV on one thread, and how
    far the vectors are from the known motion.
    """
    try:
        from moclip import video
    except ImportError:  # said among the versions
        return []
    backends = [name for name in ("pyav", "mvextractor") if name == "pyav" or video.has_mvextractor()]
    found = []
    with TemporaryDirectory(prefix="moclip-") as folder:
        for name, (encoder, suffix, options, reach) in CLIPS.items():
            path = Path(folder) / f"clip{suffix}"
            try:
                _encode(path, _panning(48, (240, 320)), encoder, options)
            except Exception as problem:
                found.append(Finding(name, f"not tried: {_first_line(problem)}", WARNING, _PYAV))
                continue
            found += [_exactness(name, path, backend, reach, reads) for backend in backends]
    return found


def _exactness(name: str, path: Path, backend: str, reach: int, reads: int) -> Finding:
    from moclip import video

    what = f"{name}, {backend}"
    try:
        reference = video.read_vectors(path, "pyav")
        answers = [video.read_vectors(path, backend) for _ in range(reads)]
    except video.VideoError as problem:
        return Finding(what, problem.what, PROBLEM, _PYAV)
    different = len({frozenset(_rows(answer).items()) for answer in answers})
    equal = min(equal_blocks(answer, reference) for answer in answers)
    error = max(error_px(answer, reach) for answer in answers)
    same = f"the same in {reads} reads" if different == 1 else f"{different} different answers in {reads} reads"
    finding = Finding(
        what,
        f"{same}, {equal:.1%} of the blocks as PyAV's, {error:.2f} px off",
        figures={"reads": reads, "answers": different, "equal_blocks": equal, "error_px": error},
    )
    if different == 1 and equal == 1 and error <= TOLERANCE:
        return finding
    if backend == "mvextractor":
        return replace(finding, state=WARNING, advice="nothing to do: such clips are always read with PyAV")
    return replace(finding, state=PROBLEM, advice=_PYAV)


def equal_blocks(vectors: Vectors, reference: Vectors) -> float:
    """Share of blocks that two readings of a clip have in common, of those of the one that has more."""
    one, other = _rows(vectors), _rows(reference)
    return (one & other).total() / max(one.total(), other.total())


def _rows(vectors: Vectors) -> Counter[bytes]:
    """Each block with the number of its frame, and how often it occurs."""
    rows = np.ascontiguousarray(np.column_stack([vectors.frame, vectors.blocks]), np.int32)
    return Counter(rows.view(f"V{rows.shape[1] * rows.itemsize}").ravel().tolist())


def error_px(vectors: Vectors, reach: int) -> float:
    """Mean absolute difference in px of the vectors' parts from the known motion, on blocks well inside the picture.

    Everything moves by `STEP` a frame; how many frames lie between a block and its source, up to `reach`, no file says.
    """
    blocks = vectors.blocks
    past, x, y = blocks[:, 0] < 0, blocks[:, 5], blocks[:, 6]
    margin = 16 + reach * max(STEP)  # a block at the edge may have its source outside
    inside = (x > margin) & (y > margin) & (x < vectors.width - margin) & (y < vectors.height - margin)
    if not inside.any():
        return float(np.mean(STEP))  # as if nothing moved
    moved = np.where(past, -1, 1)[:, None] * blocks[:, 7:9] / blocks[:, 9:]
    known = np.arange(1, reach + 1)[:, None, None] * np.array(STEP)
    return float(np.abs(moved[inside] - known).mean(axis=2).min(axis=0).mean())


def _panning(frames: int, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Pictures (height, width) uint8 of a smooth random texture that moves by `STEP` from each to the next."""
    (height, width), (dx, dy) = size, STEP
    rng = np.random.default_rng(0)
    texture = rng.random((height + frames * dy, width + frames * dx))
    for axis in (0, 1):
        texture = np.mean([np.roll(texture, shift, axis) for shift in range(-2, 3)], axis=0)
    low, high = texture.min(), texture.max()
    levels = ((texture - low) * (255 / (high - low))).astype(np.uint8)
    for left in range(frames, 0, -1):
        yield levels[left * dy :, left * dx :][:height, :width].copy()


def _encode(path: Path, pictures: Iterator[np.ndarray], encoder: str, options: Mapping[str, str] | None = None) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(encoder, rate=25, options=dict(options or {}))
        for number, picture in enumerate(pictures):
            if number == 0:
                stream.height, stream.width = picture.shape
                stream.pix_fmt = "yuv420p"
                stream.codec_context.max_b_frames = 0
            frame = av.VideoFrame.from_ndarray(picture, format="gray").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
