"""Clips with several labels: what a manifest may say, how such clips are trained and scored, and a whole run."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import moclip
from moclip.data.label_choice import label_uncertainty
from moclip.data.label_sets import label_matrix, label_names, one_row_per_label, rarest_labels, targets
from moclip.data.manifest import Manifest, read_manifest
from moclip.errors import DatasetError
from moclip.evaluation.label_report import choose_label_gallery
from moclip.evaluation.multi_label import (
    choose_thresholds,
    fit_platt,
    label_calibration_error,
    label_probabilities,
    label_scores,
    resampled_map,
)
from moclip.evaluation.multi_label_verdict import choose_stream_by_map, compare_by_map
from moclip.models.weights import load_weights
from moclip.training.average_precision import average_precisions, mean_average_precision
from moclip.training.epochs import BestEpoch
from moclip.training.linear_probe import LabelledFeatures, choose_linear_probe
from moclip.training.mv_training import _labels_shown
from moclip.training.objective import clip_losses, hits, mean_loss, scores, summed_loss
from pipeline import params as parameters
from pipeline.advice.classes import class_counts
from pipeline.commands.sweep import _stream_scores, _write_results
from pipeline.experiments import FinishedExperiment
from pipeline.inputs import Inputs
from pipeline.multi_label_limits import check_supported
from tests.conftest import ROOT, run, set_keys


def read(folder: Path, text: str) -> Manifest:
    (folder / "clips.csv").write_text(text)
    return read_manifest(folder / "clips.csv", str(folder))


# -------------------------------------------------------------------------------------------------- the manifest


def test_equal_sets_of_labels_have_the_same_text(tmp_path: Path) -> None:
    found = read(tmp_path, "path,label\na,run | jump\nb,jump|run\nc,sit\n./a,jump|run\n")
    assert found.rows["class"].tolist() == ["jump|run", "jump|run", "sit"], "the same file twice with the same labels"
    assert found.is_multi_label
    assert found.classes == ["jump", "run", "sit"]
    assert "2 of 3 clips have several labels, of 3 classes" in found.notes[-1]
    assert not read(tmp_path, "path,label\na,run/jump\nb,jump\n").is_multi_label


@pytest.mark.parametrize(
    ("label", "what"),
    [
        ("a|a", "'a|a' names a label twice"),
        ("b|a|b", "'b|a|b' names a label twice"),
        ("|", "'|' has an empty label"),
        ("a||b", "'a||b' has an empty label"),
        ("a| ", "'a|' has an empty label"),
    ],
)
def test_wrong_labels_are_refused_by_row_and_column(tmp_path: Path, label: str, what: str) -> None:
    with pytest.raises(DatasetError) as refused:
        read(tmp_path, f"path,label\nx,a\ny,{label}\nz,b\n")
    assert f"row 3, column label: {what}\n  write each label once" in str(refused.value)


def test_one_file_with_other_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match=re.escape("row 3, column label: 'a|c', but row 2 gives the same file, x, 'a|b'")
    ):
        read(tmp_path, "path,label\nx,b|a\nx,a|c\n")


# ------------------------------------------------------------------------------------------------------ the index


def index_rows() -> pd.DataFrame:
    texts = ["b", "a|b", "a|b|c", "c", "b|d"]
    labels = rarest_labels(texts, np.array([True] * 4 + [False]), ["a", "b", "c"])
    return pd.DataFrame(
        {
            "id": list("vwxyz"),
            "class": texts,
            "labels": texts,
            "label": labels,
            "split": ["train"] * 3 + ["test", "none"],
        }
    ).assign(status=["ok"] * 4 + ["failed"])


def test_a_clip_counts_for_each_label_and_is_held_out_by_its_rarest() -> None:
    rows = index_rows()
    assert rows["label"].tolist() == [1, 0, 0, 2, -1], (
        "a and c are equally rare: the first in label order; d is no class"
    )
    assert label_names(rows) == ["a", "b", "c"]
    usable = rows[rows["status"] == "ok"]
    assert targets(usable, ["a", "b", "c"]).tolist() == [[0, 1, 0], [1, 1, 0], [1, 1, 1], [0, 0, 1]]
    one = one_row_per_label(usable)
    assert list(zip(one["id"], one["class"], one["label"], strict=True)) == [
        ("v", "b", 1), ("w", "a", 0), ("w", "b", 1), ("x", "a", 0), ("x", "b", 1), ("x", "c", 2), ("y", "c", 2)
    ]  # fmt: skip
    assert one_row_per_label(rows)["label"].tolist()[-1] == -1, "d is no class here either"
    counts = class_counts(rows)
    assert counts["train"].to_dict() == {"a": 2, "b": 3, "c": 1}
    assert counts["test"].to_dict() == {"a": 0, "b": 0, "c": 1}
    single = rows.drop(columns="labels")
    assert one_row_per_label(single) is single
    assert targets(single, ["a", "b", "c"]).tolist() == single["label"].tolist()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dataset.shots", 4),
        ("dataset.base_to_new", True),
        ("dataset.balance", "loss"),
        ("dataset.balance", "sampler"),
        ("fusion.head", "text"),
        ("fusion.head", "cache"),
        ("fusion.blend", True),
    ],
)
def test_what_has_no_meaning_with_several_labels_is_refused(key: str, value: Any) -> None:
    params = parameters.load(ROOT / "params.yaml")
    check_supported(params)
    with pytest.raises(DatasetError, match=rf"{key} = {str(value).lower()} does not work .*\n  set {key} to \w+"):
        check_supported(parameters.load(ROOT / "params.yaml", {key: value}))


def test_index_refuses_it_before_it_reads_any_clip(project: Path) -> None:
    index = pd.read_parquet(project / "data/index.parquet")
    rows = index[["path", "class"]].rename(columns={"class": "label"})
    rows.loc[0, "label"] = "RedBallRising|GreenBallFalling"
    rows.to_csv(project / "clips.csv", index=False)
    set_keys(project / "params.yaml", {"dataset.manifest": "clips.csv", "dataset.splits": "data/none"})
    set_keys(project / "params.yaml", {"fusion.head": "text"})
    done = run("moclip", "index", cwd=project, code=1)
    assert "clips.csv: fusion.head = text does not work with clips of several labels" in done.stderr
    assert "set fusion.head to concat" in done.stderr
    assert pd.read_parquet(project / "data/index.parquet").equals(index)


# ---------------------------------------------------------------------------------------------- average precision


def plain_average_precision(scores: list[float], positives: list[bool]) -> float:
    """By its definition: over the thresholds from the highest down, the precision times the gain in recall."""
    total, before, found = sum(positives), 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        named = [has for score, has in zip(scores, positives, strict=True) if score >= threshold]
        recall = sum(named) / total
        found += sum(named) / len(named) * (recall - before)
        before = recall
    return found


@pytest.mark.parametrize("levels", [3, 1000])
def test_average_precision_is_that_of_its_definition(levels: int) -> None:
    rng = np.random.default_rng(levels)
    values = rng.integers(0, levels, (60, 5)).astype(np.float32)
    positives = rng.random((60, 5)) < [0.1, 0.3, 0.5, 0.9, 0.0]
    found = average_precisions(values, positives)
    for label in range(4):
        wanted = plain_average_precision(values[:, label].tolist(), positives[:, label].tolist())
        assert found[label] == pytest.approx(wanted)
    assert np.isnan(found[4]), "no clip has the label"
    assert mean_average_precision(values, positives) == pytest.approx(found[:4].mean())
    order = rng.permutation(60)
    np.testing.assert_allclose(average_precisions(values[order], positives[order]), found)


def test_average_precisions_by_hand() -> None:
    positives = np.array([[1], [0], [1], [0]])
    for values, wanted in (
        ([4, 3, 2, 1], (1 + 2 / 3) / 2),
        ([4, 2, 3, 1], 1.0),
        ([1, 4, 2, 3], (1 / 3 + 2 / 4) / 2),
        ([0, 0, 0, 0], 0.5),
        ([1, 1, 0, 0], (1 / 2 + 2 / 4) / 2),
    ):
        assert average_precisions(np.array(values, float)[:, None], positives)[0] == pytest.approx(wanted), values


def test_resampling_counts_clips_as_if_they_were_there_so_often() -> None:
    rng = np.random.default_rng(0)
    values, positives = rng.normal(size=(30, 3)), rng.random((30, 3)) < 0.3
    sources = np.repeat(np.arange(10), 3)
    found = resampled_map({"one": values, "same": 2 * values}, positives, sources, 7, draws=20)
    np.testing.assert_allclose(found[:, 0], found[:, 1])
    picks = np.random.default_rng(7).multinomial(10, np.full(10, 0.1), 20)
    for draw, counts in enumerate(picks):
        rows = np.repeat(np.arange(30), counts[sources])
        assert found[draw, 0] == pytest.approx(mean_average_precision(values[rows], positives[rows]))


# ------------------------------------------------------------------------------------------ thresholds, calibration


def plain_f1(named: np.ndarray, has: np.ndarray) -> float:
    return 2 * int((named & has).sum()) / (int(named.sum()) + int(has.sum()))


@pytest.mark.parametrize("levels", [4, 500])
def test_no_threshold_has_a_higher_f1(levels: int) -> None:
    rng = np.random.default_rng(levels)
    shares = (rng.integers(1, levels, (40, 3)) / levels).round(3)
    has = rng.random((40, 3)) < 0.3
    found = choose_thresholds(shares, has)
    for label in range(3):
        every = [plain_f1(shares[:, label] >= cut, has[:, label]) for cut in np.linspace(0, 1, 4001)]
        assert plain_f1(shares[:, label] >= found[label], has[:, label]) == pytest.approx(max(every))


def test_thresholds_by_hand() -> None:
    shares = np.array([[0.9, 0.2], [0.8, 0.1], [0.3, 0.1], [0.1, 0.1]])
    has = np.array([[1, 0], [1, 0], [0, 0], [0, 0]])
    assert choose_thresholds(shares, has).tolist() == pytest.approx([0.55, 0.5]), "midway; and no clip to choose on"
    assert choose_thresholds(np.full((4, 1), 0.3), has[:, :1])[0] <= 0.3, "equal answers: all or nothing"
    row, empty = label_scores(np.log(shares), shares, has, np.array([0.85, 0.5]))
    assert (row.clips, row.predicted, row.precision, row.recall) == (2, 1, 1.0, 0.5)
    assert (row.f1, row.average_precision, row.threshold) == (pytest.approx(2 / 3), 1.0, 0.85)
    assert (empty.clips, empty.predicted, empty.precision, empty.recall, empty.f1) == (0, 0, None, None, None)
    assert empty.average_precision is None


@pytest.mark.parametrize(("temperature", "shift"), [(1.0, 0.0), (3.0, 25.0), (0.3, -1.0)])
def test_the_calibration_finds_what_the_labels_were_drawn_with(temperature: float, shift: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(shift, 2 * temperature, (4000, 4))
    positives = rng.random((4000, 4)) < 1 / (1 + np.exp(-(logits - shift) / temperature))
    found = fit_platt(logits, positives)
    assert found == (pytest.approx(temperature, rel=0.05), pytest.approx(shift, abs=0.15 * temperature))
    shares = label_probabilities(logits, *found)
    assert label_calibration_error(shares, positives) < 0.02
    assert shares.mean() == pytest.approx(positives.mean(), abs=1e-3)


def test_the_calibration_of_odd_logits_is_finite() -> None:
    logits = np.array([[3.0, -3.0], [-3.0, 3.0]])
    assert label_probabilities(logits, *fit_platt(logits, logits > 0)).max() < 0.9, "two clips support no more"
    assert fit_platt(np.zeros((4, 2)), np.array([[1, 0]] * 4))[0] == 1
    falling = fit_platt(logits, logits < 0)
    assert falling[0] == 100, "the order of the answers is not turned round"
    assert label_probabilities(np.array([-1e4, 1e4])).tolist() == [0, 1]


def test_uncertainty_is_the_mean_entropy_of_the_labels() -> None:
    assert label_uncertainty(np.array([[0.5, 0.5], [0.0, 1.0], [0.5, 1.0]])).tolist() == pytest.approx(
        [1, 0, 0.5], abs=1e-6
    )


# ------------------------------------------------------------------------------------------------------- training


def test_the_loss_is_the_sum_of_the_classes_binary_cross_entropies() -> None:
    logits, labels = torch.tensor([[2.0, -1.0], [0.5, 0.0]]), torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    plain = [
        -sum(
            float(y * torch.sigmoid(x).log() + (1 - y) * (1 - torch.sigmoid(x)).log())
            for x, y in zip(row, has, strict=True)
        )
        for row, has in zip(logits, labels, strict=True)
    ]
    assert clip_losses(logits, labels).tolist() == pytest.approx(plain)
    assert summed_loss(logits, labels).item() == pytest.approx(sum(plain))
    assert mean_loss(logits, labels).item() == pytest.approx(sum(plain) / 2)
    soft = torch.tensor([[0.9, 0.9], [0.1, 0.9]])
    assert summed_loss(logits, labels, None, 0.2).item() == pytest.approx(summed_loss(logits, soft).item())
    assert hits(logits, torch.tensor([[1.0, 0.0], [0.0, 1.0]])).tolist() == [True, False]
    found = scores(logits, labels, "val")
    assert found == {"val_loss": pytest.approx(sum(plain) / 2), "val_top1": 0.5, "val_map": pytest.approx((1 + 1) / 2)}
    one_label = scores(logits, torch.tensor([0, 1]), "val")
    assert set(one_label) == {"val_loss", "val_top1"}


def test_the_epoch_is_chosen_by_map() -> None:
    model = torch.nn.Linear(1, 1)
    best = BestEpoch(model)
    for epoch, (top1, found) in enumerate([(0.9, 0.3), (0.5, 0.6), (1.0, 0.5)]):
        best.offer({"epoch": epoch, "val_top1": top1, "val_loss": 1.0, "val_map": found})
    assert best.row["epoch"] == 1


def test_a_mirrored_clip_has_the_labels_of_the_other_side() -> None:
    class Recipe:
        mirror_labels = (1, 0, -1, 3)  # clips with the third are not mirrored

    labels = label_matrix(["left|sit", "left", "right|sit"], ["left", "right", "wave", "sit"]).astype(np.float32)
    shown = _labels_shown(labels, np.array([True, False, True]), Recipe())  # type: ignore[arg-type]
    assert shown.tolist() == [[0, 1, 0, 1], [1, 0, 0, 0], [1, 0, 0, 1]]


def test_the_probe_learns_each_label_by_itself() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((300, 3)) < 0.4).astype(np.float32)
    features = (labels @ rng.normal(size=(3, 8)) + 0.3 * rng.normal(size=(300, 8))).astype(np.float32)
    train, val = (LabelledFeatures(features[part], labels[part]) for part in (slice(200), slice(200, None)))
    (probe,), found = choose_linear_probe([(train, val)], 3)
    assert found.map == pytest.approx(mean_average_precision(probe.logits(val.features), val.labels))
    assert found.map is not None
    assert found.map > 0.95


# ---------------------------------------------------------------------------------------------- verdict and gallery


def test_the_simplest_stream_within_one_standard_error_of_the_best_map_is_trusted() -> None:
    rng = np.random.default_rng(0)
    positives = rng.random((200, 3)) < 0.3
    good = positives + 0.4 * rng.normal(size=(200, 3))
    worse, noise = positives + 1.5 * rng.normal(size=(200, 3)), rng.normal(size=(200, 3))
    sources = np.repeat(np.arange(50), 4)
    found = choose_stream_by_map({"zero_shot": noise, "mv_tsn": good, "fusion": good}, positives, sources, 0)
    assert (found["stream"], found["metric"], found["clips"], found["sources"]) == ("mv_tsn", "map", 200, 50)
    assert choose_stream_by_map({"mv_tsn": worse, "fusion": good}, positives, sources, 0)["stream"] == "fusion"
    one_source = choose_stream_by_map({"mv_tsn": worse, "fusion": good}, positives, np.zeros(200), 0)
    assert one_source["stream"] == "fusion"
    assert one_source["candidates"]["mv_tsn"]["standard_error"] == pytest.approx(0, abs=1e-9)
    same = np.zeros((200, 3))
    streams = {"majority": same, "mv_tsn": worse, "fusion": good, "still": worse}
    tested = compare_by_map("fusion", streams, positives, sources, 0)
    assert tested["majority"]["answer"] == tested["still"]["answer"] == "beats"
    assert tested["majority"]["low"] < tested["majority"]["difference"] < tested["majority"]["high"]
    assert tested["majority"]["other_map"] == pytest.approx(positives.mean(axis=0).mean())
    few = compare_by_map("fusion", streams, positives, np.arange(200) % 5, 0)
    assert (few["motion"]["low"], few["motion"]["answer"]) == (None, "cannot tell")


def test_the_gallery_shows_gains_errors_and_random_clips() -> None:
    positives = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1]])
    fused = np.array([[0.9, 0.8, 0.1], [0.2, 0.6, 0.1], [0.1, 0.1, 0.5]])
    other = np.array([[0.5, 0.5, 0.1], [0.3, 0.1, 0.1], [0.1, 0.1, 0.6]])
    chosen = {one.row: one for one in choose_label_gallery({"fusion": fused, "mv_tsn": other}, positives, 1, 0)}
    assert "gain" in chosen[0].kinds
    assert chosen[0].gain == pytest.approx(0.35)
    assert "error" in chosen[1].kinds
    assert chosen[1].error == pytest.approx(0.4)
    everything = choose_label_gallery({"fusion": fused, "mv_tsn": other}, np.ones((3, 3)), 3, 0)
    assert all(one.error == 0 for one in everything), "a clip with all labels has no wrong one"


def test_a_sweep_has_the_map_of_test_and_validation_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs: list[FinishedExperiment] = []
    for found in (0.5, 0.7):
        cost = {"multiply_adds_m": {"video": {"fusion": 2.0}}}
        trusted = {"metric": "map", "stream": "fusion", "candidates": {"fusion": {"map": found + 0.1}}}
        metrics: dict[str, Any] = {
            "fusion": {"top1": 0.9, "map": found},
            "cost": cost,
            "verdict": {"trusted": trusted, "test": {}},
        }
        runs.append(FinishedExperiment({}, metrics))
    streams = _stream_scores(runs)
    assert streams["fusion"]["map_mean"] == pytest.approx(0.6)
    assert streams["fusion"]["val_map"] == pytest.approx([0.6, 0.8])
    row = {"values": {"tsn.size": 32}, "variant": "unchanged", "changes": {}, "runs": 2, "streams": streams}
    _write_results(tmp_path, [row])
    assert pd.read_csv(tmp_path / "table.csv")["fusion_val_map_mean"].tolist() == [0.7]
    printed = capsys.readouterr().out
    assert "mean average precision on the test clips" in printed
    assert "0.600±0.141" in printed


# ---------------------------------------------------------------------------------------------------- a whole run


def write_manifest(project: Path) -> pd.DataFrame:
    """Label each clip of the demo by its colour and its motion: two labels in place of one."""
    index = pd.read_parquet(project / "data/index.parquet")
    parts = index["class"].str.extract(r"(?P<colour>[A-Z][a-z]+)Ball(?P<motion>\w+)")
    table = pd.DataFrame(
        {
            "path": index["path"],
            "label": parts["motion"] + "|" + parts["colour"],
            "split": index["split"],
            "group": index["class"] + " " + index["group"],
        }
    )
    table.to_csv(project / "clips.csv", index=False)
    set_keys(project / "params.yaml", {"dataset.manifest": "clips.csv", "dataset.splits": "data/none"})
    return table


def metrics_of(project: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project / f"metrics/{name}.json").read_text())
    return found


@pytest.mark.slow
def test_clips_with_several_labels_from_the_manifest_to_a_bundle(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = write_manifest(project)
    set_keys(project / "params.yaml", {"tsn.epochs": 6, "tsn.lr_steps": [5], "fit.refit": True, "report.clips": 1})
    assert "made from another manifest" in run("moclip", "evaluate", cwd=project, code=1).stderr
    printed = {
        stage: run("moclip", stage, cwd=project).stdout
        for stage in (
            "index", "extract_mv", "clip_text", "clip_image", "train_mv", "embed_mv", "train_probe", "train_fusion",
            "evaluate", "report",
        )
    }  # fmt: skip
    assert "clips have several labels" in printed["index"]
    for stage in ("train_mv", "train_fusion", "train_probe"):
        assert "val mAP" in printed[stage]
    assert "not in the table: sum of both scores" in printed["evaluate"]
    names = sorted({name for text in table["label"] for name in text.split("|")})

    predictions = pd.read_parquet(project / "data/predictions.parquet")
    texts = dict(zip(table["path"], table["label"], strict=True))
    has = np.array([[name in texts[clip].split("|") for name in names] for clip in predictions["id"]])
    chance = has.mean()
    for stream in ("majority", "zero_shot", "still", "motion_probe", "mv_tsn", "fusion"):
        found, logits = metrics_of(project, stream), np.stack(predictions[stream].to_list())
        wanted = [plain_average_precision(logits[:, n].tolist(), has[:, n].tolist()) for n in range(len(names))]
        assert found["map"] == pytest.approx(np.mean(wanted), abs=1e-4), stream
        assert found["map_low"] - 1e-4 <= found["map"] <= found["map_high"] + 1e-4, stream
        for number, name in enumerate(names):
            row = found["per_class"][name]
            assert row["average_precision"] == pytest.approx(wanted[number], abs=1e-4)
            assert row["clips"] == has[:, number].sum()
    assert metrics_of(project, "majority")["map"] == pytest.approx(chance, abs=1e-4)
    assert metrics_of(project, "fusion")["map"] > chance + 0.2
    assert metrics_of(project, "score_sum") == {}
    probe = metrics_of(project, "motion_probe")
    assert len({row["threshold"] for row in probe["per_class"].values()}) > 1, "chosen on the clips held out"
    assert probe["temperature"] != 1

    fusion = load_weights(project / "data/models/fusion.safetensors", "train_fusion")[1]
    thresholds = fusion["label_thresholds"]["fusion"]
    shares = 1 / (
        1
        + np.exp(
            -(np.stack(predictions["fusion"].to_list()) - fusion["label_shifts"]["fusion"])
            / fusion["temperatures"]["fusion"]
        )
    )
    f1 = [plain_f1(shares[:, number] >= thresholds[number], has[:, number]) for number in range(len(names))]
    assert metrics_of(project, "fusion")["macro_f1"] == pytest.approx(np.mean(f1), abs=1e-4)

    verdict = metrics_of(project, "verdict")
    assert verdict["trusted"]["metric"] == "map"
    assert "mAP" in run("moclip", "metrics", cwd=project).stdout
    page = (project / "data/report/index.html").read_text()
    assert "Average precision per class" in page
    assert "no confusion matrix" in page
    assert "<h2>Confusion" not in page

    clip = f"data/demo/videos/{predictions['id'].iloc[0]}"
    answer = json.loads(run("moclip", "predict", clip, "--json", "-k", "1", cwd=project).stdout)[0]
    own = predictions.index[0]
    predicted = {one["class"] for one in answer["fusion"] if one["predicted"]}
    assert predicted == {name for n, name in enumerate(names) if shares[own, n] >= thresholds[n]}
    assert len(answer["fusion"]) >= max(1, len(predicted))
    for one in answer["fusion"]:
        assert one["probability"] == pytest.approx(shares[own, names.index(one["class"])], abs=1e-3)
    text = run("moclip", "predict", clip, "--csv", "-k", "1", cwd=project).stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {row["fusion"] for row in rows if row["fusion_predicted"] == "true"} == predicted

    run("moclip", "export", tmp_path / "bundle", "--onnx", cwd=project)
    config = json.loads((tmp_path / "bundle/config.json").read_text())
    assert (config["format"], config["multi_label"]) == (4, True)
    assert "mAP" in (tmp_path / "bundle/README.md").read_text()
    model = moclip.load(tmp_path / "bundle")
    said = model(project / clip)
    assert {name for name, _ in said.labels("fusion")} == predicted
    assert said.probabilities["fusion"] == pytest.approx(shares[own], abs=1e-3)

    run("moclip", "label-next", "1", "--pool", (project / clip).parent, cwd=project)
    chosen = pd.read_csv(project / "ask/label-next.csv").iloc[0]
    assert 0 <= chosen["uncertainty"] <= 1
    assert chosen["predicted"] in names

    for command in ("suspects", "crossval"):
        extra = ("--fit-folds", "2") if command == "crossval" else ()
        refused = run("moclip", command, *extra, cwd=project, code=1).stderr
        assert f"moclip {command} does not work with clips of several labels" in refused
    refused = run("moclip", "train_fusion", "--fusion-head", "text", cwd=project, code=1).stderr
    assert "fusion.head = text does not work with clips of several labels" in refused

    # a clip's labels change, its rarest one does not: the models are stale
    lines = (project / "clips.csv").read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if ",train," in line)
    lines[first] = (
        lines[first].replace("|Red", "|Green") if "|Red" in lines[first] else lines[first].replace("|Green", "|Red")
    )
    (project / "clips.csv").write_text("\n".join(lines) + "\n")
    run("moclip", "index", cwd=project)
    assert "it was trained on other labels" in run("moclip", "evaluate", cwd=project, code=1).stderr
    monkeypatch.chdir(project)
    inputs = Inputs(parameters.load())
    assert inputs.targets(inputs.clips.rows("test")).shape[1] == len(names)
