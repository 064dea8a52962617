"""What a GPU would do, tested without one: no tensor on it meets one on the CPU, and it ends where the CPU ends.

Every network is run on the GPU of `tests.gpu`, the pipeline's stages among them.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode  # no public name; for tests alone
from torch.nn import functional

import moclip.models.encoders.clip  # noqa: F401  it imports transformers, which a fake GPU would confuse
from moclip.data.crops import Crops, crop_and_resize, protocol_crops, random_crops
from moclip.data.fusion_data import FusionData
from moclip.inference.bundle import load_bundle
from moclip.inference.predictor import STEPS, Predictor
from moclip.models.device import pick_device
from moclip.models.encoders.base import TextEncoder
from moclip.models.fusion import Fusion, FusionConfig, HeadInputs, build_head
from moclip.models.heads.concat import ConcatFusion
from moclip.models.heads.text import TextFusion
from moclip.models.mv_tsn import MvTsn, MvTsnConfig
from moclip.training.common import autocast_type
from moclip.training.distributed import World
from moclip.training.embed import embed_protocol, embed_view
from moclip.training.fusion import FusionRecipe, train_fusion_head
from moclip.training.mv_batches import MotionData
from moclip.training.mv_checkpoint import Checkpoint
from moclip.training.mv_recipe import MvTsnRecipe
from moclip.training.mv_training import MvTsnTraining
from moclip.training.mv_tsn import train_mv_tsn
from pipeline import params as parameters
from pipeline import paths
from pipeline.commands.predict import load_predictor
from pipeline.commands.timing import timing
from pipeline.console.output import STREAM_LABELS
from pipeline.inputs import Inputs
from pipeline.io import read_json
from tests import gpu_check, test_training
from tests.conftest import ROOT, run, set_keys
from tests.gpu import CPU, GPU, OnGpu, a_gpu

GRID = (30, 40)
CLASSES = ("a", "b", "c", "d")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    with a_gpu(monkeypatch):
        yield GPU


# ------------------------------------------------------------------------------------------- the stand-in itself


def one_step(values: Tensor, there: Tensor) -> Tensor:
    there[:2] = values[:2]
    return there


MEETINGS: dict[str, tuple[Callable[[Tensor, Tensor], Any], bool]] = {
    "add": (lambda gpu, cpu: gpu + cpu, True),
    "add a number": (lambda gpu, cpu: gpu + cpu.sum(), False),
    "add to a number": (lambda gpu, cpu: cpu.sum() * gpu, False),
    "add in place": (lambda gpu, cpu: gpu.add_(cpu), True),
    "product": (lambda gpu, cpu: gpu @ cpu.T, True),
    "join": (lambda gpu, cpu: torch.cat([gpu, cpu]), True),
    "stack": (lambda gpu, cpu: torch.stack([cpu, gpu]), True),
    "choose": (lambda gpu, cpu: torch.where(cpu > 0, gpu, 0.0), True),
    "copy": (lambda gpu, cpu: gpu.copy_(cpu), False),
    "assign to a slice": (one_step, False),
    "assign to chosen rows": (lambda gpu, cpu: gpu.__setitem__(torch.zeros_like(gpu[0]).long(), cpu), True),
    "loss": (lambda gpu, cpu: functional.cross_entropy(gpu, cpu[:, 0].long()), True),
    "layer": (lambda gpu, cpu: functional.linear(gpu, cpu), True),
    "norm": (lambda gpu, cpu: functional.batch_norm(gpu, None, None, cpu[0], cpu[0], training=True), True),
    "einsum": (lambda gpu, cpu: torch.einsum("bp,bp->b", gpu, cpu), True),
}


@pytest.mark.parametrize("name", MEETINGS)
def test_mixing_devices_follows_pytorch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own fake tensors know the rules of a real GPU."""
    meeting, refused = MEETINGS[name]
    for machine in (FakeTensorMode(allow_non_fake_inputs=True), a_gpu(monkeypatch)):
        with machine, pytest.raises(RuntimeError, match="device") if refused else contextlib.nullcontext():
            meeting(torch.zeros(3, 3, device="cuda"), torch.zeros(3, 3))


