"""What faults do to a run: a thousand clips that nobody should have to read, and kills at any moment of every stage.

    python -m benchmarks.torture [mutants] [kills] [disks] [--clips 1050] [--kills 20] [--stage NAME]
                                 [--quick] [--out FILE]

`mutants`: the clips of `tests.mutants` in one `moclip index` and one `moclip extract_mv`. What is counted:

* rows: each file with a clip's suffix has one in the index, each other file is counted as ignored, each clip that the
  index takes has one in the store's table, and there are no others; a row that is not ok says why.
* lost: clips that are refused although everything of the good clip is in them as it was.
* let in: files that are no clips and pass for one, such as a playlist that names another file.
* wrong fields: clips with a field, or a frame's type, in the store that is not what it should be, or of which a plain
  loop reads nothing. Fields of a clip should be (1) those of a plain loop of PyAV over the same file, and (2) those of
  the good clip on all frames whose data is intact and whose place is known. These are the frames that a decoder has
  given out when it has seen the packets before the first one that differs, in bytes or in order, where what a decoder
  is set up with is the same; with no packet that differs, all. A frame is never ahead of a packet that it needs, so
  nothing damaged has touched these. After the damage nothing is promised but (1): codecs have no checksums, what is
  flipped may well decode, and what a decoder makes up for what it lacks (concealment) is stored as it comes. Nor is a
  clip's reason more than a guess.

`kills`: a stage of a small finished project whose outputs were removed, or are those of other parameters, is killed
with SIGKILL, then run to its end. All it has written is compared with an undisturbed run; nothing may be left over.
A kill counts that hits a stage at work; where it comes too late it is tried again, sooner.

`disks`: each stage on a file system without a free byte (where one may be mounted), with files of 1 KiB at most, and in
folders that it may not write to: it must say so in one message, and with room do its work as if nothing had been.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import functools
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import psutil
import yaml
from av.error import FFmpegError
from av.sidedata.sidedata import SideDataContainer

from benchmarks.common import ROOT, Row, arguments, real_clips, real_data, report, rows_before, say
from moclip.motion.field import motion_field
from moclip.motion.quantise import quantise
from moclip.store.reader import FieldReader
from moclip.video.clip_files import VIDEO_SUFFIXES
from moclip.video.geometry import read_orientation
from moclip.video.vector_records import VECTOR_COLUMNS, Vectors
from moclip.workers.processes import run_jobs_in_order
from pipeline.dag import STAGES
from tests.conftest import finished_project
from tests.mutants import Mutant, is_clip, rendered, small_enough, write_mutants

RESULTS = ROOT / "benchmarks/reliability.json"
BIN = Path(sys.executable).parent
SEED = 0
PER_KIND_OF_SOURCE = 16  # clips that mutants are made of
LIMIT = 3600.0  # s for a command
CANVAS = (240, 320)  # px, of the preset
MOST_MB = 2000.0  # of a command that reads mutants


# ------------------------------------------------------------------------------------------ commands, watched


@dataclass(frozen=True)
class Ran:
    """How a command ended: what it said, seconds, and the most memory that it and all below it had, MB."""

    code: int
    said: str
    seconds: float
    peak_mb: float


def watched(*command: str | Path, cwd: Path, **environment: str) -> Ran:
    """Run a command of the project as a user would, who is not root."""
    begun = time.perf_counter()
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        process = subprocess.Popen(
            list(map(str, command)),
            cwd=cwd,
            env=_environment() | environment,
            stdout=said,
            stderr=subprocess.STDOUT,
            preexec_fn=_like_any_user,
        )
        peak = _Peak(process.pid)
        try:
            code = process.wait(LIMIT)
        finally:
            if process.returncode is None:  # else the number may be another's by now
                _end(process.pid)
        seconds = time.perf_counter() - begun
        said.seek(0)
        return Ran(code, said.read(), seconds, peak.end())


def _end(pid: int) -> None:
    """Kill a process and all below it, if they are still there."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in [*(top := psutil.Process(pid)).children(recursive=True), top]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def _environment() -> dict[str, str]:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return {name: value for name, value in os.environ.items() if name != "DVC_ROOT"} | {"PATH": path}


