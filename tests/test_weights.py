"""Weights of clips: the column `weight` of a manifest is a factor of their losses, and without it nothing changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from moclip.data.balance import class_weights
from moclip.data.clip_batches import SplitClips
from moclip.data.clip_weights import mean_one, weights_of
from moclip.data.fusion_data import FusionData
from moclip.data.manifest import read_manifest
from moclip.models.fusion import FusionConfig
from moclip.models.heads.concat import ConcatFusion
from moclip.training.fusion import FusionRecipe, train_fusion_head
from moclip.training.linear_probe import LabelledFeatures, train_linear_probe
from moclip.training.objective import mean_loss, summed_loss
from tests.conftest import run, set_keys

CPU = torch.device("cpu")


def test_an_empty_weight_is_one_and_no_column_no_weight(tmp_path: Path) -> None:
    file = tmp_path / "clips.csv"
    file.write_text("path,label,weight\na,A,0.25\nb,B,\nc,A,1e1\n")
    rows = read_manifest(file, str(tmp_path)).rows
    assert rows["weight"].tolist() == [0.25, 1.0, 10.0]
    found = weights_of(rows)
    assert found is not None
    assert mean_one(found).tolist() == pytest.approx([0.25 / 3.75, 1 / 3.75, 10 / 3.75])
    for text in ("path,label\na,A\nb,B\n", "path,label,weight\na,A,\nb,B,\n"):
        file.write_text(text)
        assert "weight" not in read_manifest(file, str(tmp_path)).rows


@pytest.mark.parametrize("several", [False, True])
def test_a_clip_of_weight_two_counts_as_two_clips(several: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 3, generator=generator)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    given = functional.one_hot(labels, 3).float() if several else labels
    weights = torch.tensor([2.0, 1, 1, 1, 1, 3])
    rows = torch.tensor([0, 0, 1, 2, 3, 4, 5, 5, 5])
    wanted = summed_loss(logits[rows], given[rows], label_smoothing=0.1).item()
    assert summed_loss(logits, given, None, 0.1, weights).item() == pytest.approx(wanted)
    assert mean_loss(logits, given, None, weights).item() == pytest.approx(
        summed_loss(logits[rows], given[rows]).item() / 6
    )
    assert mean_loss(logits, given, None, torch.ones(6)).item() == pytest.approx(mean_loss(logits, given).item())


def test_weights_of_clips_and_of_classes_are_multiplied() -> None:
    logits, labels = torch.randn(4, 3, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 0, 0, 2])
    of_classes = torch.from_numpy(class_weights(labels.numpy(), 3))
    of_clips = torch.tensor([0.5, 1.5, 1.0, 1.0])
    plain = [
        float(w * of_classes[y] * functional.cross_entropy(row[None], y[None]))
        for w, row, y in zip(of_clips, logits, labels, strict=True)
    ]
    assert summed_loss(logits, labels, of_classes, clip_weights=of_clips).item() == pytest.approx(sum(plain))
    wanted = sum(plain) / float(of_classes[labels].sum())
    assert mean_loss(logits, labels, of_classes, of_clips).item() == pytest.approx(wanted)
    ones = mean_loss(logits, labels, of_classes, torch.ones(4)).item()
    assert ones == pytest.approx(mean_loss(logits, labels, of_classes).item()), "as without weights"


def overlapping(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Two classes whose features overlap, the second rare."""
    rng = np.random.default_rng(0)
    labels = (rng.random(count) < 0.15).astype(np.int64)
    features = rng.normal(size=(count, 4)).astype(np.float32)
    features[:, 0] += 1.2 * labels
    return features, labels


