"""What the GPU does with the store: `python -m benchmarks.gpu [--quick]`, about 3 minutes.

Training: an epoch of EfficientNet-B0 at 224 px (3 segments, `tsn.precision: auto`), which reads the store and augments
on the device, beside forward, backward and step alone on pictures that are there. Encoding: prepared pictures a second
through ViT-B/32 (`clip.precision: auto`). Both have random weights. Without a GPU it runs on the CPU, and says so.
"""

from __future__ import annotations

import functools
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.common import UCF_SIZE, describe_processor, index_clips, make_clips
from benchmarks.comparison import LEAST, MOST, asked_quick, run_interleaved
from benchmarks.extract import open_store
from benchmarks.predict import write_clip
from benchmarks.train import PICTURE, RECIPE, SEGMENTS, motion_data
from moclip.models.device import pick_device
from moclip.models.encoders.base import BLANK, Encoder
from moclip.models.encoders.registry import load_encoder
from moclip.models.encoders.source import EncoderSource
from moclip.models.mv_tsn import MvTsn, MvTsnConfig
from moclip.training.common import autocast_type
from moclip.training.distributed import World
from moclip.training.mv_optimiser import make_optimiser
from moclip.training.mv_training import MvTsnTraining

EPOCH, STEPS = "an epoch from the store", "forward, backward and step alone"
RATIO = 0.95
"""Least ratio of the epoch's rate to that of the steps alone."""


def make_network(quick: bool) -> MvTsn:
    torch.manual_seed(0)
    return MvTsn(MvTsnConfig("test_resnet" if quick else "efficientnet_b0", ("a", "b"), PICTURE, 0.5))


def store_training(folder: Path, device: torch.device, batch: int, steps: int, quick: bool) -> MvTsnTraining:
    """Return a training whose epochs have so many steps, on MPEG-4 clips of UCF-101's size."""
    made = make_clips(folder, "mpeg4", UCF_SIZE, 1 if quick else 8, 24 if quick else 160)
    clips = index_clips(made, batch * steps // len(made))
    reader = open_store(clips, folder / "store")
    recipe = replace(RECIPE, batch=batch, epochs=1000, precision="auto")
    return MvTsnTraining(make_network(quick), motion_data(reader, clips, 0), recipe, World(device))


def steps_alone(network: MvTsn, optimiser: torch.optim.Optimizer, shown: torch.Tensor, steps: int) -> None:
    """Train on the same pictures again and again, in the precision of `tsn.precision: auto`."""
    device, labels = shown.device, torch.zeros(len(shown), dtype=torch.long, device=shown.device)
    dtype = autocast_type("auto", device)
    for _ in range(steps):
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            loss = torch.nn.functional.cross_entropy(network(shown).float(), labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    wait_for(device)


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def encode(encoder: Encoder, pictures: int) -> None:
    encoder.encode_prepared(encoder.preparer([BLANK] * pictures))


def main() -> None:
    """Print both in plain lines."""
    quick = asked_quick(__doc__, "tiny networks")
    device = pick_device()
    on_gpu = device.type == "cuda"
    print(torch.cuda.get_device_name() if on_gpu else f"no GPU: on the CPU, {describe_processor()}")
    batch, steps, seconds = (128, 24, 60) if on_gpu else (8, 4, 60)
    batch, steps = (4, 1) if quick else (batch, steps)
    least, most = (1, 1) if quick else (LEAST, MOST)
    with tempfile.TemporaryDirectory() as folder:
        training = store_training(Path(folder), device, batch, steps, quick)
        network = make_network(quick).to(device).to(memory_format=torch.channels_last).train()
        shown = torch.randn(batch, SEGMENTS, 2, PICTURE, PICTURE, device=device)
        optimiser = make_optimiser(network, RECIPE)
        epochs = iter(range(1000))
        turns = run_interleaved(
            {
                EPOCH: lambda: training.train_epoch(next(epochs)),
                STEPS: functools.partial(steps_alone, network, optimiser, shown, steps),
            },
            seconds,
            spread=0.05,
            least=least,
            most=most,
        )
        for name in (EPOCH, STEPS):
            print(f"{name}: {batch * steps * SEGMENTS / turns.median(name):,.0f} pictures/s")
        print(f"ratio: {turns.median(STEPS) / turns.median(EPOCH):.2f} (wanted on a GPU: {RATIO})")
        write_clip(f"{folder}/clip", quick)
        encoder = load_encoder(EncoderSource(f"{folder}/clip", precision="auto"), device)
        count = 512 if on_gpu else 16
        encoding = {"encode": functools.partial(encode, encoder, count)}
        turns = run_interleaved(encoding, seconds / 4, spread=0.05, least=least, most=most)
        print(f"encoding with ViT-B/32: {count / turns.median('encode'):,.0f} pictures/s, in {encoder.dtype}")


if __name__ == "__main__":
    main()
