"""Time an experiment on the head at UCF-101's size, DVC included: `make bench-head`.

    python -m benchmarks.head [--quick] [--out FILE]

A project of its own holds what the stages before the head would have left of 13,320 clips in 101 classes: an index and
cached features (512 of CLIP, 1,280 of MV-TSN, 4 views), here drawn around a centre a class. Then the preset `ucf101`
as it is: `dvc exp run -S fusion.lr=1e-4`. Beside it stands the reference code's way, which runs both frozen backbones
over every training clip in every epoch: measured on a sample, and multiplied.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from benchmarks.common import RESULTS, Row, arguments, by_turns, copy_product, report, say
from moclip.data.index import INDEX_COLUMNS
from moclip.data.selection import class_names, index_counts, tally
from moclip.files.atomic import folder_aside
from moclip.models.flops import count_parameters
from moclip.models.mv_tsn import MvTsn, MvTsnConfig
from moclip.store.features import to_unit_length, write_features, write_group
from moclip.video.clip_files import file_md5
from pipeline import params as parameters
from pipeline import paths, presets
from pipeline.dag import STAGES
from pipeline.inputs import Inputs
from pipeline.io import read_json, write_json, write_parquet
from pipeline.provenance import FIELD_KEYS

MOTION, PICTURE, VIEWS, SEGMENTS = 1280, 512, 4, 3
TARGET_SECONDS = 60.0


@dataclass(frozen=True)
class Size:
    """Clips of train (validation among them) and test, classes, epochs, and clips in the sample."""

    train: int
    test: int
    classes: int
    epochs: int
    sample: int
    times: int


FULL = Size(train=9_537, test=3_783, classes=101, epochs=100, sample=16, times=3)
QUICK = Size(train=120, test=40, classes=4, epochs=2, sample=2, times=1)


def main() -> None:
    options = arguments(__doc__).parse_args()
    size = QUICK if options.quick else FULL
    with tempfile.TemporaryDirectory(prefix="bench-head-") as folder:
        project = Path(folder) / "project"
        parts = make_project(project, size)
        say(f"dvc exp run -S fusion.lr=1e-4, {parts['train']} clips to train on")
        begun = time.perf_counter()
        dvc(project, "exp", "run", "-S", "fusion.lr=1e-4")
        ours = time.perf_counter() - begun
        top1 = read_json(project / paths.STREAM_JSON["fusion"], "evaluate")["top1"]
    motion, picture = backbones(size)
    theirs = (motion + picture) * parts["train"] * size.epochs
    rows = [
        Row(f"dvc exp run -S fusion.lr=1e-4, {size.epochs} epochs", ours, None, "s", TARGET_SECONDS, at_most=True),
        Row("the same / both backbones in every epoch", ours, theirs, "s"),
        Row("the same / EfficientNet-B0 alone in every epoch", ours, motion * parts["train"] * size.epochs, "s"),
    ]
    facts = {
        **parts,
        "epochs": size.epochs,
        "top-1 of the fusion head on these features": top1,
        "seconds a clip, EfficientNet-B0 at 224 px, 3 segments": round(motion, 4),
        "seconds a clip, ViT-B/32, one frame": round(picture, 4),
        "clips in the sample": size.sample,
    }
    out = options.out or (None if options.quick else RESULTS / "head.json")
    report("an experiment on the head at UCF-101's size", rows, [], facts, out)


def make_project(project: Path, size: Size) -> dict[str, int]:
    """A git and DVC project where everything before the head is done; the number of clips in each part."""
    copy_product(project)
    (project / "videos").mkdir()
    here = Path.cwd()
    os.chdir(project)
    try:
        preset = yaml.safe_load(presets.params_text("ucf101", "videos", None, None))
        params = {
            "fusion.lr": 3e-4,
            "fusion.epochs": size.epochs,
            "dataset.phrases": parameters.NO_FILE,
            "baselines.image": False,
            "report.clips": 0,  # there are none to look at
        }
        paths.PARAMS.write_text(yaml.safe_dump(parameters.with_values(preset, params)))
        say("writing the features")
        parts = _write_features(size)
    finally:
        os.chdir(here)
    _git(project, "init", "-q")
    dvc(project, "init", "-q")
    before = list(STAGES)[: list(STAGES).index("train_fusion")]
    dvc(project, "commit", "-f", "-q", *before)
    _git(project, "add", "-A")
    _git(project, "-c", "user.name=bench", "-c", "user.email=bench@example.org", "commit", "-q", "-m", "features")
    return parts


def _write_features(size: Size) -> dict[str, int]:
    """What the stages before the head leave, in the current folder, of clips whose features lie around a class's."""
    generator = np.random.default_rng(0)
    table = _index(size)
    ids, labels = list(table["id"]), table["label"].to_numpy()
    names = class_names(table)

    def drawn(rows: np.ndarray, width: int, spread: float) -> np.ndarray:
        centres = np.random.default_rng(width).standard_normal((size.classes, width), dtype=np.float32)
        return centres[rows] + spread * generator.standard_normal((len(rows), width), dtype=np.float32)

    write_parquet(paths.INDEX, table)
    write_parquet(
        paths.MV_TABLE,
        table[["id"]].assign(offset=np.arange(len(table)) * 180, length=180, status="ok", reason=""),
    )
    stills = to_unit_length(drawn(labels, PICTURE, 3.0))[:, None]
    tower = CLIPVisionConfig(patch_size=32, projection_dim=PICTURE)
    write_features(
        paths.CLIP_IMAGE,
        ids,
        {"features": (stills, ("still", "feature"))},
        {"vision": tower.to_diff_dict()},
    )
    write_parquet(paths.CLIP_TABLE, table[["id", "md5"]].assign(status="ok", reason=""))
    text = to_unit_length(drawn(np.arange(size.classes), PICTURE, 0.1))
    write_features(paths.CLIP_TEXT, names, {"features": (text, ("feature",))}, {"logit_scale": 100.0})
    network = MvTsn(MvTsnConfig("efficientnet_b0", tuple(names), 224, 0.5))
    params = parameters.load(paths.PARAMS)
    network.save(paths.MV_TSN, Inputs(params).artifacts.model_record(*FIELD_KEYS))
    attributes = {"model": file_md5(paths.MV_TSN), "field_bytes": 2400}
    logits = drawn(labels, size.classes, 3.0)
    train = table["split"].eq("train").to_numpy()
    with folder_aside(paths.MV_EMBED) as store:
        arrays = {"features": (drawn(labels, MOTION, 3.0), ("feature",)), "logits": (logits, ("class",))}
        write_group(store / "protocol", ids, arrays, attributes)
        views = np.stack([drawn(labels[train], MOTION, 3.0) for _ in range(VIEWS)], axis=1)
        write_group(store / "views", list(table["id"][train]), {"features": (views, ("view", "feature"))}, {})
    for folder in (paths.IMAGE_BASELINE, paths.IMAGE_LOGITS, paths.TRANSCODED, paths.MV_STORE):
        folder.mkdir(parents=True)
    write_json(paths.TRANSCODE_COUNTS, {})
    write_json(paths.INDEX_COUNTS, index_counts(table))
    write_json(paths.EXTRACT_COUNTS, {"exact_by": {}, "frames": 180 * len(table), "not_usable": {}})
    for part in ("train", "val"):
        for what in ("loss", "top1"):
            curve = paths.TRAIN_MV_LOG / "plots" / "metrics" / f"{part}_{what}.tsv"
            curve.parent.mkdir(parents=True, exist_ok=True)
            curve.write_text(f"step\t{part}_{what}\n1\t0.5\n")
    return tally(table["split"])


