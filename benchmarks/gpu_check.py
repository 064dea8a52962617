"""The demo on this machine's GPU in every precision, beside what the CPU made of it: `make gpu-check`.

    python -m benchmarks.gpu_check [--out FILE]

In a folder of its own it runs, with the committed params.yaml, the stages that have a network: once those of CLIP, then
for `tsn.precision` and `fusion.precision` fp32, bf16, fp16 and auto both trainings and what follows them. What they
come to is compared with the committed metrics, which are those of a CPU in fp32. Where there is no GPU it says so, and
writes nothing: there is nothing wrong then, and nothing to report.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from benchmarks.common import RESULTS, ROOT, Row, copy_product, report, say
from moclip.training.common import autocast_type
from pipeline import params as parameters
from pipeline import paths
from pipeline.console.output import STREAM_LABELS, print_note
from pipeline.io import read_json

PRECISIONS = ("fp32", "bf16", "fp16", "auto")
BEFORE = ("transcode", "index", "extract_mv", "clip_text", "clip_image")
STAGES = ("train_mv", "train_image", "embed_mv", "train_fusion", "evaluate")
"""The stages that run once, and those that run in each precision."""
CURVES = {"MV-TSN": paths.TRAIN_MV_LOG, "fusion": paths.TRAIN_FUSION_LOG}

TOP1 = 0.15
"""How far an accuracy may be from the CPU's: on the demo 14 clips, three standard errors."""
LOSS = 0.3
"""How far the last training loss may be from the CPU's, as a share of it: one thread or two make up to 0.2."""
MINUTES = 5


@dataclass(frozen=True)
class Outcome:
    """What a run came to: top-1 of each stream, the last training loss of each training, and seconds of each stage."""

    top1: dict[str, float]
    loss: dict[str, float]
    seconds: dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu_check.json", help="JSON to write")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print_note("no GPU here: nothing is checked, and nothing written")
        return
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        project = make_project(Path(folder) / "project")
        expected = outcome(project, {})
        before = run(project, BEFORE)
        found = {precision: outcome(project, train(project, precision)) for precision in PRECISIONS}
    took = time.perf_counter() - begun
    rows = [*compared(found, expected), *seconds(found, before), Row("all of it", took, None, "s", 60 * MINUTES, True)]
    facts = {
        "GPU": torch.cuda.get_device_name(),
        "compute capability": ".".join(map(str, torch.cuda.get_device_capability())),
        "auto": str(autocast_type("auto", torch.device("cuda"))).removeprefix("torch."),
        "top-1 on the CPU": expected.top1,
        "top-1": {precision: one.top1 for precision, one in found.items()},
        "last training loss on the CPU": expected.loss,
        "last training loss": {precision: one.loss for precision, one in found.items()},
    }
    report("the demo on the GPU, as far as it is from the CPU", rows, [], facts, given.out)
    if any(row.met is False for row in rows):
        sys.exit(1)


def make_project(project: Path) -> Path:
    """The product as it is here, with the committed parameters and metrics, and the demo's clips and CLIP."""
    copy_product(project)
    archive = subprocess.run(
        ["git", "archive", "HEAD", "params.yaml", "metrics", "data/demo"], cwd=ROOT, check=True, capture_output=True
    )
    subprocess.run(["tar", "x", "-C", project], input=archive.stdout, check=True)
    demo, here = project / "data/demo", ROOT / "data/demo"
    if all((here / name).exists() for name in ("videos", "splits", "clip")):
        for name in ("videos", "splits", "clip"):
            shutil.copytree(here / name, demo / name)
    else:
        for script in ("render.py", "train_clip.py"):
            _run(demo, script)
    return project


def train(project: Path, precision: str) -> dict[str, float]:
    """Both trainings in a precision, and what follows them; seconds of each stage."""
    file = project / paths.PARAMS
    values = {"tsn.precision": precision, "fusion.precision": precision}
    file.write_text(yaml.safe_dump(parameters.with_values(yaml.safe_load(file.read_text()), values)))
    return run(project, STAGES)


def run(project: Path, stages: Sequence[str]) -> dict[str, float]:
    """Run stages one after the other; seconds of each, from the start of its process to its end."""
    spent = {}
    for name in stages:
        begun = time.perf_counter()
        _run(project, "-m", f"stages.{name}", "--quiet")
        spent[name] = time.perf_counter() - begun
        say(f"  {name}: {spent[name]:.1f} s")
    return spent


def _run(folder: Path, *words: str) -> None:
    path = os.pathsep.join(map(str, (folder / "src", folder)))
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{' '.join(words)}:\n{done.stdout}{done.stderr}")


def outcome(project: Path, spent: dict[str, float]) -> Outcome:
    """What the metrics of a project say."""
    streams = {name: read_json(project / path, "evaluate") for name, path in paths.STREAM_JSON.items()}
    return Outcome(
        {STREAM_LABELS[name]: scores["top1"] for name, scores in streams.items() if scores},
        {name: _last(project / folder / "plots/metrics/train_loss.tsv") for name, folder in CURVES.items()},
        spent,
    )


def _last(curve: Path) -> float:
    with curve.open() as file:
        *_, row = csv.DictReader(file, delimiter="\t")
    return float(row["train_loss"])


def compared(found: dict[str, Outcome], expected: Outcome) -> list[Row]:
    """How far each precision is from what was expected, with the most that it may be."""
    rows = []
    for precision, one in found.items():
        for name, top1 in expected.top1.items():
            gap = abs(one.top1[name] - top1)
            rows.append(Row(f"{precision}: {name}, top-1, distance", gap, None, "", TOP1, at_most=True))
        for name, loss in expected.loss.items():
            gap = abs(one.loss[name] / loss - 1)
            rows.append(Row(f"{precision}: {name}, last training loss, distance", gap, None, "share", LOSS, True))
    return rows


def seconds(found: dict[str, Outcome], before: dict[str, float]) -> list[Row]:
    rows = [Row(name, spent, None, "s") for name, spent in before.items()]
    return rows + [
        Row(f"{precision}: {name}", spent, None, "s")
        for precision, one in found.items()
        for name, spent in one.seconds.items()
    ]


if __name__ == "__main__":
    main()
