"""`fit.refit`, `fit.folds`, and the keys of MV-TSN's input, through the whole pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import zarr

from moclip.data.crops import crop_and_resize, protocol_crops
from moclip.data.sampling import neighbours, segment_frames
from moclip.evaluation.calibration import fit_temperature
from moclip.models.mv_tsn import MvTsn, load_mv_tsn
from moclip.models.weights import read_config
from moclip.store.reader import FieldReader
from moclip.training.linear_probe import LabelledFeatures, train_linear_probe
from pipeline import head_fit, paths
from pipeline import params as parameters
from pipeline.baselines import load_motion_probe
from pipeline.inputs import Inputs
from tests.conftest import ROOT, run, run_stages, set_keys, stages_from

INPUT = {"tsn.stack": 2, "tsn.moments": 2, "tsn.stabilise": "affine", "tsn.flip": "auto", "mv.per": "second"}

EXPORT = """if True:
    from moclip.data import stabilise
    from pipeline.cli import main
    stabilise.ITERATIONS = 1
    main()
"""
"""`moclip` with one iteration of the affine fit: the export of a graph with all twenty takes a minute."""


@pytest.mark.slow
def test_folds_hold_out_each_clip_once_and_the_final_networks_see_them_all(in_project: Path) -> None:
    settings = {"fit.folds": 2, "baselines.image": "test_resnet", "report.clips": 0, **INPUT}
    set_keys(in_project / "params.yaml", settings)
    printed = run_stages("extract_mv", *stages_from("train_mv", "report"), cwd=in_project)
    index = pd.read_parquet("data/index.parquet")
    fitted = index[index["split"].isin(("train", "val")) & (index["status"] == "ok")]
    assert f"train_mv: test_resnet, {len(fitted)} clips in 2 folds, then all" in printed
    assert f"{len(fitted)} clips; best epoch" in printed
    validation = pd.read_parquet("data/validation.parquet")
    assert sorted(validation["id"]) == sorted(fitted["id"])
    _check_held_out_logits(validation)
    _check_held_out_probe(validation)
    _check_held_out_image_baseline(validation)
    _check_predict_reads_as_the_pipeline(in_project)
    run("python", "-c", EXPORT, "export", "bundle", "--onnx", cwd=in_project)
    found = json.loads(run("moclip", "crossval", "--json", cwd=in_project).stdout)
    _check_fold_accuracies(found, validation)
    assert "24 clips in 2 folds" in run("moclip", "crossval", cwd=in_project).stdout
    run("moclip", "suspects", "-n", "99", cwd=in_project)
    suspects = pd.read_csv("ask/suspects.csv").set_index("clip")
    assert set(suspects["features"]) == {"held out"}, "each clip is compared by a network that did not see it"
    assert suspects.loc[fitted["id"], "prediction"].notna().all()


def _check_fold_accuracies(found: dict[str, Any], validation: pd.DataFrame) -> None:
    right = validation["fusion"].map(np.argmax) == validation["label"]
    folds = right.groupby(validation["fold"]).mean()
    assert found["streams"]["fusion"]["top1"]["mean"] == pytest.approx(folds.mean(), abs=1e-4)
    assert found["streams"]["fusion"]["top1"]["sd"] == pytest.approx(folds.std(), abs=1e-4)
    name = validation["class"][0]
    own = right[validation["class"] == name].groupby(validation["fold"]).mean()
    assert found["classes"][name]["fusion"]["mean"] == pytest.approx(own.mean(), abs=1e-4)
    assert found["classes"][name]["clips"] == (validation["class"] == name).sum()


def test_without_folds_crossval_says_how_to_get_them(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    done = run("moclip", "crossval", cwd=tmp_path, code=1)
    assert "dvc exp run -S fit.folds=5" in done.stderr


def _check_held_out_logits(validation: pd.DataFrame) -> None:
    """The logits of clips held out are those of the network that did not see them, computed plainly."""
    reader = FieldReader("data/features/mv.zarr", "data/features/mv.parquet")
    groups: dict[str, list[np.ndarray]] = {}
    for number in (1, 2):
        model = load_mv_tsn(Path(f"data/models/folds/mv_tsn_{number}.safetensors"))
        for row in validation.itertuples():
            with torch.inference_mode():
                groups.setdefault(str(row.id), []).append(_plain_logits(model, reader, str(row.id)))
    chosen = []
    for row in validation.itertuples():
        gaps = [float(np.abs(found - row.mv_tsn).max()) for found in groups[str(row.id)]]
        assert min(gaps) < 1e-5
        chosen.append(int(np.argmin(gaps)))
    sources = validation["id"].str.extract(r"(\w+)/.*_(g\d+)_").agg("/".join, axis=1)
    assert set(chosen) == {0, 1}
    assert (pd.Series(chosen).groupby(sources).nunique() == 1).all(), "a source is held out as a whole"


def _check_held_out_probe(validation: pd.DataFrame) -> None:
    """The probe's logits of clips held out are those of a probe on the features of the others, by the same network."""
    strength = read_config(Path("data/models/motion_probe.safetensors"), "")["strength"]
    labels = validation.set_index("id")["label"]
    for number, rows in validation.groupby("fold"):
        held_out, others = (
            zarr.open_group(f"data/features/mv_embed.zarr/fold{number}/{name}") for name in ("protocol", "views")
        )
        assert sorted(held_out["id"][:]) == sorted(rows["id"])
        train = LabelledFeatures(others["features"][:].mean(axis=1), labels[list(others["id"][:])].to_numpy().copy())
        probe = train_linear_probe(train, validation["label"].nunique(), strength)
        features = dict(zip(held_out["id"][:], held_out["features"][:], strict=True))
        logits = probe.logits(np.stack([features[name] for name in rows["id"]]))
        np.testing.assert_allclose(np.stack(list(rows["motion_probe"])), logits, atol=1e-3)


