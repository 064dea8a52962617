"""The fusion heads: what each computes and learns, what is chosen on validation, and how they come back from disk."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from moclip.data.fusion_data import FusionData
from moclip.errors import ModelError
from moclip.evaluation.metrics import EQUAL_WEIGHTS, SumWeights, score_sum
from moclip.evaluation.sum_weights import choose_sum_weights
from moclip.models.flops import fusion_cost
from moclip.models.fusion import Fusion, FusionConfig, HeadInputs, build_head, load_fusion
from moclip.models.heads.cache import CacheFusion
from moclip.models.heads.concat import ConcatFusion
from moclip.models.heads.pooling import POOLINGS
from moclip.models.heads.registry import HEADS, head_class
from moclip.models.heads.text import TextFusion
from moclip.models.weights import PROVENANCE, load_weights, read_config, save_weights
from moclip.training.fusion import FusionRecipe, train_fusion_head
from moclip.training.validation_choice import choose_settings, most_cautious
from tests.conftest import IN_TURN, run, run_fresh, set_keys

CPU = torch.device("cpu")
MOTION, PICTURE, CLASSES, FRAMES = 6, 8, 4, 3
TEMPERATURE = 20.0


def unit(*shape: int) -> torch.Tensor:
    return functional.normalize(torch.randn(*shape), dim=-1)


def clips(count: int, views: int = 1) -> FusionData:
    """Clips without any relation of features and labels."""
    return FusionData(torch.randn(count, views, MOTION), unit(count, FRAMES, PICTURE), torch.arange(count) % CLASSES)


def new_head(kind: str, pooling: str = "mean", *, blend: bool = False, tune: bool = False) -> Fusion:
    config = FusionConfig(MOTION, PICTURE, 16, CLASSES, 0.5, pooling, FRAMES)
    options = {"blend": blend, "cache_tune": tune}
    return build_head(kind, config, HeadInputs(unit(CLASSES, PICTURE), TEMPERATURE, clips(10, 2), options))


def recipe(epochs: int = 40, lr: float = 0.01) -> FusionRecipe:
    return FusionRecipe(lr=lr, weight_decay=0.01, epochs=epochs, batch=64, seed=0)


def train_head(model: Fusion, train: FusionData, val: FusionData, epochs: int = 40) -> float:
    return train_fusion_head(model, train, val, recipe(epochs), CPU, lambda row: None)["val_top1"]


def logits_of(model: Fusion, data: FusionData) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(data.motion[:, 0], data.stills)


def zero_shot(stills: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    return TEMPERATURE * functional.normalize(stills.mean(1), dim=1) @ text.T


@pytest.mark.parametrize(
    ("kind", "pooling", "blend"),
    [(kind, pooling, False) for kind in HEADS for pooling in POOLINGS] + [("concat", "temporal", True)],
)
def test_heads_come_back_from_disk(tmp_path: Path, kind: str, pooling: str, blend: bool) -> None:
    torch.manual_seed(0)
    model = new_head(kind, pooling, blend=blend)
    for parameter in model.parameters():  # layers that begin at zero, too
        torch.nn.init.normal_(parameter, std=0.5)
    middle = list(model.choices(torch.randn(5, MOTION), unit(5, FRAMES, PICTURE)))
    model.settings = middle[len(middle) // 2].settings if middle else {}
    model.eval().save(tmp_path / "f.safetensors")
    again = load_fusion(tmp_path / "f.safetensors")
    assert (type(again), again.kind, again.settings) == (head_class(kind), kind, model.settings)
    pair = torch.randn(5, MOTION), unit(5, FRAMES, PICTURE)
    torch.testing.assert_close(again(*pair), model(*pair))


@pytest.mark.parametrize("kind", ["concat", "text"])
def test_heads_saved_by_an_earlier_version_score_as_they_did(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    model = new_head(kind).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    config = {"kind": kind, "motion": MOTION, "picture": PICTURE, "hidden": 16, "classes": CLASSES, "dropout": 0.5}
    save_weights(tmp_path / "f.safetensors", model.state_dict(), config | {"pooling": "mean", PROVENANCE: {}})
    pair = torch.randn(5, MOTION), unit(5, FRAMES, PICTURE)
    torch.testing.assert_close(load_fusion(tmp_path / "f.safetensors")(*pair), model(*pair))


def test_a_plain_head_holds_nothing_new(tmp_path: Path) -> None:
    new_head("concat").save(tmp_path / "f.safetensors")
    tensors, config = load_weights(tmp_path / "f.safetensors", "")
    assert set(tensors) == {"hidden.weight", "hidden.bias", "head.weight", "head.bias"}
    assert set(config) == {
        "kind",
        "motion",
        "picture",
        "hidden",
        "classes",
        "dropout",
        "pooling",
        "frames",
        "temperatures",
    }


def test_a_head_of_another_version_is_named(tmp_path: Path) -> None:
    save_weights(tmp_path / "f.safetensors", {}, {"kind": "graph"})
    with pytest.raises(ModelError, match="no fusion head 'graph'; there are concat, text, cache"):
        load_fusion(tmp_path / "f.safetensors")


# -------------------------------------------------------------------------------------------------------- pooling


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("pooling", ["attention", "temporal"])
def test_every_pooling_begins_as_the_mean(kind: str, pooling: str) -> None:
    torch.manual_seed(0)
    mean, other = new_head(kind), new_head(kind, pooling)
    other.load_state_dict(mean.state_dict(), strict=False)
    data = clips(7)
    torch.testing.assert_close(logits_of(other, data), logits_of(mean, data))


@pytest.mark.slow
def test_temporal_pooling_learns_the_order_of_the_frames() -> None:
    """Two classes show the same two scenes, one of them first; neither the mean nor attention can tell them apart."""
    torch.manual_seed(0)
    scenes = unit(2, PICTURE)

    def ordered(count: int) -> FusionData:
        labels = torch.arange(count) % 2
        order = torch.stack([labels, torch.full_like(labels, -1), 1 - labels], dim=1)
        middle = unit(count, PICTURE)
        stills = torch.where((order < 0)[..., None], middle[:, None], scenes[order.clamp_min(0)])
        return FusionData(torch.randn(count, 1, MOTION), functional.normalize(stills, dim=-1), labels)

    train, val = ordered(300), ordered(100)
    top1 = {pooling: train_head(new_head("concat", pooling), train, val) for pooling in POOLINGS}
    assert top1["temporal"] > 0.95
    assert max(top1["mean"], top1["attention"]) < 0.7


def test_temporal_pooling_costs_what_its_layers_cost() -> None:
    tokens, width = FRAMES + 1, PICTURE
    attention = 2 * tokens * tokens * width
    layer = tokens * width * (3 * width + width + 2 * width + 2 * width) + attention
    extra = MOTION * width + layer + width * width
    with_order, without = (fusion_cost(new_head("concat", pooling)) for pooling in ("temporal", "mean"))
    assert with_order["multiply_adds"] - without["multiply_adds"] == extra


# ---------------------------------------------------------------------------------------------------------- cache


def test_the_cache_compares_with_the_mean_of_each_clips_views() -> None:
    """The formula with a loop over the training clips."""
    torch.manual_seed(0)
    train, query, text = clips(9, 2), clips(5), unit(CLASSES, PICTURE)
    config = FusionConfig(MOTION, PICTURE, 16, CLASSES, 0.5, "mean", FRAMES)
    head = CacheFusion.create(config, HeadInputs(text, TEMPERATURE, train, {"cache_tune": False}))
    head.settings |= {"alpha": 7.0, "motion": 0.3, "picture_sharpness": 2.0, "motion_sharpness": 5.0}
    counts = np.bincount(train.labels, minlength=CLASSES)
    expected = zero_shot(query.stills, text).numpy()
    for number in range(5):
        picture = functional.normalize(query.stills[number].mean(0), dim=0)
        motion = functional.normalize(query.motion[number, 0], dim=0)
        for views, stills, label in zip(train.motion, train.stills, train.labels, strict=True):
            motion_key = functional.normalize(sum(view / view.norm() for view in views), dim=0)
            of_motion = np.exp(-5.0 * (1 - float(motion @ motion_key)))
            of_picture = np.exp(-2.0 * (1 - float(picture @ functional.normalize(stills.mean(0), dim=0))))
            expected[number, label] += 7.0 * (0.7 * of_picture + 0.3 * of_motion) / counts[label]
    np.testing.assert_allclose(logits_of(head, query).numpy(), expected, rtol=1e-4)
    for choice in head.choices(query.motion[:, 0], query.stills):  # computed together, and one by one
        head.settings = choice.settings
        torch.testing.assert_close(logits_of(head, query), choice.logits)


def matching(count: int, noise: float) -> FusionData:
    """Clips whose still shows half of the class, and whose motion the other half; the texts know nothing of it."""
    generator = torch.Generator().manual_seed(3)
    shown, moved = (torch.randn(2, width, generator=generator) for width in (PICTURE, MOTION))
    labels = torch.arange(count) % CLASSES
    stills = shown[labels // 2][:, None] + noise * torch.randn(count, FRAMES, PICTURE)
    motion = moved[labels % 2][:, None] + noise * torch.randn(count, 2, MOTION)
    return FusionData(motion, functional.normalize(stills, dim=-1), labels)


@pytest.mark.parametrize("tune", [False, True])
def test_the_cache_learns_from_both_streams(tune: bool) -> None:
    torch.manual_seed(0)
    train, val, test = matching(32, 0.5), matching(40, 0.5), matching(200, 0.5)
    config = FusionConfig(MOTION, PICTURE, 16, CLASSES, 0.5, "mean", FRAMES)
    inputs = HeadInputs(unit(CLASSES, PICTURE), 5.0, train, {"cache_tune": tune})
    head = CacheFusion.create(config, inputs)
    before = head.motion_keys.detach().clone()
    rows: list[dict[str, float]] = []
    train_fusion_head(head, train, val, recipe(20, 0.003), CPU, rows.append)
    assert len(rows) == (20 if tune else 1), "without tuning nothing is trained"
    assert torch.equal(head.motion_keys, before) != tune
    choose_settings(head, train, val, CPU)
    right = (logits_of(head, test).argmax(1) == test.labels).float().mean()
    assert head.settings["alpha"] > 0
    assert right > 0.9
    assert head.text is not None
    assert (zero_shot(test.stills, head.text).argmax(1) == test.labels).float().mean() < 0.5


# ----------------------------------------------------------------------------------------------------- both at once


def test_heads_that_train_at_the_same_time_learn_what_each_learns_alone() -> None:
    def trained(seed: int) -> dict[str, torch.Tensor]:
        head = heads[seed]
        head.load_state_dict(starts[seed])
        head.draw_from(torch.Generator().manual_seed(seed))
        train_head(head, data, data[:10], 20)
        return head.state_dict()

    torch.manual_seed(0)
    data, heads = clips(100, 2), [new_head("concat"), new_head("text")]
    starts = [copy.deepcopy(head.state_dict()) for head in heads]
    alone = [copy.deepcopy(trained(seed)) for seed in (0, 1)]
    with ThreadPoolExecutor(2) as executor:
        together = list(executor.map(trained, (0, 1)))
    for one, other, start in zip(together, alone, starts, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in other)
        assert not torch.equal(one["hidden.weight"], start["hidden.weight"])


# ------------------------------------------------------------------------------------------- chosen on validation


def test_heads_that_learnt_nothing_score_as_zero_shot_clip() -> None:
    """Clips without any relation of features and labels, but the texts fit the stills of validation and test."""
    torch.manual_seed(0)
    text = unit(CLASSES, PICTURE)

    def shown(count: int) -> FusionData:
        data = clips(count)
        stills = functional.normalize(text[data.labels][:, None] + 0.3 * torch.randn(count, FRAMES, PICTURE), dim=-1)
        return dataclasses.replace(data, stills=stills)

    noise, val, test = clips(40, 2), shown(24), shown(24)
    config = FusionConfig(MOTION, PICTURE, 16, CLASSES, 0.5, "attention", FRAMES)
    expected = zero_shot(test.stills, text).argsort(1)
    for kind, tune in (("concat", False), ("text", False), ("cache", False), ("cache", True)):
        usual = dataclasses.replace(config, pooling="mean") if kind == "cache" else config
        options = {"blend": True, "cache_tune": tune}
        head = build_head(kind, usual, HeadInputs(text, TEMPERATURE, noise, options))
        train_head(head, noise, noise, 30)
        assert not torch.allclose(logits_of(head, test), zero_shot(test.stills, text), atol=0.1), kind
        choose_settings(head, noise, val, CPU)
        assert torch.equal(logits_of(head, test).argsort(1), expected), (kind, head.settings)


def test_heads_that_learnt_more_than_zero_shot_clip_keep_it() -> None:
    torch.manual_seed(0)
    train, val = matching(200, 0.5), matching(80, 0.5)
    config = FusionConfig(MOTION, PICTURE, 16, CLASSES, 0.0, "mean", FRAMES)
    for kind, name in (("concat", "weight"), ("text", "scale")):
        head = build_head(kind, config, HeadInputs(unit(CLASSES, PICTURE), TEMPERATURE, train, {"blend": True}))
        train_head(head, train, val)
        found = choose_settings(head, train, val, CPU)
        assert head.settings[name] >= 0.75, kind
        assert found is not None
        assert found > 0.9, kind


def test_a_plain_concat_head_has_nothing_to_choose() -> None:
    head = new_head("concat")
    assert choose_settings(head, clips(8), clips(8), CPU) is None
    assert head.settings == {}


@pytest.mark.parametrize(
    ("right", "expected"),
    [
        pytest.param(["1100", "1100"], 0, id="equal"),
        pytest.param(["1100", "1000"], 0, id="fewer clips right"),
        pytest.param(["1000", "1100"], 0, id="one clip more is chance"),
        pytest.param(["1000", "0111"], 0, id="two more and one fewer"),
        pytest.param(["1000", "1111"], 1, id="three more"),
        pytest.param(["0", "1"], 0, id="a single clip"),
    ],
)
def test_zero_shot_clip_stays_unless_another_choice_is_surely_better(right: list[str], expected: int) -> None:
    shown = np.array([[mark == "1" for mark in marks] for marks in right])
    assert most_cautious([0, 1], 1.0 - shown, shown) == expected


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        pytest.param([[0.5] * 4, [0.5] * 4], 1, id="equal: the lower level"),
        pytest.param([[0.5] * 4, [0.1] * 4], 2, id="surely lower"),
        pytest.param([[0.9, 0.1, 0.8, 0.2], [0.1, 0.5, 0.3, 0.6]], 1, id="lower by less than the error"),
    ],
)
def test_of_equally_many_right_the_most_cautious_within_one_standard_error_is_taken(
    losses: list[list[float]], expected: int
) -> None:
    right = np.array([[False] * 4, [True] * 4, [True] * 4])
    assert most_cautious([0, 1, 2], np.array([[0.0] * 4, *losses]), right) == expected


def test_within_a_level_the_lowest_loss_is_taken() -> None:
    losses = np.array([[0.0] * 4, [0.61, 0.6, 0.6, 0.61], [0.6, 0.6, 0.6, 0.6], [0.59, 0.62, 0.6, 0.58]])
    assert most_cautious([0, 1, 1, 2], losses, np.array([[False] * 4, *[[True] * 4] * 3])) == 2


# ------------------------------------------------------------------------------------------- sum of both scores


def stream(labels: np.ndarray, seed: int, parts: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Logits that know a part of the label: classes with the same part are alike."""
    same = parts(np.arange(CLASSES))[None] == parts(labels)[:, None]
    return 3 * same + np.random.default_rng(seed).normal(size=same.shape)


