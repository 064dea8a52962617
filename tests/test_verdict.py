"""The verdict: the stream to trust is chosen on the validation clips, and the test clips say what it is worth."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from moclip.evaluation.metrics import bootstrap_interval
from moclip.evaluation.verdict import (
    BEATS,
    CANNOT_TELL,
    DOES_NOT,
    choose_stream,
    compare_streams,
    difference_error,
    unbalanced_sentence,
    verdict_on_page,
    verdict_sentences,
)
from moclip.training import linear_probe
from moclip.training.linear_probe import STRENGTHS, LabelledFeatures, choose_linear_probe, train_linear_probe
from pipeline.console.output import STREAM_LABELS
from tests.conftest import run


def stream(right: np.ndarray | list[int], labels: np.ndarray) -> np.ndarray:
    """Logits of three classes: of the label where `right`, otherwise of the class after it."""
    return np.eye(3)[np.where(np.array(right, bool), labels, (labels + 1) % 3)]


def first(count: int, total: int) -> np.ndarray:
    return np.arange(total) < count


# --------------------------------------------------------------------------------------------------- the choice


def chosen(sources: np.ndarray, labels: np.ndarray, **right: np.ndarray) -> str:
    streams = {name: stream(correct, labels) for name, correct in right.items()}
    return str(choose_stream(streams, labels, sources)["stream"])


def test_a_clearly_better_stream_is_trusted_and_of_nearly_equal_ones_the_simplest() -> None:
    labels, clips = np.arange(20) % 3, np.arange(20)
    better = {"zero_shot": first(5, 20), "mv_tsn": first(10, 20), "fusion": first(18, 20)}
    assert chosen(clips, labels, **better) == "fusion"
    assert chosen(clips, labels, **better | {"mv_tsn": first(17, 20)}) == "mv_tsn"
    assert chosen(clips, labels, **better | {"mv_tsn": first(16, 20)}) == "fusion"
    assert chosen(clips, labels, **dict.fromkeys(better, first(9, 20))) == "zero_shot"
    assert chosen(clips, labels, mv_tsn=first(19, 20), fusion=first(9, 20), still=first(20, 20)) == "mv_tsn"
    # two clips ahead are two sources, or one
    ahead = better | {"mv_tsn": first(16, 20)}
    assert chosen(clips // 2, labels, **ahead) == "mv_tsn"


def test_with_one_source_the_best_stream_is_trusted() -> None:
    labels, one = np.arange(20) % 3, np.zeros(20)
    assert chosen(one, labels, zero_shot=first(9, 20), fusion=first(10, 20)) == "fusion"
    assert chosen(one, labels, zero_shot=first(10, 20), fusion=first(10, 20)) == "zero_shot"


def test_the_choice_says_by_what_it_was_made() -> None:
    labels, clips = np.arange(20) % 3, np.arange(20)
    streams = {"mv_tsn": stream(first(12, 20), labels), "fusion": stream(first(16, 20), labels)}
    found = choose_stream(streams, labels, clips)
    assert (found["stream"], found["clips"], found["sources"]) == ("fusion", 20, 20)
    error = math.sqrt(0.2 * 0.8 / 19)  # the textbook's, of 20 independent differences, 4 of them 1
    assert found["candidates"]["mv_tsn"] == pytest.approx({"top1": 0.6, "behind": 0.2, "standard_error": error})
    assert found["candidates"]["fusion"] == {"top1": 0.8, "behind": 0, "standard_error": 0}


def test_the_error_of_a_difference_is_that_of_resampled_sources() -> None:
    generator = np.random.default_rng(0)
    sources = np.repeat(np.arange(60), generator.integers(1, 6, 60))
    one, other = sources % 3 > 0, generator.random(len(sources)) < 0.4
    differences = [(one.astype(int) - other)[sources == source] for source in range(60)]
    draws = [np.concatenate([differences[n] for n in generator.integers(60, size=60)]).mean() for _ in range(4000)]
    assert difference_error(one, other, sources) == pytest.approx(np.std(draws), rel=0.1)
    assert difference_error(one, other, np.arange(len(sources))) < 0.8 * np.std(draws), "clips of a source are alike"


# ------------------------------------------------------------------------------------------- what the test clips say


def verdict(right: dict[str, np.ndarray], sources: np.ndarray, trusted: str = "fusion") -> dict[str, Any]:
    labels = np.arange(len(sources)) % 3
    streams = {name: stream(correct, labels) for name, correct in right.items()}
    choice = {"stream": trusted, "clips": 10}
    test = compare_streams(trusted, streams, labels, sources, 0)
    return {"trusted": choice, "test": test, "commonest_class": "push_up"}


def said(found: dict[str, Any]) -> list[str]:
    sentences = verdict_sentences(found, STREAM_LABELS)
    assert len(sentences) == 3
    return sentences


def test_a_fusion_worse_than_the_commonest_class_is_said_to_be() -> None:
    clips = np.arange(60)
    right = {"majority": first(40, 60), "still": first(20, 60), "mv_tsn": first(30, 60), "fusion": first(20, 60)}
    found = verdict(right, clips)
    answers = {name: found["test"][name]["answer"] for name in ("majority", "motion", "still")}
    assert answers == dict.fromkeys(answers, DOES_NOT)
    trust, motion, still = said(found)
    assert trust.startswith(
        "The stream to trust most is 'fusion head', chosen on 10 validation clips. "
        "It does not beat always answering push_up: 33.3 % against 66.7 %, -33.3 points (95 % interval -45.0 to -21.7)"
    )
    assert motion.startswith("Motion adds nothing to the still: 33.3 % against 33.3 %")
    answer, rest = verdict_on_page(found, STREAM_LABELS)
    assert answer.startswith("'fusion head' does not beat always answering push_up: 33.3 % against 66.7 %")
    assert rest == ["The stream to trust most is 'fusion head', chosen on 10 validation clips.", motion, still]
    assert still.startswith("The still adds nothing to motion: 33.3 % against 50.0 %")


def test_what_motion_adds_is_told_apart_from_what_the_still_adds() -> None:
    clips = np.arange(60)
    right = {"majority": first(20, 60), "still": first(30, 60), "mv_tsn": first(49, 60), "fusion": first(50, 60)}
    found = verdict(right, clips)
    answers = [found["test"][name]["answer"] for name in ("majority", "motion", "still")]
    assert answers == [BEATS, BEATS, CANNOT_TELL]
    trust, motion, still = said(found)
    assert "It beats always answering push_up: 83.3 % against 33.3 %" in trust
    assert motion.startswith("Motion adds to the still: 83.3 % against 50.0 %")
    assert still.startswith("Cannot tell with 60 test clips whether the still adds to motion: 83.3 % against 81.7 %")


def test_few_clips_or_sources_cannot_tell() -> None:
    gym = {"majority": first(12, 23), "still": first(10, 23), "mv_tsn": ~first(10, 23), "fusion": ~first(12, 23)}
    found = verdict(gym, np.arange(23), "mv_tsn")
    assert found["test"]["majority"]["answer"] == CANNOT_TELL
    assert said(found)[0].startswith(
        "The stream to trust most is 'MV-TSN, motion alone', chosen on 10 validation clips. "
        "Cannot tell with 23 test clips whether it beats always answering push_up: 56.5 % against 52.2 %"
    )
    perfect = {name: first(0, 60) for name in ("majority", "still", "mv_tsn")} | {"fusion": first(60, 60)}
    for sources, answer in ((6, BEATS), (5, CANNOT_TELL), (1, CANNOT_TELL)):
        found = verdict(perfect, np.arange(60) % sources)
        assert found["test"]["majority"]["answer"] == answer
        assert ("60 test clips of" in said(found)[0]) is (sources < 6)
        assert (found["test"]["motion"]["low"] is None) is (sources < 6)


def test_the_intervals_are_of_paired_differences() -> None:
    """Two streams that are right about nearly the same clips differ by little, though each varies with the clips."""
    generator = np.random.default_rng(1)
    sources = np.repeat(np.arange(40), 3)
    easy = generator.random(120) < 0.6
    right = {"majority": easy, "still": easy & (sources != 7), "mv_tsn": easy & (sources > 3), "fusion": easy}
    found = verdict(right, sources)["test"]
    hits = np.array(
        [[(easy & ~right[name])[sources == one].sum() for one in range(40)] for name in ("still", "mv_tsn")]
    )
    draws = [hits[:, generator.integers(40, size=40)].sum(axis=1) / 120 for _ in range(10_000)]
    expected = np.quantile(draws, [0.025, 0.975], axis=0).T
    got = [[found[name]["low"], found[name]["high"]] for name in ("motion", "still")]
    np.testing.assert_allclose(got, expected, atol=0.009)
    alone = bootstrap_interval(easy[:, None], sources, 0)[0]
    assert got[1][1] - got[1][0] < 0.8 * (alone[1] - alone[0])


def test_unbalanced_classes_are_pointed_out() -> None:
    (sentence,) = unbalanced_sentence({"top1": 0.52, "mean_class_accuracy": 0.125})
    assert "52.0 % of the test clips" in sentence
    assert "12.5 %" in sentence
    assert unbalanced_sentence({"top1": 0.3, "mean_class_accuracy": 0.25}) == []


# ---------------------------------------------------------------------------------------------------- the linear probe


def clouds(count: int, spread: float, seed: int) -> LabelledFeatures:
    """Clips of three classes around three points; far from 0, and larger than of unit length."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(3, size=count)
    features = 7 + 5 * (np.eye(3, 8)[labels] + spread * generator.standard_normal((count, 8)))
    return LabelledFeatures(features.astype(np.float32), labels)


