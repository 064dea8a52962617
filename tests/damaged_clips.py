"""Run the commands on damaged clips, and check the guarantees for each clip.

* Rows: each file with a clip's suffix has one in the index, each other file is counted as ignored, each clip that the
  index takes has one in the store's table, and there are no others. A row that is not ok says why.
* Lost: clips that are refused although everything of the good clip is in them as it was.
* Let in: files that are no clips and pass for one, such as a playlist that names another file.
* Wrong: clips with a field or a frame type in the store that is not what it should be. The fields of a clip must be (1)
  those of a plain loop of PyAV over the same file, and (2) those of the good clip on all frames whose data is intact
  and whose place is known: frames that a decoder returns before it sees the first packet that differs. After the damage
  only (1) is promised, because codecs have no checksums and a decoder makes up what it lacks (error concealment).
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import psutil
from av.error import FFmpegError
from av.sidedata.sidedata import SideDataContainer

from benchmarks.common import real_clips, real_data
from moclip.motion.field import motion_field
from moclip.motion.quantise import quantise
from moclip.store.reader import FieldReader
from moclip.video.clip_files import VIDEO_SUFFIXES
from moclip.video.geometry import read_orientation
from moclip.video.vector_records import VECTOR_COLUMNS, Vectors
from moclip.workers.processes import run_jobs_in_order
from tests.conftest import BIN, ROOT
from tests.mutants import Mutant, is_clip, rendered, small_enough

MOST_SOURCES = 16  # of each kind, that damaged clips are made of
CANVAS = (240, 320)  # px, of the preset
MOST_MB = 2000.0  # of a command that reads damaged clips


# ------------------------------------------------------------------------------------------- commands, watched


@dataclass(frozen=True)
class Ran:
    """A finished command: its exit code, its output, and the peak memory of its processes together, MB."""

    code: int
    printed: str
    peak_mb: float


def watched(*command: str | Path, cwd: Path) -> Ran:
    """Run a command as a user who is not root, and sample the memory of its processes."""
    most = 0
    with tempfile.TemporaryFile("w+", errors="replace") as printed:
        words = list(map(str, command))
        with psutil.Popen(
            words, cwd=cwd, env=environment(), stdout=printed, stderr=printed, preexec_fn=like_any_user
        ) as running:
            while running.poll() is None:
                try:
                    most = max(most, sum(one.memory_info().rss for one in (running, *running.children(recursive=True))))
                except psutil.Error:  # one of them has just ended
                    continue
                time.sleep(0.05)
        printed.seek(0)
        return Ran(running.returncode, printed.read(), most / 1e6)


def environment() -> dict[str, str]:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return {name: value for name, value in os.environ.items() if name != "DVC_ROOT"} | {"PATH": path}


def like_any_user() -> None:
    """Drop root's permission to read and write everything (on Linux: two capabilities)."""
    if sys.platform == "linux":
        drop, override, search = 24, 1, 2
        for capability in (override, search):
            ctypes.CDLL(None).prctl(drop, capability, 0, 0, 0)


def run_over(root: Path, project: Path) -> dict[str, Ran]:
    """Run `moclip index` and `moclip extract_mv` in a new project on the clips in a folder."""
    project.mkdir()
    watched("moclip", "use", "folder", "--root", root, "--force", cwd=project)
    return {stage: watched("moclip", stage, cwd=project) for stage in ("index", "extract_mv")}


# --------------------------------------------------------------------------------------- what fields should be


@dataclass(frozen=True)
class Fields:
    """What a plain decoding loop reads from a file.

    fields : int8 (T, 2, rows, columns); types : uint8 (T,).
    packets : a digest of each, with whether it is to be dropped; given : how many frames were out after each.
    setting : what the decoder was set up with, and how the pictures are to be shown.
    """

    fields: np.ndarray
    types: np.ndarray
    packets: tuple[bytes, ...]
    given: tuple[int, ...]
    setting: tuple[Any, ...]