def test_the_stand_in_has_no_values_for_numpy_and_no_index_on_the_cpu(gpu: torch.device) -> None:
    values = torch.arange(3.0).to(gpu)
    assert (values.device, values.cpu().device, torch.ones(2, device="cuda").device) == (GPU, CPU, GPU)
    with pytest.raises(TypeError, match="numpy"):
        values.numpy()
    with pytest.raises(RuntimeError, match="device"):
        values[torch.tensor([1])]  # PyTorch would copy it, each time
    with pytest.raises(RuntimeError, match="device"):
        torch.ones(3)[values.long()]  # PyTorch refuses it, too, though not of fake tensors
    np.testing.assert_array_equal(values.cpu().numpy(), [0, 1, 2])


@pytest.mark.slow
def test_a_network_runs_on_pytorchs_fake_tensors() -> None:
    network = MvTsn(MvTsnConfig("test_efficientnet", CLASSES, 32, 0.5)).eval()
    head = TextFusion(FusionConfig(network.width, 8, 16, 4, 0.5, "attention"), torch.ones(4, 8), 20.0).eval()
    boxes = random_crops(6, GRID, (1, 0.875), True, np.random.default_rng(0))
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        shown = crop_and_resize(torch.from_numpy(drawn_fields(6)).to(GPU), boxes, 32)
        motion = network.to(GPU).encode(shown)
        assert head.to(GPU)(motion, torch.ones(6, 3, 8).to(GPU)).device == GPU


# -------------------------------------------------------------------------------------------------- augmentation


def drawn_fields(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(-127, 128, (count, 2, *GRID)).astype(np.int8)


BOXES = {
    "random": random_crops(20, GRID, (1, 0.875, 0.75), True, np.random.default_rng(0)),
    "the only one": protocol_crops(GRID, 0.8, 1),
    "five": protocol_crops(GRID, 0.8, 5).tile(4),
    "ten": protocol_crops(GRID, 0.8, 10).tile(2),
}


@pytest.mark.parametrize("boxes", BOXES.values(), ids=BOXES)
def test_pictures_are_made_where_the_fields_are(gpu: torch.device, boxes: Crops) -> None:
    fields = torch.from_numpy(drawn_fields(20))
    shown = crop_and_resize(fields.to(gpu), boxes, 32)
    assert shown.device == GPU
    assert torch.equal(shown.cpu(), crop_and_resize(fields, boxes, 32))


# ------------------------------------------------------------------------------------------------ motion network


RECIPE = dataclasses.replace(test_training.RECIPE, epochs=2, batch=5, lr_mult_stem=1, lr_mult_rest=1, lr_steps=(1,))


@pytest.fixture(scope="module")
def data(finished: Path) -> Iterator[MotionData]:
    """Motion fields of the demo, ten clips to train on and four to choose the epoch on."""
    with contextlib.chdir(finished):
        inputs = Inputs(parameters.load(paths.PARAMS))
        yield MotionData(inputs.sampled_fields(), inputs.motion_clips("train")[:10], inputs.motion_clips("val")[:4])


def network(backbone: str = "test_resnet", channels: int = 2) -> MvTsn:
    torch.manual_seed(1)
    return MvTsn(MvTsnConfig(backbone, CLASSES, 32, 0.5, channels=channels))


def trained(
    model: MvTsn,
    data: MotionData,
    recipe: MvTsnRecipe,
    device: torch.device,
    checkpoint: Path,
    stop_after: int | None = None,
) -> list[dict[str, float]]:
    """The rows of a training on `device`, which may be interrupted after so many epochs."""
    rows: list[dict[str, float]] = []

    def log(row: dict[str, float]) -> None:
        rows.append(row)
        if len(rows) == stop_after:
            raise KeyboardInterrupt

    train_mv_tsn(model, data, recipe, World(device), Checkpoint(checkpoint, "", 0.0), log)
    return rows


@pytest.mark.parametrize(
    ("backbone", "channels", "change"),
    [
        ("test_resnet", 2, {}),
        ("test_resnet", 3, {}),
        ("test_efficientnet", 2, {"accumulate": 2}),
        ("test_resnet", 2, {"optimiser": "adamw", "schedule": "cosine", "label_smoothing": 0.1, "ema": 0.5}),
        ("resnet10t", 3, {"epochs": 1, "accumulate": 2}),
    ],
)
def test_training_on_a_gpu_ends_where_the_cpu_ends(
    gpu: torch.device,
    data: MotionData,
    tmp_path: Path,
    backbone: str,
    channels: int,
    change: dict[str, Any],
) -> None:
    recipe = dataclasses.replace(RECIPE, **change)
    there, here = network(backbone, channels), network(backbone, channels)
    rows = trained(there, data, recipe, gpu, tmp_path / "there")
    expected = trained(here, data, recipe, CPU, tmp_path / "here")
    assert {tensor.device for tensor in there.state_dict().values()} == {GPU}
    for name, tensor in there.state_dict().items():
        torch.testing.assert_close(tensor.cpu(), here.state_dict()[name], rtol=1e-3, atol=1e-3, msg=name)
    for row, wanted in zip(rows, expected, strict=True):
        assert row == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize(("precision", "kind"), [("bf16", "bfloat16"), ("fp16", "float16"), ("auto", "bfloat16")])
def test_a_network_trains_in_every_precision(
    gpu: torch.device, data: MotionData, tmp_path: Path, precision: str, kind: str
) -> None:
    recipe, model, seen = dataclasses.replace(RECIPE, precision=precision), network(), set()
    model.backbone.register_forward_hook(lambda module, given, out: seen.add((module.training, out.dtype)))
    whole = trained(network(), data, RECIPE, gpu, tmp_path / "whole")
    rows = trained(model, data, recipe, gpu, tmp_path / "rows")
    assert seen == {(True, getattr(torch, kind)), (False, torch.float32)}
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}
    assert rows != whole
    for row, wanted in zip(rows, whole, strict=True):
        assert row["train_loss"] == pytest.approx(wanted["train_loss"], rel=0.05)


