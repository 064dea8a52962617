"""A CLIP is loaded whole or refused by name; of a hub model that revision is taken that was asked for."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import zarr
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from moclip.data.sampling import segment_frames
from moclip.data.spans import with_span_columns
from moclip.errors import DatasetError, ModelError
from moclip.inference.encode import EncodingPart, check_finite
from moclip.inference.encode_stills import ImageEncoderWorker
from moclip.inference.prepare_stills import StillsTask
from moclip.models.class_texts import read_phrases, read_prompts, text_features
from moclip.models.encoders.source import EncoderSource
from moclip.models.hub_files import files_digest
from moclip.video.clip_files import file_md5
from moclip.video.frames import read_frames
from tests.clips import encode, moving_texture
from tests.conftest import run, set_keys
from tests.tiny_clip import MAX_TOKENS, load_clip, tiny_clip

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_clip(tmp_path / "clip")


def change_weights(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def change_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_complete_clip_model_is_loaded(folder: Path) -> None:
    clip = load_clip(str(folder))
    texts, pictures = ["a", "b"], [np.zeros((50, 60, 3), np.uint8)]
    assert clip.encode_text(texts).shape == (2, 64)
    assert clip.encode_images(pictures).shape == (1, 64)
    np.testing.assert_allclose(load_clip(str(folder)).encode_text(texts), clip.encode_text(texts), atol=1e-5)


def without_projections(tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if "projection" not in name}


def with_an_adapter(tensors: Tensors) -> Tensors:
    return tensors | {"vision_model.adapter.weight": torch.ones(2)}


def in_another_shape(tensors: Tensors) -> Tensors:
    return tensors | {"text_projection.weight": torch.ones(3, 16)}


def but_for_its_scale(tensors: Tensors) -> Tensors:
    return {"logit_scale": tensors["logit_scale"]}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (without_projections, r"missing weights \(2\): text_projection\.weight, visual_projection\.weight"),
        (with_an_adapter, r"beyond what its config\.json says \(1\): vision_model\.adapter\.weight"),
        (in_another_shape, r"another shape than its config\.json says \(1\): text_projection\.weight"),
        (but_for_its_scale, r"missing weights \(\d\d\): (\S+, ){2}\S+ and \d\d more"),
    ],
)
def test_an_incomplete_clip_model_is_refused(folder: Path, change: Callable[[Tensors], Tensors], told: str) -> None:
    change_weights(folder, change)
    with pytest.raises(ModelError, match=told) as caught:
        load_clip(str(folder))
    assert str(folder) in str(caught.value)


def test_layers_that_config_json_does_not_know_are_refused(folder: Path) -> None:
    """Else the tower would be cut short without a word."""
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] = 1
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"beyond what its config\.json says \(16\)"):
        load_clip(str(folder))


def test_position_buffers_of_old_clips_are_ignored(folder: Path) -> None:
    before = load_clip(str(folder)).encode_text(["a"])
    positions = {f"{tower}_model.embeddings.position_ids": torch.arange(5)[None] for tower in ("text", "vision")}
    change_weights(folder, lambda tensors: tensors | positions)
    np.testing.assert_allclose(load_clip(str(folder)).encode_text(["a"]), before, atol=1e-5)


def test_a_model_that_encodes_no_pictures_is_refused_by_name(folder: Path) -> None:
    tower = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    CLIPTextModel(CLIPTextConfig(**tower, vocab_size=600)).save_pretrained(folder)  # the rest stays
    with pytest.raises(ModelError, match="model_type 'clip_text_model', which encodes no pictures"):
        load_clip(str(folder))
    change_json(folder / "config.json", model_type="unheard_of")
    with pytest.raises(ModelError, match="model_type 'unheard_of', which is not known"):
        load_clip(str(folder))


def test_a_tokenizer_or_image_processor_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    change_json(folder / "preprocessor_config.json", crop_size={"height": 48, "width": 48}, size={"shortest_edge": 48})
    with pytest.raises(ModelError, match="its image processor gives pictures of 48x48 px, its image tower takes 32x32"):
        load_clip(str(folder))
    other = tiny_clip(tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["text_config"]["vocab_size"] = 100
    (other / "config.json").write_text(json.dumps(config))
    change_weights(
        other,
        lambda tensors: {
            name: tensor[:100].clone() if "token_embedding" in name else tensor for name, tensor in tensors.items()
        },
    )
    with pytest.raises(ModelError, match="its tokenizer has 514 tokens, its text tower 100"):
        load_clip(str(other))


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"cannot load this encoder: no config\.json"):
        load_clip(str(tmp_path / "empty"))


# ------------------------------------------------------------------------------------------------- long texts


def test_a_text_longer_than_the_tower_reads_is_cut(folder: Path) -> None:
    clip = load_clip(str(folder))
    long = "a" * MAX_TOKENS
    found = clip.encode_text([long, long + " b", "a"])
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.allclose(found[0], found[2])
    assert len(clip.tokens([long])[0]) == MAX_TOKENS
    assert clip.tokens([long])[0][-1] == 1, "its end is marked all the same"


def test_classes_that_the_tower_cannot_tell_apart_are_refused(folder: Path) -> None:
    clip = load_clip(str(folder))
    long = "a" * MAX_TOKENS
    phrases = {"One": ["b"], "Two": [long + " b"], "Three": [long + " c"]}
    with pytest.raises(DatasetError, match="reads the same tokens of 'Two' and 'Three'"):
        text_features(clip, list(phrases), phrases, ["a photo of {}"])
    phrases["Three"].append("c")
    assert text_features(clip, list(phrases), phrases, ["{}"]).shape == (3, 64)


def test_labels_that_differ_too_late_are_refused(finished: Path) -> None:
    words = "a ball " * 40
    clip = next((finished / "data/demo/videos").rglob("*.avi"))
    done = run("moclip", "predict", clip, "--labels", f"{words}up, {words}down", cwd=finished, code=1)
    assert f"reads the same tokens of '{words}up' and '{words}down'" in done.stderr
    assert "Traceback" not in done.stderr
    run("moclip", "predict", clip, "--labels", f"{words}, a horse", cwd=finished)


# -------------------------------------------------------------------------------------------------- revisions


OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def hub_model(tmp_path: Path) -> tuple[str, Path]:
    """A model in the cache of the hub, with two commits: the tag v1, and the newest. Its id and its folder."""
    model = Path(os.environ["HF_HOME"]) / f"hub/models--tiny--{tmp_path.name}"
    (model / "refs").mkdir(parents=True)
    for seed, (commit, name) in enumerate(((OLD, "v1"), (NEW, "main"))):
        tiny_clip(model / "snapshots" / commit, seed)
        (model / "refs" / name).write_text(commit)
    return f"tiny/{tmp_path.name}", model


@pytest.mark.slow
def test_a_revision_of_a_hub_model_is_taken(hub_model: tuple[str, Path], tmp_path: Path) -> None:
    program = """if True:
        import sys
        from moclip.models.encoders.registry import load_encoder
        from moclip.models.encoders.source import EncoderSource
        from moclip.models.hub_files import files_digest
        for revision, seed in (("v1", 0), ("a" * 40, 0), ("main", 1), (None, 1)):
            source = EncoderSource(sys.argv[1], revision=revision)
            own, taken = load_encoder(EncoderSource(sys.argv[2 + seed])), load_encoder(source)
            assert (own.encode_text(["a"]) == taken.encode_text(["a"])).all(), revision
            assert files_digest(source) == "ab"[seed] * 40
    """
    own = [tiny_clip(tmp_path / str(seed), seed) for seed in (0, 1)]
    run("python", "-c", program, hub_model[0], *own, cwd=tmp_path)


def test_the_commit_of_an_open_clip_model_is_read_from_the_cache(tmp_path: Path) -> None:
    name = f"openclip-{tmp_path.name}"
    model = Path(os.environ["HF_HOME"]) / f"hub/models--tiny--{name}"
    (model / "refs").mkdir(parents=True)
    (model / "refs/main").write_text(NEW)
    (model / "snapshots" / NEW).mkdir(parents=True)
    assert files_digest(EncoderSource(f"hf-hub:tiny/{name}")) is None
    (model / "snapshots" / NEW / "open_clip_config.json").write_text("{}")
    assert files_digest(EncoderSource(f"hf-hub:tiny/{name}")) == NEW


def test_features_keep_the_commit_that_they_were_made_from(project: Path, hub_model: tuple[str, Path]) -> None:
    model, folder = hub_model
    values = {"clip.model": model, "clip.files": "data/none", "clip.revision": "v1"}
    set_keys(project / "params.yaml", values)
    for stage in ("clip_text", "clip_image", "train_fusion", "evaluate"):
        run("moclip", stage, cwd=project)
    for name in ("clip_text", "clip_image"):
        about = zarr.open_group(project / f"data/features/{name}.zarr", mode="r").attrs
        assert (about["clip"], about["made_with"]["clip.revision"]) == (OLD, "v1")
    run("moclip", "export", "bundle", "--without-clip", cwd=project)
    assert json.loads((project / "bundle/config.json").read_text())["clip"]["revision"] == "v1"
    clip = next((project / "data/demo/videos").rglob("*.avi"))
    answers = [
        json.loads(run("moclip", "predict", clip, "--json", *more, cwd=project).stdout)
        for more in ((), ("--bundle", "bundle"))
    ]
    assert answers[0] == answers[1]
    (folder / "refs/v1").write_text(NEW)  # the tag moves
    done = run("moclip", "evaluate", cwd=project, code=1)
    assert "clip_text.zarr: it was made from another CLIP" in done.stderr
    set_keys(project / "params.yaml", {"clip.revision": "main"})
    done = run("moclip", "predict", clip, cwd=project, code=1)
    assert 'it was made with clip.revision: "v1", and params.yaml says "main"' in done.stderr


@pytest.mark.parametrize("name", ["./clip", "/nowhere/clip", "~/clip", "data/demo/clip"])
def test_a_path_that_does_not_exist_is_no_id_of_the_hub(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # in the repository, the demo's CLIP exists if the demo has run
    with pytest.raises(ModelError, match="no such folder"):
        load_clip(name)
    with pytest.raises(ModelError) as unknown:
        load_clip("nobody/clip")
    assert "no such folder" not in str(unknown.value)


def test_a_local_folder_has_no_revision(project: Path, folder: Path) -> None:
    with pytest.raises(ModelError, match="a local folder has no revision 'v1'"):
        load_clip(str(folder), revision="v1")
    set_keys(project / "params.yaml", {"clip.revision": "v1"})
    done = run("moclip", "clip_text", cwd=project, code=1)
    assert "clip.revision = 'v1', but clip.model = 'data/demo/clip' is a local folder" in done.stderr
    shutil.rmtree(project / "data/demo/clip")
    set_keys(project / "params.yaml", {"clip.revision": False})
    for stage in ("clip_text", "clip_image"):
        assert "data/demo/clip: no such folder" in run("moclip", stage, cwd=project, code=1).stderr


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'["a {} of {size}"]', "expected exactly one {}"),
        (b'["{} }"]', "expected exactly one {}"),
        (b'["{} {0}"]', "expected exactly one {}"),
        (b'["no class"]', "expected exactly one {}"),
        ('["caf\u00e9 {}"]'.encode("latin-1"), "not text in UTF-8"),
    ],
)
def test_prompts_that_cannot_be_used_are_refused_by_file(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "prompts.json"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=told):
        read_prompts(path)
    with pytest.raises(DatasetError, match="cannot be read"):
        read_prompts(tmp_path)
    path.write_bytes(b'\xef\xbb\xbf["a {}"]')
    assert read_prompts(path) == ["a {}"]


@pytest.mark.parametrize("phrases", [5, None, " ", [], {"a": 1}])
def test_phrases_that_cannot_be_used_are_refused_by_class(tmp_path: Path, phrases: object) -> None:
    (tmp_path / "phrases.json").write_text(json.dumps({"Run": phrases}))
    with pytest.raises(DatasetError, match="class 'Run': expected one phrase or a list"):
        read_phrases(tmp_path / "phrases.json", ["Run"])


def test_each_text_of_a_class_counts_the_same(folder: Path) -> None:
    """However long its features are (arXiv 2103.00020, section 3.1.4)."""
    change_weights(folder, lambda tensors: tensors | {"text_model.final_layer_norm.bias": torch.linspace(-2, 2, 16)})
    clip = load_clip(str(folder))
    phrases = {"One": ["a", "bcdefgh"], "Two": ["zz"]}
    found = text_features(clip, ["One", "Two"], phrases, ["{}", "it is {}!"])
    for name, feature in zip(phrases, found, strict=True):
        raw = clip.encode_text([form.format(text) for text in phrases[name] for form in ("{}", "it is {}!")])
        lengths = np.linalg.norm(raw, axis=1)
        mean = (raw / lengths[:, None]).mean(axis=0)
        np.testing.assert_allclose(feature, mean / np.linalg.norm(mean), atol=1e-6)
        unweighted = raw.mean(axis=0) / np.linalg.norm(raw.mean(axis=0))
        assert np.abs(feature - unweighted).max() > 1e-4, "the lengths differ enough for this test"


def test_features_that_tell_no_classes_apart_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip, names = load_clip(str(folder)), ["red", "green", "blue"]
    phrases = {name: [name] for name in names}
    monkeypatch.setattr(clip, "encode_text", lambda texts: np.ones((len(texts), 4), np.float32))
    with pytest.raises(ModelError, match="the same features for 'red' and 'green'"):
        text_features(clip, names, phrases, ["a {}"])
    monkeypatch.setattr(clip, "encode_text", lambda texts: np.eye(3, dtype=np.float32)[[0, 1, 1]])
    with pytest.raises(ModelError, match="the same features for 'green' and 'blue'"):
        text_features(clip, names, phrases, ["a {}"])
    monkeypatch.setattr(clip, "encode_text", lambda texts: np.full((len(texts), 4), np.nan, np.float32))
    with pytest.raises(ModelError, match="infinite or undefined features for the class 'red'"):
        text_features(clip, names, phrases, ["a {}"])


# ---------------------------------------------------------------------------------------------------- many clips


@pytest.mark.slow
def test_stills_of_many_clips_are_encoded_and_a_bad_clip_costs_itself(folder: Path, tmp_path: Path) -> None:
    root, rows = tmp_path / "clips", []
    root.mkdir()
    for number in range(3):
        path = encode(root / f"{number}.avi", moving_texture(9 + number, (48, 64), (2, 1), seed=number))
        rows.append({"id": f"clip {number}", "path": path.name, "md5": file_md5(path), "frames": 9 + number})
    (root / "1.avi").write_bytes(b"no video any more")
    part = EncodingPart("stills-000000", with_span_columns(pd.DataFrame(rows).assign(seekable=True)))
    given = StillsTask(
        source=EncoderSource(str(folder)),
        root=str(root),
        indexed=True,
        frames=3,
        choice="middle",
        seed=0,
        batch=4,
        workers=1,
        parts_folder=str(tmp_path / "parts"),
        key="key",
        versions={},
    )
    worker = ImageEncoderWorker(given)
    assert list(worker.run([part])) == [part]
    (arrays,), (notes,) = worker.parts.arrays([part.name]), worker.parts.notes([part.name])
    assert list(notes["skipped"]) == ["clip 1"]
    assert arrays["frame"].tolist() == [[1, 4, 7], [1, 5, 9]], "in the middle of each third"
    clip = load_clip(str(folder))
    for features, number in zip(arrays["raw"], (0, 2), strict=True):
        pictures = read_frames(root / f"{number}.avi", segment_frames(np.array([9 + number]), 3)[0])
        np.testing.assert_allclose(features, clip.encode_images(list(pictures)), atol=1e-5)


def test_clips_for_which_a_network_gives_no_numbers_are_named() -> None:
    features = np.ones((4, 2, 3), np.float32)
    check_finite(["a", "b", "c", "d"], {"features": features})
    features[2, 1, 0] = np.nan
    with pytest.raises(ModelError, match=r"NaN or infinite features for c\n"):
        check_finite(["a", "b", "c", "d"], {"features": features})
    features[3] = np.inf
    with pytest.raises(ModelError, match=r"NaN or infinite features for c and 1 more\n"):
        check_finite(["a", "b", "c", "d"], {"features": features})