def test_the_sum_gives_a_useless_stream_no_weight() -> None:
    labels = np.arange(40) % CLASSES
    good, noise = stream(labels, 0, lambda label: label), np.random.default_rng(1).normal(size=(40, CLASSES))
    assert choose_sum_weights(good, 5 * noise, labels).motion == 0
    assert choose_sum_weights(good, good, labels).motion == 0, "equal scores: zero-shot"
    assert choose_sum_weights(5 * noise, good, labels).motion > 0.8


def test_the_sum_is_better_with_chosen_temperatures_and_weights() -> None:
    labels = np.arange(400) % CLASSES
    one, two = stream(labels, 0, lambda label: label // 2), 8 * stream(labels, 1, lambda label: label % 2)
    weights = choose_sum_weights(one[:200], two[:200], labels[:200])
    assert weights.mv_tsn_temperature / weights.zero_shot_temperature == pytest.approx(8, rel=0.5)
    assert 0.3 < weights.motion < 0.7
    top1 = [
        (score_sum(one[200:], two[200:], chosen).argmax(1) == labels[200:]).mean()
        for chosen in (EQUAL_WEIGHTS, weights)
    ]
    assert top1[1] > top1[0] + 0.05


def test_the_weighted_sum_is_the_formula() -> None:
    one, two = np.log(np.array([[0.7, 0.2, 0.1]])), np.log(np.array([[0.1, 0.6, 0.3]]))
    summed = score_sum(2 * one, 3 * two + 5, SumWeights(0.25, 2.0, 3.0))
    np.testing.assert_allclose(np.exp(summed), [[0.55, 0.3, 0.15]], rtol=1e-6)


def test_the_scale_of_the_text_head_brings_zero_shot_clip_back() -> None:
    torch.manual_seed(0)
    data, other = clips(5), unit(6, PICTURE)
    head = new_head("text", "temporal")
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    assert isinstance(head, TextFusion)
    head.eval().settings["scale"] = 0.0
    torch.testing.assert_close(logits_of(head, data), zero_shot(data.stills, head.text))
    with torch.inference_mode():
        new = head.score_texts(data.motion[:, 0], data.stills, other)
    torch.testing.assert_close(new, zero_shot(data.stills, other))


def test_a_blended_head_mixes_probabilities() -> None:
    torch.manual_seed(0)
    data, head = clips(5), new_head("concat", blend=True)
    assert isinstance(head, ConcatFusion)
    alone = torch.softmax(head.eval().score(data.motion[:, 0], head.pooling(data.motion[:, 0], data.stills)), 1)
    head.settings["weight"] = 0.25
    assert head.text is not None
    expected = 0.25 * alone + 0.75 * torch.softmax(zero_shot(data.stills, head.text), 1)
    torch.testing.assert_close(logits_of(head, data).exp(), expected)


# ----------------------------------------------------------------------------------------------------- in a project


def test_the_cache_and_the_chosen_sum_go_through_the_pipeline(project: Path) -> None:
    done = run("moclip", "train_fusion", "--fusion-head", "cache", cwd=project)
    assert "alpha " in done.stdout
    run("moclip", "evaluate", cwd=project)
    weights = SumWeights(
        **read_config(project / "data/models/fusion.safetensors", "")[PROVENANCE]["score_sum"]["weights"]
    )
    for name in ("validation", "predictions"):
        table = pd.read_parquet(project / f"data/{name}.parquet")
        zero_shot, mv_tsn, summed = (np.stack(table[name].to_list()) for name in ("zero_shot", "mv_tsn", "score_sum"))
        np.testing.assert_allclose(summed, score_sum(zero_shot, mv_tsn, weights), rtol=1e-5)
        if name == "validation":
            assert choose_sum_weights(zero_shot, mv_tsn, table["label"].to_numpy()) == weights
    clip = next((project / "data/demo/videos").rglob("v_*"))
    assert len(json.loads(run("moclip", "predict", "--json", clip, cwd=project).stdout)[0]["fusion"]) == 3
    named = json.loads(run("moclip", "predict", "--json", "--labels", "red, blue", clip, cwd=project).stdout)[0]
    assert "fusion" not in named, "the cache knows its own classes only"


def test_the_sum_is_refused_where_its_weights_were_chosen_with_other_words(project: Path) -> None:
    (project / "data/prompts.json").write_text(json.dumps(["{}, seen from above"]))
    run("moclip", "clip_text", cwd=project)
    done = run("moclip", "evaluate", cwd=project, code=1)
    assert "fusion.safetensors: it was made from other text features" in done.stderr


def test_a_new_head_is_one_file_and_one_line(project: Path) -> None:
    heads = project / "src/moclip/models/heads"
    (heads / "linear.py").write_text(
        """from torch import Tensor, nn

from moclip.models.heads.base import Fusion, HeadInputs
from moclip.models.heads.config import FusionConfig


class LinearFusion(Fusion):
    kind = "linear"

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        self.motion = nn.Linear(config.motion, config.classes)
        self.picture = nn.Linear(config.picture, config.classes)

    @classmethod
    def create(cls, config: FusionConfig, inputs: HeadInputs) -> "LinearFusion":
        return cls(config)

    def score(self, motion: Tensor, picture: Tensor) -> Tensor:
        return self.motion(motion) + self.picture(picture)
"""
    )
    registry = heads / "registry.py"
    registry.write_text(
        registry.read_text().replace("HEADS = {\n", 'HEADS = {\n    "linear": ("LinearFusion", "linear"),\n')
    )
    own_code = f"{project / 'src'}:{project}"
    run_fresh("python", "-m", "pipeline.sync", cwd=project, PYTHONPATH=own_code)
    code = json.loads((project / "pipeline/templates/code_of_stages.json").read_text())
    assert "moclip/models/heads/linear.py" in code["train_fusion"], "a change of it runs the stage again"
    set_keys(project / "params.yaml", {"fusion.head": "linear"})
    clip = next((project / "data/demo/videos").rglob("v_*"))
    words = json.dumps([["train_fusion"], ["predict", "--json", str(clip)]])
    trained, found = json.loads(run_fresh("python", "-c", IN_TURN, words, cwd=project, PYTHONPATH=own_code).stdout)
    assert (trained[0], found[0]) == (0, 0), trained[2] + found[2]
    assert len(json.loads(found[1])[0]["fusion"]) == 3