def test_a_gradient_too_large_for_float16_skips_one_step(
    gpu: torch.device, data: MotionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scale of the loss begins too high and is halved."""
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device, enabled: scaler(device, 2.0**40, enabled=enabled))
    model, fresh = network(), network()
    rows = trained(model, data, dataclasses.replace(RECIPE, precision="fp16", epochs=1), gpu, tmp_path / "x")
    assert np.isfinite(rows[0]["train_loss"])
    assert torch.equal(model.head.weight.cpu(), fresh.head.weight)


def test_an_interrupted_training_resumes_on_the_gpu(gpu: torch.device, data: MotionData, tmp_path: Path) -> None:
    whole, resumed = network(), network()
    expected = trained(whole, data, RECIPE, gpu, tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        trained(network(), data, RECIPE, gpu, tmp_path / "b", stop_after=2)
    assert (tmp_path / "b").exists()
    assert trained(resumed, data, RECIPE, gpu, tmp_path / "b") == expected
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name


def test_a_resumed_training_goes_on_with_the_scale_of_its_loss(
    gpu: torch.device, data: MotionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins so high that the steps of an epoch are left out; they would be again if it began anew."""
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device, enabled: scaler(device, 2.0**18, enabled=enabled))
    recipe, whole, resumed = dataclasses.replace(RECIPE, precision="fp16"), network(), network()
    expected = trained(whole, data, recipe, gpu, tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        trained(network(), data, recipe, gpu, tmp_path / "b", stop_after=2)
    assert trained(resumed, data, recipe, gpu, tmp_path / "b") == expected
    assert torch.equal(resumed.head.weight, whole.head.weight)


class Accelerator:
    """Accelerate's, in the first of two processes that hold equal tensors. NCCL exchanges tensors on a GPU alone."""

    process_index, num_processes = 0, 2

    def prepare_model(self, model: nn.Module) -> nn.Module:
        return model

    def reduce(self, tensor: Tensor, reduction: str) -> Tensor:
        assert tensor.device == GPU
        return 2 * tensor if reduction == "sum" else tensor.clone()

    def gather(self, tensor: Tensor) -> Tensor:
        assert tensor.device == GPU
        return torch.cat([tensor, tensor])


def test_processes_exchange_gpu_tensors(gpu: torch.device, data: MotionData) -> None:
    """The network has no batch norms: PyTorch's would exchange by NCCL."""
    world = World(gpu, Accelerator())
    assert world.agrees("the same")
    world.average_buffers(network().to(gpu))
    row = MvTsnTraining(test_training.plain_network(CLASSES), data, RECIPE, world).train_epoch(0)
    assert np.isfinite(list(row.values())).all()


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet"])
def test_batch_norms_on_several_gpus_are_synchronised_and_keep_their_activations(
    gpu: torch.device, backbone: str
) -> None:
    model, shown = network(backbone).to(gpu).eval(), torch.rand(2, 3, 2, 32, 32).to(gpu)
    state, expected = model.state_dict(), model(shown)
    distributed = World(gpu, Accelerator()).distribute(model)
    assert torch.equal(distributed(shown), expected)
    assert list(distributed.state_dict()) == list(state)
    kinds = [type(layer) for layer in distributed.modules()]
    assert any(issubclass(kind, nn.SyncBatchNorm) for kind in kinds)
    assert not any(issubclass(kind, nn.BatchNorm2d) for kind in kinds)


@pytest.mark.parametrize("channels", [2, 3])
def test_embedding_on_a_gpu_gives_the_features_of_the_cpu(gpu: torch.device, data: MotionData, channels: int) -> None:
    fields, clips = data.fields, data.val
    model = network(channels=channels).eval()
    there, unmoved = copy.deepcopy(model).to(gpu).frozen(), copy.deepcopy(model)
    assert {tensor.device for tensor in there.state_dict().values()} == {GPU}
    for segments, crops in ((3, 1), (2, 10)):
        found = embed_protocol(unmoved if crops == 1 else there, fields, clips, segments, crops, 0.8, 16, gpu)
        expected = embed_protocol(model, fields, clips, segments, crops, 0.8, 16, CPU)
        for values, wanted in zip(found, expected, strict=True):
            np.testing.assert_allclose(values, wanted, rtol=1e-4, atol=1e-5)
    here, moved = (
        embed_view(model, fields, clips, 3, (1, 0.875), True, 6, device, np.random.default_rng(0))
        for device in (CPU, gpu)
    )
    np.testing.assert_allclose(moved, here, rtol=1e-4, atol=1e-5)
    assert {tensor.device for tensor in model.state_dict().values()} == {GPU}, "it moved there"


# ------------------------------------------------------------------------------------------------------- fusion


def fusion_data(count: int, views: int, seed: int) -> FusionData:
    generator = torch.Generator().manual_seed(seed)
    motion, stills = torch.randn(count, views, 6, generator=generator), torch.randn(count, 3, 8, generator=generator)
    return FusionData(motion, functional.normalize(stills, dim=-1), torch.arange(count) % 3)


def head(kind: str, pooling: str) -> Fusion:
    torch.manual_seed(0)
    config = FusionConfig(6, 8, 16, len(CLASSES), 0.0, pooling, 3)  # a class without a clip, too
    text = functional.normalize(torch.randn(len(CLASSES), 8), dim=-1)
    options = {"blend": False, "cache_tune": True}
    return build_head(kind, config, HeadInputs(text, 20.0, fusion_data(30, 2, 0), options))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "auto"])