def _like_any_user() -> None:
    """Take root's right from the command to read what nobody may read (Linux: two capabilities)."""
    drop, override, search = 24, 1, 2
    for capability in (override, search):
        ctypes.CDLL(None).prctl(drop, capability, 0, 0, 0)


class _Peak:
    """The most memory of a process and all below it, looked at 20 times a second: resident, shared pages each time."""

    def __init__(self, pid: int) -> None:
        self._most, self._over = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(pid,), daemon=True)
        self._thread.start()

    def _watch(self, pid: int) -> None:
        while not self._over.wait(0.05):
            total = 0
            try:
                for process in [(top := psutil.Process(pid)), *top.children(recursive=True)]:
                    total += process.memory_info().rss
            except psutil.Error:
                continue
            self._most = max(self._most, total)

    def end(self) -> float:
        self._over.set()
        self._thread.join()
        return self._most / 1e6


# --------------------------------------------------------------------------------------- what fields should be


@dataclass(frozen=True)
class Fields:
    """What a plain loop reads of a file.

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
    """Read a file in the plainest way, on one thread; None where nothing in it decodes to pictures of one size.

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
    """The packets, at the end one that asks the decoder for what it still holds."""
    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    except FFmpegError:
        pass
    yield None


def _turned_alike(parts: Sequence[Vectors]) -> Iterator[Vectors]:
    """All as the first picture is to be shown."""
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
    """Those of a good clip."""
    found = plain_fields(path)
    assert found is not None, path
    return found


def intact(clean: Fields, changed: Fields) -> int:
    """How many of the first frames of a changed clip must be those of the good one."""
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


# -------------------------------------------------------------------------------------------------- mutants


@dataclass
class Findings:
    """What became of mutants; lists name those of which a promise was broken."""

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
    statuses: Counter[tuple[str, str]] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)


def sources_in(folder: Path) -> list[Path]:
    """Good clips to make mutants of: rendered ones of each container, the demo's, real ones."""
    found = rendered(folder)
    found += small_enough(clips_below(ROOT / "data/demo/videos"), PER_KIND_OF_SOURCE)
    if real := real_data():
        found += [*small_enough(real_clips(real), PER_KIND_OF_SOURCE), real / "codecs/v_Basketball_g01_c01.avi"]
    return found


def clips_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix in VIDEO_SUFFIXES]


def torture_clips(folder: Path, count: int) -> tuple[list[Row], dict[str, Any]]:
    """Index and extract mutants; the rows of the report, and what is worth knowing beside."""
    root, project = folder / "videos", folder / "project"
    mutants = write_mutants(sources_in(folder / "sources"), root, count, SEED)
    runs = run_over(root, project)
    crashes = [name for name, done in runs.items() if done.code or "Traceback" in done.said]
    for name in crashes:
        say(runs[name].said[-2000:])
    found = judged(mutants, root, project)
    broken = {name: getattr(found, name) for name in PROMISED}
    for name, ids in broken.items():
        for id in ids:
            say(f"  {name}: {id!r}")
    rows = [
        Row("mutants: files that are or claim to be clips", found.clips, unit="clips"),
        Row("mutants: runs that crashed", len(crashes), unit="runs", target=0, at_most=True),
        Row("mutants: clips without a row", len(found.without_row), unit="clips", target=0, at_most=True),
        Row("mutants: rows of no clip", len(found.unasked), unit="rows", target=0, at_most=True),
        Row(
            "mutants: other files, miscounted", abs(found.others - found.ignored), unit="files", target=0, at_most=True
        ),
        Row("mutants: refused without a reason", len(found.without_reason), unit="clips", target=0, at_most=True),
        Row("mutants: intact, and refused all the same", len(found.lost), unit="clips", target=0, at_most=True),
        Row("mutants: no clip, and taken for one", len(found.let_in), unit="files", target=0, at_most=True),
        Row("mutants: wrong fields", len(found.wrong), unit="clips", target=0, at_most=True),
    ]
    for name, done in runs.items():
        rows.append(Row(f"mutants: {name}", done.seconds, unit="s"))
        rows.append(Row(f"mutants: {name}, peak memory", done.peak_mb, unit="MB", target=MOST_MB, at_most=True))
    return rows, {
        "clips": found.clips,
        "other files": found.others,
        "stored": found.stored,
        "frames of good clips that had to come out unchanged": found.compared,
        "outcome by kind": _nested(found.statuses),
        "reasons": dict(found.reasons.most_common()),
        "broken": {name: ids for name, ids in broken.items() if ids},
    }


