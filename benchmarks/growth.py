"""Growth: time and memory of the commands on 100 to 10,000 tiny clips.

    python -m benchmarks.growth [--quick] [--out FILE]

Start-up would hide how a command's time grows. So the time that 1,000 more clips take is compared: between the smaller
sizes and between the larger ones. It is equal for linear growth. A command's time is the shortest of a few runs,
because disturbances only add time. The sizes take turns, so that a slow minute of the machine affects all of them.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np

from benchmarks.common import copy_product, encode, print_progress, rendered_pictures
from benchmarks.comparison import FinishedCommand, Part, init_git_and_dvc, run_as_program, run_command
from pipeline import paths, presets

CLIPS = (100, 1_000, 3_000, 10_000)
SMALL, FRAMES, CONTENTS, CLASSES = (64, 96), 8, 8, 10  # px (height, width); frames; different files; classes
MOCLIP = ("-c", "from pipeline.cli import main; main()")
DVC = ("-m", "dvc")
# a single pass over the clips: the preset would repeat it for tsn.min_steps, and train again on train and val
TRAIN = (
    "--tsn-backbone", "test_resnet", "--tsn-size", "32", "--tsn-epochs", "1", "--tsn-batch", "64",
    "--tsn-min-steps", "0", "--fit-refit", "false",
)  # fmt: skip
COMMANDS = {
    "index": ("-m", "stages.index"),
    "extract": ("-m", "stages.extract_mv", "--rebuild"),
    "verify": (*MOCLIP, "store", "verify"),
    "train, one epoch": ("-m", "stages.train_mv", *TRAIN),
    "dvc commit": (*DVC, "commit", "-f", "-q", "index", "extract_mv"),
    "dvc status": (*DVC, "status", "index", "extract_mv"),
}
TURNS = 3
# These commands mostly start up, so they need more runs.
MORE_TURNS = {"extract": 5, "verify": 9, "dvc commit": 9, "dvc status": 9}
LINEAR = 0.9  # least ratio of the time per clip between the smaller sizes to that between the larger ones


def measure(part: Part) -> None:
    """Run the commands on projects of each size."""
    sizes = (40, 80, 120) if part.quick else CLIPS
    commands = {"index": COMMANDS["index"]} if part.quick else COMMANDS
    found: dict[str, dict[int, list[FinishedCommand]]] = {name: {clips: [] for clips in sizes} for name in commands}
    for clips in sizes:
        make_project(part.folder / f"growth{clips}", clips)
    for turn in range(1 if part.quick else max(MORE_TURNS.values())):
        for clips in sizes if turn % 2 == 0 else reversed(sizes):
            for name, words in commands.items():
                if turn < MORE_TURNS.get(name, TURNS):
                    found[name][clips].append(run_command(*words, cwd=part.folder / f"growth{clips}"))
        print_progress(f"  turn {turn + 1}")
    for name, values in found.items():
        add_rows(part, name, values)
    part.setup["growth"] = (
        f"{CONTENTS} rendered MPEG-4 clips of {FRAMES} frames, {SMALL[1]}x{SMALL[0]}, under so many names (links); "
        "each command is a process of its own, its memory that of all its processes, its time the least of "
        f"{TURNS} to {max(MORE_TURNS.values())} runs; the training is the smallest network's (32 px)"
    )


def add_rows(part: Part, name: str, values: dict[int, list[FinishedCommand]]) -> None:
    """Add the seconds and memory of a command at each size, and its growth."""
    sizes = list(values)
    seconds = [min(ran.seconds for ran in runs) for runs in values.values()]
    memory = [float(np.median([ran.memory for ran in runs])) for runs in values.values()]
    part.facts.setdefault("growth", {})[name] = {
        "clips": sizes,
        "seconds": [round(value, 3) for value in seconds],
        "MiB": [round(value, 1) for value in memory],
    }
    before, last = (1_000 * np.diff(seconds) / np.diff(sizes))[-2:]
    part.add_figure(name, "", before / last, rounds=len(values[sizes[-1]]), target=LINEAR)


def make_project(project: Path, clips: int) -> None:
    """Make a git and DVC repository with this many clips."""
    copy_product(project)
    sources = [
        encode(project / f"content{number}.avi", rendered_pictures(SMALL, number), "mpeg4", SMALL, 0, FRAMES)
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
    init_git_and_dvc(project)
    run_command("-m", "stages.code", cwd=project)


if __name__ == "__main__":
    run_as_program("growth", __doc__)