@pytest.mark.parametrize("balance", ["none", "loss", "sampler"])
def test_the_head_answers_more_often_with_the_class_whose_clips_weigh_more(balance: str) -> None:
    features, labels = overlapping(600)
    stills = functional.normalize(torch.ones(600, 1, 3), dim=-1)
    data = FusionData(torch.from_numpy(features)[:, None], stills, torch.from_numpy(labels))
    recipe = FusionRecipe(lr=0.01, weight_decay=0.0, epochs=15, batch=64, seed=0, balance=balance)
    share = {}
    for factor in (0.2, 1.0, 5.0):
        torch.manual_seed(0)
        head = ConcatFusion(FusionConfig(4, 3, 8, 2, 0.0))
        weights = torch.from_numpy(np.where(labels == 1, factor, 1.0))
        train_fusion_head(head, replace(data, weights=weights), data[:0], recipe, CPU, lambda row: None)
        with torch.inference_mode():
            share[factor] = float(head(data.motion[:, 0], data.stills).argmax(1).float().mean())
    assert share[0.2] < share[1.0] - 0.02 < share[5.0] - 0.1


def test_the_probe_trains_on_weights_as_on_copies() -> None:
    features, labels = overlapping(60)
    counts = np.where(labels == 1, 3, 1)
    copied = np.repeat(np.arange(60), counts)
    scaled = LabelledFeatures(features, labels, counts.astype(np.float64))
    weighted, plain = (train_linear_probe(data, 2, 1e-2) for data in (scaled, LabelledFeatures(features, labels)))
    # the probe centres and scales features by the clips as they are, so only the direction of the answers is compared
    repeated = train_linear_probe(LabelledFeatures(features[copied], labels[copied]), 2, 1e-2)
    answers = [probe.logits(features).argmax(axis=1).mean() for probe in (plain, weighted, repeated)]
    assert answers[0] < answers[1]
    assert answers[1] == pytest.approx(answers[2], abs=0.05)


def test_features_take_their_weights_to_the_device() -> None:
    features = FusionData(torch.zeros(2, 1, 3), torch.zeros(2, 1, 4), torch.zeros(2), torch.ones(2))
    moved = features.to(torch.device("meta"))
    assert moved.weights is not None
    devices = {tensor.device.type for tensor in (moved.motion, moved.stills, moved.labels, moved.weights)}
    assert devices == {"meta"}


def test_batches_keep_their_weights() -> None:
    rows = pd.DataFrame({"offset": [0, 5, 9], "length": [5, 4, 3], "label": [0, 1, 0], "weight": [1.0, 2.0, 3.0]})
    clips = SplitClips.of(rows)[np.array([2, 0])]
    assert clips.weights is not None
    assert clips.weights.tolist() == [3.0, 1.0]
    assert SplitClips.of(rows.drop(columns="weight"))[1:].weights is None


@pytest.mark.slow
def test_weights_reach_every_training_and_their_edits_are_noticed(project: Path) -> None:
    """With all weights 2 the networks are those of a manifest without weights; other weights give other networks."""
    index = pd.read_parquet(project / "data/index.parquet")
    table = pd.DataFrame({"path": index["path"], "label": index["class"], "split": index["split"]})
    models = ("mv_tsn", "motion_probe", "fusion", "still")
    set_keys(project / "params.yaml", {"dataset.manifest": "clips.csv", "dataset.splits": "data/none"})
    found = {"none": {model: weights_in(project / f"data/models/{model}.safetensors") for model in models}}
    for name, weights in (("two", 2.0), ("rising", np.where(index["class"].str.contains("Rising"), 4.0, 0.5))):
        table.assign(weight=weights).to_csv(project / "clips.csv", index=False)
        run("moclip", "index", cwd=project)
        if name == "rising":
            refused = run("moclip", "train_fusion", cwd=project, code=1).stderr
            assert "it was trained on other weights of clips than the index has now" in refused
        for stage in ("train_mv", "embed_mv", "train_probe", "train_fusion", "evaluate"):
            run("moclip", stage, cwd=project)
        found[name] = {model: weights_in(project / f"data/models/{model}.safetensors") for model in models}
    for model in models:
        far, near = (np.linalg.norm(found[name][model] - found["none"][model]) for name in ("rising", "two"))
        assert near < far / 10, model


def weights_in(path: Path) -> np.ndarray:
    from moclip.models.weights import load_weights

    tensors = load_weights(path, "train_mv")[0]
    return np.concatenate([tensors[name].double().numpy().ravel() for name in sorted(tensors)])