PROMISED = ("without_row", "unasked", "without_reason", "lost", "let_in", "wrong")


def run_over(root: Path, project: Path) -> dict[str, Ran]:
    """`moclip index` and `moclip extract_mv` in a new project over the clips in a folder."""
    project.mkdir()
    watched("moclip", "use", "folder", "--root", root, cwd=project)
    runs = {}
    for stage in ("index", "extract_mv"):
        runs[stage] = done = watched("moclip", stage, cwd=project)
        say(f"  {stage}: exit code {done.code}, {done.seconds:.1f} s, {done.peak_mb:,.0f} MB")
    return runs


def _nested(counts: Mapping[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    table: dict[str, dict[str, int]] = {}
    for (kind, status), number in sorted(counts.items()):
        table.setdefault(kind, {})[status] = number
    return table


def judged(mutants: Sequence[Mutant], root: Path, project: Path) -> Findings:
    """Compare what `moclip index` and `moclip extract_mv` left in a project with what the promises say."""
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
        found.statuses[mutant.kind, status] += 1
        if status == "no row":
            found.without_row.append(mutant.id)
        elif status != "stored":
            found.reasons[_in_general(reason)] += 1
            if not reason:
                found.without_reason.append(mutant.id)
            if _is_whole(mutant, fields):
                found.lost.append(f"{mutant.id}: {reason}")
        elif mutant.kind in NO_CLIPS or (mutant.kind, mutant.done) == ("link", "to a clip outside"):
            found.let_in.append(mutant.id)
        else:
            stored, types = reader.read_video(mutant.id), reader.frame_types(mutant.id)
            good = clean_fields(mutant.source) if mutant.source else None
            same = intact(good, fields) if good and fields else 0
            found.compared += same
            if not _is_right(stored, types, fields, good, same):
                found.wrong.append(mutant.id)
    return found


NO_CLIPS = ("empty", "sound alone", "text")


def _plain_or_none(path: Path) -> Fields | None:
    try:
        return plain_fields(path)
    except (FFmpegError, OSError, AttributeError, IndexError, ValueError):  # no stream, no picture, no file
        return None


def _outcome(id: str, index: pd.DataFrame, table: pd.DataFrame) -> tuple[str, str]:
    """How far a clip came, and the reason why no further."""
    if id not in index.index:
        return "no row", ""
    row = index.loc[id]
    if row["status"] != "ok":
        return "refused by index", str(row["reason"])
    if id not in table.index:
        return "no row", ""
    row = table.loc[id]
    return ("stored", "") if row["status"] == "ok" else ("refused by extract_mv", str(row["reason"]))


def _in_general(reason: str) -> str:
    """A reason without the numbers and names that tell one clip from another."""
    first = reason.splitlines()[0] if reason else ""
    return re.sub(r"\d[\d,.]*", "#", re.sub(r"'[^']*'|/\S+", "...", first))


def _is_whole(mutant: Mutant, fields: Fields | None) -> bool:
    """Whether a file has all that a good clip has, as far as a plain loop sees."""
    if mutant.kind == "no permission" or (mutant.kind, mutant.done) == ("link", "to a clip outside"):
        return False
    if mutant.source is None or fields is None:
        return mutant.kind in ("tiny picture", "wide picture") and fields is not None and bool(fields.fields.any())
    good = clean_fields(mutant.source)
    return good.setting == fields.setting and good.packets == fields.packets


def _is_right(stored: np.ndarray, types: np.ndarray, fields: Fields | None, good: Fields | None, same: int) -> bool:
    if fields is None or not (np.array_equal(stored, fields.fields) and np.array_equal(types, fields.types)):
        return False
    if good is None:
        return True
    return np.array_equal(stored[:same], good.fields[:same]) and np.array_equal(types[:same], good.types[:same])


# ----------------------------------------------------------------------------------------- kills and full disks

OTHER: dict[str, tuple[str, ...]] = {
    "index": ("--dataset-val-fraction", "0.5"),
    "extract_mv": ("--mv-clip", "10"),
    "clip_image": ("--clip-frames", "2"),
    "train_mv": ("--tsn-epochs", "1"),
    "embed_mv": ("--embed-views", "1"),
    "train_fusion": ("--fusion-epochs", "3"),
}
"""Options with which a stage leaves other outputs, which a run may find in its way."""
OPTIONS: dict[str, tuple[str, ...]] = {
    "transcode": ("--index-transcode", "mpeg4"),
    "train_mv": ("--checkpoint-seconds", "0", "--tsn-epochs", "12"),  # with 2, hardly a kill finds a checkpoint
    "train_image": ("--baselines-image", "test_resnet"),
}
"""Options that give a stage something to do, or to go on from."""
PLACES = ("data", "metrics")
LOADING = 0.3  # of a stage's time on a small project, when nothing is written yet
SOONER = 0.85  # of the time that a stage was thought to take, when a kill came too late
TOO_LATE = 5  # kills in a row


@dataclass
class Trial:
    """Runs of one stage in a copy of a project, from the same state each time."""

    stage: str
    project: Path
    state: Path  # what `PLACES` hold before the stage runs
    wanted: dict[str, str] = field(default_factory=dict)  # digests after an undisturbed run
    seconds: float = 0.0  # of it

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", f"stages.{self.stage}", *OPTIONS.get(self.stage, ())]

    def reset(self) -> None:
        """Put the state back."""
        for place in PLACES:
            shutil.rmtree(self.project / place, ignore_errors=True)
            shutil.copytree(self.state / place, self.project / place, symlinks=True)

    def undisturbed(self) -> None:
        """Run the stage as it should be, and keep what it left."""
        self.reset()
        begun = time.perf_counter()
        self.run()
        self.seconds = time.perf_counter() - begun
        self.wanted = written(self.project)

    def run(self, *options: str) -> None:
        """Run the stage to its end, with further options if any."""
        done = watched(*self.command, *options, cwd=self.project)
        if done.code:
            raise SystemExit(f"{self.stage} ends with {done.code}:\n{done.said}")

    def kill_after(self, seconds: float, everything: bool) -> tuple[bool, bool]:
        """Start the stage and kill it, alone or with all processes below it; whether it was still at work, and whether
        it has left anything to go on from."""
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(self.command, cwd=self.project, env=_environment(), start_new_session=True, **quiet)  # type: ignore[call-overload]
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        at_work = process.poll() is None
        if everything:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
        kept = [path for path in leftovers(self.project) if path.is_file() and path.suffix == ".safetensors"]
        return at_work, bool(kept) or written(self.project) != written(self.state)


def written(project: Path) -> dict[str, str]:
    """A digest of every file that stages write and keep."""
    passing = set(leftovers(project))
    return {
        path.relative_to(project).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for place in PLACES
        for path in sorted((project / place).rglob("*"))
        if path.is_file() and path not in passing
    }


def leftovers(project: Path) -> list[Path]:
    """What a run has for itself, which should be gone when it has ended well."""
    return [*(project / "data/work").rglob("*")] + [
        path for place in PLACES for path in (project / place).rglob(".*.tmp*")
    ]


def outputs_of(project: Path, stage: str) -> list[Path]:
    """The files and folders that dvc.yaml says a stage writes."""
    about = yaml.safe_load((project / "dvc.yaml").read_text())["stages"][stage]
    named = [*about.get("outs", []), *about.get("metrics", []), *about.get("plots", [])]
    return [project / (name if isinstance(name, str) else next(iter(name))) for name in named]


def trials(stage: str, finished: Path, folder: Path, every_start: bool = False) -> list[Trial]:
    """One from nothing; with `every_start` and where there is a way, one that finds the outputs of other parameters."""
    found = []
    for start in ("nothing", "other") if every_start and OTHER.get(stage) else ("nothing",):
        project = folder / f"{stage}-{start}"
        shutil.copytree(finished, project, symlinks=True, ignore=shutil.ignore_patterns(".dvc", ".git"))
        if start == "other":
            trial = Trial(stage, project, project)
            trial.run(*OTHER[stage])
        else:
            for path in outputs_of(project, stage):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        state = folder / f"{stage}-{start}-state"
        for place in PLACES:
            shutil.copytree(project / place, state / place, symlinks=True)
        found.append(Trial(stage, project, state))
        found[-1].undisturbed()
    return found


@dataclass
class Kills:
    """How often a stage was killed and what came of it."""

    kills: int = 0  # of the stage at work
    too_late: int = 0
    went_on: int = 0  # after kills that left something to go on from
    different: int = 0
    left: int = 0
    seconds: float = 0.0


def kill(stage: str, times: int, finished: Path, folder: Path, every_start: bool = True) -> Kills:
    """Kill a stage again and again, at random moments after the program has loaded, and let it go on each time."""
    found, rng = Kills(), np.random.default_rng([SEED, list(STAGES).index(stage)])
    starts = trials(stage, finished, folder, every_start)
    found.seconds = starts[0].seconds
    for turn in range(times):
        trial = starts[turn % len(starts)]
        for _ in range(TOO_LATE):
            trial.reset()
            moment = rng.uniform(LOADING * trial.seconds, trial.seconds)
            at_work, begun = trial.kill_after(moment, everything=turn % 4 < 2)
            if at_work:
                break
            found.too_late += 1  # the machine is quicker now than when the time was taken
            trial.seconds *= SOONER
        found.kills += at_work
        found.went_on += at_work and begun
        trial.run()
        if (there := written(trial.project)) != trial.wanted:
            found.different += 1
            names = [name for name in {*there, *trial.wanted} if there.get(name) != trial.wanted.get(name)]
            say(f"  {stage}, killed after {moment:.2f} s: differs in {', '.join(sorted(names)[:5])}")
        if rest := leftovers(trial.project):
            found.left += 1
            say(f"  {stage}, killed after {moment:.2f} s: leaves {', '.join(path.name for path in rest[:5])}")
    return found


def torture_stages(
    folder: Path, finished: Path, times: int, stages: Sequence[str], earlier: Mapping[str, Any]
) -> tuple[list[Row], dict[str, Any]]:
    """Kill each stage `times` times, two stages at once; `earlier` is what is known of others."""
    facts = {stage: about for stage, about in earlier.items() if stage not in stages}
    with ThreadPoolExecutor(2) as pool:
        jobs = {stage: pool.submit(kill, stage, times, finished, folder) for stage in stages}
        for stage, job in jobs.items():
            facts[stage] = vars(job.result())
            say(f"  {stage}: {facts[stage]}")
    sums = {name: sum(about[name] for about in facts.values()) for name in ("kills", "went_on", "different", "left")}
    rows = [
        Row("kills: of stages at work", sums["kills"], unit="kills", target=times * len(facts)),
        Row("kills: that left something to go on from", sums["went_on"], unit="kills"),
        Row("kills: other bytes in the end", sums["different"], unit="kills", target=0, at_most=True),
        Row("kills: something left over", sums["left"], unit="kills", target=0, at_most=True),
    ]
    return rows, {"by stage": facts}


# ------------------------------------------------------------------------------------------------------ disks


def torture_disks(folder: Path, finished: Path, stages: Sequence[str]) -> tuple[list[Row], dict[str, Any]]:
    """Run each stage on a disk with no room, and in folders that it may not write to; then as it should be."""
    disk, facts = folder / "disk", {}
    disk.mkdir()
    mounted = not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", disk], capture_output=True
    ).returncode
    try:
        for stage in stages:
            trial = trials(stage, finished, disk)[0]
            facts[stage] = {"no large files": _without_large_files(trial), "no right": _without_right(trial)}
            if mounted:
                facts[stage]["no room"] = _without_room(trial, disk)
            say(f"  {stage}: {facts[stage]}")
            for path in disk.iterdir():
                shutil.rmtree(path)
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", disk], check=True)
    outcomes = [outcome for about in facts.values() for outcome in about.values()]
    rows = [
        Row("disks: runs told what is wrong", sum(text.startswith("told") for text in outcomes), unit="runs"),
        Row(
            "disks: another end", sum(text.startswith("NOT") for text in outcomes), unit="runs", target=0, at_most=True
        ),
    ]
    return rows, {"by stage": facts, "a full file system": "mounted" if mounted else "left out: may not be mounted"}


def _without_large_files(trial: Trial) -> str:
    trial.reset()
    return _hindered(trial, ["bash", "-c", 'ulimit -f 1; exec "$@"', "bash", *trial.command])


def _without_room(trial: Trial, disk: Path) -> str:
    trial.reset()
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(1 << 16)):
            pass
    return _hindered(trial, trial.command, lambda: filler.unlink(missing_ok=True))


