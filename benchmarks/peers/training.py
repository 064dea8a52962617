"""Training: an epoch of MV-TSN and how long it waits for its input; an experiment on the head on cached features."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks import head
from benchmarks.common import UCF_SIZE, indexed, make_clips, real_data, say
from benchmarks.peers.core import Part, Turns, command
from benchmarks.peers.inputs import RECIPE
from benchmarks.read import SEGMENTS, build, decode_sample, film, group_transform, has_cv2
from moclip.data.clip_batches import SampledFields, SplitClips
from moclip.data.sampling import segment_frames
from moclip.models.mv_tsn import MvTsn, MvTsnConfig
from moclip.store.reader import FieldReader
from moclip.training.common import autocast_type
from moclip.training.mv_tsn import MvTsnRecipe, optimiser_for, train_mv_tsn

UCF_TRAIN = 9_537  # clips
CPU = torch.device("cpu")
OURS, LOADER = "ours", "PyTorch's DataLoader, PyAV + OpenCV"
PAPERS = "EfficientNet-B0, 224 px"
NETWORKS = {PAPERS: ("efficientnet_b0", 224, 16), "resnet10t, 64 px": ("resnet10t", 64, 128)}
QUICK_NETWORKS = {"test_resnet, 32 px": ("test_resnet", 32, 4)}


def measure(part: Part) -> None:
    """An epoch of each network on clips of UCF-101's size; the head's experiment."""
    real = real_data()
    if part.quick or real is None:
        paths = make_clips(part.folder, "mpeg4", UCF_SIZE, 1 if part.quick else 8, 24 if part.quick else 160)
        clips = indexed(paths, 4 if part.quick else 16)
    else:
        clips = indexed(sorted((real / "codecs").glob("*.avi")), 128)
    build(clips, part.folder / "train", False, 0 if part.quick else 2)
    reader = FieldReader(part.folder / "train/mv.zarr", part.folder / "train/mv.parquet")
    for name, (backbone, size, batch) in (QUICK_NETWORKS if part.quick else NETWORKS).items():
        epochs(part, name, Epoch(clips, reader, backbone, size, batch))
    if torch.cuda.is_available() and not part.quick:
        backbone, size, _ = NETWORKS[PAPERS]
        epochs(part, f"{PAPERS}, GPU", Epoch(clips, reader, backbone, size, 80, torch.device("cuda"), "bf16"))
        part.setup["GPU"] = "batches of 80, bfloat16; ours makes its pictures on the device"
    part.setup[OURS] = (
        "`train_mv_tsn`, one epoch, with a checkpoint and two clips validated; a batch is read while the one before is "
        "worked on"
    )
    part.setup[LOADER] = (
        "the same network, batch and optimiser in a plain loop; `DataLoader(num_workers=2)`, spawned and persistent, "
        "decodes each sample from its key frame (plain fields) and applies TSN's group transforms"
    )
    if part.quick:
        part.leave_out("an experiment on the head", "not in the quick form; `python -m benchmarks.head --quick`")
    else:
        experiment(part)


# ------------------------------------------------------------------------------------------------------ epochs


class Timed(SampledFields):
    """Fields that note for how long a reader waited for them."""

    waited = 0.0

    def read_async(
        self, clips: SplitClips, segments: int, generator: np.random.Generator | None = None
    ) -> Callable[[], np.ndarray]:
        begun = time.perf_counter()
        wait = super().read_async(clips, segments, generator)
        self.waited += time.perf_counter() - begun

        def waited() -> np.ndarray:
            begun = time.perf_counter()
            read = wait()
            self.waited += time.perf_counter() - begun
            return read

        return waited


class Epoch:
    """The same clips, network and batch for both loops."""

    def __init__(
        self,
        clips: pd.DataFrame,
        reader: FieldReader,
        backbone: str,
        size: int,
        batch: int,
        device: torch.device = CPU,
        precision: str = "fp32",
    ) -> None:
        count = batch * 3 if size > 64 else min(len(clips), batch)
        self.clips, self.reader = clips.iloc[:count], reader
        self.config = MvTsnConfig(backbone, ("a", "b"), size, 0.5)
        self.device, self.type = device, autocast_type(precision, device)
        self.recipe: MvTsnRecipe = replace(RECIPE, batch=batch, precision=precision)
        table = reader.table.set_index("id").loc[self.clips["id"]].reset_index()
        self.labels = np.arange(len(table)) % 2
        self.places = SplitClips(table["offset"].to_numpy(), table["length"].to_numpy(), self.labels)
        self.rows = table.assign(codec="mpeg4")
        self.waits: dict[str, list[float]] = {OURS: [], LOADER: []}

    def network(self) -> MvTsn:
        torch.manual_seed(0)
        return MvTsn(self.config).to(self.device).to(memory_format=torch.channels_last)

    def ours(self, folder: Path) -> None:
        plain = SampledFields.of(self.reader, self.rows)
        fields = Timed(plain.reader, plain.motion_frame, plain.first)
        begun = time.perf_counter()
        validation = self.places[:2]
        rows: list[dict[str, float]] = []
        args = (self.network(), fields, self.places, validation, self.recipe, self.device)
        train_mv_tsn(*args, folder / "checkpoint", "", rows.append)
        (folder / "checkpoint").unlink()
        self.waits[OURS].append(fields.waited / (time.perf_counter() - begun))

    def loader(self, loader: Any) -> None:
        network = self.network()
        optimiser = optimiser_for(network.train(), self.recipe)
        begun, waited, mark = time.perf_counter(), 0.0, time.perf_counter()
        for shown, labels in loader:
            waited += time.perf_counter() - mark
            optimiser.zero_grad(set_to_none=True)
            with torch.autocast(self.device.type, self.type, enabled=self.type != torch.float32):
                logits = network(shown.to(self.device))
            torch.nn.functional.cross_entropy(logits.float(), labels.to(self.device)).backward()
            optimiser.step()
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            mark = time.perf_counter()
        self.waits[LOADER].append(waited / (time.perf_counter() - begun))


class Decoded(torch.utils.data.Dataset[tuple[np.ndarray, int]]):
    """A clip's sample, decoded at each access."""

    def __init__(self, paths: list[str], lengths: np.ndarray, labels: np.ndarray, size: int) -> None:
        self.paths, self.lengths, self.labels, self.size = paths, lengths, labels, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[np.ndarray, int]:
        from benchmarks import read

        read.PICTURE = self.size
        generator = np.random.default_rng()
        frames = segment_frames(self.lengths[number : number + 1], SEGMENTS, generator)[0].tolist()
        fields = decode_sample(film(self.paths[number]), frames, False)
        return group_transform(fields, generator), int(self.labels[number])


