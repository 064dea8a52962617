"""The demo on this machine's GPU in every precision, compared with the committed metrics of a CPU: `make gpu-check`.

    python -m tests.gpu_check [--out FILE]

In a temporary project with the committed params.yaml, it runs CLIP's stages once, and both trainings with what follows
them for `tsn.precision` and `fusion.precision` fp32, bf16, fp16 and auto. The exit code is 1 where an accuracy or a
loss is too far from the CPU's. Without a GPU it says so, and writes nothing.
"""

from __future__ import annotations

import argparse
import csv
import json
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
from benchmarks.common import ROOT, copy_product, describe_machine, print_progress
from benchmarks.comparison import Part, run_command
from moclip.files.atomic import write_atomically
from moclip.training.common import autocast_type
from pipeline import params as parameters
from pipeline import paths
from pipeline.console.output import STREAM_LABELS, print_note
from pipeline.io import read_json

OUT = ROOT / "benchmarks/results/gpu_check.json"
PRECISIONS = ("fp32", "bf16", "fp16", "auto")
BEFORE = ("transcode", "index", "extract_mv", "clip_text", "clip_image")
STAGES = ("train_mv", "train_image", "embed_mv", "train_probe", "train_fusion", "evaluate")
"""The stages that run once, and those that run in each precision."""
CURVES = {"MV-TSN": paths.TRAIN_MV_LOG, "fusion": paths.TRAIN_FUSION_LOG}

TOP1 = 0.15
"""Largest allowed difference of an accuracy from the CPU's: 14 clips of the demo, three standard errors."""
LOSS = 0.3
"""Largest allowed relative difference of the last training loss. One or two threads differ by up to 0.2."""
MINUTES = 5


@dataclass(frozen=True)
class Outcome:
    """The results of a run: top-1 of each stream, and the last loss of each training."""

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
    part.add_figure("all of it", "s", time.perf_counter() - begun, target=60 * MINUTES, at_most=True)
    part.facts |= {
        "compute capability": ".".join(map(str, torch.cuda.get_device_capability())),
        "auto": str(autocast_type("auto", torch.device("cuda"))).removeprefix("torch."),
        "on the CPU": vars(expected),
        **{precision: vars(one) for precision, one in found.items()},
    }
    print("\n\n".join(page.tables("gpu_check", vars(part))))
    content = {"rows": part.rows, "facts": part.facts, "machine": describe_machine()}
    write_atomically(given.out, (json.dumps(content, indent=1) + "\n").encode())
    if any(row["met"] is False for row in part.rows):
        sys.exit(1)


def make_project(project: Path) -> Path:
    """Copy the product with its committed parameters and metrics, and the demo's clips and CLIP."""
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
            run_command(script, cwd=demo)
    return project


def train(project: Path, precision: str) -> Outcome:
    """Run both trainings in a precision, and the stages after them."""
    file = project / paths.PARAMS
    values = {"tsn.precision": precision, "fusion.precision": precision}
    file.write_text(yaml.safe_dump(parameters.with_values(yaml.safe_load(file.read_text()), values)))
    run(project, STAGES)
    return outcome(project)


def run(project: Path, stages: Sequence[str]) -> None:
    """Run stages one after the other, each in its own process."""
    for name in stages:
        ran = run_command("-m", f"stages.{name}", "--quiet", cwd=project)
        print_progress(f"  {name}: {ran.seconds:.1f} s")


def outcome(project: Path) -> Outcome:
    """Read the results from the metrics of a project."""
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
    """Return the difference of each precision from the expected results, and the largest allowed one."""
    part = Part(False, 1.0, Path())
    for precision, one in found.items():
        for name, top1 in expected.top1.items():
            gap = abs(one.top1[name] - top1)
            part.add_figure(f"{precision}: {name}, top-1, distance", "", gap, target=TOP1, at_most=True)
        for name, loss in expected.loss.items():
            gap = abs(one.loss[name] / loss - 1)
            part.add_figure(f"{precision}: {name}, last training loss, distance", "", gap, target=LOSS, at_most=True)
    return part


if __name__ == "__main__":
    main()
