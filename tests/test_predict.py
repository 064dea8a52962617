"""`moclip predict` answers for clips by the models of the last run, and reports the ones it cannot read."""

from __future__ import annotations

import copy
import csv
import dataclasses
import io
import itertools
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moclip.data.crops import crop_and_resize, protocol_crops
from moclip.data.sampling import motion_frames, pick_motion, segment_frames
from moclip.errors import DatasetError, MoclipError, ModelError, VideoError
from moclip.inference import predictor as predictor_module
from moclip.inference.bundle import load_bundle, save_bundle
from moclip.inference.clip_input import ClipInput, FieldSettings, ViewSettings, read_or_reason
from moclip.inference.predictor import Prediction, Predictor
from moclip.models.class_texts import ClassTexts, phrase, text_features
from moclip.models.device import named_device
from moclip.models.encoders.registry import load_encoder
from moclip.models.encoders.source import EncoderSource
from moclip.models.fusion import FusionConfig
from moclip.models.heads.concat import ConcatFusion
from moclip.models.heads.text import TextFusion
from moclip.models.mv_tsn import MvTsn, MvTsnConfig
from moclip.models.weights import read_config
from moclip.motion.extract import Output, extract
from moclip.motion.extract_plan import FieldRecipe
from moclip.motion.quantise import dequantise
from moclip.store.features import to_unit_length
from moclip.store.reader import FieldReader
from moclip.video import vectors
from moclip.video.clip_files import file_md5, find_clips
from moclip.video.decoding import B_VECTOR_CODECS
from moclip.video.frames import read_frames
from moclip.video.probe import probe
from moclip.workers.processes import DECODER_DIED
from moclip.workers.time_limit import TIME_LIMIT_VARIABLE
from pipeline import params as parameters
from pipeline import paths
from pipeline.commands.predict import load_predictor
from pipeline.console.output import STREAM_LABELS
from tests import dying
from tests.clips import encode, moving_texture, without_first_packets
from tests.conftest import in_turn, run, run_stages, set_keys, stages_from
from tests.test_terminal import HEAVY, imported
from tests.test_training import sharpened, with_one_layer
from tests.tiny_clip import load_clip, tiny_clip
from tests.tiny_encoders import tiny_encoder


def answers(*words: str | Path, cwd: Path, code: int = 0) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("moclip", "predict", *words, "--json", cwd=cwd, code=code).stdout)
    return found


TEMPERATURES = {"fusion": 0.5, "mv_tsn": 4.0, "zero_shot": 2.0}


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """Small networks with random weights, for what does not depend on their answers."""
    clip, classes = load_clip(str(tiny_clip(tmp_path_factory.mktemp("clip")))), ("left", "right", "up")
    torch.manual_seed(0)
    mv_tsn = sharpened(MvTsn(MvTsnConfig("test_resnet", classes, 32, 0.5)))
    return Predictor(
        mv_tsn=mv_tsn,
        fusion=ConcatFusion(FusionConfig(mv_tsn.width, clip.width, 16, len(classes), 0.5)).eval(),
        encoder=clip,
        classes=classes,
        texts=ClassTexts(
            text_features(clip, classes, {name: [name] for name in classes}, ["a {}"]), 20.0, 0.0, ("a {}",)
        ),
        fields=FieldSettings(transcode=False, canvas=(240, 320), cell=8, clip=20.0, accumulate=False),
        views=ViewSettings(segments=3, crops=1, crop=0.875, stills=1, choice="middle", seed=0),
    )


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode(tmp_path_factory.mktemp("clip") / "a.avi", moving_texture(20, (64, 80), (3, 1)))


# ------------------------------------------------------------------------------------------------ what it says


@pytest.fixture(scope="module")
def said(finished: Path) -> dict[str, dict[str, Any]]:
    """What `moclip predict --json` says of every clip of the demo, by its path."""
    return {one["clip"]: one for one in answers("data/demo/videos", "--top", "4", cwd=finished)}


def test_prediction_agrees_with_the_pipelines(finished: Path, said: dict[str, dict[str, Any]]) -> None:
    stored = pd.read_parquet(finished / "data/predictions.parquet").set_index("id")
    temperatures = read_config(finished / "data/models/fusion.safetensors", "")["temperatures"]
    assert len(said) == 4 * (6 + 3), "every clip below the folder"
    for name, row in stored.iterrows():
        for stream in ("fusion", "mv_tsn", "zero_shot"):
            logits = row[stream].astype(float) / temperatures[stream]
            expected = np.sort(np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum())[::-1]
            told = [one["probability"] for one in said[f"data/demo/videos/{name}"][stream]]
            assert told == pytest.approx(expected.tolist(), abs=2e-3), (name, stream)


