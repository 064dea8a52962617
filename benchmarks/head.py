"""An experiment on the head at UCF-101's size, DVC included, compared with one without cached features.

    python -m benchmarks.head [--quick] [--out FILE]

The project has the outputs of the stages before the head, for 13,320 clips in 101 classes: an index and cached features
(512 of CLIP, 1,280 of MV-TSN, 4 views), which here are random numbers around one centre per class. Then
`dvc exp run -S fusion.lr=1e-4` runs on the preset `ucf101`. The reference code runs both frozen backbones on every
training clip in every epoch instead; this is measured on a few clips and extrapolated.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from benchmarks.common import copy_product, print_progress
from benchmarks.comparison import UCF_CLIPS, UCF_TRAIN, Part, init_git_and_dvc, run_as_program, run_command
from moclip.data.index import INDEX_COLUMNS
from moclip.data.selection import class_names, index_counts, tally
from moclip.files.atomic import atomic_folder
from moclip.models.flops import segment_cost
from moclip.models.mv_tsn import MvTsn, MvTsnConfig
from moclip.store.features import to_unit_length, write_features, write_group
from moclip.training.common import autocast_type
from moclip.video.clip_files import file_md5
from pipeline import params as parameters
from pipeline import paths, presets
from pipeline.dag import STAGES
from pipeline.inputs import Inputs
from pipeline.io import write_json, write_parquet
from pipeline.provenance import FIELD_KEYS
from pipeline.yaml_text import load_yaml

MOTION, PICTURE, VIEWS, SEGMENTS = 1280, 512, 4, 3
BATCH, HIDDEN = 64, 512  # of the head's training, and of its hidden layer
CACHED, PRODUCTS = "cached features", "its matrix products alone"
DVC = ("-m", "dvc")
LABEL = "an experiment on the head, 100 epochs, DVC included"


@dataclass(frozen=True)
class Size:
    """Numbers of clips in train (with validation) and test, classes, epochs, and clips to time backbones on."""

    train: int
    test: int
    classes: int
    epochs: int
    sample: int


FULL = Size(train=UCF_TRAIN, test=UCF_CLIPS - UCF_TRAIN, classes=101, epochs=100, sample=16)
QUICK = Size(train=120, test=40, classes=4, epochs=2, sample=2)


def measure(part: Part) -> None:
    """Measure `dvc exp run` on the head, its stages, and both alternatives."""
    size = QUICK if part.quick else FULL
    project = part.folder / "project"
    clips = make_project(project, size)
    took: list[float] = []
    for number in range(1 if part.quick else 2):
        took.append(run_command(*DVC, "exp", "run", "-S", f"fusion.lr={number + 1}e-4", cwd=project).seconds)
        print_progress(f"  experiment on the head: {took[-1]:.1f} s")
    part.facts["clips"] = clips
    stages = () if part.quick else ("train_fusion", "evaluate", "report")
    spent = {name: run_command("-m", f"stages.{name}", cwd=project).seconds for name in stages}
    part.facts["stages"] = {name: round(seconds, 1) for name, seconds in spent.items()}
    ours = float(np.median(took))
    without_cache = backbones(part, size) * clips["train"] * size.epochs
    backbone = f"frozen backbones in each epoch (extrapolated from {size.sample} clips)"
    part.add_figure(LABEL, "s", ours, target=60, at_most=True, rounds=len(took))
    part.add_figure(LABEL, "s", ours, products(part, size, clips["train"]), who=(CACHED, PRODUCTS), less=True)
    part.add_figure(LABEL, "s", ours, without_cache, who=(CACHED, backbone), less=True, rounds=len(took))
    part.setup[CACHED] = f"`dvc exp run -S fusion.lr=...`, preset ucf101, {clips['train']:,} clips, 4 views, 100 epochs"
    part.setup[PRODUCTS] = "the products of a step's forward and backward pass, times the steps: the floor"
    part.setup[backbone] = "EfficientNet-B0 on 3 segments, ViT-B/32 on a frame; forward only, of every clip and epoch"


def make_project(project: Path, size: Size) -> dict[str, int]:
    """Make a git and DVC project in which all stages before the head are done. Return the clips per split."""
    copy_product(project)
    (project / "videos").mkdir()
    with contextlib.chdir(project):
        preset = load_yaml(presets.params_text("ucf101", "videos", None, None))
        params = {
            "fusion.lr": 3e-4,
            "fusion.epochs": size.epochs,
            "dataset.phrases": parameters.NO_FILE,
            "baselines.image": False,
            "report.clips": 0,  # there are no files to draw
        }
        paths.PARAMS.write_text(yaml.safe_dump(parameters.with_values(preset, params)))
        print_progress("writing the features")
        parts = _write_features(size)
    init_git_and_dvc(project)
    before = list(STAGES)[: list(STAGES).index("train_fusion")]
    for name in ("code", "train_probe"):
        run_command("-m", f"stages.{name}", cwd=project)
    run_command(*DVC, "commit", "-f", "-q", "code", *before, cwd=project)
    return parts


def _write_features(size: Size) -> dict[str, int]:
    """Write the outputs of the stages before the head into the current folder. Return the clips per split."""
    generator = np.random.default_rng(0)
    table = _index(size)
    ids, labels = list(table["id"]), table["label"].to_numpy()
    names = class_names(table)

    def drawn(rows: np.ndarray, width: int, spread: float) -> np.ndarray:
        centres = np.random.default_rng(width).standard_normal((size.classes, width), dtype=np.float32)
        return centres[rows] + spread * generator.standard_normal((len(rows), width), dtype=np.float32)

    write_parquet(paths.INDEX, table)
    write_parquet(
        paths.MV_TABLE, table[["id"]].assign(offset=np.arange(len(table)) * 180, length=180, status="ok", reason="")
    )
    stills = to_unit_length(drawn(labels, PICTURE, 3.0))[:, None]
    cost = {"parameters": 87_849_216, "multiply_adds": 4_410_000_000}  # ViT-B/32's
    write_features(
        paths.CLIP_IMAGE, ids, {"features": (stills, ("still", "feature"))}, {"cost": cost, "model": "ViT-B/32"}
    )
    write_parquet(paths.CLIP_TABLE, table[["id", "md5"]].assign(status="ok", reason=""))
    text = to_unit_length(drawn(np.arange(size.classes), PICTURE, 0.1))
    write_features(paths.CLIP_TEXT, names, {"features": (text, ("feature",))}, {"logit_scale": 100.0, "prompts": []})
    network = MvTsn(MvTsnConfig("efficientnet_b0", tuple(names), 224, 0.5))
    params = parameters.load(paths.PARAMS)
    network.save(paths.MV_TSN, Inputs(params).artifacts.model_record(*FIELD_KEYS))
    attributes = {"model": file_md5(paths.MV_TSN), "field_bytes": 2400, "cost": segment_cost(network)}
    logits = drawn(labels, size.classes, 3.0)
    train = table["split"].eq("train").to_numpy()
    with atomic_folder(paths.MV_EMBED) as store:
        arrays = {"features": (drawn(labels, MOTION, 3.0), ("feature",)), "logits": (logits, ("class",))}
        write_group(store / "protocol", ids, arrays, attributes)
        views = np.stack([drawn(labels[train], MOTION, 3.0) for _ in range(VIEWS)], axis=1)
        write_group(store / "views", list(table["id"][train]), {"features": (views, ("view", "feature"))}, {})
    for folder in (paths.IMAGE_BASELINE, paths.IMAGE_LOGITS, paths.TRANSCODED, paths.MV_STORE, paths.MV_FOLDS):
        folder.mkdir(parents=True)
    write_json(paths.TRANSCODE_COUNTS, {})
    write_json(paths.INDEX_COUNTS, index_counts(table) | {"split_source": "official split 1"})
    write_json(paths.EXTRACT_COUNTS, {"exact_by": {}, "frames": 180 * len(table), "not_usable": {}})
    for part in ("train", "val"):
        for what in ("loss", "top1"):
            curve = paths.TRAIN_MV_LOG / "plots" / "metrics" / f"{part}_{what}.tsv"
            curve.parent.mkdir(parents=True, exist_ok=True)
            curve.write_text(f"step\t{part}_{what}\n1\t0.5\n")
    return tally(table["split"])


def _index(size: Size) -> pd.DataFrame:
    """Return an index with UCF-101's proportions: 25 sources per class, 7 of them for testing."""
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
def backbones(part: Part, size: Size) -> float:
    """Return the seconds per clip of the frozen backbones: EfficientNet-B0 on 3 segments, ViT-B/32 on one frame."""
    backbone, less = ("test_resnet", {"num_hidden_layers": 1}) if part.quick else ("efficientnet_b0", {})
    network = MvTsn(MvTsnConfig(backbone, ("a", "b"), 224, 0.5)).eval().to(memory_format=torch.channels_last)
    tower = CLIPVisionModelWithProjection(CLIPVisionConfig(patch_size=32, projection_dim=PICTURE, **less)).eval()
    fields, pictures = torch.randn(size.sample, SEGMENTS, 2, 224, 224), torch.randn(size.sample, 3, 224, 224)
    turns = part.turns({"EfficientNet-B0": lambda: network(fields), "ViT-B/32": lambda: tower(pictures)}, 15)
    return (turns.median("EfficientNet-B0") + turns.median("ViT-B/32")) / size.sample


def products(part: Part, size: Size, clips: int) -> float:
    """Return the seconds of the matrix products in all training steps of the head: a lower bound on this machine."""
    dtype = autocast_type("auto", torch.device("cpu"), dense=True)
    width = MOTION + PICTURE
    shapes = ((BATCH, width), (HIDDEN, width), (BATCH, HIDDEN), (size.classes, HIDDEN), (BATCH, size.classes))
    features, first, hidden, second, logits = (torch.randn(shape, dtype=dtype) for shape in shapes)

    def step() -> None:
        _ = features @ first.T, hidden @ second.T  # forward
        _ = logits.T @ hidden, logits @ second, hidden.T @ features  # backward

    took = part.turns({"step": step}, 3, least=300, most=300).median("step")
    return took * -(-clips // BATCH) * size.epochs


if __name__ == "__main__":
    run_as_program("head", __doc__)