@pytest.mark.parametrize(
    ("kind", "pooling"),
    [(kind, pooling) for kind in ("concat", "text") for pooling in ("mean", "attention", "temporal")]
    + [("cache", "mean")],
)
def test_a_fusion_head_trains_on_a_gpu_in_every_precision(
    gpu: torch.device, kind: str, pooling: str, precision: str
) -> None:
    recipe = FusionRecipe(3e-4, 0.01, 4, 8, 0, precision)
    train, val = fusion_data(30, 2, 0), fusion_data(12, 1, 1)
    ends = []
    for device, chosen in ((gpu, precision), (CPU, "fp32")):
        model = head(kind, pooling)
        rows: list[dict[str, float]] = []
        train_fusion_head(model, train, val, dataclasses.replace(recipe, precision=chosen), device, rows.append)
        assert {tensor.device for tensor in model.state_dict().values()} == {device}
        with torch.inference_mode():
            ends.append((rows, model(val.motion[:, 0].to(device), val.stills.to(device)).cpu()))
    (rows, logits), (expected, wanted) = ends
    if precision == "fp32":
        assert torch.equal(logits, wanted)
        assert rows == expected
    else:
        assert rows != expected
        assert (logits - wanted).abs().mean() < 0.1, "float16 begins with a step or two that it leaves out"