def plain_fields(path: Path) -> Fields | None:
    """Read a file with a plain loop on one thread. Return None if it does not decode to pictures of one size.

    The arithmetic from vectors to fields is the library's, which other tests hold to a plain definition.
    """
    parts: list[Vectors] = []
    packets: list[bytes] = []
    given: list[int] = []
    with av.open(str(path), metadata_errors="replace") as container:
        stream: Any = container.streams.best("video")
        context = stream.codec_context
        size = (context.width, context.height)
        setting = (context.name, context.codec_tag, context.extradata, *size, context.has_b_frames)
        context.thread_type, context.options = "NONE", {"flags2": "+export_mvs"}
        blind = context.name not in ("h264", "mpeg1video", "mpeg2video")
        for packet in _demuxed(container, stream):
            try:
                pictures = context.decode(packet)
            except FFmpegError:
                pictures = []
            parts += [_vectors(picture, blind) for picture in pictures]
            if packet is not None and packet.size:
                dropped = bytes((packet.is_discard, packet.is_corrupt))
                packets.append(hashlib.sha256(bytes(packet) + dropped).digest())
                given.append(len(parts))
    if not parts or len({(part.width, part.height) for part in parts}) > 1:
        return None
    fields = np.concatenate([quantise(motion_field(part, CANVAS)) for part in _turned_alike(parts)])
    types = np.concatenate([part.frame_types for part in parts])
    return Fields(fields, types, tuple(packets), tuple(given), (*setting, parts[0].orientation))


def _demuxed(container: Any, stream: Any) -> Iterator[Any]:
    """Yield the packets, and at the end one that flushes the decoder."""
    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    except FFmpegError:
        pass
    yield None


def _turned_alike(parts: Sequence[Vectors]) -> Iterator[Vectors]:
    """Turn all pictures as the first one is shown."""
    for part in parts:
        yield Vectors(part.blocks, part.frame, part.frame_types, part.width, part.height, parts[0].orientation)


def _vectors(picture: Any, blind: bool) -> Vectors:
    letter = "?IPBPIPI"[int(picture.pict_type)]
    side = SideDataContainer(picture).get("MOTION_VECTORS")  # type: ignore[call-arg]
    blocks = np.empty((0, len(VECTOR_COLUMNS)), np.int32)
    if side is not None and not (blind and letter == "B"):
        found = side.to_ndarray()
        blocks = np.stack([found[name] for name in VECTOR_COLUMNS], axis=1).astype(np.int32)
    letters = np.frombuffer(letter.replace("?", "P").encode(), np.uint8)
    turn = read_orientation(picture)
    return Vectors(blocks, np.zeros(len(blocks), np.int32), letters, picture.width, picture.height, turn)


@functools.cache
def clean_fields(path: Path) -> Fields:
    """The guarantees for an intact clip."""
    found = plain_fields(path)
    assert found is not None, path
    return found


def intact(clean: Fields, changed: Fields) -> int:
    """Return how many first frames of a changed clip must equal those of the intact one."""
    if clean.setting != changed.setting:
        return 0
    if clean.packets == changed.packets:
        return len(clean.types)
    same = 0
    for one, other in zip(clean.packets, changed.packets, strict=False):
        if one != other:
            break
        same += 1
    return clean.given[same - 1] if same else 0


# ---------------------------------------------------------------------------------------------------- judgement


@dataclass
class Findings:
    """The results on damaged clips. The lists name clips for which a guarantee was violated."""

    clips: int = 0  # files with a clip's suffix: each is owed a row
    others: int = 0  # other files
    ignored: int = 0  # what the index says of them
    rows: int = 0
    stored: int = 0
    compared: int = 0  # frames of good clips that had to come out unchanged
    without_row: list[str] = field(default_factory=list)
    unasked: list[str] = field(default_factory=list)  # rows of no clip, or of one that has a row already
    without_reason: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    let_in: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def broken(self) -> dict[str, list[str]]:
        """Return the guarantees that were violated, and the clips."""
        names = ("without_row", "unasked", "without_reason", "lost", "let_in", "wrong")
        return {name: ids for name in names if (ids := getattr(self, name))}


