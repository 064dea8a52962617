"""Training: an interrupted run ends with the bytes of one that was not, and neither ever needs the test split."""

from __future__ import annotations

import math
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch.nn import functional

from moclip.data.clip_batches import SampledFields, SplitClips
from moclip.data.crops import crop_and_resize, random_crops
from moclip.data.sampling import motion_frames, segment_frames
from moclip.errors import ModelError
from moclip.inference.embed_views import ViewsTask, ViewsWorker
from moclip.inference.encode import EncodingPart
from moclip.models.mv_tsn import MvTsn, MvTsnConfig, parameter_groups
from moclip.motion.extract import Output, extract
from moclip.motion.extract_plan import FieldRecipe
from moclip.store.layout import read_frame_types
from moclip.store.reader import FieldReader
from moclip.training.common import autocast_type
from moclip.training.distributed import World
from moclip.training.embed import embed_protocol, embed_view
from moclip.training.epochs import BestEpoch
from moclip.training.mirroring import Mirroring
from moclip.training.mv_batches import MotionData, slice_batches
from moclip.training.mv_checkpoint import Checkpoint
from moclip.training.mv_optimiser import make_optimiser, make_schedules
from moclip.training.mv_recipe import MvTsnRecipe
from moclip.training.mv_training import MvTsnTraining
from moclip.training.mv_tsn import train_mv_tsn
from moclip.video.clip_files import file_md5
from moclip.video.probe import probe
from pipeline import params as parameters
from pipeline import presets
from pipeline.training_recipe import training_recipe
from tests.clips import encode, moving_texture
from tests.conftest import run
from tests.ranks import plain_network
from tests.test_dag import digests

CPU = World(torch.device("cpu"))

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
def data(tmp_path_factory: pytest.TempPathFactory) -> MotionData:
    """Fields of 13 clips (9 to train on: batches of 4 leave one over), half of which move the other way."""
    root = tmp_path_factory.mktemp("clips")
    rows = []
    for number in range(13):
        step = (4.0, 0.0) if number % 2 else (-4.0, 0.0)
        path = encode(root / f"{number}.avi", moving_texture(10, (64, 80), step, seed=number))
        about = probe(path)
        rows.append(
            {
                "id": path.name,
                "path": path.name,
                "md5": file_md5(path),
                "frames": about.frames,
                "codec": about.codec,
                "has_b": about.has_b,
            }
        )
    output = Output(root / "mv.zarr", root / "mv.parquet")
    table = extract(pd.DataFrame(rows), root, output, FieldRecipe(shard_frames=64))
    offsets, lengths = table["offset"].to_numpy(), table["length"].to_numpy()
    labels = np.array([int(Path(name).stem) % 2 for name in table["id"]])
    clips = SplitClips(offsets, lengths, labels)
    target = motion_frames(read_frame_types(root / "mv.zarr"), offsets, lengths, np.zeros(13, bool))
    return MotionData(SampledFields(FieldReader(root / "mv.zarr", table), target), clips[:9], clips[9:])


def network() -> MvTsn:
    torch.manual_seed(1)
    return MvTsn(MvTsnConfig("test_resnet", ("left", "right"), 32, 0.5))


def sharpened(model: MvTsn) -> MvTsn:
    """With larger weights: a new network's logits are all but the same for any input, and tell a test nothing."""
    torch.manual_seed(2)
    for name, parameter in model.named_parameters():
        if ".bn" in name and name.endswith("weight"):
            torch.nn.init.ones_(parameter)
    torch.nn.init.normal_(model.head.weight)
    return model.eval()


def with_one_layer(model: MvTsn) -> MvTsn:
    """Give the network a backbone of one layer: for tests that take longer with each layer, and do not depend on it."""
    layer = torch.nn.Conv2d(model.config.channels, model.width, 5, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1)
    model.backbone = torch.nn.Sequential(*layer, torch.nn.Flatten())
    return model.eval()


def trained(
    data: MotionData,
    checkpoint: Path,
    stop_after: int | None = None,
    fingerprint: str = "same",
    recipe: MvTsnRecipe = RECIPE,
) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    model, rows = network(), []

    def log(row: dict[str, float]) -> None:
        rows.append(row)
        if stop_after is not None and len(rows) > stop_after:
            raise KeyboardInterrupt

    train_mv_tsn(model, data, recipe, CPU, Checkpoint(checkpoint, fingerprint, 0.0), log)
    return model.state_dict(), rows