# --------------------------------------------------------------------------------------------------- prediction


@pytest.fixture(scope="module")
def folder(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("bundle") / "bundle"
    run("moclip", "export", target, cwd=finished)
    return target


def with_head(predictor: Predictor, kind: str, crops: int) -> Predictor:
    """The same with another head, and attention over several stills; all on the predictor's device."""
    torch.manual_seed(0)
    texts = predictor.texts
    assert texts is not None
    about = FusionConfig(predictor.mv_tsn.width, texts.features.shape[1], 16, len(predictor.classes), 0.5, "attention")
    made = TextFusion(about, torch.from_numpy(texts.features), 20.0) if kind == "text" else ConcatFusion(about)
    for parameter in made.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    views = dataclasses.replace(predictor.views, segments=3, crops=crops, crop=0.8, stills=3)
    return dataclasses.replace(predictor, fusion=made.eval().to(predictor.device), views=views)


@pytest.mark.parametrize(("kind", "crops"), [("concat", 10), ("text", 1)])
def test_a_bundle_predicts_on_a_gpu_what_it_predicts_on_the_cpu(
    gpu: torch.device, folder: Path, finished: Path, kind: str, crops: int
) -> None:
    clip = sorted((finished / "data/demo/videos").rglob("*.avi"))[0]
    loaded = tuple(load_bundle(folder, device) for device in (None, "cpu"))
    there, here = (with_head(one, kind, crops) for one in loaded)
    assert (there.device, here.device) == (GPU, CPU)
    labels = ["a red ball rises", "a blue ball falls"]
    for found, expected in (loaded, (there, here), (there.with_labels(labels), here.with_labels(labels))):
        shares, wanted = (one(clip).probabilities for one in (found, expected))
        assert set(shares) == set(wanted)
        for stream in wanted:
            np.testing.assert_allclose(shares[stream], wanted[stream], rtol=1e-3, atol=1e-5, err_msg=stream)


def test_clip_encodes_on_a_gpu_what_it_encodes_on_the_cpu(gpu: torch.device, folder: Path) -> None:
    there, here = (load_bundle(folder, device).encoder for device in (gpu, CPU))
    assert isinstance(there, TextEncoder)
    assert isinstance(here, TextEncoder)
    assert {tensor.device for tensor in there.model.state_dict().values()} == {GPU}
    images = list(np.random.default_rng(0).integers(0, 256, (3, 40, 60, 3), np.uint8))
    np.testing.assert_allclose(there.encode_images(images), here.encode_images(images), rtol=1e-4, atol=1e-5)
    texts = ["a red ball", "a ball that falls"]
    np.testing.assert_allclose(there.encode_text(texts, 1), here.encode_text(texts, 1), rtol=1e-4, atol=1e-5)


# --------------------------------------------------------------------------------------------------- the stages


NETWORKS = (
    "clip_text",
    "clip_image",
    "train_mv",
    "train_image",
    "embed_mv",
    "embed_image",
    "train_fusion",
)
"""The stages that run one on a GPU, in the order of the DAG. `evaluate` runs the head once, on the CPU."""


def test_the_pipeline_on_a_gpu_ends_where_the_cpu_ends(
    finished: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained in float32 the scores are the same; the baseline of pictures, which `finished` lacks, is scored too."""
    set_keys(project / "params.yaml", {"baselines.image": "test_resnet"})
    with contextlib.chdir(project), a_gpu(monkeypatch) as machine:
        assert pick_device().type == "cuda"
        for name in NETWORKS:
            if name == "train_fusion":
                run("moclip", "train_probe", cwd=project)  # on the CPU
            before, stage = machine.done, getattr(importlib.import_module(f"stages.{name}"), name)
            stage.function(parameters.load(paths.PARAMS))
            assert machine.done > before, f"{name} runs on the GPU"
        run("moclip", "evaluate", cwd=project)
        predictor = load_predictor(parameters.load(paths.PARAMS))
        encoder = predictor.encoder
        assert encoder is not None
        assert all(
            isinstance(one, OnGpu)
            for part in (predictor.mv_tsn, predictor.fusion, encoder.model)
            for one in part.state_dict().values()
        )
    found, expected = (
        pd.read_parquet(folder / "data/predictions.parquet").set_index("id") for folder in (project, finished)
    )
    assert list(found.index) == list(expected.index)
    for stream in ("zero_shot", "mv_tsn", "score_sum", "fusion"):
        np.testing.assert_allclose(
            np.stack(list(found[stream])), np.stack(list(expected[stream])), rtol=0.01, atol=1e-3, err_msg=stream
        )
    assert np.isfinite(np.stack(list(found["mv_image"]))).all()


def test_timing_waits_for_the_gpu_at_the_end_of_each_part(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append("waited"))
    with contextlib.chdir(project), a_gpu(monkeypatch):
        timing.function(parameters.load(paths.PARAMS), clips=2)
    assert len(waits) == 2 * (len(STEPS) + 1)
    assert read_json(project / paths.TIMING_JSON, "timing")["device"] == str(GPU)


# ---------------------------------------------------------------------------------------------------- precision


@pytest.mark.parametrize(("native", "kind"), [(True, torch.bfloat16), (False, torch.float16)])
def test_auto_is_bfloat16_only_where_the_card_calculates_in_it(
    monkeypatch: pytest.MonkeyPatch, native: bool, kind: torch.dtype
) -> None:
    """Cards of compute capability 7.x emulate it, and PyTorch calls that supported."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    assert autocast_type("auto", GPU) == autocast_type("auto", GPU, dense=True) == kind
    wanted = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    assert {name: autocast_type(name, GPU) for name in wanted} == wanted


# ------------------------------------------------------------------------------------- the check of a real GPU


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_check_says_in_one_line_that_there_is_no_gpu(tmp_path: Path) -> None:
    done = run("python", "-m", "tests.gpu_check", "--out", tmp_path / "x.json", cwd=ROOT)
    assert done.stdout == "no GPU here: nothing is checked, and nothing written\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_gpu_check_trains_in_each_precision_and_says_how_far_it_is_from_what_was_expected(project: Path) -> None:
    """The project was made in fp32 on the CPU: that is no distance from itself."""
    expected = gpu_check.outcome(project)
    program = "from pathlib import Path; from tests import gpu_check; gpu_check.train(Path.cwd(), 'bf16')"
    run("python", "-c", program, cwd=project, PYTHONPATH=str(ROOT))  # warm, and so are the stages that it runs
    found = {"bf16": gpu_check.outcome(project), "fp32": expected}
    rows: dict[str, Any] = {row["name"]: row for row in gpu_check.compared(found, expected).rows}
    streams = [title for name, title in STREAM_LABELS.items() if name != "mv_image"]
    names = [f"{name}, top-1" for name in streams] + [f"{name}, last training loss" for name in ("MV-TSN", "fusion")]
    assert list(rows) == [f"{precision}: {name}, distance" for precision in found for name in names]
    assert all(rows[f"fp32: {name}, distance"]["ours"] == 0 for name in names)
    assert all(rows[f"bf16: {name}, distance"]["ours"] > 0 for name in names[-2:])
    far = dataclasses.replace(expected, top1={name: top1 - 0.16 for name, top1 in expected.top1.items()})
    missed = [row["name"] for row in gpu_check.compared({"fp32": found["fp32"]}, far).rows if not row["met"]]
    assert missed == [f"fp32: {name}, top-1, distance" for name in streams]
