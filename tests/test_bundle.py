"""`moclip export` writes a folder that predicts the same elsewhere: without the project, DVC or even Python."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
import yaml
from huggingface_hub import ModelCard

import moclip
from moclip.data.fusion_data import FusionData
from moclip.errors import ModelError
from moclip.inference.bundle import read_bundle_config, save_bundle
from moclip.inference.bundle_card import model_card
from moclip.inference.bundle_files import without_machine_paths
from moclip.inference.onnx_export import export_onnx
from moclip.models.encoders.source import EncoderSource
from moclip.models.fusion import FusionConfig, HeadInputs, build_head
from moclip.models.mv_tsn import MvTsn, MvTsnConfig
from moclip.models.weights import load_weights, read_config, save_weights
from moclip.store.features import Features, to_unit_length
from tests.conftest import ROOT, run
from tests.test_training import with_one_layer

LEFT_OUT = (
    "dvc", "dvclive", "matplotlib", "mvextractor", "onnx", "onnxruntime", "onnxscript", "pandas", "pyarrow", "ruamel",
    "tensorstore", "zarr", "zstandard",
)  # fmt: skip
"""Packages that a machine which only predicts does not have."""


@pytest.fixture(scope="module")
def folder(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with its ONNX graph, far from the project."""
    target = tmp_path_factory.mktemp("elsewhere") / "ball motions"
    done = run("moclip", "export", target, "--onnx", cwd=finished)
    assert re.search(r"the ONNX graph gives the same logits of 12 clips within \d\.\de-0[5-9]", done.stdout)
    return target


def test_three_lines_of_python_give_the_pipelines_answer(folder: Path, finished: Path) -> None:
    stored = pd.read_parquet(finished / "data/predictions.parquet").set_index("id")
    temperatures = read_config(finished / "data/models/fusion.safetensors", "")["temperatures"]
    model = moclip.load(folder)
    for name in list(stored.index)[::3]:
        found = model(finished / "data/demo/videos" / name)
        for stream in ("fusion", "mv_tsn", "zero_shot"):
            logits = stored[stream][name].astype(float) / temperatures[stream]
            expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
            np.testing.assert_allclose(found.probabilities[stream], expected, atol=2e-3)
        best, share = found.top(1)[0]
        assert best == model.classes[int(found.probabilities[found.trusted].argmax())]
        assert share == found.probabilities[found.trusted].max()


def test_it_predicts_elsewhere_without_the_projects_packages(folder: Path, finished: Path, tmp_path: Path) -> None:
    clip = sorted((finished / "data/demo/videos").rglob("*.avi"))[0]
    shutil.copy(clip, tmp_path / "own.avi")
    installed = Path(np.__file__).parent.parent
    lean = tmp_path / "lean"
    lean.mkdir()
    for package in installed.iterdir():  # an environment without them
        if package.name.partition(".")[0].partition("-")[0] not in LEFT_OUT and package.suffix != ".pth":
            (lean / package.name).symlink_to(package)
    words = ["-S", "-m", "pipeline.cli", "predict", "own.avi", "--bundle", str(folder), "--json", "-k", "4"]
    where = os.pathsep.join(map(str, (lean, ROOT / "src", ROOT)))
    done = run(sys.executable, *words, cwd=tmp_path, PYTHONPATH=where)
    here = run("moclip", "predict", clip, "--json", "-k", "4", cwd=finished)
    assert json.loads(done.stdout)[0]["fusion"] == json.loads(here.stdout)[0]["fusion"]
    refused = run(sys.executable, "-S", "-m", "pipeline.cli", "index", cwd=finished, code=1, PYTHONPATH=where)
    assert "pandas" in refused.stderr


def test_the_model_card_has_the_scores_and_the_data(folder: Path, finished: Path) -> None:
    _, head, text = (folder / "README.md").read_text().split("---\n", 2)
    card = yaml.safe_load(head)
    assert card["library_name"] == "moclip"
    assert card["pipeline_tag"] == "video-classification"
    model = card["model-index"][0]
    assert model["name"] == "ball motions"
    scores = {one["name"]: one["value"] for one in model["results"][0]["metrics"]}
    fusion = json.loads((finished / "metrics/fusion.json").read_text())
    assert scores["top-1, fusion head"] == fusion["top1"]
    assert f"| {fusion['top1']:.3f} |" in text
    assert fusion["fingerprint"] in text
    config = json.loads((folder / "config.json").read_text())
    assert config["data"]["splits"] == {"test": 12, "train": 16, "val": 8}
    assert config["params"]["tsn"]["size"] == 32
    assert config["onnx"] == "moclip.onnx"
    assert "`moclip.onnx` holds both" in text
    assert str(finished) not in head + text + json.dumps(config), "no path of this machine"


