"""Growth: what commands take on 100 to 10,000 tiny clips, with exponents of time and memory; starting up.

A command's start hides how the rest grows, so exponents are given twice: of all its time, from the second largest to
the largest size, and of what is left once a constant is taken off, fitted over all sizes. A command's time is the least
of a few runs: what disturbs one only adds. The sizes take turns, so that a slow minute of the machine hits all of them,
and a fit's spread is that of the same fit to other draws of the turns.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.common import ROOT, copy_product, encode, rendered, say
from benchmarks.peers.core import Part, Ran, Ratio, command, interleaved, quartiles
from pipeline import paths, presets

CLIPS = (100, 1_000, 3_000, 10_000)
SMALL, FRAMES, CONTENTS, CLASSES = (64, 96), 8, 8, 10  # px (height, width); frames; different files; classes
MOCLIP = ("-c", "from pipeline.cli import main; main()")
DVC = ("-m", "dvc")
TRAIN = ("--tsn-backbone", "test_resnet", "--tsn-size", "32", "--tsn-epochs", "1", "--tsn-batch", "64")
COMMANDS = {
    "index": ("-m", "stages.index"),
    "extract": ("-m", "stages.extract_mv"),
    "verify": (*MOCLIP, "store", "verify"),
    "train, one epoch": ("-m", "stages.train_mv", *TRAIN),
    "dvc commit": (*DVC, "commit", "-f", "-q", "index", "extract_mv"),
    "dvc status": (*DVC, "status", "index", "extract_mv"),
}
QUICK = ("index",)
TURNS = 3
MORE_TURNS = {"extract": 5, "verify": 9, "dvc commit": 9, "dvc status": 9}  # what takes its time to start, mostly
LINEAR = 1.05
LINEAR_FIT = 1.1  # what is left of a short time once the start is taken off is noisier
DRAWS = 400  # of the turns, for the spread of a fit
LIBRARIES = {
    "timm": "import timm",
    "CLIP of transformers": "from transformers import CLIPModel",
}  # without PyTorch's compiler, in a command
EXPONENTS = np.arange(0.05, 2.5, 0.01)


def measure(part: Part) -> None:
    """Commands on projects of each size, their exponents; `moclip --help`."""
    sizes = (40, 80) if part.quick else CLIPS
    found: dict[str, dict[int, list[Ran]]] = {}
    for clips in sizes:
        make_project(part.folder / f"growth{clips}", clips)
    for turn in range(1 if part.quick else max(MORE_TURNS.values())):
        for clips in sizes if turn % 2 == 0 else reversed(sizes):
            for name, words in COMMANDS.items():
                if turn >= MORE_TURNS.get(name, TURNS) or (part.quick and name not in QUICK):
                    continue
                if name == "extract":
                    words = (*words, "--rebuild")
                ran = command(*words, cwd=part.folder / f"growth{clips}")
                found.setdefault(name, {}).setdefault(clips, []).append(ran)
        last = {name: values[sizes[-1]][-1].seconds for name, values in found.items()}
        say(f"  turn {turn + 1}, {sizes[-1]:,} clips: " + ", ".join(f"{name} {s:.1f} s" for name, s in last.items()))
    for name, values in found.items():
        add_rows(part, name, values)
    part.setup["growth"] = (
        f"{CONTENTS} rendered MPEG-4 clips of {FRAMES} frames, {SMALL[1]}x{SMALL[0]}, under so many names (links); "
        "each command is a process of its own, its memory that of all its processes, its time the least of "
        f"{TURNS} to {max(MORE_TURNS.values())} runs; the training is the smallest network's (32 px)"
    )
    start_up(part)


def add_rows(part: Part, name: str, values: dict[int, list[Ran]]) -> None:
    """Seconds, memory and exponents of a command."""
    sizes = sorted(values)
    seconds = [min(ran.seconds for ran in values[size]) for size in sizes]
    memory = [float(np.median([ran.memory for ran in values[size]])) for size in sizes]
    part.facts.setdefault("growth", {})[name] = {
        "clips": sizes,
        "seconds": [round(value, 3) for value in seconds],
        "MiB": [round(value, 1) for value in memory],
    }
    if part.quick:
        return
    turns = [[ran.seconds for ran in values[size]] for size in sizes]
    rounds = len(turns[-1])
    for what, series in (("time", seconds), ("memory", memory)):
        label = f"{name}: exponent of {what}, {sizes[-2]:,} to {sizes[-1]:,} clips"
        part.row(label, "", last_slope(sizes, series), rounds=rounds, target=LINEAR, at_most=True)
    part.row(
        f"{name}: exponent of time, start taken off", "", without_start(sizes, seconds), spread=spread(sizes, turns),
        rounds=rounds, target=LINEAR_FIT, at_most=True,
    )  # fmt: skip


def last_slope(sizes: Sequence[int], series: Sequence[float]) -> float:
    """The exponent of the step to the largest size."""
    return float(np.diff(np.log(series[-2:]))[0] / np.diff(np.log(sizes[-2:]))[0])


def without_start(sizes: Sequence[int], series: Sequence[float]) -> float:
    """The exponent p of the constant + slope * sizes ** p that is nearest to `series`, in shares of it."""
    return float(fitted(sizes, np.asarray(series)))


def spread(sizes: Sequence[int], turns: Sequence[Sequence[float]]) -> Ratio:
    """Median and quartiles of `without_start`, each size's time the least of as many of its turns, drawn anew."""
    generator = np.random.default_rng(0)
    drawn = [generator.choice(np.asarray(one), (DRAWS, len(one))).min(axis=1) for one in turns]
    return quartiles(fitted(sizes, np.stack(drawn, axis=1)))