def _index(size: Size) -> pd.DataFrame:
    """An index of UCF-101's proportions: 25 sources a class, 7 of them to test on."""
    count = size.train + size.test
    number = np.arange(count)
    label, turn = number % size.classes, number // size.classes
    test = number >= size.train
    group = np.where(test, 1 + turn % 7, 8 + turn % 18)
    table = pd.DataFrame({"label": label, "group": [f"g{value:02d}" for value in group]})
    table["class"] = [f"Class{value:03d}" for value in label]
    table["id"] = [f"{name}/v_{n:05d}.avi" for name, n in zip(table["class"], number, strict=True)]
    table["path"], table["md5"] = table["id"], [f"{n:032x}" for n in number]
    table["split"] = np.select([test, group >= 24], ["test", "val"], "train")
    for name, value in (
        ("codec", "mpeg4"), ("w", 320), ("h", 240), ("fps", 25.0), ("frames", 180), ("gop", 12), ("has_b", False),
        ("bytes", 500_000), ("status", "ok"), ("reason", ""), ("damage", ""), ("seekable", True),
    ):  # fmt: skip
        table[name] = value
    return table[list(INDEX_COLUMNS)].astype(INDEX_COLUMNS)


@torch.inference_mode()
def backbones(size: Size) -> tuple[float, float]:
    """Seconds a clip that the frozen backbones take: EfficientNet-B0 on three segments, ViT-B/32 on one frame."""
    network = MvTsn(MvTsnConfig("efficientnet_b0", ("a", "b"), 224, 0.5)).eval().to(memory_format=torch.channels_last)
    tower = CLIPVisionModelWithProjection(CLIPVisionConfig(patch_size=32, projection_dim=PICTURE)).eval()
    say(f"frozen backbones: {count_parameters(network):,} and {count_parameters(tower):,} parameters")
    fields, pictures = torch.randn(size.sample, SEGMENTS, 2, 224, 224), torch.randn(size.sample, 3, 224, 224)
    best = by_turns({"EfficientNet-B0": lambda: network(fields), "ViT-B/32": lambda: tower(pictures)}, size.times + 1)
    return best["EfficientNet-B0"] / size.sample, best["ViT-B/32"] / size.sample


def dvc(project: Path, *arguments: str) -> None:
    environment = os.environ | {"DVC_NO_ANALYTICS": "1", "PYTHONPATH": "src"}
    environment["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), environment["PATH"]))
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"dvc {' '.join(arguments)}:\n{done.stdout}\n{done.stderr}")


def _git(project: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=project, check=True, capture_output=True)


if __name__ == "__main__":
    main()