def _without_right(trial: Trial) -> str:
    trial.reset()
    places = [path for place in PLACES for path in [trial.project / place, *(trial.project / place).rglob("*")]]
    folders = [path for path in places if path.is_dir() and not path.is_symlink()]
    for path in folders:
        path.chmod(0o555)

    def freed() -> None:
        for path in folders:
            path.chmod(0o755)

    return _hindered(trial, trial.command, freed)


def _hindered(trial: Trial, command: Sequence[str], freed: Callable[[], object] = lambda: None) -> str:
    """What a run says that cannot write, and whether it goes on when it can."""
    try:
        done = watched(*command, cwd=trial.project)
    finally:
        freed()
    message = next((line for line in done.said.splitlines() if line.startswith("error: ")), "")
    told = done.code == 1 and re.search("cannot be written|no access", message) and "Traceback" not in done.said
    if done.code and not told:
        return f"NOT TOLD: {done.code}: {done.said[-300:]}"
    trial.run()
    if written(trial.project) != trial.wanted or leftovers(trial.project):
        return f"NOT THE SAME afterwards: {message}"
    return f"told: {_in_general(message.removeprefix('error: '))}" if told else "ran: nothing to write"


# ------------------------------------------------------------------------------------------------------ command


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--clips", type=int, default=1050, help="mutants, a few of which are no files")
    parser.add_argument("--kills", type=int, default=20, help="kills of each stage")
    parser.add_argument("--stage", action="append", help="kill this one alone; the others' figures stay")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if given.quick:
        given.clips, given.kills = 42, 1
    stages = given.stage or (["index", "extract_mv"] if given.quick else list(STAGES))
    out = given.out or (None if given.quick else RESULTS)
    wanted = given.parts or list(PARTS)
    given.earlier = rows_before(out, ())[1].get("kills", {}).get("by stage", {}) if given.stage else {}
    rows, facts = rows_before(out, wanted)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # nothing stays mounted
    with tempfile.TemporaryDirectory(prefix="torture-") as top:
        finished = functools.cache(lambda: finished_project(Path(top) / "finished"))
        for part in wanted:
            say(part)
            with tempfile.TemporaryDirectory(dir=top) as folder:
                found, facts[part] = PARTS[part](Path(folder), finished, given, stages)
            facts[part]["rows"] = [row.name for row in found]
            rows += found
    report("torture", rows, [], facts, out)
    sys.exit(any(row.met is False for row in rows))


Part = Callable[[Path, Callable[[], Path], argparse.Namespace, Sequence[str]], tuple[list[Row], dict[str, Any]]]
PARTS: dict[str, Part] = {
    "mutants": lambda folder, finished, given, stages: torture_clips(folder, given.clips),
    "kills": lambda folder, finished, given, stages: torture_stages(
        folder, finished(), given.kills, stages, given.earlier
    ),
    "disks": lambda folder, finished, given, stages: torture_disks(folder, finished(), stages),
}

if __name__ == "__main__":
    main()