def fitted(sizes: Sequence[int], series: np.ndarray) -> np.ndarray:
    """(..., sizes) -> (...): `without_start` of each series, by least squares at each of `EXPONENTS`."""
    start = 1 / series[..., None, :]  # each time is to be 1: what a constant adds to that,
    growth = start * (np.asarray(sizes, float) / sizes[-1]) ** EXPONENTS[:, None]  # and a power of the size
    start = start / np.linalg.norm(start, axis=-1, keepdims=True)
    growth = growth - start * (start * growth).sum(-1, keepdims=True)
    growth = growth / np.linalg.norm(growth, axis=-1, keepdims=True)
    explained = np.square(start.sum(-1)) + np.square(growth.sum(-1))
    return EXPONENTS[np.argmax(explained, axis=-1)]


def make_project(project: Path, clips: int) -> None:
    """A git and DVC repository with so many clips."""
    copy_product(project)
    sources = [
        encode(project / f"content{number}.avi", rendered(SMALL, number), "mpeg4", SMALL, 0, FRAMES)
        for number in range(CONTENTS)
    ]
    for number in range(clips):
        kind, turn = number % CLASSES, number // CLASSES
        folder = project / "videos" / f"class{kind}"
        folder.mkdir(parents=True, exist_ok=True)
        os.link(sources[turn % CONTENTS], folder / f"v_class{kind}_g{turn % 25 + 1:02d}_c{turn // 25:03d}.avi")
    (project / paths.TRANSCODED).mkdir(parents=True)
    with contextlib.chdir(project):
        paths.PARAMS.write_text(presets.params_text("folder", "videos", None, None))
    who = ("-c", "user.name=bench", "-c", "user.email=bench@example.org")
    first = ("git", *who, "commit", "-q", "--allow-empty", "-m", "clips")
    for words in (("git", "init", "-q"), first, (sys.executable, "-m", "dvc", "init", "-q")):
        subprocess.run(words, cwd=project, check=True, capture_output=True)


def start_up(part: Part) -> None:
    """`moclip --help` beside an empty program; what a stage imports, beside the same in any other program."""

    def run(*words: str) -> Callable[[], object]:
        return functools.partial(
            subprocess.run, [sys.executable, *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL
        )

    empty, helped = "python -c pass", "moclip --help"
    rounds = 1 if part.quick else 15
    turns = interleaved(
        {helped: run(*MOCLIP, "--help"), empty: run("-c", "pass")}, part.limit(15), most=rounds, least=1
    )
    part.row("moclip --help", "s", turns.median(helped), target=0.3, at_most=True, rounds=turns.rounds)
    part.versus("starting up", turns, helped, empty, None, "s")
    if part.quick:
        part.leave_out("imports", "not in the quick form")
        return
    ours, plain = "import stages, first", "as they are"
    for name, imports in LIBRARIES.items():
        contenders = {ours: run("-c", f"import stages; {imports}"), plain: run("-c", imports)}
        turns = interleaved(contenders, part.limit(60), most=9, least=5, warm=False)
        part.versus(f"importing {name}", turns, ours, plain, None, "s", target=1)
