"""Training: an interrupted run ends with the bytes of one that was not, and neither ever needs the test split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from moclip import mv_training, video
from moclip.errors import ModelError
from moclip.extract import extract
from moclip.fields import Clips, Fields
from moclip.mv_training import MvTsnRecipe, optimiser_for, schedule, train_mv_tsn
from moclip.mv_tsn import MvTsn, MvTsnConfig
from moclip.sampling import motion_frames
from moclip.store import FieldReader, read_frame_types
from moclip.training import BestEpoch
from tests.clips import encode, moving_texture

RECIPE = MvTsnRecipe(
    segments=2,
    epochs=4,
    batch=4,
    lr=0.01,
    eps=1e-3,
    weight_decay=1e-4,
    lr_mult_head=1,
    lr_mult_stem=0.1,
    lr_mult_rest=0.01,
    lr_steps=(2, 3),
    crops=(1, 0.875),
    flip=True,
    precision="fp32",
    test_crop=1,
    seed=3,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Fields, Clips, Clips]:
    """Fields of 13 clips (9 to train on: batches of 4 leave one over), half of which move the other way."""
    root = tmp_path_factory.mktemp("clips")
    rows = []
    for number in range(13):
        step = (4.0, 0.0) if number % 2 else (-4.0, 0.0)
        path = encode(root / f"{number}.avi", moving_texture(10, (64, 80), step, seed=number))
        about = video.probe(path)
        rows.append(
            {
                "id": path.name,
                "path": path.name,
                "md5": video.md5(path),
                "frames": about.frames,
                "codec": about.codec,
                "has_b": about.has_b,
            }
        )
    table = extract(
        pd.DataFrame(rows), root=root, zarr_path=root / "mv.zarr", table_path=root / "mv.parquet", shard_frames=64
    )
    offsets, lengths = table["offset"].to_numpy(), table["length"].to_numpy()
    labels = np.array([int(Path(name).stem) % 2 for name in table["id"]])
    clips = Clips(offsets, lengths, labels)
    target = motion_frames(read_frame_types(root / "mv.zarr"), offsets, lengths, np.zeros(13, bool))
    return Fields(FieldReader(root / "mv.zarr", table), target), clips[:9], clips[9:]


def network() -> MvTsn:
    torch.manual_seed(1)
    return MvTsn(MvTsnConfig("test_resnet", ("left", "right"), 32, 0.5))


def trained(
    data: tuple[Fields, Clips, Clips], checkpoint: Path, stop_after: int | None = None, fingerprint: str = "same"
) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    fields, train, val = data
    model, rows = network(), []

    def log(row: dict[str, float]) -> None:
        rows.append(row)
        if stop_after is not None and len(rows) > stop_after:
            raise KeyboardInterrupt

    train_mv_tsn(model, fields, train, val, RECIPE, torch.device("cpu"), checkpoint, fingerprint, log)
    return model.state_dict(), rows


@pytest.mark.parametrize("done", [1, 3])
def test_a_resumed_run_ends_with_the_same_weights(
    data: tuple[Fields, Clips, Clips], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    monkeypatch.setattr(mv_training, "CHECKPOINT_SECONDS", 0.0)
    whole, whole_rows = trained(data, tmp_path / "a.safetensors")
    with pytest.raises(KeyboardInterrupt):
        trained(data, tmp_path / "b.safetensors", stop_after=done)
    assert (tmp_path / "b.safetensors").exists()
    resumed, rows = trained(data, tmp_path / "b.safetensors")
    assert rows == whole_rows
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name
    assert not (tmp_path / "b.safetensors").exists(), "removed when the run has ended"


def test_a_checkpoint_of_another_run_is_not_taken_up(
    data: tuple[Fields, Clips, Clips], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mv_training, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        trained(data, tmp_path / "c.safetensors", stop_after=2, fingerprint="another recipe")
    _, rows = trained(data, tmp_path / "c.safetensors")
    _, whole_rows = trained(data, tmp_path / "d.safetensors")
    assert rows == whole_rows


def test_it_learns_which_way_things_move(data: tuple[Fields, Clips, Clips], tmp_path: Path) -> None:
    fields, train, val = data
    recipe = MvTsnRecipe(**{**vars(RECIPE), "flip": False, "epochs": 12, "lr_mult_rest": 1.0, "lr_mult_stem": 1.0})
    model = network()
    best = train_mv_tsn(
        model, fields, train, val, recipe, torch.device("cpu"), tmp_path / "e.safetensors", "", lambda row: None
    )
    assert best["val_top1"] == 1


def test_the_rate_falls_tenfold_at_the_steps() -> None:
    optimiser = optimiser_for(network(), RECIPE)
    scheduler = schedule(optimiser, RECIPE)
    head = next(number for number, group in enumerate(optimiser.param_groups) if group["name"] == "head")
    rates = []
    for _ in range(4):
        rates.append(optimiser.param_groups[head]["lr"])
        optimiser.step()
        scheduler.step()
    assert rates == pytest.approx([0.01, 0.01, 0.001, 0.0001])
    assert isinstance(optimiser, torch.optim.Adam)
    assert optimiser.defaults["eps"] == 1e-3


def test_a_diverging_run_says_so(data: tuple[Fields, Clips, Clips], tmp_path: Path) -> None:
    fields, train, val = data
    recipe = MvTsnRecipe(**{**vars(RECIPE), "lr": 1e30, "lr_mult_rest": 1.0})
    with pytest.raises(ModelError, match=r"lower tsn\.lr"):
        train_mv_tsn(network(), fields, train, val, recipe, torch.device("cpu"), tmp_path / "f", "", lambda row: None)


def test_the_best_epoch_is_kept_of_equals_the_one_with_the_lower_loss() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    keeper = BestEpoch(model)
    rows = [(0.5, 0.9), (0.8, 0.7), (0.8, 0.4), (0.8, 0.4), (0.6, 0.1)]
    for epoch, (top1, loss) in enumerate(rows):
        torch.nn.init.constant_(model.weight, epoch)
        keeper.offer({"epoch": epoch, "val_top1": top1, "val_loss": loss})
    keeper.restore()
    assert keeper.row["epoch"] == 2
    assert model.weight.item() == 2