def epochs(part: Part, name: str, epoch: Epoch) -> None:
    say(f"an epoch of {name}: {len(epoch.clips)} clips")
    runs: dict[str, Callable[[], object]] = {OURS: functools.partial(epoch.ours, part.folder)}
    if not has_cv2():
        part.leave_out(f"{name}: {LOADER}", "cv2 is not installed; `make bench` installs it")
    elif not part.quick:
        decoded = Decoded(list(epoch.clips["path"]), epoch.places.lengths, epoch.labels, epoch.config.size)
        loader = torch.utils.data.DataLoader(
            decoded, epoch.recipe.batch, shuffle=True, num_workers=2, persistent_workers=True,
            multiprocessing_context="spawn",
        )  # fmt: skip
        runs[LOADER] = functools.partial(epoch.loader, loader)
    turns: Turns = part.turns(runs, 100, least=2)
    each = turns.median(OURS) / len(epoch.clips)
    label = f"{name}: an epoch of UCF-101's {UCF_TRAIN:,} clips, from {len(epoch.clips)}"
    part.row(label, "s", each * UCF_TRAIN, rounds=turns.rounds)
    part.row(f"{name}: training", "images/s", SEGMENTS / each, rounds=turns.rounds)
    part.row(
        f"{name}: share of waiting for input", "", float(np.median(epoch.waits[OURS])) or 1e-6, rounds=turns.rounds
    )
    if LOADER in runs:
        part.versus(f"{name}: an epoch", turns, OURS, LOADER, len(epoch.clips), "videos/s", target=1.0)
        waited = float(np.median(epoch.waits[LOADER]))
        part.row(f"{name}: share of waiting for input, DataLoader", "", waited, rounds=turns.rounds)


# -------------------------------------------------------------------------------------------------- experiment

PRODUCTS = "its matrix products alone"
BATCH, HIDDEN, TIMES = 64, 512, 300


def products(size: head.Size, clips: int) -> float:
    """Seconds that nothing but the matrix products of all the head's training steps take: the floor on this machine."""
    dtype = autocast_type("auto", CPU, dense=True)
    width = head.MOTION + head.PICTURE
    shapes = ((BATCH, width), (HIDDEN, width), (BATCH, HIDDEN), (size.classes, HIDDEN), (BATCH, size.classes))
    features, first, hidden, second, logits = (torch.randn(shape, dtype=dtype) for shape in shapes)
    took = []
    for _ in range(TIMES):
        begun = time.perf_counter()
        _ = features @ first.T, hidden @ second.T  # forward
        _ = logits.T @ hidden, logits @ second, hidden.T @ features  # backward
        took.append(time.perf_counter() - begun)
    return float(np.median(took)) * -(-clips // BATCH) * size.epochs


def experiment(part: Part) -> None:
    """`dvc exp run` on the head at UCF-101's size, and the same with both backbones in every epoch, from a sample."""
    size = head.FULL
    project = part.folder / "project"
    parts = head.make_project(project, size)
    took: list[float] = []
    for number in range(2):
        begun = time.perf_counter()
        head.dvc(project, "exp", "run", "-S", f"fusion.lr={number + 1}e-4")
        took.append(time.perf_counter() - begun)
        say(f"  experiment on the head: {took[-1]:.1f} s")
    apart = {
        name: command("-m", f"stages.{name}", cwd=project).seconds for name in ("train_fusion", "evaluate", "report")
    }
    part.facts["stages of the experiment"] = {name: round(seconds, 1) for name, seconds in apart.items()}
    motion, picture = head.backbones(size)
    ours = float(np.median(took))
    theirs = (motion + picture) * parts["train"] * size.epochs
    label = "an experiment on the head, 100 epochs, DVC included"
    part.row(label, "s", ours, target=60, at_most=True, rounds=len(took))
    part.row(label, "s", ours, products(size, parts["train"]), who=("cached features", PRODUCTS), less=True)
    frozen = "frozen backbones in each epoch (reckoned from 16 clips)"
    part.row(label, "s", ours, theirs, who=("cached features", frozen), less=True, rounds=len(took))
    part.setup["cached features"] = "`dvc exp run -S fusion.lr=...`, preset ucf101, 8,527 clips, 4 views, 100 epochs"
    part.setup[PRODUCTS] = "the products of a step's forward and backward pass, times the steps: the floor"
    part.setup[frozen] = "EfficientNet-B0 on 3 segments and ViT-B/32 on a frame, forward only, of every clip and epoch"