@pytest.mark.slow
@pytest.mark.parametrize("change", [{}, {"clip.choice": "random", "clip.frames": 4, "seed": 3}])
def test_logits_are_those_of_the_pipeline(
    project: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    set_keys(project / "params.yaml", change)
    if change:
        same = ("extract_mv", "clip_text", "train_image", "embed_image")
        run_stages(*(stage for stage in stages_from("index") if stage not in same), cwd=project)
    stored = pd.read_parquet(project / "data/predictions.parquet").set_index("id")
    monkeypatch.chdir(project)
    predictor = load_predictor(parameters.load(paths.PARAMS))
    answered = predictor.predict([project / "data/demo/videos" / name for name in stored.index])
    for (name, row), answer in zip(stored.iterrows(), answered, strict=True):
        assert isinstance(answer, Prediction), answer
        for stream in ("fusion", "mv_tsn", "zero_shot"):
            np.testing.assert_allclose(
                answer.logits[stream], row[stream], rtol=0, atol=1e-5, err_msg=f"{name} {stream}"
            )


def test_what_of_a_clip_does_not_decode_is_told(finished: Path, tmp_path: Path) -> None:
    whole = encode(tmp_path / "whole.mkv", moving_texture(40, (64, 80)), "libx264", gop=10)
    cut = without_first_packets(whole, tmp_path / "cut.mkv", 3)
    done = run("moclip", "predict", whole, cut, "--json", cwd=finished)
    first, second = json.loads(done.stdout)
    assert "damage" not in first
    assert re.fullmatch(r"\d of 37 packets give no picture", second["damage"])
    assert done.stderr.splitlines() == [f"warning: {cut}: damaged, used as far as it decodes: {second['damage']}"]


def test_a_clip_that_fails_does_not_affect_others(finished: Path, tmp_path: Path) -> None:
    film = moving_texture(12, (64, 80))
    for degrees in (0, 90, 180, 270):
        encode(tmp_path / f"{degrees}.mp4", film, "libx264", rotation=degrees)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    encode(tmp_path / "interlaced.mkv", film, "libx264", options={"x264-params": "interlaced=1:bframes=0"})
    found = {Path(one["clip"]).name: one for one in answers(tmp_path, cwd=finished)}
    assert {name for name, one in found.items() if "error" in one} == {"broken.mp4", "interlaced.mkv"}
    assert len(found) == 6


@pytest.mark.slow
def test_a_decoder_that_crashes_costs_its_clip_alone(
    predictor: Predictor, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = [Path(shutil.copy(clip, tmp_path / f"{name}.avi")) for name in ("die", "a", "b", "hang", "c")]
    monkeypatch.setattr(predictor_module, "read_or_reason", dying.read_input_or_die)
    monkeypatch.setenv(TIME_LIMIT_VARIABLE, "2")
    found = list(predictor.predict_in_processes(clips, workers=2))
    problems = {one.where: one.what for one in found if isinstance(one, VideoError)}
    assert problems == {str(clips[0]): DECODER_DIED, str(clips[3]): "its decoder gave nothing for 2 s"}
    usual = predictor(clip).logits["fusion"]
    assert [isinstance(one, Prediction) for one in found] == [False, True, True, False, True]
    for one in found:
        if isinstance(one, Prediction):
            np.testing.assert_allclose(one.logits["fusion"], usual, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_clips_that_are_predicted_two_at_a_time_keep_their_order(predictor: Predictor, tmp_path: Path) -> None:
    films = [moving_texture(12, (64, 80), step, seed) for seed, step in enumerate([(3, 0), (0, -3), (-4, 2), (0, 3)])]
    clips = [encode(tmp_path / f"{number}.avi", film) for number, film in enumerate(films)]
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = list(predictor.predict_in_processes(clips, workers=2))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    for one, path in zip(found, clips, strict=True):
        assert isinstance(one, Prediction)
        np.testing.assert_allclose(one.logits["fusion"], predictor(path).logits["fusion"], rtol=0, atol=1e-5)
        np.testing.assert_allclose(one.features["motion"], predictor(path).features["motion"], rtol=0, atol=1e-5)


def test_a_temporary_folder_whose_name_is_too_long_for_a_socket_is_named(clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / ("t" * 80)
    folder.mkdir()
    (tmp_path / "clips").mkdir()
    for name in "ab":
        shutil.copy(clip, tmp_path / f"clips/{name}.avi")
    done = run("moclip", "draw", tmp_path / "clips", cwd=tmp_path, code=1, TMPDIR=str(folder))
    assert f"{folder}: the name of the folder for temporary files is too long" in done.stderr
    assert "set TMPDIR to another folder, such as /tmp" in done.stderr


def test_what_goes_wrong_while_answering_is_the_clips_reason(
    predictor: Predictor, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = [clip] * 3
    read = [read_or_reason(predictor._job(path)) for path in clips]
    assert isinstance(read[1], ClipInput)
    read[1].stills[0] = np.zeros((0, 0, 3), np.uint8)  # which CLIP's processor cannot take
    turns = iter(read)
    monkeypatch.setattr(predictor_module, "read_or_reason", lambda job: next(turns))
    found = list(predictor.predict(clips))
    assert [isinstance(one, VideoError) for one in found] == [False, True, False]


def test_csv_has_a_row_a_clip_and_rank(finished: Path, tmp_path: Path, said: dict[str, dict[str, Any]]) -> None:
    (tmp_path / "bad, clip.mp4").write_text("no video")
    clip = next(iter(said))
    done = run("moclip", "predict", clip, tmp_path / "bad, clip.mp4", "--csv", "-k", "2", cwd=finished)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [(row["clip"], row["rank"]) for row in rows[:2]] == [(clip, "1"), (clip, "2")]
    for rank, row in enumerate(rows[:2]):
        assert row["trusted"] == said[clip]["trusted"]
        for stream in ("fusion", "mv_tsn", "zero_shot"):
            one = said[clip][stream][rank]
            assert row[stream] == one["class"]
            assert float(row[f"{stream}_probability"]) == pytest.approx(one["probability"], abs=2e-4)
    assert rows[2]["clip"].endswith("bad, clip.mp4")
    assert "not a video file" in rows[2]["error"]
    assert len(rows) == 3


def test_a_pattern_names_clips(finished: Path, tmp_path: Path) -> None:
    root = finished / "data/demo/videos"
    (tmp_path / "[a]").mkdir()
    odd = encode(tmp_path / "[a]" / "x.avi", moving_texture(4, (64, 80)))
    found = find_clips([root / "**" / "*_g01_c0?.avi", root / "RedBallRising", odd])
    expected = sorted(root.rglob("*_g01_c0?.avi"))
    assert found[: len(expected)] == expected
    assert sorted(set(found)) == sorted(found), "each clip once"
    assert found[-1] == odd, "a file that is there is no pattern"
    with pytest.raises(DatasetError, match=r"\*\.mov: no file has this name"):
        find_clips([root / "*.mov"])
    with pytest.raises(DatasetError, match="models: no clips in this folder"):
        find_clips([finished / "data/models"])


def test_hidden_clips_are_used_only_if_you_name_them(tmp_path: Path) -> None:
    root = tmp_path / ".data/clips"
    names = [
        "Run/a.avi",
        "Run/._a.avi",
        "__MACOSX/Run/b.avi",
        "Run/@eaDir/c.avi",
        ".cache/d.avi",
        "Run/folder.avi/e.avi",
    ]
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    shown = [root / "Run/a.avi", root / "Run/folder.avi/e.avi"]
    assert find_clips([root]) == shown
    assert find_clips([root / "**/*.avi"]) == shown
    assert find_clips([tmp_path / ".d*/clips/*/?.avi"]) == [root / "Run/a.avi"]
    assert find_clips([root / "Run/._a.avi"]) == [root / "Run/._a.avi"]
    assert find_clips([root / ".cache"]) == find_clips([root / ".c*/*.avi"]) == [root / ".cache/d.avi"]
    assert find_clips([root / "__MACOSX/*/*.avi"]) == [root / "__MACOSX/Run/b.avi"]
    with pytest.raises(DatasetError, match="no file has this name"):
        find_clips([root / "*/@*/*.mov"])


def test_an_unreadable_clip_is_reported_and_the_others_answered_side_by_side(
    finished: Path, tmp_path: Path, said: dict[str, dict[str, Any]]
) -> None:
    (tmp_path / "bad.mp4").write_text("no video")
    hevc = [encode(tmp_path / f"IMG {n}.MOV", moving_texture(4, (64, 80)), "libx265") for n in (1, 2)]
    done = run("moclip", "predict", "data/demo/videos/**/*_g01_c01.avi", tmp_path / "bad.mp4", *hevc, cwd=finished)
    assert "bad.mp4: not a video file" in done.stderr
    assert "IMG 2.MOV: codec hevc exports no motion vectors\n" in done.stderr
    assert f"\n  re-encode it: ffmpeg -i '{hevc[0]}' -c:v mpeg4 -q:v 1" in done.stderr
    assert done.stderr.count("ffmpeg") == 1, "once for all clips of one reason"
    clips = sorted((finished / "data/demo/videos").rglob("*_g01_c01.avi"))
    assert len(clips) > 2
    for path in clips:
        one = said[str(path.relative_to(finished))]
        line = next(line for line in done.stdout.splitlines() if one["clip"] in line)
        assert all(one[stream][0]["class"] in line for stream in ("fusion", "mv_tsn", "zero_shot"))
    head = next(line for line in done.stdout.splitlines() if "fusion head" in line)
    titles = sorted(STREAM_LABELS[stream] for stream in ("fusion", "mv_tsn", "zero_shot"))
    first = STREAM_LABELS[next(iter(said.values()))["trusted"]]
    assert f"{first} (trusted)" in head
    assert min(titles, key=head.index) == first
    alone = run("moclip", "predict", tmp_path / "bad.mp4", cwd=finished, code=1)
    assert "no clip could be read" in alone.stderr
    assert "Traceback" not in alone.stderr


@pytest.mark.slow
def test_without_models_it_says_what_to_run(tmp_path: Path) -> None:
    run("moclip", "use", "demo", cwd=tmp_path)
    encode(tmp_path / "x.mp4", moving_texture(4, (64, 80)))
    done = run("moclip", "predict", "x.mp4", cwd=tmp_path, code=1, PYTHONPROFILEIMPORTTIME="1")
    assert not imported(done.stderr) & (HEAVY - {"av"}), "nobody waits for it"
    assert "data/models/mv_tsn.safetensors: no such model" in done.stderr
    assert "run: moclip train_mv" in done.stderr


def test_without_a_project_it_says_what_to_name(tmp_path: Path) -> None:
    encode(tmp_path / "x.mp4", moving_texture(4, (64, 80)))
    done = run("moclip", "predict", "x.mp4", cwd=tmp_path, code=1, PYTHONPROFILEIMPORTTIME="1")
    assert not imported(done.stderr) & (HEAVY - {"av"})
    assert "params.yaml: not found" in done.stderr
    assert "--bundle DIR" in done.stderr


def test_parameters_changed_since_the_training_are_refused(project: Path) -> None:
    set_keys(project / "params.yaml", {"mv.accumulate": "grid"})
    clip = next((project / "data/demo/videos").rglob("*.avi"))
    done = run("moclip", "predict", clip, cwd=project, code=1)
    assert 'mv_tsn.safetensors: it was made with mv.accumulate: false, and params.yaml says "grid"' in done.stderr


# -------------------------------------------------------------------------------------------- classes as text


def test_labels_are_scored_without_training(finished: Path) -> None:
    reds, blues = "a photo of a red ball", "a photo of a blue ball"
    found = answers("data/demo/videos/RedBallRising", "--labels", f"{reds}, {blues}", cwd=finished)
    assert all("mv_tsn" not in one and "fusion" not in one for one in found), "they know their own classes only"
    assert {entry["class"] for one in found for entry in one["zero_shot"]} == {reds, blues}
    assert found[0]["zero_shot"][0]["probability"] + found[0]["zero_shot"][1]["probability"] == pytest.approx(
        1, abs=1e-3
    )
    assert (
        "at least two labels"
        in run("moclip", "predict", "data/demo/videos", "--labels", "x", cwd=finished, code=1).stderr
    )


def calibrated(predictor: Predictor) -> Predictor:
    """The same predictor with temperatures."""
    head = copy.deepcopy(predictor.fusion)
    head.calibrate(TEMPERATURES)
    return dataclasses.replace(predictor, fusion=head)


def test_probabilities_are_calibrated_and_those_of_free_labels_are_not(predictor: Predictor, clip: Path) -> None:
    raw, found = predictor(clip), calibrated(predictor)(clip)
    for stream, temperature in TEMPERATURES.items():
        np.testing.assert_array_equal(found.logits[stream], raw.logits[stream])
        shares = np.exp(raw.logits[stream].astype(float) / temperature)
        np.testing.assert_allclose(found.probabilities[stream], shares / shares.sum(), atol=1e-6)
        assert [name for name, _ in found.top(3, stream)] == [name for name, _ in raw.top(3, stream)]
    labels = ["a horse", "a dog"]
    free, expected = (one.with_labels(labels)(clip).probabilities for one in (calibrated(predictor), predictor))
    np.testing.assert_array_equal(free["zero_shot"], expected["zero_shot"])


def test_equally_probable_classes_are_in_the_order_of_their_logits() -> None:
    logits = np.array([1000.0, 1000.001, 0.0], np.float32)
    answer = Prediction(("a", "b", "c"), {"fusion": np.array([0.5, 0.5, 0.0])}, {"fusion": logits})
    assert answer.top(2) == [("b", 0.5), ("a", 0.5)]


def test_a_stream_that_is_not_there_is_named_with_those_that_are() -> None:
    answer = Prediction(("a", "b"), {"fusion": np.array([0.9, 0.1])}, {"fusion": np.array([2.0, 1.0])})
    with pytest.raises(
        ModelError, match="no stream 'zero_shot' in this prediction; there are fusion\n  it needs an enc"
    ):
        answer.top(1, "zero_shot")
    with pytest.raises(ModelError, match=r"no stream 'mv_tsn' .*; there are fusion\n  .* not labels given as text"):
        answer.labels("mv_tsn")
    with pytest.raises(ModelError, match=r"no stream 'Fusion' .*\n  the streams are fusion, mv_tsn, zero_shot"):
        answer.top(stream="Fusion")


def test_own_class_names_as_labels_give_the_zero_shot_answer(predictor: Predictor, clip: Path) -> None:
    with pytest.raises(MoclipError, match="at least two labels"):
        predictor.with_labels(["a horse"])
    free = predictor.with_labels([phrase(name) for name in predictor.classes])
    np.testing.assert_allclose(
        free(clip).probabilities["zero_shot"], predictor(clip).probabilities["zero_shot"], atol=1e-6
    )


def test_the_text_head_scores_labels_too(predictor: Predictor, clip: Path) -> None:
    texts = predictor.texts
    assert texts is not None
    about = FusionConfig(predictor.mv_tsn.width, texts.features.shape[1], 16, len(predictor.classes), 0.5)
    head = TextFusion(about, torch.from_numpy(texts.features), texts.scale).eval()
    found = dataclasses.replace(predictor, fusion=head).with_labels(["a red ball", "a blue ball"])(clip)
    assert set(found.probabilities) == {"fusion", "zero_shot"}
    fused, zero_shot = found.probabilities["fusion"], found.probabilities["zero_shot"]
    np.testing.assert_allclose(fused, zero_shot, atol=1e-5, err_msg="untrained, it is zero-shot CLIP")


def test_every_still_counts_the_same_however_long_its_features(predictor: Predictor) -> None:
    """Zero-shot CLIP on several stills, and the fusion head on them, by hand."""
    rng = np.random.default_rng(0)
    noise = rng.integers(256, size=(40, 50, 3), dtype=np.uint8)
    stills = [np.zeros((40, 50, 3), np.uint8), np.full((40, 50, 3), 255, np.uint8), noise]
    levels = rng.integers(-127, 128, (4, 2, 30, 40), np.int8)
    found = predictor.classify(ClipInput(levels, stills))
    assert predictor.encoder is not None
    assert predictor.texts is not None
    raw = predictor.encoder.encode_images(stills)
    units = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    mean = units.mean(axis=0)
    assert np.linalg.norm(mean) < 0.99, "the stills differ enough for this test"
    expected = 20.0 * predictor.texts.features @ (mean / np.linalg.norm(mean))
    np.testing.assert_allclose(found.logits["zero_shot"], expected, atol=1e-4)
    shares = np.exp(expected - expected.max())
    np.testing.assert_allclose(found.probabilities["zero_shot"], shares / shares.sum(), atol=1e-5)
    with torch.inference_mode():
        boxes = protocol_crops((30, 40), 0.875, 1)
        motion = predictor.mv_tsn.features(crop_and_resize(torch.from_numpy(levels), boxes, 32)).mean(0, keepdim=True)
        fusion = predictor.fusion(motion, torch.from_numpy(units)[None])[0].numpy()
        mv_tsn = predictor.mv_tsn.head(motion)[0].numpy()
    np.testing.assert_allclose(found.logits["fusion"], fusion, atol=1e-4)
    np.testing.assert_allclose(found.logits["mv_tsn"], mv_tsn, atol=1e-4)


def test_ten_crops_are_averaged_as_in_the_protocol(predictor: Predictor) -> None:
    levels = np.random.default_rng(0).integers(-127, 128, (3, 2, 30, 40), np.int8)
    given = ClipInput(levels, [np.zeros((40, 50, 3), np.uint8)])
    views = dataclasses.replace(predictor.views, crops=10)
    found = dataclasses.replace(predictor, views=views).classify(given)
    boxes = protocol_crops((30, 40), 0.875, 10)
    with torch.inference_mode():
        features = [
            predictor.mv_tsn.features(crop_and_resize(torch.from_numpy(levels[segment : segment + 1]), box, 32))
            for segment in range(3)
            for box in (boxes[number : number + 1] for number in range(10))
        ]
        expected = predictor.mv_tsn.head(torch.cat(features).mean(0))
    np.testing.assert_allclose(found.logits["mv_tsn"], expected, atol=1e-4)
    assert np.abs(predictor.classify(given).logits["mv_tsn"] - found.logits["mv_tsn"]).max() > 1e-4


ABOUT: dict[str, Any] = {
    "name": "moves",
    "streams": {
        "fusion": dict.fromkeys(("top1", "top5", "top1_low", "top1_high", "mean_class_accuracy"), 0.5)
        | {"title": "fusion", "protocol": "3x5"}
    },
    "verdict": ["Trust it."],
    "cost": {"multiply_adds_m": {"video": {"fusion": 1.5}}, "parameters": {"trained": 10, "total": 20}},
    "data": {
        "name": "demo",
        "fingerprint": "0",
        "splits": {"train": 2},
        "test": {"clips": 2, "left_out": 0, "fingerprint": "0"},
    },
    "params": {},
}


@pytest.mark.parametrize("onnx", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_bundle_gives_the_answers_of_what_was_saved(predictor: Predictor, tmp_path: Path, onnx: bool) -> None:
    rng = np.random.default_rng(0)
    levels = rng.integers(-127, 128, (2, 3, 2, 30, 40), np.int8)
    stills = rng.integers(256, size=(2, 2, 40, 50, 3)).astype(np.uint8)
    assert predictor.encoder is not None
    features = np.stack([to_unit_length(predictor.encoder.encode_images(list(some))) for some in stills])
    crops = 1 if onnx else 5  # a graph holds the backbone once per crop; that of several is tested with a small one
    views = dataclasses.replace(predictor.views, crops=crops, stills=2)
    saved = dataclasses.replace(calibrated(predictor), views=views)
    folder = tmp_path / "bundle"
    gap = save_bundle(saved, folder, True, ABOUT, (levels, features) if onnx else None)
    loaded = load_bundle(folder, "cpu")
    assert loaded.classes == saved.classes
    assert (loaded.fields, loaded.views) == (saved.fields, saved.views)
    assert loaded.texts is not None
    assert saved.texts is not None
    np.testing.assert_array_equal(loaded.texts.features, saved.texts.features)
    assert dataclasses.replace(loaded.texts, features=saved.texts.features) == saved.texts
    answers = [saved.classify(ClipInput(*given)) for given in zip(levels, map(list, stills), strict=True)]
    again = loaded.classify(ClipInput(levels[0], list(stills[0])))
    for stream, logits in answers[0].logits.items():
        np.testing.assert_allclose(again.logits[stream], logits, atol=1e-5)
        np.testing.assert_allclose(again.probabilities[stream], answers[0].probabilities[stream], atol=1e-5)
    assert (folder / "moclip.onnx").exists() == onnx
    if onnx:
        assert gap is not None
        session = onnxruntime.InferenceSession(folder / "moclip.onnx", providers=["CPUExecutionProvider"])
        found = session.run(["fusion", "mv_tsn"], {"fields": levels, "stills": features})
        for stream, both in zip(("fusion", "mv_tsn"), found, strict=True):
            expected = np.stack([answer.logits[stream] for answer in answers])
            np.testing.assert_allclose(both, expected, rtol=1e-3, atol=1e-4)
            shares = session.run([f"{stream}_probabilities"], {"fields": levels, "stills": features})[0]
            np.testing.assert_allclose(
                shares, np.stack([answer.probabilities[stream] for answer in answers]), atol=1e-4
            )


def test_a_bundle_takes_no_others_place_and_is_read_by_no_older_version(predictor: Predictor, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    for _ in range(2):  # an empty folder may be filled, and an earlier bundle replaced
        save_bundle(predictor, folder, True, ABOUT)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"format": 99, "moclip": "9.9"}))
    with pytest.raises(ModelError, match=r"written by moclip 9\.9"):
        load_bundle(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match="no bundle here"):
        load_bundle(folder)
    with pytest.raises(ModelError, match="is not a bundle"):
        save_bundle(predictor, folder, True, ABOUT)
    with pytest.raises(ModelError, match="cannot be left out"):
        save_bundle(predictor, tmp_path / "other", False, ABOUT)


# --------------------------------------------------------------------------------- one decoding, the same input


CLIPS = {
    "mpeg4": {"codec": "mpeg4"},
    "mpeg4 with B-frames": {"codec": "mpeg4", "b_frames": 2},
    "h264 with B-frames": {"codec": "libx264", "b_frames": 3, "gop": 9},
}


@pytest.mark.parametrize("kind", CLIPS)
@pytest.mark.parametrize("accumulate", [False, "grid", "pixel"])
def test_the_models_see_what_the_store_holds(
    predictor: Predictor, tmp_path: Path, kind: str, accumulate: bool | str
) -> None:
    path = encode(
        tmp_path / ("clip.avi" if kind == "mpeg4" else "clip.mp4"), moving_texture(40, (96, 128)), **CLIPS[kind]
    )  # type: ignore[arg-type]
    _compare_with_store(predictor, path, accumulate)


def test_a_clip_whose_first_frames_do_not_decode_is_cut_as_in_the_store(predictor: Predictor, tmp_path: Path) -> None:
    whole = encode(tmp_path / "whole.mp4", moving_texture(40, (96, 128)), "libx264", gop=12)
    _compare_with_store(predictor, without_first_packets(whole, tmp_path / "cut.mp4", 5), False)


def test_a_file_too_large_to_keep_is_read_twice_with_the_same_answer(
    predictor: Predictor, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = predictor.read(clip)
    monkeypatch.setattr(vectors, "BUFFERED_BYTES", 1000)
    after = predictor.read(clip)
    np.testing.assert_array_equal(after.levels, before.levels)
    np.testing.assert_array_equal(after.stills[0], before.stills[0])


def _compare_with_store(predictor: Predictor, path: Path, accumulate: bool | str) -> None:
    """What `read` gives, against the store that `extract` fills and stills read by themselves."""
    about = probe(path)
    row = {"id": "c/a", "path": path.name, "md5": file_md5(path), "frames": about.frames, "codec": about.codec}
    folder = path.parent / "store"
    output = Output(folder / "mv.zarr", folder / "mv.parquet")
    videos = pd.DataFrame([row | {"has_b": about.has_b}])
    table = extract(videos, path.parent, output, FieldRecipe(accumulate=accumulate))
    reader = FieldReader(folder / "mv.zarr", table)
    stored, types = reader.read_video("c/a"), reader.frame_types("c/a")
    blind = about.codec not in B_VECTOR_CODECS
    target = motion_frames(types, np.array([0]), np.array([len(types)]), np.array([not blind]))
    wanted = target[segment_frames(np.array([len(types)]), 5)[0]]
    settings = dataclasses.replace(predictor.fields, accumulate=accumulate)
    views = dataclasses.replace(predictor.views, segments=5, stills=2)
    look = dataclasses.replace(predictor, fields=settings, views=views).read(path)
    np.testing.assert_array_equal(look.levels, stored[wanted])
    numbers = segment_frames(np.array([about.frames]), 2)[0]
    np.testing.assert_array_equal(np.stack(look.stills), read_frames(path, numbers))
    assert dequantise(look.levels).any()


@given(st.text("IPB", min_size=1, max_size=30), st.booleans(), st.integers(1, 12))
def test_picking_while_decoding_is_what_the_store_s_readers_do(types: str, b_vectors: bool, segments: int) -> None:
    codes = np.frombuffer(types.encode(), np.uint8)
    moves = [letter == "P" or (letter == "B" and b_vectors) for letter in types]
    wanted = segment_frames(np.array([len(types)]), segments)[0]
    target = motion_frames(codes, np.array([0]), np.array([len(types)]), np.array([b_vectors]))
    picked, length = pick_motion(zip(moves, range(len(types)), strict=True), wanted.tolist(), lambda frame: frame)
    assert length == len(types)
    assert picked == ({int(number): int(target[number]) for number in wanted} if any(moves) else {})


# ------------------------------------------------------------------------------------------------ onnxruntime


@pytest.mark.slow
def test_onnxruntime_gives_the_answers_of_pytorch(predictor: Predictor) -> None:
    torch.manual_seed(1)
    network = MvTsn(MvTsnConfig("test_resnet", predictor.classes, 32, 0.5, channels=4, moments=2)).eval()
    predictor = dataclasses.replace(
        predictor,
        mv_tsn=sharpened(network),
        fusion=ConcatFusion(FusionConfig(network.width, 32, 16, len(predictor.classes), 0.5)).eval(),
        views=dataclasses.replace(predictor.views, stack=2),
        encoder=None,  # the test of encoders converts some
    )
    fast = predictor.with_runtime("onnxruntime")
    rng = np.random.default_rng(0)
    for crops, fields in itertools.product((1, 5), (1, 3, 20)):
        views = dataclasses.replace(predictor.views, crops=crops)
        levels = rng.integers(-127, 128, (fields, 4, 30, 40), np.int8)
        with torch.inference_mode():
            expected, found = (dataclasses.replace(one, views=views).encode_fields(levels) for one in (predictor, fast))
        assert expected.std() > 0.01
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert fast.with_runtime("torch").motion_features is None


@pytest.mark.slow
@pytest.mark.parametrize("family", ["clip", "siglip", "dinov2", "siglip2"])
def test_onnxruntime_encodes_pictures_as_pytorch_does(
    predictor: Predictor, tmp_path: Path, family: str, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = load_encoder(EncoderSource(str(tiny_encoder(tmp_path, family))))
    network = with_one_layer(MvTsn(predictor.mv_tsn.config))
    slow = dataclasses.replace(predictor, encoder=encoder, mv_tsn=network)
    fast = slow.with_runtime("onnxruntime")
    stays = "stays on PyTorch: " in caplog.text
    assert stays == (fast.picture_features is None) == (family == "siglip2")
    rng = np.random.default_rng(0)
    for count in (1, 3):
        pictures = [rng.integers(256, size=(50 + count, 70, 3)).astype(np.uint8) for _ in range(count)]
        np.testing.assert_allclose(fast.encode_stills(pictures), slow.encode_stills(pictures), atol=1e-5)


def test_the_runtime_is_an_option_of_predict_and_timeline(
    finished: Path, said: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    clip = next(one for one in said if one.endswith("_g01_c01.avi"))
    runtime = ("--runtime", "onnxruntime", "--json")
    predicted, timeline = in_turn(
        finished,
        ("predict", clip, "--top", "4", *runtime),
        ("timeline", clip, "--window", "0.5", *runtime, "--out", str(tmp_path)),
    )
    (fast,) = json.loads(predicted.stdout)
    for stream in ("fusion", "mv_tsn"):
        expected = {one["class"]: one["probability"] for one in said[clip][stream]}
        assert {one["class"]: one["probability"] for one in fast[stream]} == pytest.approx(expected, abs=1e-3)
    assert (predicted.code, timeline.code) == (0, 0)
    assert json.loads(timeline.stdout)


@pytest.mark.parametrize(
    ("missing", "runtime", "reason"),
    [("onnxruntime", "onnxruntime", "the package onnxruntime is not installed"), ("", "jax", "no such runtime: jax")],
)
def test_a_runtime_that_is_not_there_is_named(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, missing: str, runtime: str, reason: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModelError, match=reason):
        predictor.with_runtime(runtime)


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(ModelError, match="nothing: no such device: "):
        named_device("nothing")
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="cuda: no such device: "):
            named_device("cuda")