def sources_in(folder: Path) -> list[Path]:
    """Return intact clips to make mutants of: rendered ones of each container, the demo's, and real ones."""
    found = rendered(folder)
    found += small_enough(clips_below(ROOT / "data/demo/videos"), MOST_SOURCES)
    if real := real_data():
        found += [*small_enough(real_clips(real), MOST_SOURCES), real / "codecs/v_Basketball_g01_c01.avi"]
    return found


def clips_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix in VIDEO_SUFFIXES]


def judged(mutants: Sequence[Mutant], root: Path, project: Path) -> Findings:
    """Check the outputs of `moclip index` and `moclip extract_mv` against the guarantees."""
    found = Findings()
    index = pd.read_parquet(project / "data/index.parquet").set_index("id")
    table = pd.read_parquet(project / "data/features/mv.parquet").set_index("id")
    reader = FieldReader(project / "data/features/mv.zarr", project / "data/features/mv.parquet")
    found.rows, found.stored = len(index), int((table["status"] == "ok").sum())
    owed = [mutant for mutant in mutants if is_clip(root, mutant)]
    found.clips, found.others = len(owed), len(mutants) - len(owed)
    found.ignored = json.loads((project / "metrics/counts/index.json").read_text())["ignored_files"]
    found.unasked = sorted(
        (Counter(index.index) - Counter(mutant.id for mutant in owed))
        + (Counter(table.index) - Counter(index.index[index["status"] == "ok"]))
    )
    plain = run_jobs_in_order(_plain_or_none, [root / mutant.id for mutant in owed], 2, lambda path, reason: None)
    for mutant, fields in zip(owed, plain, strict=True):
        status, reason = _outcome(mutant.id, index, table)
        if status == "no row":
            found.without_row.append(mutant.id)
        elif status != "stored":
            if not reason:
                found.without_reason.append(mutant.id)
            if _is_whole(mutant, fields):
                found.lost.append(f"{mutant.id}: {reason}")
        elif mutant.kind in NO_CLIPS:
            found.let_in.append(mutant.id)
        else:
            stored, types = reader.read_video(mutant.id), reader.frame_types(mutant.id)
            good = clean_fields(mutant.source) if mutant.source else None
            same = intact(good, fields) if good and fields else 0
            found.compared += same
            if not is_right(stored, types, fields, good, same):
                found.wrong.append(mutant.id)
    return found


NO_CLIPS = ("empty", "sound alone", "text")


def _plain_or_none(path: Path) -> Fields | None:
    try:
        return plain_fields(path)
    except (FFmpegError, OSError, AttributeError, IndexError, ValueError):  # no stream, no picture, no file
        return None


def _outcome(id: str, index: pd.DataFrame, table: pd.DataFrame) -> tuple[str, str]:
    """Return how far a clip was processed, and the reason why it was refused."""
    if id not in index.index:
        return "no row", ""
    row = index.loc[id]
    if row["status"] != "ok":
        return "refused by index", str(row["reason"])
    if id not in table.index:
        return "no row", ""
    row = table.loc[id]
    return ("stored", "") if row["status"] == "ok" else ("refused by extract_mv", str(row["reason"]))


def _is_whole(mutant: Mutant, fields: Fields | None) -> bool:
    """Return whether a plain loop reads everything from a file that an intact clip has."""
    if mutant.kind == "no permission":
        return False
    if mutant.source is None or fields is None:
        return mutant.kind in ("tiny picture", "wide picture") and fields is not None and bool(fields.fields.any())
    good = clean_fields(mutant.source)
    return good.setting == fields.setting and good.packets == fields.packets


def is_right(stored: np.ndarray, types: np.ndarray, fields: Fields | None, good: Fields | None, same: int) -> bool:
    if fields is None or not (np.array_equal(stored, fields.fields) and np.array_equal(types, fields.types)):
        return False
    if good is None:
        return True
    return np.array_equal(stored[:same], good.fields[:same]) and np.array_equal(types[:same], good.types[:same])
