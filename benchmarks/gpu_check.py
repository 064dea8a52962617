"""The demo on this machine's GPU in every precision, compared with the committed metrics of a CPU: `make gpu-check`.

    python -m benchmarks.gpu_check [--out FILE]

In a temporary project with the committed params.yaml, it runs CLIP's stages once, and both trainings with what follows
them for `tsn.precision` and `fusion.precision` fp32, bf16, fp16 and auto. The exit code is 1 where an accuracy or a
loss is too far from the CPU's. Without a GPU it says so, and writes nothing.
"""

from __future__ import annotations

import argparse
import csv
import json
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

from benchmarks import page
from benchmarks.common import ROOT, copy_product, machine, say
from benchmarks.comparison import Part
from moclip.files.atomic import write_atomically
from moclip.training.common import autocast_type
from pipeline import params as parameters
from pipeline import paths
from pipeline.console.output import STREAM_LABELS, print_note
from pipeline.io import read_json

OUT = ROOT / "benchmarks/results/gpu_check.json"
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
    """What a run came to: top-1 of each stream, and the last training loss of each training."""

    top1: dict[str, float]
    loss: dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, help="JSON to write")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print_note("no GPU here: nothing is checked, and nothing written")
        return
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        project = make_project(Path(folder) / "project")
        expected = outcome(project)
        run(project, BEFORE)
        found = {precision: train(project, precision) for precision in PRECISIONS}
    part = compared(found, expected)
    part.row("all of it", "s", time.perf_counter() - begun, target=60 * MINUTES, at_most=True)
    part.facts |= {
        "GPU": torch.cuda.get_device_name(),
        "compute capability": ".".join(map(str, torch.cuda.get_device_capability())),
        "auto": str(autocast_type("auto", torch.device("cuda"))).removeprefix("torch."),
        "on the CPU": vars(expected),
        **{precision: vars(one) for precision, one in found.items()},
    }
    print("\n\n".join(page.tables("gpu_check", vars(part))))
    content = {"rows": part.rows, "facts": part.facts, "machine": machine()}
    write_atomically(given.out, (json.dumps(content, indent=1) + "\n").encode())
    if any(row["met"] is False for row in part.rows):
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


def train(project: Path, precision: str) -> Outcome:
    """Run both trainings in a precision, and what follows them."""
    file = project / paths.PARAMS
    values = {"tsn.precision": precision, "fusion.precision": precision}
    file.write_text(yaml.safe_dump(parameters.with_values(yaml.safe_load(file.read_text()), values)))
    run(project, STAGES)
    return outcome(project)


def run(project: Path, stages: Sequence[str]) -> None:
    """Run stages one after the other, each in a process of its own."""
    for name in stages:
        begun = time.perf_counter()
        _run(project, "-m", f"stages.{name}", "--quiet")
        say(f"  {name}: {time.perf_counter() - begun:.1f} s")


def _run(folder: Path, *words: str) -> None:
    path = os.pathsep.join(map(str, (folder / "src", folder)))
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{' '.join(words)}:\n{done.stdout}{done.stderr}")


def outcome(project: Path) -> Outcome:
    """What the metrics of a project say."""
    streams = {name: read_json(project / path, "evaluate") for name, path in paths.STREAM_JSON.items()}
    return Outcome(
        {STREAM_LABELS[name]: scores["top1"] for name, scores in streams.items() if scores},
        {name: _last(project / folder / "plots/metrics/train_loss.tsv") for name, folder in CURVES.items()},
    )


def _last(curve: Path) -> float:
    with curve.open() as file:
        *_, row = csv.DictReader(file, delimiter="\t")
    return float(row["train_loss"])


def compared(found: dict[str, Outcome], expected: Outcome) -> Part:
    """How far each precision is from what was expected, and the most that it may be."""
    part = Part(False, 1.0, Path())
    for precision, one in found.items():
        for name, top1 in expected.top1.items():
            gap = abs(one.top1[name] - top1)
            part.row(f"{precision}: {name}, top-1, distance", "", gap, target=TOP1, at_most=True)
        for name, loss in expected.loss.items():
            gap = abs(one.loss[name] / loss - 1)
            part.row(f"{precision}: {name}, last training loss, distance", "", gap, target=LOSS, at_most=True)
    return part


if __name__ == "__main__":
    main()