def test_exporting_again_gives_the_same_bytes_and_never_takes_another_folder(
    folder: Path, finished: Path, tmp_path: Path
) -> None:
    again = tmp_path / "ball motions"
    shutil.copytree(folder, again)
    (again / "fusion.safetensors").write_text("an earlier one")
    run("moclip", "export", again, "--onnx", cwd=finished)
    for file in folder.rglob("*"):
        if file.is_file():
            assert file.read_bytes() == (again / file.relative_to(folder)).read_bytes(), file
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("do not lose me")
    refused = run("moclip", "export", tmp_path / "thesis", cwd=finished, code=1)
    assert "it exists and is not a bundle" in refused.stderr
    assert (tmp_path / "thesis" / "chapter.txt").exists()


def test_a_local_clip_model_cannot_be_left_out_of_a_bundle(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    about = {key: config[key] for key in ("name", "streams", "verdict", "cost", "data", "params")}
    model = moclip.load(folder, "cpu")
    with pytest.raises(ModelError, match="cannot be left out"):
        save_bundle(model, tmp_path / "new", False, about)
    assert not (tmp_path / "new").exists()
    assert model.encoder is not None
    model.encoder.source = EncoderSource("openai/clip-vit-base-patch32")
    save_bundle(model, tmp_path / "new", False, about)
    assert not (tmp_path / "new" / "clip").exists()
    assert "base_model: openai/clip-vit-base-patch32" in (tmp_path / "new" / "README.md").read_text()
    assert read_bundle_config(tmp_path / "new")["clip"]["included"] is False


def test_the_card_names_the_encoders_that_the_hub_has(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    local = EncoderSource(str(folder / "clip"))
    assert ModelCard(model_card(config, local)).data.get("base_model") is None
    several = EncoderSource("hf-hub:some/clip", others=(EncoderSource("timm:test_resnet"), local))
    card = ModelCard(model_card(config | {"licence": "mit"}, several))
    assert card.data.get("base_model") == ["some/clip", "timm/test_resnet.r160_in1k"]
    assert card.data.get("license") == "mit"


def test_a_bundle_names_no_path_of_this_machine() -> None:
    given = {"root": "/home/ann/sets/clips", "each": ["/clip", 1, None, "data/clip"], "store": "s3://bucket/clips"}
    expected = {"root": "sets/clips", "each": ["clip", 1, None, "data/clip"], "store": "s3://bucket/clips"}
    assert without_machine_paths(given) == expected


def test_a_damaged_or_absent_bundle_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no bundle here"):
        moclip.load(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "fusion.safetensors").write_bytes((folder / "fusion.safetensors").read_bytes()[:100])
    with pytest.raises(ModelError, match=r"fusion\.safetensors.*\n  export the bundle again"):
        moclip.load(broken)
    config = json.loads((folder / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"format": 99}))
    with pytest.raises(ModelError, match="written by moclip"):
        moclip.load(broken)
    (broken / "config.json").write_text("{")
    with pytest.raises(ModelError, match="not valid JSON"):
        moclip.load(broken)


def test_files_of_different_bundles_are_not_used_together(folder: Path, tmp_path: Path) -> None:
    mixed = shutil.copytree(folder, tmp_path / "mixed")
    tensors, about = load_weights(folder / "fusion.safetensors", "train_fusion")
    save_weights(mixed / "fusion.safetensors", {name: 2 * tensor for name, tensor in tensors.items()}, about)
    with pytest.raises(ModelError, match=r"fusion\.safetensors: not the file that this bundle was exported with"):
        moclip.load(mixed)
    (mixed / "fusion.safetensors").unlink()
    with pytest.raises(ModelError, match=r"fusion\.safetensors: no such model"):
        moclip.load(mixed)
    config = json.loads((folder / "config.json").read_text())
    assert set(config["files"]) == {path.name for path in folder.glob("*.safetensors")}
    shutil.copy(folder / "fusion.safetensors", mixed)
    for change, expected_text in (
        (config | {"classes": config["classes"][::-1]}, "its classes are not those of the models"),
        (config | {"classes": config["classes"][1:]}, "its classes are not those of the models"),
        ({}, "it lacks classes, fields, views, clip, texts\n  export the bundle again"),
        ([], "it lacks classes, fields, views, clip, texts"),
        (3, "not valid JSON"),
        ({name: value for name, value in config.items() if name != "views"}, "it lacks views"),
    ):
        (mixed / "config.json").write_text(json.dumps(change))
        with pytest.raises(ModelError, match=expected_text):
            moclip.load(mixed)
    (mixed / "config.json").write_text(json.dumps({name: config[name] for name in config if name != "files"}))
    assert moclip.load(mixed), "earlier versions noted no files"


def test_top_reads_the_stream_that_the_bundle_trusts(folder: Path, finished: Path, tmp_path: Path) -> None:
    clip = next((finished / "data/demo/videos").rglob("*.avi"))
    config = json.loads((folder / "config.json").read_text())
    assert config["trusted"] == json.loads((finished / "metrics/verdict.json").read_text())["trusted"]["stream"]
    given = config.pop("trusted")
    for trusted in {"mv_tsn", "zero_shot", None} - {given}:
        again = tmp_path / str(trusted)
        shutil.copytree(folder, again)
        (again / "config.json").write_text(json.dumps(config | ({"trusted": trusted} if trusted else {})))
        found = moclip.load(again)(clip)
        assert found.top() == found.top(stream=trusted or "fusion"), "earlier bundles, which say nothing: fusion"
        assert found.top() != found.top(stream="fusion") or trusted is None


def test_onnxruntime_alone_gives_the_pipelines_logits(folder: Path, finished: Path) -> None:
    stored = pd.read_parquet(finished / "data/predictions.parquet").set_index("id")
    names = list(stored.index)
    model = moclip.load(folder)
    looks = [model.read(finished / "data/demo/videos" / name) for name in names]
    stills = Features(finished / "data/features/clip_image.zarr", "clip_image").rows("features", names)
    session = onnxruntime.InferenceSession(str(folder / "moclip.onnx"), providers=["CPUExecutionProvider"])
    given = {"fields": np.stack([look.levels for look in looks]), "stills": stills}
    for stream, logits in zip(("fusion", "mv_tsn"), session.run(["fusion", "mv_tsn"], given), strict=True):
        np.testing.assert_allclose(logits, np.stack(stored[stream].to_list()), rtol=1e-4, atol=1e-4)
    temperatures = read_config(folder / "fusion.safetensors", "")["temperatures"]
    for stream in ("fusion", "mv_tsn"):
        scaled = np.exp(np.stack(stored[stream].to_list()).astype(float) / temperatures[stream])
        shares = session.run([f"{stream}_probabilities"], given)[0]
        np.testing.assert_allclose(shares, scaled / scaled.sum(axis=1, keepdims=True), atol=2e-3)
    one = session.run(["fusion"], {name: values[:1] for name, values in given.items()})[0]
    np.testing.assert_allclose(one, np.stack(stored["fusion"].to_list())[:1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("head", "pooling", "crops"), [("concat", "attention", 1), ("text", "temporal", 10), ("cache", "mean", 1)]
)
def test_the_graph_has_crops_several_stills_and_every_head(
    folder: Path, tmp_path: Path, head: str, pooling: str, crops: int
) -> None:
    torch.manual_seed(0)
    base = moclip.load(folder, "cpu")
    texts = base.texts
    assert texts is not None
    classes, width = base.classes, texts.features.shape[1]
    # the graph holds the backbone once per crop; the graph of `folder` has a whole one
    network = with_one_layer(MvTsn(MvTsnConfig("test_resnet", classes, 32, 0.5)))
    about = FusionConfig(network.width, width, 16, len(classes), 0.5, pooling, 4)
    train = FusionData(torch.randn(6, 2, network.width), torch.randn(6, 4, width), torch.arange(6) % len(classes))
    options = {"blend": True, "cache_tune": False}
    fusion = build_head(head, about, HeadInputs(torch.from_numpy(texts.features), 20.0, train, options))
    for parameter in fusion.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3)
    shown = torch.randn(2, network.width), torch.nn.functional.normalize(torch.randn(2, 4, width), dim=-1)
    fusion.settings = list(fusion.eval().choices(*shown))[2].settings  # neither the first nor the last
    views = dataclasses.replace(base.views, segments=3, crops=crops, crop=0.8, stills=4)
    predictor = dataclasses.replace(base, mv_tsn=network, fusion=fusion.eval(), views=views)
    generator = np.random.default_rng(0)
    fields = generator.integers(-127, 128, (2, 3, 2, 30, 40), np.int8)
    stills = to_unit_length(generator.normal(size=(2, 4, width))).astype(np.float32)
    assert export_onnx(predictor, tmp_path / "graph.onnx", fields, stills) < 1e-3
    session = onnxruntime.InferenceSession(str(tmp_path / "graph.onnx"), providers=["CPUExecutionProvider"])
    found = session.run(["fusion", "mv_tsn"], {"fields": fields, "stills": stills})
    with torch.inference_mode():
        for number in range(2):
            motion = predictor.pool(predictor.encode_fields(fields[number])[None])
            expected = {name: values[0] for name, values in predictor.score(motion, stills[number][None]).items()}
            np.testing.assert_allclose(found[0][number], expected["fusion"], rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(found[1][number], expected["mv_tsn"], rtol=1e-3, atol=1e-4)
