"""`moclip predict --reject` answers "unknown" where no class fits; classes left out of training show how well."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import moclip
from moclip.data.balance import spread_rows
from moclip.data.selection import class_names, usable_clips
from moclip.data.unknown_classes import leave_out
from moclip.errors import DatasetError, ModelError
from moclip.evaluation.open_set import (
    auroc,
    coverage_threshold,
    false_alarm_threshold,
    false_positive_rate,
    highest_probability,
    negative_distance,
    negative_energy,
)
from moclip.inference.rejection import Rejection, joined_features, load_rejection, save_rejection
from moclip.models.weights import load_weights, read_config
from moclip.store.features import Features
from tests.conftest import run, run_stages, set_keys, stages_from

few = st.lists(st.integers(0, 6), min_size=1, max_size=12)  # small whole numbers: many ties


# ---------------------------------------------------------------------------------------------------- separating


@given(few, few)
def test_auroc_is_the_share_of_pairs_in_order(known: list[int], unknown: list[int]) -> None:
    pairs = [Fraction(1 if a > b else 0 if a < b else Fraction(1, 2)) for a in known for b in unknown]
    assert auroc(np.array(known), np.array(unknown)) == pytest.approx(float(sum(pairs) / len(pairs)))


@given(few, few, st.sampled_from([0.5, 0.8, 0.95, 1.0]))
def test_false_positives_are_counted_at_the_strictest_threshold_that_keeps_the_known(
    known: list[int], unknown: list[int], kept: float
) -> None:
    good = [limit for limit in known if Fraction(sum(v >= limit for v in known), len(known)) >= Fraction(str(kept))]
    expected = sum(v >= max(good) for v in unknown) / len(unknown)
    assert coverage_threshold(np.array(known), kept) == max(good)
    assert false_positive_rate(np.array(known), np.array(unknown), kept) == pytest.approx(expected)


def test_separation_by_hand() -> None:
    known, unknown = np.array([4.0, 3, 2, 1]), np.array([1.0, 0])
    assert auroc(known, unknown) == 7.5 / 8, "one of eight pairs is a tie"
    assert false_positive_rate(known, unknown) == 0.5, "all four must be kept, so 1 is"
    assert false_positive_rate(known, unknown, 0.75) == 0
    assert (auroc(known, known), auroc(known, -known), auroc(-known, known)) == (0.5, 1, 0)
    assert auroc(known, known[:0]) is None
    assert false_positive_rate(known[:0], unknown) is None
    twenty = np.arange(20.0)
    assert coverage_threshold(twenty, 0.95) == 1, "19 of 20"
    assert coverage_threshold(np.arange(100.0), 0.55) == 45, "55 of 100, though 0.55 * 100 is above 55 in floats"
    assert coverage_threshold(twenty[:5], 0.95) == 0, "of five, all"
    assert coverage_threshold(twenty, 0.01) == 19, "at least one is answered"


# -------------------------------------------------------------------------------------------------------- scores


def test_scores_by_plain_sums() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(7, 4)).astype(np.float32) * 5
    for row, most, energy in zip(logits, highest_probability(logits, 2.0), negative_energy(logits), strict=True):
        shares = [math.exp(float(value) / 2) for value in row]
        assert most == pytest.approx(max(shares) / sum(shares))
        assert energy == pytest.approx(math.log(sum(math.exp(float(value)) for value in row)))
    huge = np.array([[3e4, 1.0], [-3e4, -3e4]], np.float32)
    np.testing.assert_allclose(negative_energy(huge), [3e4, -3e4 + math.log(2)])
    np.testing.assert_allclose(highest_probability(huge), [1, 0.5])


def test_distance_is_to_the_chosen_neighbour() -> None:
    generator = np.random.default_rng(1)
    features, known = generator.normal(size=(2100, 3)), generator.normal(size=(9, 3))  # more than a block
    for neighbour in (1, 4, 9, 20):
        found = negative_distance(features, known, neighbour)
        for row in (0, 1023, 1024, 2099):
            ordered = sorted(math.dist(features[row], one) for one in known)
            assert -found[row] == pytest.approx(ordered[min(neighbour, 9) - 1])
    assert negative_distance(features[:0], known, 1).shape == (0,)


def test_each_kind_of_features_counts_the_same() -> None:
    motion = np.array([[3.0, 4, 0], [0, 0, 0]], np.float32)
    picture = np.array([[[0.0, 6], [0, 2]], [[1, 0], [1, 0]]], np.float32)
    joined = joined_features({"motion": motion, "picture": picture}, ("motion", "picture"))
    half = 0.5**0.5
    np.testing.assert_allclose(joined, [[0.6 * half, 0.8 * half, 0, 0, half], [0, 0, 0, half, 0]], rtol=1e-6)
    np.testing.assert_allclose(joined_features({"motion": motion}, ("motion",))[0], [0.6, 0.8, 0], rtol=1e-6)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 40))
@example([0] * 9 + [1] * 3, 8)
def test_the_training_clips_that_are_kept_are_spread_over_the_classes(labels: list[int], most: int) -> None:
    rows = spread_rows(np.array(labels), most)
    assert len(set(rows.tolist())) == len(rows)
    assert rows.tolist() == sorted(rows)
    if len(labels) <= most:
        assert len(rows) == len(labels)
        return
    assert len(rows) <= max(most, len(set(labels)))
    each = max(1, most // len(set(labels)))
    kept = [labels[row] for row in rows]
    assert all(kept.count(label) == min(each, labels.count(label)) for label in set(labels)), "none is left out"
    places = [np.flatnonzero(np.array(labels) == label) for label in set(labels)]
    ends = {int(rows_of[end]) for rows_of in places for end in (0, -1)}
    assert each == 1 or ends <= set(rows.tolist()), "from the first clip of a class to the last"


def test_a_clip_is_unknown_below_the_threshold_or_where_the_background_wins(tmp_path: Path) -> None:
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.2, 0.7]], np.float32))
    lowest = float(highest_probability(logits).min())
    by_probability = Rejection("probability", threshold=lowest, stream="fusion")
    assert by_probability.unknown(logits, {}).tolist() == [False, False, False], "the threshold itself is answered"
    assert Rejection("probability", 0.51, "fusion").unknown(logits, {}).tolist() == [False, True, False]
    assert Rejection("probability", 0.51, "fusion", background=2).unknown(logits, {}).tolist() == [False, True, True]
    assert Rejection("probability", 0.53, "fusion", temperature=2.0).unknown(logits, {}).tolist() == [True, True, True]
    assert Rejection("energy", 0.1, "fusion").unknown(logits + 0.2, {}).tolist() == [False] * 3
    assert Rejection("energy", 0.1, "fusion").unknown(logits, {}).tolist() == [True] * 3
    known = np.eye(2, dtype=np.float32)
    by_distance = Rejection("distance", -0.5, "mv_tsn", kinds=("motion",), neighbour=1, known=known)
    features = {"motion": np.array([[5.0, 0], [1, 1], [0, 2]], np.float32), "picture": np.zeros((3, 1, 1), np.float32)}
    assert by_distance.unknown(logits, features).tolist() == [False, True, False]
    np.testing.assert_allclose(by_distance.scores(logits, features), [0, -math.dist((1, 0), (0.5**0.5,) * 2), 0])
    for number, rejection in enumerate((by_probability, by_distance)):
        path = tmp_path / f"{number}.safetensors"
        save_rejection(path, rejection, {"made": {"any": "record"}})
        again = load_rejection(path)
        np.testing.assert_array_equal(again.unknown(logits, features), rejection.unknown(logits, features))
        assert (again.score, again.kinds, again.stream) == (rejection.score, rejection.kinds, rejection.stream)
    with pytest.raises(ModelError, match="unknown score 'odds': there are probability, energy, distance"):
        Rejection("odds", 0.5, "fusion")
    with pytest.raises(ModelError, match="needs features of training clips"):
        Rejection("distance", 0.5, "fusion")


# ------------------------------------------------------------------------------------------- classes left out


def small_index() -> pd.DataFrame:
    rows = [
        (f"{name}/{split}{n}", name, label, split, "ok")
        for label, name in enumerate(("dip", "run", "sit"))
        for split, count in (("train", 3), ("val", 1), ("test", 2), ("none", 1))
        for n in range(count)
    ]
    return pd.DataFrame(rows, columns=["id", "class", "label", "split", "status"])


def test_classes_left_out_have_no_label_and_only_their_test_clips_stay() -> None:
    table = small_index()
    left = leave_out(table, ["run"])
    assert class_names(left) == ["dip", "sit"]
    assert (left["label"].to_numpy() == table["label"].map({0: 0, 1: -1, 2: 1}).to_numpy()).all()
    others = table["class"] != "run"
    pd.testing.assert_series_equal(left["split"][others], table["split"][others])
    assert left[~others]["split"].value_counts().to_dict() == {"none": 5, "unknown": 2}
    assert set(usable_clips(left)["class"]) == {"dip", "run", "sit"}, "their motion is read"
    assert set(usable_clips(left, "train", "val", "test")["class"]) == {"dip", "sit"}
    assert left["label"].dtype == table["label"].dtype


def test_classes_that_cannot_be_left_out_are_refused() -> None:
    table = small_index()
    with pytest.raises(DatasetError, match=r"dataset.unknown: no class 'jog'\n  the classes are dip, run, sit"):
        leave_out(table, ["jog"])
    with pytest.raises(DatasetError, match=r"1 of 3 classes would stay"):
        leave_out(table, ["dip", "run"])
    table.loc[(table["class"] == "run") & (table["split"] == "test"), "status"] = "failed"
    with pytest.raises(DatasetError, match=r"'run' has no usable test clip"):
        leave_out(table, ["run"])


# ------------------------------------------------------------------------------------------------- in a project

CLIPS = "data/demo/videos"


def stored(project: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """metrics/reject.json, and the configuration of data/models/rejection.safetensors."""
    found: dict[str, Any] = json.loads((project / "metrics/reject.json").read_text())
    return found, read_config(project / "data/models/rejection.safetensors", "")


def test_reject_adds_two_fields_and_says_unknown_below_the_threshold(finished: Path) -> None:
    found, chosen = stored(finished)
    assert (found["score"], chosen["score"], chosen["stream"]) == ("probability", "probability", found["stream"])
    assert found["validation"]["enough"] is False, "8 clips"
    validation = pd.read_parquet(finished / "data/validation.parquet")
    temperature = read_config(finished / "data/models/fusion.safetensors", "")["temperatures"][found["stream"]]
    assert chosen["temperature"] == temperature
    lowest = min(softmax(row, temperature).max() for row in validation[found["stream"]])
    assert chosen["threshold"] == pytest.approx(lowest)

    plain = json.loads(run("moclip", "predict", CLIPS, "--json", cwd=finished).stdout)
    marked = json.loads(run("moclip", "predict", CLIPS, "--json", "--reject", cwd=finished).stdout)
    assert [{key: one[key] for key in one if key not in ("unknown", "score")} for one in marked] == plain
    for one in marked:
        assert one["score"] == pytest.approx(one[found["stream"]][0]["probability"], abs=1e-4)
        assert one["unknown"] == (one["score"] < lowest) or one["score"] == pytest.approx(lowest, abs=1e-4)
    predictions = pd.read_parquet(finished / "data/predictions.parquet")
    answered = [softmax(row, temperature).max() >= lowest for row in predictions[found["stream"]]]
    right = [
        np.argmax(row) == label for row, label in zip(predictions[found["stream"]], predictions["label"], strict=True)
    ]
    assert found["test"]["clips"] == len(predictions)
    assert found["test"]["answered"] == pytest.approx(np.mean(answered), abs=1e-4)
    assert found["test"]["right_of_answered"] == pytest.approx(np.mean(np.array(right)[answered]), abs=1e-4)
    printed = run("moclip", "metrics", cwd=finished).stdout
    assert (
        "moclip predict --reject: cannot tell with 8 validation clips which to reject; with the lowest probability, it "
        in printed
    )
    assert f"answers {100 * found['test']['answered']:.0f} % of the 12 test clips" in printed
    refused = run("moclip", "predict", CLIPS, "--reject", "--labels", "a, b", cwd=finished, code=1).stderr
    assert "--reject and --labels exclude each other" in refused


def softmax(logits: np.ndarray, temperature: float) -> np.ndarray:
    shares = np.exp((logits.astype(float) - max(logits)) / temperature)
    return np.asarray(shares / shares.sum())


def test_a_class_left_out_and_a_background_class(project: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in (project / CLIPS).iterdir())
    left, background = names[1], names[2]
    settings = {
        "dataset.unknown": [left],
        "dataset.background": background,
        "fit.folds": 2,
        "evaluate.reject_score": "distance",
        "evaluate.reject_coverage": 0.75,
    }
    set_keys(project / "params.yaml", settings)
    printed = run_stages(*stages_from("index"), cwd=project)
    index = pd.read_parquet(project / "data/index.parquet")
    assert index[index["class"] == left]["split"].value_counts().to_dict() == {"none": 6, "unknown": 3}
    assert read_config(project / "data/models/mv_tsn.safetensors", "")["classes"] == [names[0], *names[2:]]
    predictions = pd.read_parquet(project / "data/predictions.parquet")
    assert set(predictions["class"]) == {*names} - {left}
    found, chosen = stored(project)
    assert chosen["background"] == 1, "the label after leaving a class out"
    assert (found["unknown"]["classes"], found["unknown"]["clips"]) == ([left], 3)
    assert (found["background"]["classes"], found["background"]["clips"]) == ([background], 3)
    assert found["test"]["clips"] == 6
    assert f"and {100 * found['unknown']['answered']:.0f} % of the 3 of {left}" in printed

    # scores by plain loops over the stores: the nearest training clip, by the features of the trusted stream
    training = list(index[index["split"].isin(("train", "val"))]["id"])
    known = [features_of(project, "views", name) for name in training]
    scored = index[index["split"].isin(("test", "unknown"))]["id"]
    features = {name: features_of(project, "protocol", name) for name in scored}
    distance = {name: min(math.dist(mine, other) for other in known) for name, mine in features.items()}
    kept, _ = load_weights(project / "data/models/rejection.safetensors", "")
    np.testing.assert_allclose(kept["known"].numpy(), known, atol=1e-3)
    split = index.set_index("id")
    known_scores = [-distance[n] for n in features if split.split[n] == "test" and split["class"][n] != background]
    unknown_scores = [-distance[n] for n in features if split.split[n] == "unknown"]
    pairs = [(a > b) + (a == b) / 2 for a in known_scores for b in unknown_scores]
    assert found["unknown"]["scores"]["distance"]["auroc"] == pytest.approx(np.mean(pairs), abs=1e-4)
    assert found["unknown"]["auroc"] == found["unknown"]["scores"]["distance"]["auroc"]

    # the threshold: validation clips by the network of the fold that did not see them
    validation = pd.read_parquet(project / "data/validation.parquet")
    assert set(validation["fold"]) == {1, 2}
    held_out, alarms, everything = [], [], []
    trusted = chosen["stream"]
    for fold in (1, 2):
        mine = validation[validation["fold"] == fold]
        others = [
            features_of(project, f"fold{fold}/views", name) for name in training if name not in mine["id"].to_list()
        ]
        for _, row in mine.iterrows():
            asked = features_of(project, f"fold{fold}/protocol", str(row["id"]))
            score = -min(math.dist(asked, other) for other in others)
            everything.append(score)
            if row["class"] != background:
                held_out.append(score)
            elif row[trusted].argmax() != chosen["background"]:
                alarms.append(score)
    assert len(held_out) == 12
    assert chosen["threshold"] == pytest.approx(sorted(held_out)[3], abs=1e-3), "9 of 12 reach it"
    run("moclip", "evaluate", "--evaluate-reject-false-alarms", "0", cwd=project)
    assert stored(project)[1]["threshold"] == pytest.approx(max([*alarms, min(everything)]), abs=1e-3)
    run("moclip", "evaluate", cwd=project)

    # predict, and a bundle far from the project, say the same
    words = ("predict", f"{CLIPS}/{left}", f"{CLIPS}/{background}", "--reject")
    said = json.loads(run("moclip", *words, "--json", "--top", "1", cwd=project).stdout)
    for one in said:
        name = one["clip"].removeprefix(f"{CLIPS}/")
        if name in distance:
            assert one["score"] == pytest.approx(-distance[name], abs=2e-2)
        wins = one[one["trusted"]][0]["class"] == background
        assert one["unknown"] == (wins or one["score"] < chosen["threshold"])
    run("moclip", "export", tmp_path / "bundle", cwd=project)
    again = run("moclip", *words, "--json", "--top", "1", "--bundle", tmp_path / "bundle", cwd=project).stdout
    assert json.loads(again) == said
    rows = list(csv.DictReader(io.StringIO(run("moclip", *words, "--csv", "--top", "1", cwd=project).stdout)))
    assert [row["unknown"] for row in rows] == [json.dumps(one["unknown"]) for one in said]
    table = run("moclip", *words, "--top", "1", cwd=project).stdout.splitlines()[3 : 3 + len(said)]
    for line, one in zip(table, said, strict=True):
        wins = one[one["trusted"]][0]["class"] == background
        shown = f"unknown ({background})" if wins else "unknown" if one["unknown"] else one[one["trusted"]][0]["class"]
        assert re.split(" {2,}", line)[1].startswith(shown), line
    (tmp_path / "bundle/rejection.safetensors").unlink()
    assert moclip.load(tmp_path / "bundle").rejection is None
    refused = run("moclip", *words, "--bundle", tmp_path / "bundle", cwd=project, code=1).stderr
    assert "it does not say when a clip is unknown: an earlier version exported it" in refused

    # other commands do without the clips that have no label
    run("moclip", "suspects", "--csv", "ask/suspects.csv", "-n", "100", cwd=project)
    doubtful = pd.read_csv(project / "ask/suspects.csv")
    assert set(doubtful["class"]) | set(doubtful["suggested"]) <= {*names} - {left}
    run("moclip", "similar", f"{CLIPS}/{index[index['class'] == left]['path'].iloc[0]}", cwd=project)
    run("moclip", "report", "--report-clips", "1", cwd=project)

    # nothing stale is used
    set_keys(project / "params.yaml", {"evaluate.reject_coverage": 0.95})
    refused = run("moclip", *words, cwd=project, code=1).stderr
    assert "data/models/rejection.safetensors: it was made with evaluate.reject_coverage: 0.75" in refused
    assert "run: dvc repro evaluate" in refused
    run("moclip", *words[:-1], cwd=project)
    set_keys(project / "params.yaml", {"dataset.unknown": []})
    refused = run("moclip", *words[:-1], cwd=project, code=1).stderr
    assert "data/index.parquet: it was made with dataset.unknown" in refused


def features_of(project: Path, group: str, name: str) -> list[float]:
    """The features of a clip that the trusted stream sees, side by side, of unit length; of views the first."""
    trusted = read_config(project / "data/models/fusion.safetensors", "")["made"]["trusted"]["stream"]
    motion = Features(project / "data/features/mv_embed.zarr", "", group).rows("features", [name])[0]
    motion = motion[0] if motion.ndim == 2 else motion
    picture = Features(project / "data/features/clip_image.zarr", "").rows("features", [name])[0].mean(axis=0)
    parts = {"mv_tsn": [motion], "fusion": [motion, picture], "zero_shot": [picture]}[trusted]
    unit = np.concatenate([part / np.linalg.norm(part) for part in parts]) / len(parts) ** 0.5
    return [float(value) for value in unit]


def test_a_background_that_is_no_class_is_refused_at_once(project: Path) -> None:
    set_keys(project / "params.yaml", {"dataset.background": "NoAction"})
    refused = run("moclip", "index", cwd=project, code=1).stderr
    assert "dataset.background: no class 'NoAction'" in refused
    assert "the classes are " in refused


def test_the_lowest_threshold_with_so_many_false_alarms() -> None:
    scores = np.array([0.9, 0.2, 0.5, 0.5])

    def alarms(rate: float, clips: int = 4) -> int:
        return int((scores >= false_alarm_threshold(scores, clips, rate)).sum())

    assert [alarms(rate) for rate in (0.0, 0.24, 0.25, 0.5, 0.75, 0.99)] == [0, 0, 1, 1, 3, 3]
    assert alarms(0.1, clips=10) == 1, "the other six are answered with the background"
    assert alarms(0.4, clips=10) == 4
    for rate in (0.0, 0.25, 0.75):
        threshold = false_alarm_threshold(scores, 4, rate)
        assert (scores >= np.nextafter(threshold, -1)).sum() > 4 * rate, "no lower threshold does"


def test_false_alarms_need_a_background(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    run("moclip", "use", "folder", "--root", "clips", cwd=tmp_path)
    set_keys(tmp_path / "params.yaml", {"evaluate.reject_false_alarms": 0.1})
    refused = run("moclip", "index", cwd=tmp_path, code=1).stderr
    assert "evaluate.reject_false_alarms = 0.1, but no class is the background" in refused