def _check_held_out_image_baseline(validation: pd.DataFrame) -> None:
    """Its temperature comes from the logits of clips held out, by networks that did not see them."""
    store = zarr.open_group("data/baselines/image_logits")
    final = dict(zip(store["id"][:], store["logits"][:], strict=True))
    logits: dict[str, np.ndarray] = {}
    for number, rows in validation.groupby("fold"):
        part = store[f"fold{number}"]
        assert sorted(part["id"][:]) == sorted(rows["id"])
        logits |= dict(zip(part["id"][:], part["logits"][:], strict=True))
    found = np.stack([logits[name] for name in validation["id"]])
    assert not np.allclose(found, np.stack([final[name] for name in validation["id"]])), "another network"
    scores = json.loads(Path("metrics/mv_image.json").read_text())
    assert scores["temperature"] == pytest.approx(fit_temperature(found, validation["label"].to_numpy()), abs=1e-4)


def _plain_logits(model: MvTsn, reader: FieldReader, name: str) -> np.ndarray:
    fields, types = reader.read_video(name), reader.frame_types(name)
    has_vectors = types != ord("I") if name.endswith(".mp4") else types == ord("P")  # B-frames: only H.264's
    latest = np.maximum.accumulate(np.where(has_vectors, np.arange(len(types)), -1))
    shown = np.where(latest < 0, has_vectors.argmax(), latest)
    lengths = np.array([len(types)])
    frames = neighbours(segment_frames(lengths, 3), lengths, 2)[0]
    stacked = torch.from_numpy(fields[shown[frames]].reshape(3, 4, *reader.grid))
    views = crop_and_resize(stacked, protocol_crops(reader.grid, 1, 1), 32, "affine")
    return np.asarray(model(views[None])[0])


def _check_predict_reads_as_the_pipeline(project: Path) -> None:
    predictions = pd.read_parquet("data/predictions.parquet")
    temperature = read_config(Path("data/models/fusion.safetensors"), "")["temperatures"]["mv_tsn"]
    clip = next((project / "data/demo/videos").rglob(f"{Path(predictions['id'][0]).name}*"))
    found = json.loads(run("moclip", "predict", "--json", "--top", "99", clip, cwd=project).stdout)[0]["mv_tsn"]
    expected = torch.softmax(torch.from_numpy(np.array(predictions["mv_tsn"][0])) / temperature, 0).numpy()
    assert [answer["probability"] for answer in found] == pytest.approx(sorted(expected, reverse=True), abs=2e-3)


@pytest.mark.slow
def test_refit_trains_again_on_train_and_val_for_the_epochs_that_val_chose(in_project: Path) -> None:
    chosen = run("python", "-m", "stages.train_mv", "--tsn-epochs", "4", cwd=in_project).stdout
    first = Path("data/models/mv_tsn.safetensors").read_bytes()
    again = run("python", "-m", "stages.train_mv", "--tsn-epochs", "4", "--fit-refit", "true", cwd=in_project).stdout
    assert "to choose the epoch on, then all" in again
    assert chosen.splitlines()[-1] == again.splitlines()[-1], "the same epoch and the same top-1"
    selected, final = (
        load_mv_tsn(Path(path)).state_dict()
        for path in ("data/models/folds/mv_tsn_1.safetensors", "data/models/mv_tsn.safetensors")
    )
    Path("first.safetensors").write_bytes(first)
    before = load_mv_tsn(Path("first.safetensors")).state_dict()
    assert all(torch.equal(before[name], selected[name]) for name in before), "what chose the epoch is kept"
    assert not all(torch.equal(before[name], final[name]) for name in before)
    assert not list(Path("data/work").glob("*.safetensors"))


def test_heads_that_train_side_by_side_are_those_of_one_after_the_other(
    in_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = Inputs(parameters.load(paths.PARAMS))
    found = []
    for side_by_side in (True, False):
        monkeypatch.setattr(head_fit, "trains_side_by_side", lambda kind, answer=side_by_side: answer)
        heads = head_fit.fit_heads(inputs, load_motion_probe(inputs)).heads
        found.append({**heads.fusion.state_dict(), **{f"still {k}": v for k, v in heads.still.state_dict().items()}})
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[1])
