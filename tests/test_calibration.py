"""Calibrated probabilities and scores of classes: what `evaluate` reports, and what a prediction says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from moclip.errors import StoreError
from moclip.evaluation.calibration import BOUNDS, fit_temperature
from moclip.evaluation.class_scores import class_scores, macro_f1
from moclip.models.weights import load_weights, read_config, save_weights
from pipeline import params as parameters
from pipeline import paths
from pipeline.inputs import Inputs
from pipeline.logits import read_validation, stacked_logits
from tests.conftest import run

# ------------------------------------------------------------------------------------------------ temperatures


def likelihood(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """The mean negative log-likelihood, clip by clip."""
    rows = [row / temperature for row in logits]
    return float(np.mean([np.log(np.exp(row - row[label]).sum()) for row, label in zip(rows, labels, strict=True)]))


def drawn(clips: int, factor: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels that are drawn from the softmax of logits / factor."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (clips, 5)) * factor
    return logits, np.array([rng.choice(5, p=np.exp(row / factor) / np.exp(row / factor).sum()) for row in logits])


@pytest.mark.parametrize("factor", [0.2, 1.0, 7.0])
def test_the_temperature_explains_the_labels_best(factor: float) -> None:
    logits, labels = drawn(4000, factor)
    found = fit_temperature(logits.astype(np.float32), labels)
    assert found == pytest.approx(factor, rel=0.1)
    grid = found * np.geomspace(0.5, 2, 201)
    best = grid[np.argmin([likelihood(logits[:400], labels[:400], one) for one in grid])]
    assert fit_temperature(logits[:400], labels[:400]) == pytest.approx(best, rel=0.005)


@pytest.mark.parametrize("clips", [1, 4, 50])
def test_clips_without_an_error_give_no_more_confidence_than_their_number(clips: int) -> None:
    logits = np.random.default_rng(0).normal(size=(clips, 3))
    found = fit_temperature(logits, logits.argmax(axis=1))
    confidence = [1 / np.exp((row - row.max()) / found).sum() for row in logits]
    assert np.mean(confidence) == pytest.approx((clips + 1) / (clips + 2), abs=1e-4)


def test_temperatures_stay_within_their_bounds() -> None:
    logits = np.random.default_rng(0).normal(size=(50, 3))
    assert fit_temperature(logits, logits.argmin(axis=1)) == BOUNDS[1], "always wrong: no confidence at all"
    assert fit_temperature(1e6 * logits, logits.argmin(axis=1)) == BOUNDS[1]
    assert fit_temperature(1e-6 * logits, logits.argmax(axis=1)) == BOUNDS[0]
    assert fit_temperature(np.ones((4, 3)), np.array([0, 1, 2, 0])) == 1.0, "no class is preferred"


def test_the_head_keeps_the_temperatures_of_the_validation_clips(finished: Path) -> None:
    kept = read_config(finished / "data/models/fusion.safetensors", "")["temperatures"]
    validation = pd.read_parquet(finished / "data/validation.parquet")
    assert list(kept) == sorted(["zero_shot", "still", "motion_probe", "mv_tsn", "score_sum", "fusion"])
    labels = validation["label"].to_numpy()
    for name, temperature in kept.items():
        logits = np.stack(validation[name].to_list()).astype(float)
        assert temperature == fit_temperature(logits, labels)
        if (logits.argmax(axis=1) != labels).any() and temperature not in BOUNDS:
            least = likelihood(logits, labels, temperature)
            assert least < min(likelihood(logits, labels, factor * temperature) for factor in (0.97, 1.03)), name


def test_evaluate_reports_the_error_before_and_after(finished: Path) -> None:
    kept = read_config(finished / "data/models/fusion.safetensors", "")["temperatures"]
    predictions = pd.read_parquet(finished / "data/predictions.parquet")
    labels = predictions["label"].to_numpy()
    page = (finished / "data/report/index.html").read_text()
    for name, temperature in kept.items():
        scores = json.loads((finished / f"metrics/{name}.json").read_text())
        logits = np.stack(predictions[name].to_list()).astype(float)
        for key, divisor in (("calibration_error", 1.0), ("calibration_error_after", temperature)):
            shares = np.exp((logits - logits.max(axis=1, keepdims=True)) / divisor)
            shares /= shares.sum(axis=1, keepdims=True)
            sure, right = shares.max(axis=1), logits.argmax(axis=1) == labels
            inside = [(sure > low / 15) & (sure <= (low + 1) / 15) for low in range(15)]
            expected = sum(abs((sure - right)[rows].sum()) for rows in inside) / len(labels)
            assert scores[key] == pytest.approx(expected, abs=1e-4), (name, key)
        assert scores["temperature"] == pytest.approx(temperature, abs=1e-4)
        assert f"<td>{scores['calibration_error']:.3f}</td><td>{scores['calibration_error_after']:.3f}</td>" in page


def test_a_head_of_an_earlier_version_is_refused(project: Path) -> None:
    path = project / "data/models/fusion.safetensors"
    tensors, config = load_weights(path, "")
    del config["temperatures"]
    save_weights(path, tensors, config)
    printed = run("moclip", "evaluate", cwd=project, code=1).stderr
    assert "data/models/fusion.safetensors: it has no temperatures: an earlier version made it" in printed
    assert "run: dvc repro train_fusion" in printed


def test_stale_validation_logits_are_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    inputs = Inputs(parameters.load(paths.PARAMS))
    streams = ["majority", "zero_shot", "still", "motion_probe", "mv_tsn", "score_sum", "fusion"]
    assert list(stacked_logits(read_validation(inputs))) == streams
    other = Inputs(parameters.load(paths.PARAMS, {"evaluate.crop": 0.5}))
    with pytest.raises(StoreError, match=r"validation\.parquet: it was made with evaluate\.crop"):
        read_validation(other)
    tensors, config = load_weights(paths.FUSION, "")
    save_weights(paths.FUSION, {name: tensor + 1 for name, tensor in tensors.items()}, config)
    with pytest.raises(StoreError, match=r"validation\.parquet: it was made from another head"):
        read_validation(inputs)


# ------------------------------------------------------------------------------------------------ classes


def test_scores_of_classes_by_hand() -> None:
    labels = np.array([0, 0, 0, 0, 1, 2])
    predicted = np.array([0, 0, 0, 3, 0, 2])
    first, never_predicted, always_right, without_clips, unused = class_scores(predicted, labels, 5)
    assert (first.clips, first.predicted, first.precision, first.recall, first.f1) == (4, 4, 0.75, 0.75, 0.75)
    assert (never_predicted.precision, never_predicted.recall, never_predicted.f1) == (None, 0, 0)
    assert (always_right.precision, always_right.recall, always_right.f1) == (1, 1, 1)
    assert (without_clips.predicted, without_clips.precision) == (1, 0)
    assert (without_clips.recall, without_clips.f1) == (None, None)
    assert (unused.clips, unused.predicted, unused.precision) == (0, 0, None)
    scores = class_scores(predicted, labels, 5)
    assert macro_f1(scores) == pytest.approx((0.75 + 0 + 1) / 3), "only classes with clips count"


def test_metrics_say_how_well_each_class_is_recognised(finished: Path) -> None:
    predictions = pd.read_parquet(finished / "data/predictions.parquet")
    summary = json.loads((finished / "metrics/summary.json").read_text())
    for name in ("zero_shot", "mv_tsn", "score_sum", "fusion"):
        scores = json.loads((finished / f"metrics/{name}.json").read_text())
        by_label = predictions.drop_duplicates("label").set_index("label")["class"]
        chosen = [by_label[np.argmax(row)] for row in predictions[name]]
        table = pd.crosstab(predictions["class"], pd.Series(chosen, name="chosen"))
        for kind, row in scores["per_class"].items():
            right = table[kind][kind] if kind in table else 0
            assert (row["clips"], row["predicted"]) == (table.loc[kind].sum(), chosen.count(kind))
            assert row["recall"] == pytest.approx(right / row["clips"], abs=1e-4)
            if chosen.count(kind):
                assert row["precision"] == pytest.approx(right / chosen.count(kind), abs=1e-4)
            else:
                assert row["precision"] is None
            assert row["f1"] == pytest.approx(2 * right / (row["clips"] + row["predicted"]), abs=1e-4)
        mean = np.mean([row["f1"] for row in scores["per_class"].values()])
        assert scores["macro_f1"] == pytest.approx(mean, abs=1e-4)
    assert summary["macro_f1"] == {"fusion": scores["macro_f1"]}
    plot = pd.read_csv(finished / "metrics/plots/class_f1.csv").set_index("class")
    assert list(plot["f1"]) == sorted(plot["f1"])
    assert plot["f1"].to_dict() == {kind: row["f1"] for kind, row in scores["per_class"].items()}
