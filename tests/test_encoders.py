"""Every family of encoders gives what its own forward pass gives, and runs through the pipeline."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import transformers as hf
import zarr
from timm.data import create_transform, resolve_model_data_config
from torch.nn import functional

import moclip
from moclip.errors import ModelError
from moclip.inference.encode import EncodingPart
from moclip.inference.encode_stills import check_frames, in_batches
from moclip.models.encoders.base import TextEncoder
from moclip.models.encoders.registry import family_of, has_text, load_encoder
from moclip.models.encoders.source import EncoderSource
from moclip.store.resumable import ResumableParts
from pipeline import params as parameters
from pipeline.encoder_source import encoder_source
from stages.clip_image import _joined_arrays
from tests.conftest import ROOT, in_turn, run, run_stages, set_keys
from tests.tiny_encoders import FRAMES, PICTURES, SIDE, tiny_encoder, tiny_open_clip, tiny_timm

SIZES = ((50, 61), (33, 200), (200, 33), (32, 32), (7, 9))
TEXTS = ["a red ball", "someone throws a ball, far away", "b"]
DUAL = ("clip", "metaclip_2", "altclip", "chinese_clip", "siglip", "siglip2")
PADDED = ("siglip", "siglip2")


def pictures(count: int = len(SIZES)) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(256, size=(*SIZES[n % len(SIZES)], 3), dtype=np.uint8) for n in range(count)]


def tensors(images: list[np.ndarray]) -> list[torch.Tensor]:
    return [torch.from_numpy(image).permute(2, 0, 1) for image in images]


def load(folder: Path, **more: Any) -> Any:
    return load_encoder(EncoderSource(str(folder), **more))


def encoded_clip_by_clip(encoder: Any, images: list[np.ndarray], batch: int) -> np.ndarray:
    """Features of pictures that a worker process has prepared, clip by clip, encoded in batches."""
    preparer = pickle.loads(pickle.dumps(encoder.preparer))
    frames = encoder.pictures_per_feature
    clips = [images[start : start + frames] for start in range(0, len(images), frames)]
    prepared = [{name: rows.numpy() for name, rows in preparer(clip).items()} for clip in clips]
    batches = list(in_batches(prepared, batch))
    sizes = {len(rows) for some in batches[:-1] for rows in some.values()}
    assert sizes <= {batch}
    tensors = [{name: torch.from_numpy(rows) for name, rows in some.items()} for some in batches]
    return np.concatenate([encoder.encode_prepared(some) for some in tensors])


@pytest.mark.slow
@pytest.mark.parametrize("family", DUAL)
@pytest.mark.parametrize("texts", [TEXTS, TEXTS[:1]])
def test_scores_are_those_of_the_models_own_forward_pass(family: str, texts: list[str], tmp_path: Path) -> None:
    folder = tiny_encoder(tmp_path / family, family)
    encoder = load(folder)
    assert isinstance(encoder, TextEncoder)
    model = hf.AutoModel.from_pretrained(folder).eval()
    tokenizer, processor = hf.AutoTokenizer.from_pretrained(folder), hf.AutoImageProcessor.from_pretrained(folder)
    padding = {"padding": "max_length", "max_length": 40} if family in PADDED else {"padding": True}
    tokens = dict(tokenizer([text.lower() for text in texts], return_tensors="pt", **padding))
    if family in PADDED:
        tokens = {"input_ids": tokens["input_ids"]}  # their towers read the padding, too
    found = encoder.score(encoder.encode_images(pictures()), encoder.encode_text(texts))
    assert found.shape == (len(SIZES), len(texts))
    for picture, row in zip(pictures(), found, strict=True):
        with torch.inference_mode():
            own = model(**tokens, **processor(images=tensors([picture]), return_tensors="pt"))
        np.testing.assert_allclose(row, own.logits_per_image[0].numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", [*DUAL, "xclip", "dinov2", "vit", "convnext"])
def test_a_saved_encoder_gives_the_same_features(family: str, tmp_path: Path) -> None:
    pool = "clip" if family == "xclip" else "frames"
    encoder = load(tiny_encoder(tmp_path / family, family), pool=pool)
    encoder.save(tmp_path / "saved")
    again = load(tmp_path / "saved", pool=pool)
    images = pictures(2 * FRAMES)
    found = encoder.encode_images(images)
    assert found.shape == (len(images) // encoder.pictures_per_feature, encoder.width)
    np.testing.assert_array_equal(again.encode_images(images), found)
    np.testing.assert_allclose(encoded_clip_by_clip(encoder, images, 3), found, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(encoded_clip_by_clip(encoder, images, len(images)), found)
    assert has_text(encoder.source) == isinstance(encoder, TextEncoder)
    if isinstance(encoder, TextEncoder):
        np.testing.assert_array_equal(again.encode_text(TEXTS), encoder.encode_text(TEXTS))
        assert (again.scale, again.bias, again.max_tokens) == (encoder.scale, encoder.bias, encoder.max_tokens)


def test_sigmoid_models_have_a_bias_that_no_class_gains_from(tmp_path: Path) -> None:
    encoder = load(tiny_encoder(tmp_path / "siglip", "siglip"))
    encoder.bias = -10.0
    images, texts = encoder.encode_images(pictures()), encoder.encode_text(TEXTS)
    biased = encoder.score(images, texts)
    encoder.bias = 0.0
    plain = encoder.score(images, texts)
    np.testing.assert_allclose(biased, plain - 10, atol=1e-5)
    shares = functional.softmax(torch.from_numpy(biased), dim=1), functional.softmax(torch.from_numpy(plain), dim=1)
    torch.testing.assert_close(*shares)


@pytest.mark.parametrize("family", PADDED)
def test_siglip_reads_texts_in_lower_case_and_padded(family: str, tmp_path: Path) -> None:
    encoder = load(tiny_encoder(tmp_path / family, family))
    one, same, other = encoder.encode_text(["A Ball", "a ball", "a bell"])
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-4
    assert {len(ids) for ids in encoder.tokenize(["a", "a long text"])["input_ids"]} == {40}


def test_frames_of_a_clip_go_through_x_clip_together(tmp_path: Path) -> None:
    folder = tiny_encoder(tmp_path / "xclip", "xclip")
    encoder, images = load(folder, pool="clip"), pictures(2 * FRAMES)
    model = hf.AutoModel.from_pretrained(folder).eval()
    tokenizer, processor = hf.AutoTokenizer.from_pretrained(folder), hf.AutoImageProcessor.from_pretrained(folder)
    tokens = tokenizer(TEXTS, return_tensors="pt", padding=True)
    found = encoder.encode_images(images)
    for number in range(2):
        frames = images[number * FRAMES : (number + 1) * FRAMES]
        pixels = processor(images=tensors(frames), return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            own = model(**tokens, pixel_values=pixels[None]).video_embeds[0].numpy()
        np.testing.assert_allclose(found[number] / np.linalg.norm(found[number]), own, atol=1e-5)
    with pytest.raises(ModelError, match=r"4 frames of a clip together") as refused:
        load(folder)
    assert "clip.pool=clip and clip.frames=4" in str(refused.value.fix)


def test_frames_that_do_not_fit_the_encoder_are_refused(tmp_path: Path) -> None:
    single = load(tiny_encoder(tmp_path / "clip", "clip"), pool="clip")
    with pytest.raises(ModelError, match="it encodes single pictures") as refused:
        check_frames(single, 4)
    assert refused.value.fix == "set clip.pool=frames"
    film = load(tiny_encoder(tmp_path / "xclip", "xclip"), pool="clip")
    check_frames(film, FRAMES)
    for count in (1, 2 * FRAMES):
        with pytest.raises(ModelError, match=rf"clip\.frames is {count}"):
            check_frames(film, count)


def test_a_clip_that_one_encoder_could_not_read_is_left_out_of_both(tmp_path: Path) -> None:
    part = EncodingPart("stills-000000", pd.DataFrame({"id": ["a", "b", "c"]}))
    folders = [ResumableParts(str(tmp_path / name), name) for name in ("one", "two")]
    first = np.array([[[1, 0]], [[0, 1]]], np.float32)
    second = np.array([[[3, 0]], [[4, 0]], [[0, 5]]], np.float32)
    folders[0].write(part.name, {"raw": first, "frame": np.array([[7], [9]])}, {"skipped": {"b": "gone"}})
    folders[1].write(part.name, {"raw": second, "frame": np.array([[7], [8], [9]])}, {"skipped": {}})
    (found,) = _joined_arrays(folders, [part])
    np.testing.assert_array_equal(found["frame"], [[7], [9]])
    np.testing.assert_array_equal(found["raw"], [[[1, 0, 3, 0]], [[0, 1, 0, 5]]])
    np.testing.assert_allclose(found["features"], np.array([[[1, 0, 1, 0]], [[0, 1, 0, 1]]]) / np.sqrt(2), atol=1e-6)


def test_image_encoders_give_what_their_model_gives(tmp_path: Path) -> None:
    image = pictures()[0]
    pooled, classifier = (tiny_encoder(tmp_path / family, family) for family in ("dinov2", "vit"))
    processor = hf.AutoImageProcessor.from_pretrained(pooled)
    pixels = processor(images=tensors([image]), return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        own = hf.Dinov2Model.from_pretrained(pooled).eval()(pixels).pooler_output.numpy()
        np.testing.assert_allclose(load(pooled).encode_images([image]), own, atol=1e-5)
        processor = hf.AutoImageProcessor.from_pretrained(classifier)
        pixels = processor(images=tensors([image]), return_tensors="pt")["pixel_values"]
        whole = hf.ViTForImageClassification.from_pretrained(classifier).eval()
        logits = whole(pixels).logits.numpy()
        features = load(classifier).encode_images([image])
        head = whole.classifier
        np.testing.assert_allclose(features @ head.weight.numpy().T + head.bias.numpy(), logits, atol=1e-5)


def test_timm_models_by_name_and_in_the_hubs_format(tmp_path: Path) -> None:
    weights = tiny_timm(tmp_path / "weights.safetensors")
    encoder = load_encoder(EncoderSource("timm:test_efficientnet", str(weights)))
    whole = timm.create_model("test_efficientnet", pretrained=True, pretrained_cfg_overlay={"file": str(weights)})
    transform: Any = create_transform(**resolve_model_data_config(whole), is_training=False)
    from PIL import Image

    image = pictures()[0]
    with torch.inference_mode():
        logits = whole.eval()(transform(Image.fromarray(image))[None])
        features = torch.from_numpy(encoder.encode_images([image]))
        torch.testing.assert_close(whole.get_classifier()(features), logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(
        encoded_clip_by_clip(encoder, pictures(), len(SIZES)), encoder.encode_images(pictures())
    )
    encoder.save(tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert family_of(again.source) == "timm"
    np.testing.assert_array_equal(again.encode_images([image]), encoder.encode_images([image]))
    with pytest.raises(ModelError, match="no such timm model"):
        load_encoder(EncoderSource("timm:test_efficientnot"))
    other = tiny_timm(tmp_path / "other_model.safetensors", "test_vit")
    with pytest.raises(ModelError, match=r"other_model\.safetensors: cannot load this encoder"):
        load_encoder(EncoderSource("timm:test_efficientnet", str(other)))
    with pytest.raises(ModelError, match="takes no revision"):
        load_encoder(EncoderSource("timm:test_efficientnet", str(weights), revision="v1"))
    with pytest.raises(ModelError, match="no such weights file"):
        load_encoder(EncoderSource("timm:test_efficientnet", str(tmp_path / "other.safetensors")))


@pytest.mark.slow
def test_open_clip_models(tmp_path: Path) -> None:
    open_clip = pytest.importorskip("open_clip")
    folder = tiny_open_clip(tmp_path / "open")
    encoder = load(folder)
    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    from PIL import Image

    pixels = torch.stack([transform(Image.fromarray(image)) for image in pictures()])
    with torch.inference_mode():
        seen, read = model.eval().encode_image(pixels, True), model.encode_text(tokenizer(TEXTS), True)
        own = (model.logit_scale.exp() * seen @ read.T).numpy()
    found = encoder.score(encoder.encode_images(pictures()), encoder.encode_text(TEXTS))
    np.testing.assert_allclose(found, own, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(
        encoded_clip_by_clip(encoder, pictures(), len(SIZES)), encoder.encode_images(pictures())
    )
    encoder.save(tmp_path / "saved")
    np.testing.assert_array_equal(load(tmp_path / "saved").encode_text(TEXTS), encoder.encode_text(TEXTS))


@pytest.mark.parametrize("family", ["siglip", "dinov2"])
def test_weights_in_half_precision_are_taken_and_precision_is_chosen(family: str, tmp_path: Path) -> None:
    folder = tiny_encoder(tmp_path / family, family)
    expected = load(folder).encode_images(pictures())
    hf.AutoModel.from_pretrained(folder).half().save_pretrained(folder)
    found = load(folder)
    assert {weight.dtype for weight in found.model.parameters()} == {torch.float32}
    np.testing.assert_allclose(found.encode_images(pictures()), expected, atol=0.02)
    rounded = load(folder, precision="bf16")
    assert {weight.dtype for weight in rounded.model.parameters()} == {torch.bfloat16}
    np.testing.assert_allclose(rounded.encode_images(pictures()), expected, atol=0.1)
    assert load(folder, precision="auto").dtype == torch.float32, "on a CPU"


@pytest.mark.parametrize(("family", "gone"), [("siglip", "logit_bias"), ("dinov2", "layernorm.weight")])
def test_incomplete_weights_are_refused_by_key(family: str, gone: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tiny_encoder(tmp_path / family, family)
    path = folder / "model.safetensors"
    save_file({name: one for name, one in load_file(path).items() if name != gone}, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"missing weights \(1\): {gone}"):
        load(folder)


@pytest.mark.parametrize("family", ["clip", "metaclip_2", "chinese_clip", "siglip2", "xclip"])
def test_a_model_without_its_tokenizer_is_refused(family: str, tmp_path: Path) -> None:
    """transformers makes an empty tokenizer, which reads all texts alike."""
    folder = tiny_encoder(tmp_path / family, family)
    for file in folder.glob("tok*"):
        file.unlink()
    with pytest.raises(ModelError, match="tokenizer"):
        load(folder, pool="clip" if family == "xclip" else "frames")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "config.json is not valid JSON"),
        ("[1]", "config.json holds no JSON object"),
        ("null", "config.json holds no JSON object"),
        ('{"model_type": ["clip"]}', "which is not known"),
        ('{"architecture": 3}', "a configuration file is damaged"),
    ],
)
def test_damaged_configurations_are_told(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match=told) as refused:
        load(tmp_path)
    assert str(tmp_path) in str(refused.value)
    with pytest.raises(ModelError, match="it is a file, not a folder"):
        load(tmp_path / "config.json")


def test_damaged_weights_are_told(tmp_path: Path) -> None:
    folder = tiny_encoder(tmp_path / "clip", "clip")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(ModelError, match="its weights file is damaged"):
        load(folder)


def test_the_cost_of_a_picture_is_that_of_the_image_tower(tmp_path: Path) -> None:
    encoder = load(tiny_encoder(tmp_path / "clip", "clip"))
    tower = hf.CLIPVisionModelWithProjection(hf.CLIPVisionConfig(**PICTURES, projection_dim=12))
    from moclip.models.flops import count_parameters, multiply_adds

    with torch.device("meta"):
        shapes = hf.CLIPVisionModelWithProjection(tower.config)
        adds = multiply_adds(shapes, torch.zeros(1, 3, SIDE, SIDE))
    assert encoder.cost() == {"parameters": count_parameters(tower), "multiply_adds": adds}


def test_joined_encoders_score_by_the_mean_of_their_scores(tmp_path: Path) -> None:
    folders = [str(tiny_encoder(tmp_path / family, family)) for family in ("clip", "siglip", "dinov2")]
    one, two, silent = map(EncoderSource, folders)
    joint = load_encoder(EncoderSource(folders[0], others=(silent, two)))
    clip, siglip, dino = (load_encoder(source) for source in (one, two, silent))
    assert isinstance(joint, TextEncoder)
    assert isinstance(clip, TextEncoder)
    assert isinstance(siglip, TextEncoder)
    scores = [own.score(own.encode_images(pictures()), own.encode_text(TEXTS)) for own in (clip, siglip)]
    images = joint.encode_images(pictures())
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(joint.score(images, joint.encode_text(TEXTS)), np.mean(scores, axis=0), atol=1e-4)
    assert images.shape[1] == joint.width == clip.width + dino.width + siglip.width
    assert joint.cost()["parameters"] == sum(encoder.cost()["parameters"] for encoder in (clip, siglip, dino))
    assert has_text(joint.source)
    assert not has_text(EncoderSource(folders[2], others=(silent,)))
    film = EncoderSource(str(tiny_encoder(tmp_path / "xclip", "xclip")), pool="clip")
    with pytest.raises(ModelError, match="cannot be joined"):
        load_encoder(EncoderSource(folders[0], others=(film,)))


def test_a_folder_in_clip_files_holds_the_weights_of_several_timm_models(tmp_path: Path) -> None:
    names = ("test_efficientnet", "test_vit")
    for name in names:
        tiny_timm(tmp_path / f"{name}.safetensors", name)
    given = parameters.with_values(
        parameters.read_raw(ROOT / "params.yaml"),
        {"clip.files": str(tmp_path), "clip.model": "timm:test_efficientnet", "clip.models": ["timm:test_vit", "a/b"]},
    )
    source = encoder_source(parameters.validate(given, "params.yaml"))
    assert source
    wanted = [str(tmp_path / f"{name}.safetensors") for name in names]
    assert [one.weights for one in source.each] == [*wanted, None]
    load_encoder(source.each[1])


# ------------------------------------------------------------------------------------------------ the pipeline


STAGES = ("clip_text", "clip_image", "train_fusion", "evaluate", "report")
"""What depends on the encoder."""
TEXT_STREAMS, PICTURE_STREAMS = {"zero_shot", "score_sum"}, {"still"}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["siglip", "xclip", "dinov2", "timm", "joint", None])
def test_the_pipeline_runs_with_every_kind_of_encoder(family: str | None, project: Path, tmp_path: Path) -> None:
    values: dict[str, Any] = {"clip.model": False, "clip.files": "data/none", "fusion.epochs": 2, "report.clips": 1}
    values["clip.frames"] = FRAMES
    if family == "timm":
        values |= {"clip.model": "timm:test_efficientnet", "clip.files": str(tiny_timm(tmp_path / "w.safetensors"))}
    elif family == "joint":
        for part in ("clip", "siglip"):
            tiny_encoder(tmp_path / "encoders" / part, part)
        below = str(tmp_path / "encoders")
        values |= {"clip.model": f"{below}/clip", "clip.models": [f"{below}/siglip"], "clip.files": below}
    elif family:
        folder = str(tiny_encoder(tmp_path / family, family))
        values |= {"clip.model": folder, "clip.files": folder}
    if family == "xclip":
        values["clip.pool"] = "clip"
    set_keys(project / "params.yaml", values)
    run_stages(*STAGES, cwd=project)
    files = (project / "metrics").glob("*.json")
    scored = {path.stem for path in files if "protocol" in json.loads(path.read_text())}
    missing = (
        set() if family in ("siglip", "xclip", "joint") else TEXT_STREAMS if family else TEXT_STREAMS | PICTURE_STREAMS
    )
    scored.discard("cost")
    assert scored == {"majority", "motion_probe", "mv_tsn", "fusion", *TEXT_STREAMS, *PICTURE_STREAMS} - missing
    for name, wanted in (("clip_text", not missing), ("clip_image", family is not None)):
        assert (project / f"data/features/{name}.zarr/unused.txt").exists() != wanted
    if family:
        group = zarr.open_group(project / "data/features/clip_image.zarr", mode="r")
        assert group["features"].shape[1] == (1 if family == "xclip" else FRAMES)
    predict = ("predict", str(next((project / "data/demo/videos").rglob("*.avi"))))
    found = in_turn(project, (*predict, "--json"), ("export", "bundle"), (*predict, "--json", "--bundle", "bundle"))
    assert not any(one.code for one in found)
    (answer,), (again,) = (json.loads(one.stdout) for one in found[::2])
    assert set(answer) - {"clip", "trusted"} == {"fusion", "mv_tsn"} | ({"zero_shot"} - missing)
    stored = pd.read_parquet(project / "data/predictions.parquet").set_index("id")
    predicted = moclip.load(project / "bundle", "cpu")(project / "data/demo/videos" / stored.index[0]).logits
    for stream, logits in predicted.items():
        np.testing.assert_allclose(logits, stored[stream].iloc[0], rtol=1e-3, atol=1e-3, err_msg=stream)
    assert again == answer
    assert set(stored.columns) >= scored
    if missing:
        done = run("moclip", *predict, "--labels", "a, b", cwd=project, code=1)
        assert "labels in words need an encoder of texts" in done.stderr
        set_keys(project / "params.yaml", {"fusion.head": "text"})
        done = run("moclip", "train_fusion", cwd=project, code=1)
        assert "fusion.head: text compares with class texts, but clip.model encodes no texts" in done.stderr


def test_features_of_another_kind_of_encoder_are_stale(project: Path) -> None:
    set_keys(project / "params.yaml", {"clip.model": False, "clip.files": "data/none"})
    done = run("moclip", "train_fusion", cwd=project, code=1)
    assert "it was made with clip.model" in done.stderr
    run("moclip", "clip_text", cwd=project)
    run("moclip", "clip_image", cwd=project)
    set_keys(project / "params.yaml", {"clip.model": "data/demo/clip", "clip.files": "data/demo/clip"})
    done = run("moclip", "train_fusion", cwd=project, code=1)
    assert "it was made with another clip.model" in done.stderr


def test_adding_an_encoder_does_not_encode_with_the_first_again(project: Path, tmp_path: Path) -> None:
    below = tmp_path / "encoders"
    for part in ("clip", "dinov2"):
        tiny_encoder(below / part, part)
    set_keys(project / "params.yaml", {"clip.model": str(below / "clip"), "clip.files": str(below)})
    run("moclip", "clip_image", cwd=project)
    first = zarr.open_group(project / "data/features/clip_image.zarr", mode="r")["features"][:]
    kept = {path: path.stat().st_mtime_ns for path in (project / "data/encoded").rglob("*.safetensors")}
    assert kept
    set_keys(project / "params.yaml", {"clip.models": [str(below / "dinov2")]})
    run("moclip", "clip_image", cwd=project)
    both = zarr.open_group(project / "data/features/clip_image.zarr", mode="r")["features"][:]
    np.testing.assert_allclose(both[..., : first.shape[-1]] * np.sqrt(2), first, atol=1e-6)
    assert both.shape[-1] > first.shape[-1]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "these were not written again"
    assert len({path.parent for path in (project / "data/encoded").rglob("*.safetensors")}) == 2
    set_keys(project / "params.yaml", {"clip.model": str(below / "dinov2"), "clip.models": []})
    run("moclip", "clip_image", cwd=project)
    assert not any(path.exists() for path in kept), "what no encoder in params.yaml made is removed"
    set_keys(project / "params.yaml", {"clip.models": [str(tiny_encoder(tmp_path / "elsewhere", "clip"))]})
    done = run("moclip", "clip_image", cwd=project, code=1)
    assert "which is not below clip.files" in done.stderr