def test_the_probe_minimises_the_loss_that_it_says() -> None:
    train = clouds(300, 0.7, 0)
    (probe,), score = choose_linear_probe([(train, clouds(100, 0.7, 1))], 3)
    assert probe.strength == score.strength
    centred = train.features - train.features.mean(axis=0)
    scale = np.sqrt((centred**2).sum(axis=1).mean())

    def loss(weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        inputs = torch.from_numpy(train.features).double()
        entropy = torch.nn.functional.cross_entropy(inputs @ weight.T + bias, torch.from_numpy(train.labels))
        return entropy + score.strength / 2 * (scale * weight).square().sum()

    weight, bias = (torch.from_numpy(values).double().requires_grad_() for values in (probe.weight, probe.bias))
    reached = loss(weight, bias)
    reached.backward()
    assert weight.grad is not None
    # at a minimum, a step against the gradient gains nothing
    step = 1e-3 / scale**2
    assert loss(weight - step * weight.grad, bias) > reached - 1e-6
    for seed in range(5):
        noise = 0.02 * torch.randn(3, 8, generator=torch.Generator().manual_seed(seed)).double() / scale
        assert loss(weight + noise, bias - (noise @ torch.from_numpy(train.features).double().mean(0))) > reached


def test_the_probe_takes_the_strength_that_is_best_on_the_validation_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    few, val = clouds(30, 0.5, 0), clouds(300, 0.5, 1)
    _, best = choose_linear_probe([(few, val)], 3)
    alone = []
    for strength in STRENGTHS:
        monkeypatch.setattr(linear_probe, "STRENGTHS", (strength,))
        alone.append(choose_linear_probe([(few, val)], 3)[1].top1)
    monkeypatch.undo()
    assert best.top1 == pytest.approx(max(alone), abs=0.005)
    assert min(alone) < max(alone) - 0.05
    noise = LabelledFeatures(np.random.default_rng(0).standard_normal((60, 40)).astype(np.float32), np.arange(60) % 3)
    none = LabelledFeatures(np.zeros((9, 40), np.float32), np.arange(9) % 3)
    _, score = choose_linear_probe([(noise, none)], 3)
    assert score.strength == STRENGTHS[0], "of equal ones the strongest regularisation"
    (probe,), score = choose_linear_probe([(clouds(300, 0.2, 0), clouds(99, 0.2, 1))], 4)
    assert score.top1 > 0.98
    test = clouds(200, 0.2, 2)
    predicted = probe.logits(test.features).argmax(axis=1)
    assert (predicted == test.labels).mean() > 0.95
    assert 3 not in predicted, "a class without clips"


@pytest.mark.slow
def test_the_strength_is_chosen_on_the_held_out_clips_of_all_folds() -> None:
    folds = [(clouds(30, 0.5, 2 * n), clouds(200, 0.5, 2 * n + 1)) for n in range(3)]
    probes, best = choose_linear_probe(folds, 3)
    right = [
        probe.logits(val.features).argmax(axis=1) == val.labels for probe, (_, val) in zip(probes, folds, strict=True)
    ]
    assert best.top1 == pytest.approx(np.concatenate(right).mean())
    for strength in STRENGTHS:
        again = [train_linear_probe(train, 3, strength) for train, _ in folds]
        right = [
            probe.logits(val.features).argmax(axis=1) == val.labels
            for probe, (_, val) in zip(again, folds, strict=True)
        ]
        assert np.concatenate(right).mean() < best.top1 + 0.005


# -------------------------------------------------------------------------------------------------- the commands


def test_metrics_predict_and_the_page_say_the_same_verdict(finished: Path) -> None:
    found = json.loads((finished / "metrics/verdict.json").read_text())
    sources = pd.read_parquet(finished / "data/index.parquet").set_index("id")

    def stored(name: str) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        table = pd.read_parquet(finished / f"data/{name}.parquet")
        groups = table["class"].to_numpy() + "/" + sources["group"][table["id"]].to_numpy()
        logits = {key: np.stack(table[key].to_list()) for key in table if key in STREAM_LABELS}
        return logits, table["label"].to_numpy(), groups

    choice = choose_stream(*stored("validation"))
    trusted = choice["stream"]
    assert found["trusted"] == json.loads(json.dumps(choice), parse_float=lambda text: round(float(text), 4))
    test = compare_streams(trusted, *stored("predictions"), 0)
    for name in ("majority", "motion", "still"):
        assert found["test"][name] == pytest.approx(test[name], abs=1e-4)
    train = sources[sources["split"] == "train"]["class"].value_counts()
    assert found["commonest_class"] in train.index[train == train.max()]
    tests = sources["class"][sources["split"] == "test"]
    majority = json.loads((finished / "metrics/majority.json").read_text())
    assert majority["top1"] == pytest.approx((tests == found["commonest_class"]).mean(), abs=1e-4)
    printed = run("moclip", "metrics", cwd=finished).stdout
    page = (finished / "data/report/index.html").read_text()
    for sentence in verdict_sentences(found, STREAM_LABELS):
        assert sentence in printed
    answer, rest = verdict_on_page(found, STREAM_LABELS)
    assert page.index(f"{answer.replace(chr(39), '&#39;')}</p>") < page.index('id="headline"')
    assert all(sentence.replace("'", "&#39;") in page for sentence in rest)
    clip = next((finished / "data/demo/videos").rglob("*.avi"))
    answer = json.loads(run("moclip", "predict", clip, "--json", cwd=finished).stdout)[0]
    assert answer["trusted"] == trusted