STAGES = {
    "train_mv": ("data/models/mv_tsn.safetensors", "metrics/train_mv"),
    "train_image": ("data/baselines/image",),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_that_ends_before_its_model_is_saved_is_not_trained_again(project: Path, stage: str) -> None:
    """The model cannot get into its place, as after a kill; then there are no motion fields to train on any more."""
    command = ("moclip", stage, *(("--baselines-image", "test_resnet") if stage == "train_image" else ()))
    run(*command, cwd=project)
    before, place = digests(project, *STAGES[stage]), project / STAGES[stage][0]
    checkpoint = project / f"data/work/{stage}.safetensors"
    assert not checkpoint.exists(), "the model is saved"
    if stage == "train_mv":
        place.unlink()
        place.mkdir()
    else:
        shutil.rmtree(place)
        place.touch()
    run(*command, cwd=project, code=1)
    assert checkpoint.exists()
    place.rmdir() if stage == "train_mv" else place.unlink()
    shutil.rmtree(project / "data/features/mv.zarr/field/c")
    code = project / f"stages/{stage}.py"
    text = code.read_text()
    code.write_text(f"{text}# edited\n")
    assert "data/features/mv.zarr" in run(*command, cwd=project, code=1).stderr, "other code has to train again"
    code.write_text(text)
    run(*command, cwd=project)
    assert digests(project, *STAGES[stage]) == before
    assert not checkpoint.exists()


RECIPES: dict[str, dict[str, Any]] = {
    "the paper's": {},
    "cosine": {
        "optimiser": "adamw",
        "schedule": "cosine",
        "warmup": 0.4,
        "weight_decay": 0.05,
        "label_smoothing": 0.1,
        "ema": 0.7,
        "min_steps": 11,
    },
    "one cycle": {"optimiser": "adamw", "schedule": "onecycle", "warmup": 0.3, "weight_decay": 0.05},
    "sgd": {"optimiser": "sgd", "warmup": 0.5, "ema": 0.5},
    "sgd in one cycle": {"optimiser": "sgd", "schedule": "onecycle"},
}
"""What differs from RECIPE."""


@pytest.mark.slow
@pytest.mark.parametrize(("change", "done"), [("the paper's", 3), *((name, 1) for name in RECIPES)])
def test_a_resumed_run_ends_with_the_same_weights(data: MotionData, tmp_path: Path, change: str, done: int) -> None:
    recipe = replace(RECIPE, lr_mult_stem=1, lr_mult_rest=1, **RECIPES[change])
    whole, whole_rows = trained(data, tmp_path / "a.safetensors", recipe=recipe)
    with pytest.raises(KeyboardInterrupt):
        trained(data, tmp_path / "b.safetensors", stop_after=done, recipe=recipe)
    assert (tmp_path / "b.safetensors").exists()
    resumed, rows = trained(data, tmp_path / "b.safetensors", recipe=recipe)
    assert rows == whole_rows
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name
    again, rows = trained(data, tmp_path / "b.safetensors", recipe=recipe)
    assert rows == whole_rows
    assert all(torch.equal(tensor, again[name]) for name, tensor in whole.items()), "it holds the best epoch's, too"


def test_a_checkpoint_stores_the_gradient_scale(data: MotionData, tmp_path: Path) -> None:
    """Of float16, which trains on a GPU alone; else a resumed run would begin at the first scale again."""

    def begun() -> MvTsnTraining:
        training = MvTsnTraining(network(), data, RECIPE, CPU)
        training.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
        return training

    training, resumed = begun(), begun()
    training.train_epoch(0)
    assert training.scaler.get_scale() == 2048
    Checkpoint(tmp_path / "c", "same", 0.0).save(training)
    Checkpoint(tmp_path / "c", "same", 0.0).resume(resumed)
    assert resumed.scaler.state_dict() == training.scaler.state_dict()
    assert resumed.history == training.history


@pytest.mark.slow
def test_a_checkpoint_of_another_run_is_ignored(data: MotionData, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trained(data, tmp_path / "c.safetensors", stop_after=2, fingerprint="another recipe")
    _, rows = trained(data, tmp_path / "c.safetensors")
    _, whole_rows = trained(data, tmp_path / "d.safetensors")
    assert rows == whole_rows


@pytest.mark.slow
def test_it_learns_which_way_things_move(data: MotionData, tmp_path: Path) -> None:
    training_recipe = MvTsnRecipe(
        **{**vars(RECIPE), "flip": False, "epochs": 12, "lr_mult_rest": 1.0, "lr_mult_stem": 1.0}
    )
    rows: list[dict[str, float]] = []
    best = train_mv_tsn(network(), data, training_recipe, CPU, Checkpoint(tmp_path / "e", "", 0.0), rows.append)
    assert best["val_top1"] == 1
    assert 0 < rows[-1]["train_loss"] < rows[0]["train_loss"] < 2
    assert rows[0]["train_top1"] < rows[-1]["train_top1"] <= 1


@pytest.fixture(scope="module")
def of_the_paper(tmp_path_factory: pytest.TempPathFactory) -> tuple[MvTsn, MvTsnRecipe]:
    """The network and the recipe that preset ucf101 gives, without the weights of the hub."""
    root = tmp_path_factory.mktemp("UCF-101")
    params = parameters.validate(yaml.safe_load(presets.params_text("ucf101", str(root), None, None)), "preset")
    tsn = params.tsn
    config = MvTsnConfig(tsn.backbone, tuple(map(str, range(101))), tsn.size, tsn.dropout, tsn.stem_stride)
    return MvTsn(config), training_recipe(params, tsn.segments, Mirroring(True))


def test_the_papers_rates_and_decays_reach_every_parameter(of_the_paper: tuple[MvTsn, MvTsnRecipe]) -> None:
    model, wanted = of_the_paper
    assert (wanted.segments, wanted.epochs, wanted.batch) == (3, 200, 80)
    optimiser = make_optimiser(model, wanted)
    assert type(optimiser) is torch.optim.Adam  # PyTorch's AdamW is one of its Adams, too
    group_of = {parameter: group for group in optimiser.param_groups for parameter in group["params"]}
    assert len(group_of) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        stem = name.startswith(("input_norm.", "backbone.conv_stem."))
        rate = 0.01 if name.startswith("head.") else 0.001 if stem else 0.0001
        group = group_of[parameter]
        assert group["lr"] == pytest.approx(rate), name
        assert group["weight_decay"] == (1e-4 if parameter.ndim > 1 else 0), name
        assert group["eps"] == 1e-3


def test_the_papers_rate_falls_tenfold_at_80_and_160(of_the_paper: tuple[MvTsn, MvTsnRecipe]) -> None:
    model, wanted = of_the_paper
    optimiser = make_optimiser(model, wanted)
    [schedule] = make_schedules(optimiser, wanted, 3)
    first = [group["lr"] for group in optimiser.param_groups]
    seen: dict[int, list[float]] = {}
    for step in range(3 * wanted.epochs):
        now = [group["lr"] / rate for group, rate in zip(optimiser.param_groups, first, strict=True)]
        assert seen.setdefault(step // 3, now) == now
        optimiser.step()
        schedule.step()
    for epoch, times in ((0, 1), (79, 1), (80, 0.1), (159, 0.1), (160, 0.01), (199, 0.01)):
        assert seen[epoch] == pytest.approx([times] * len(first)), epoch


Factor = Callable[[int], float]


def rising(steps: int) -> Factor:
    """A factor that is 1 from the last of so many steps on."""
    return lambda step: min(1.0, (step + 1) / steps)


def falling(steps: int) -> Factor:
    """Half a cosine from 1 to 0."""
    return lambda step: (1 + math.cos(math.pi * step / steps)) / 2


def cycle(steps: int, share: float, start: float, end: float) -> Factor:
    """Half a cosine from `start` to 1 in a share of the steps, and one from there to `end`."""
    top = max(share * (steps + 1), 2.0) - 1

    def factor(step: int) -> float:
        if step <= top:
            return start + (1 - start) * (1 - math.cos(math.pi * step / top)) / 2
        return end + (1 - end) * (1 + math.cos(math.pi * (step - top) / (steps - top))) / 2

    return factor


def scheduled(optimiser: torch.optim.Optimizer, recipe: MvTsnRecipe, epoch_steps: int) -> Iterator[dict[str, float]]:
    """Settings of each step, the rate of the first group in shares of `recipe.lr`, after a look at all groups."""
    own = [group["lr"] / recipe.lr for group in optimiser.param_groups]
    schedules = make_schedules(optimiser, recipe, epoch_steps)
    for _ in range(recipe.epochs * epoch_steps):
        found = [group["lr"] / recipe.lr / times for group, times in zip(optimiser.param_groups, own, strict=True)]
        assert found == pytest.approx([found[0]] * len(found))
        group = optimiser.param_groups[0]
        yield {"lr": found[0], "momentum": group["betas"][0] if "betas" in group else group["momentum"]}
        optimiser.step()
        for schedule in schedules:
            schedule.step()


@pytest.mark.parametrize(
    ("schedule", "warmup", "factors"),
    [
        ("cosine", 0.0, [falling(20)]),
        ("cosine", 0.2, [falling(20), rising(4)]),
        ("cosine", 0.05, [falling(20)]),  # a single step has nowhere to rise from
        ("cosine", 0.1, [falling(20), rising(2)]),
        ("steps", 0.5, [lambda step: 0.1 ** (step // 4 >= 2) * 0.1 ** (step // 4 >= 3), rising(10)]),
        ("onecycle", 0.3, [cycle(20, 0.3, 1 / 25, 1 / 250000)]),
        ("onecycle", 0.0, [cycle(20, 0.0, 1 / 25, 1 / 250000)]),
    ],
)
def test_a_schedule_follows_its_formula(schedule: str, warmup: float, factors: list[Factor]) -> None:
    recipe = replace(RECIPE, epochs=5, optimiser="adamw", schedule=schedule, warmup=warmup)
    seen = [now["lr"] for now in scheduled(make_optimiser(network(), recipe), recipe, 4)]
    assert seen == pytest.approx([math.prod(factor(step) for factor in factors) for step in range(20)], rel=1e-6)


@pytest.mark.parametrize("optimiser", ["adam", "adamw", "sgd"])
def test_one_cycle_moves_the_momentum_against_the_rate(optimiser: str) -> None:
    recipe = replace(RECIPE, epochs=5, optimiser=optimiser, schedule="onecycle", warmup=0.4)
    seen = [now["momentum"] for now in scheduled(make_optimiser(network(), recipe), recipe, 4)]
    between = cycle(20, 0.4, 0.0, 0.0)
    assert seen == pytest.approx([0.95 - 0.1 * between(step) for step in range(20)])


@pytest.mark.parametrize("schedule", ["steps", "cosine", "onecycle"])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 0.99])
def test_the_shortest_trainings_have_a_schedule(schedule: str, warmup: float) -> None:
    for steps in (1, 2, 3, 9, 10, 19, 20):  # a tenth of these is less than a step, one, or more
        recipe = replace(RECIPE, epochs=steps, lr_steps=(1,), schedule=schedule, warmup=warmup)
        rates = [now["lr"] for now in scheduled(make_optimiser(network(), recipe), recipe, 1)]
        assert len(rates) == steps
        assert all(0 < rate <= 1 + 1e-9 for rate in rates)


def test_every_optimiser_is_the_one_it_is_called() -> None:
    of = {name: make_optimiser(network(), replace(RECIPE, optimiser=name)) for name in ("adam", "adamw", "sgd")}
    assert [type(optimiser) for optimiser in of.values()] == [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD]
    assert {group["momentum"] for group in of["sgd"].param_groups} == {0.9}
    for name in ("adam", "adamw"):
        assert {group["eps"] for group in of[name].param_groups} == {1e-3}
    for optimiser in of.values():
        assert {group["weight_decay"] for group in optimiser.param_groups} == {0, 1e-4}


@pytest.mark.parametrize(
    ("epochs", "steps", "sizes"),
    [
        (2, 0, [4, 5]),
        (2, 4, [4, 5]),
        (2, 5, [4, 5, 4]),
        (2, 8, [4, 5, 4, 5]),
        (1, 5, [4, 5, 4, 5, 4]),
    ],
)
def test_an_epoch_repeats_the_clips_until_there_are_steps_enough(
    data: MotionData, tmp_path: Path, epochs: int, steps: int, sizes: list[int]
) -> None:
    model, seen = network(), []
    model.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    recipe = replace(RECIPE, epochs=epochs, min_steps=steps)
    train_mv_tsn(model, data, recipe, CPU, Checkpoint(tmp_path / "c", "", 0.0), lambda row: None)
    assert seen == sizes * epochs


# ------------------------------------------------------------------------------------------------ the whole recipe


def plain_training(
    data: MotionData, recipe: MvTsnRecipe, steps: int, rate: Callable[[float, int], float]
) -> Iterator[tuple[float, MvTsn, MvTsn]]:
    """Train as the recipe says, in a plain loop: each epoch's mean loss, the network and the average of its weights.

    An epoch has `steps` steps. `rate` gives the learning rate of a group in a step, from its own one.
    """
    model, average = (network().to(memory_format=torch.channels_last) for _ in range(2))
    groups = parameter_groups(model, recipe.lr, recipe.weight_decay, 1, 1, 1)
    own = [group["lr"] for group in groups]
    optimiser: torch.optim.Optimizer = {
        "adam": lambda: torch.optim.Adam(groups, eps=recipe.eps),
        "adamw": lambda: torch.optim.AdamW(groups, eps=recipe.eps),
        "sgd": lambda: torch.optim.SGD(groups, momentum=0.9),
    }[recipe.optimiser]()
    done = 0
    for epoch in range(recipe.epochs):
        losses: list[float] = []
        model.train()
        for views, labels in plain_batches(data, recipe, epoch, steps):
            for group, lr in zip(optimiser.param_groups, own, strict=True):
                group["lr"] = rate(lr, done)
            log_likelihood = model(views).log_softmax(1)
            wrong = -log_likelihood[range(len(labels)), labels]
            share = recipe.label_smoothing
            smoothed = (1 - share) * wrong - share * log_likelihood.mean(1)
            losses += smoothed.tolist()
            optimiser.zero_grad()
            (smoothed.sum() / len(labels)).backward()
            optimiser.step()
            done += 1
            decay = min(recipe.ema, 1 - done ** (-2 / 3))
            for mean, value in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
                mean.copy_(decay * mean + (1 - decay) * value if mean.is_floating_point() else value)
        yield sum(losses) / len(losses), model, average


def plain_batches(
    data: MotionData, recipe: MvTsnRecipe, epoch: int, steps: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Views and labels of an epoch's batches. The frames of a batch are drawn before the crops of the one before."""
    generator = np.random.default_rng([recipe.seed, epoch])
    torch.manual_seed(int(generator.integers(2**31)))  # dropout
    orders = [generator.permutation(9) for _ in range(math.ceil(steps / 2))]
    batches = [data.train[rows] for order in orders for rows in (order[:4], order[4:])][:steps]
    fields: list[np.ndarray] = []
    for number, batch in enumerate(batches):
        new = batches[len(fields) : number + 2]
        fields += [data.fields.read_async(batch, recipe.segments, generator)() for batch in new]
        boxes = random_crops(len(batch), data.fields.grid, recipe.crops, recipe.flip, generator)
        views = crop_and_resize(torch.from_numpy(fields[number]), boxes.repeat(recipe.segments), 32)
        yield views.unflatten(0, (len(batch), -1)), torch.from_numpy(batch.labels)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "steps", "rate"),
    [
        ("the paper's", 2, lambda lr, step: lr * 0.1 ** (step // 2 >= 2) * 0.1 ** (step // 2 >= 3)),
        ("cosine", 3, lambda lr, step: lr * falling(12)(step) * rising(5)(step)),
        ("sgd", 2, lambda lr, step: lr * 0.1 ** (step // 2 >= 2) * 0.1 ** (step // 2 >= 3) * rising(4)(step)),
    ],
)
def test_training_is_a_plain_loop(
    data: MotionData, change: str, steps: int, rate: Callable[[float, int], float]
) -> None:
    recipe = replace(RECIPE, lr_mult_stem=1, lr_mult_rest=1, **RECIPES[change])
    training = MvTsnTraining(network(), data, recipe, CPU)
    exact = {"atol": 0, "rtol": 0} if change == "the paper's" else {"atol": 1e-5, "rtol": 1e-4}
    for epoch, (loss, model, average) in enumerate(plain_training(data, recipe, steps, rate)):
        row = training.train_epoch(epoch)
        scored = average if recipe.ema else model
        torch.testing.assert_close(training.model.state_dict(), model.state_dict(), **exact)
        torch.testing.assert_close(training.scored.state_dict(), scored.state_dict(), **exact)
        assert row["lr"] == pytest.approx(rate(recipe.lr, steps * epoch))
        assert row["train_loss"] == pytest.approx(loss, rel=1e-4)
        logits = embed_protocol(scored, data.fields, data.val, 2, 1, 1, 100, torch.device("cpu"))[1]
        expected = functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(data.val.labels))
        assert row["val_loss"] == pytest.approx(expected.item(), rel=1e-3)


def test_the_average_of_the_weights_is_kept(data: MotionData, tmp_path: Path) -> None:
    recipe = replace(RECIPE, ema=0.9, epochs=2, lr_mult_stem=1, lr_mult_rest=1)
    checkpoint = Checkpoint(tmp_path / "a", "", 0.0)
    model = network()
    best = train_mv_tsn(model, data, recipe, CPU, checkpoint, lambda row: None)
    training = MvTsnTraining(network(), data, replace(recipe, epochs=int(best["epoch"]) + 1), CPU)
    for epoch in range(training.recipe.epochs):
        training.train_epoch(epoch)
    torch.testing.assert_close(model.state_dict(), training.scored.state_dict(), atol=0, rtol=0)
    assert not torch.equal(model.head.weight, training.model.head.weight)
    assert not model.training


def test_a_first_step_without_an_update_warns_nobody(data: MotionData) -> None:
    """As in float16, whose gradients overflow until its loss scale is found."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        training = MvTsnTraining(network(), data, RECIPE, CPU)
        training.scaler = torch.amp.GradScaler("cpu", init_scale=math.inf)
        training.train_epoch(0)
    assert torch.equal(training.model.head.weight, network().head.weight), "no step has an update"


def test_the_rate_falls_while_it_trains(data: MotionData, tmp_path: Path) -> None:
    _, rows = trained(data, tmp_path / "a.safetensors")
    assert [row["lr"] for row in rows] == pytest.approx([0.01, 0.01, 0.001, 0.0001])


def test_a_batch_in_parts_gives_the_gradients_of_the_whole(data: MotionData, tmp_path: Path) -> None:
    ends = []
    for parts in (1, 2):
        model = plain_network()
        wanted = replace(RECIPE, accumulate=parts, epochs=2, eps=1.0)
        rows: list[dict[str, float]] = []
        train_mv_tsn(model, data, wanted, CPU, Checkpoint(tmp_path / f"{parts}", "", 0.0), rows.append)
        ends.append((model.state_dict(), rows))
    (whole, whole_rows), (parted, parted_rows) = ends
    fresh = plain_network().state_dict()
    assert any(not torch.equal(whole[name], fresh[name]) for name in fresh), "it learnt something"
    for name, tensor in whole.items():
        torch.testing.assert_close(parted[name], tensor, atol=1e-5, rtol=1e-4, msg=name)
    assert parted_rows[0]["train_loss"] == pytest.approx(whole_rows[0]["train_loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("batch", "accumulate", "sizes"),
    [
        (9, 1, [9]),
        (9, 2, [4, 5]),
        (9, 8, [2, 2, 2, 3]),
        (4, 8, [2, 2, 2, 3]),  # the ninth clip joins the second batch
        (1, 5, [1, 1, 1, 1, 1, 1, 1, 2]),
    ],
)
def test_parts_cover_the_batches_and_hold_two_clips_at_least(
    data: MotionData, tmp_path: Path, batch: int, accumulate: int, sizes: list[int]
) -> None:
    """BatchNorm cannot train on a single value. Only a batch of one clip is left as it is."""
    model, seen = network(), []
    model.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    wanted = replace(RECIPE, batch=batch, accumulate=accumulate, epochs=1)
    train_mv_tsn(model, data, wanted, CPU, Checkpoint(tmp_path / "h", "", 0.0), lambda row: None)
    assert sorted(seen) == sizes


def test_only_a_batch_too_small_to_train_on_joins_the_one_before() -> None:
    sizes = {count: [rows.stop - rows.start for rows in slice_batches(count, 4, 2)] for count in (1, 4, 8, 9, 10)}
    assert sizes == {1: [1], 4: [4], 8: [4, 4], 9: [4, 5], 10: [4, 4, 2]}


def test_the_type_of_mixed_precision_follows_the_device() -> None:
    cpu = torch.device("cpu")
    assert [autocast_type(name, cpu) for name in ("auto", "fp32", "bf16", "fp16")] == [
        torch.float32,
        torch.float32,
        torch.bfloat16,
        torch.float32,
    ]
    able = torch.cpu.get_capabilities()
    native = able.get("avx512_bf16") or able.get("amx_bf16")
    assert autocast_type("auto", cpu, dense=True) == (torch.bfloat16 if native else torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"precision": "bf16"}, {"accumulate": 2}])
def test_it_learns_in_other_ways_too(data: MotionData, tmp_path: Path, change: dict[str, Any]) -> None:
    wanted = replace(RECIPE, flip=False, epochs=12, lr_mult_rest=1.0, lr_mult_stem=1.0, **change)
    best = train_mv_tsn(network(), data, wanted, CPU, Checkpoint(tmp_path / "g", "", 0.0), lambda row: None)
    assert best["val_top1"] == 1


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile wants a C++ compiler")
def test_a_compiled_network_learns_the_same(data: MotionData, tmp_path: Path) -> None:
    ends = []
    for compiled in (False, True):
        model = plain_network()
        model.backbone.conv1 = torch.nn.Conv2d(2, 96, 3, stride=2)  # the compiler takes 50 s for all blocks
        for name in ("layer1", "layer2", "layer3", "layer4"):
            setattr(model.backbone, name, torch.nn.Identity())
        wanted = replace(RECIPE, compile=compiled, batch=9, epochs=1, eps=1.0)  # one shape to compile for
        train_mv_tsn(model, data, wanted, CPU, Checkpoint(tmp_path / f"{compiled}", "", 0.0), lambda row: None)
        ends.append(model.state_dict())
    for name, tensor in ends[0].items():
        torch.testing.assert_close(ends[1][name], tensor, atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", [(32, 1), (25, 10), (4, 5)])
def test_a_protocol_is_the_mean_over_its_views(data: MotionData, protocol: tuple[int, int]) -> None:
    """32 segments x 1 crop and 25 x 10, a view at a time: cut, enlarged and mirrored by hand."""
    fields, val = data.fields, data.val
    segments, crops = protocol
    model = sharpened(network())
    features, logits = embed_protocol(model, fields, val, segments, crops, 0.8, 64, torch.device("cpu"))
    short = int(0.8 * fields.grid[0])
    assert short == 0.8 * fields.grid[0]
    down, right = fields.grid[0] - short, fields.grid[1] - short
    corners = [(0, 0), (0, right), (down, 0), (down, right)]
    middle = (down / 2, right / 2)
    assert middle == (int(middle[0]), int(middle[1]))
    places = [middle] if crops == 1 else [*corners, middle]
    for row in range(len(val)):
        views = []
        for segment in range(segments):
            number = min(int((segment + 0.5) * val.lengths[row] / segments), int(val.lengths[row]) - 1)
            frame = fields.motion_frame[val.offsets[row] + number]
            field = torch.from_numpy(fields.reader.read(np.array([frame]))).float() / 127
            for top, left in places:
                cut = field[..., int(top) : int(top) + short, int(left) : int(left) + short]
                shown = functional.interpolate(cut, (32, 32), mode="bilinear", align_corners=False)
                mirrored = shown.flip(-1) * torch.tensor([-1.0, 1.0])[:, None, None]
                views += [shown, mirrored] if crops == 10 else [shown]
        assert len(views) == segments * crops
        with torch.inference_mode():
            plain = model.features(torch.cat(views)).mean(0)
            alone = model.head(plain)
        np.testing.assert_allclose(features[row], plain, atol=1e-4)
        np.testing.assert_allclose(logits[row], alone, atol=1e-4)


def test_half_of_the_augmented_views_are_mirrored(data: MotionData) -> None:
    """As `embed_mv` makes them. With the same random numbers, a view without mirroring shows the same crops."""
    fields, clips = data.fields, data.train
    model = sharpened(network())

    def features(flip: bool) -> torch.Tensor:
        generator = np.random.default_rng(0)
        found = embed_view(model, fields, clips, 2, (1, 0.875), flip, 100, torch.device("cpu"), generator)
        return torch.from_numpy(found)

    plain, mirrored = features(False), features(True)
    same = [torch.allclose(*pair, atol=1e-5) for pair in zip(plain, mirrored, strict=True)]
    assert 2 <= sum(same) <= len(clips) - 2


def test_an_augmented_view_is_the_mean_over_its_segments(data: MotionData) -> None:
    """Random frames and one crop for all segments of a clip; cut, mirrored and enlarged by hand."""
    fields, clips, model = data.fields, data.train, sharpened(network())
    found = embed_view(model, fields, clips, 3, (1,), True, 100, torch.device("cpu"), np.random.default_rng(5))
    generator = np.random.default_rng(5)
    numbers = clips.offsets[:, None] + segment_frames(clips.lengths, 3, generator)
    boxes = random_crops(len(clips), fields.grid, (1,), True, generator)
    whole = [row for row in range(len(clips)) if boxes.left[row].is_integer()]  # others are cut between cells
    assert {bool(boxes.flip[row]) for row in whole} == {False, True}
    for row in whole:
        left, side = int(boxes.left[row]), fields.grid[0]
        cut = torch.from_numpy(fields.reader.read(fields.motion_frame[numbers[row]])).float() / 127
        shown = functional.interpolate(cut[..., left : left + side], (32, 32), mode="bilinear", align_corners=False)
        if boxes.flip[row]:
            shown = shown.flip(-1) * torch.tensor([-1.0, 1.0])[:, None, None]
        with torch.inference_mode():
            np.testing.assert_allclose(found[row], model.features(shown).mean(0), atol=1e-4)


def test_parts_of_the_clips_are_embedded_as_the_whole(data: MotionData, tmp_path: Path) -> None:
    """Under the protocol, and as augmented views, which are drawn anew for each part."""
    model, reader = sharpened(network()), data.fields.reader
    model.save(tmp_path / "mv_tsn.safetensors")
    given = ViewsTask(
        model=(tmp_path / "mv_tsn.safetensors").read_bytes(),
        store=reader.folder.url,
        segments=2,
        crops=5,
        crop=0.8,
        scales=(1, 0.875),
        flip=True,
        batch=8,
        seed=7,
        parts_folder=str(tmp_path / "parts"),
        key="key",
        versions={},
    )
    rows = reader.table.assign(label=0, codec="mpeg4")
    worker = ViewsWorker(given)
    parts = [EncodingPart("protocol-000000", rows), EncodingPart("view3-000002", rows.iloc[2:7], view=3)]
    assert [part.name for part in worker.run(parts)] == ["protocol-000000", "view3-000002"]
    protocol, view = worker.parts.arrays([part.name for part in parts])
    whole, some = (
        SplitClips(*(part.rows[name].to_numpy() for name in ("offset", "length", "label"))) for part in parts
    )
    cpu, frozen = torch.device("cpu"), model.frozen()
    features, logits = embed_protocol(frozen, data.fields, whole, 2, 5, 0.8, 100, cpu)
    np.testing.assert_allclose(protocol["features"], features, atol=1e-5)
    np.testing.assert_allclose(protocol["logits"], logits, atol=1e-4)
    generator = np.random.default_rng([7, 3, 2])
    expected = embed_view(frozen, data.fields, some, 2, (1, 0.875), True, 8, cpu, generator)
    np.testing.assert_allclose(view["features"], expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("stem_stride", "at_once"), [(2, 4), (1, 1)])
def test_encoding_in_small_batches_on_a_cpu_keeps_every_picture(stem_stride: int, at_once: int) -> None:
    torch.manual_seed(0)
    network = MvTsn(MvTsnConfig("test_resnet", ("a", "b"), 224, 0.5, stem_stride)).eval()
    fields, seen = torch.rand(19, 2, 224, 224), []
    network.backbone.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    with torch.inference_mode():
        found = network.encode(fields)
        assert max(seen) == at_once
        assert sum(seen) == len(fields)
        torch.testing.assert_close(found, network.features(fields))


def test_a_diverging_run_is_an_error(data: MotionData, tmp_path: Path) -> None:
    training_recipe = MvTsnRecipe(**{**vars(RECIPE), "lr": 1e30, "lr_mult_rest": 1.0})
    with pytest.raises(ModelError, match=r"lower tsn\.lr"):
        train_mv_tsn(network(), data, training_recipe, CPU, Checkpoint(tmp_path / "f", "", 0.0), lambda row: None)


def test_the_best_epoch_is_kept_and_ties_go_to_the_lower_loss() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    keeper = BestEpoch(model)
    rows = [(0.5, 0.9), (0.8, 0.7), (0.8, 0.4), (0.8, 0.4), (0.6, 0.1)]
    for epoch, (top1, loss) in enumerate(rows):
        torch.nn.init.constant_(model.weight, epoch)
        keeper.offer({"epoch": epoch, "val_top1": top1, "val_loss": loss})
    keeper.restore_into(model)
    assert keeper.row["epoch"] == 2
    assert model.weight.item() == 2


@pytest.mark.slow
def test_a_class_and_its_mirror_image_are_learnt_if_mirrored_clips_change_their_label(
    data: MotionData, tmp_path: Path
) -> None:
    recipe = replace(RECIPE, epochs=12, lr_mult_rest=1.0, lr_mult_stem=1.0)
    top1 = {}
    for labels in ((), (1, 0), (-1, -1)):
        swapped = replace(recipe, mirror_labels=labels)
        _, rows = trained(data, tmp_path / f"{labels}.safetensors", recipe=swapped)
        top1[labels] = np.mean([row["train_top1"] for row in rows[-4:]])
    assert top1[(1, 0)] > 0.9
    assert top1[(-1, -1)] > 0.9, "neither is mirrored"
    assert top1[()] < 0.75


@pytest.mark.slow
def test_clips_with_several_labels_are_mirrored_by_the_same_rules(data: MotionData, tmp_path: Path) -> None:
    several = MotionData(
        data.fields,
        *(replace(clips, labels=np.eye(2, dtype=np.float32)[clips.labels]) for clips in (data.train, data.val)),
    )
    recipe = replace(RECIPE, epochs=12, lr_mult_rest=1.0, lr_mult_stem=1.0)
    for labels in ((1, 0), (-1, -1)):
        _, rows = trained(several, tmp_path / f"{labels}.safetensors", recipe=replace(recipe, mirror_labels=labels))
        assert np.mean([row["train_top1"] for row in rows[-4:]]) > 0.9


@pytest.mark.slow
def test_a_run_without_validation_clips_ends_after_the_given_epochs_and_resumes(
    data: MotionData, tmp_path: Path
) -> None:
    everything = replace(data, val=data.val[:0])
    recipe = replace(RECIPE, stop_after=3)
    whole, rows = trained(everything, tmp_path / "whole.safetensors", recipe=recipe)
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert not any("val_top1" in row for row in rows)
    compared, _ = trained(data, tmp_path / "compared.safetensors", recipe=replace(RECIPE, stop_after=3))
    with pytest.raises(KeyboardInterrupt):
        trained(everything, tmp_path / "killed.safetensors", stop_after=1, recipe=recipe)
    again, _ = trained(everything, tmp_path / "killed.safetensors", recipe=recipe)
    for name, tensor in whole.items():
        assert torch.equal(tensor, again[name])
    assert compared.keys() == whole.keys()
