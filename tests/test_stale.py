"""Nothing stale is used: after other labels, splits, data, another CLIP or model, every command says what to run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from moclip.models.fusion import load_fusion
from moclip.models.mv_tsn import load_mv_tsn
from moclip.models.weights import PROVENANCE, load_weights, read_config, save_weights
from tests.conftest import in_turn, run, set_keys
from tests.tiny_clip import tiny_clip

CLIP = "data/demo/videos/RedBallRising/v_RedBallRising_g01_c01.avi"
LISTS = "data/demo/splits"
SCORING = {
    "evaluate": ("evaluate",),
    "predict": ("predict", CLIP),
    "export": ("export", "bundle"),
    "timing": ("timing", "--clips", "1"),
    "report": ("report",),
}
"""The commands that use what was trained."""


def refusals(project: Path, *names: str) -> dict[str, str]:
    """What commands say that end with exit code 1 and one message."""
    ended = in_turn(project, *(SCORING.get(name, (name,)) for name in names))
    for code, _, text in ended:
        assert code == 1, text
        assert text.startswith("error: ")
        assert "Traceback" not in text
        assert "internal error" not in text
    assert not (project / "bundle").exists()
    return {name: one.stderr for name, one in zip(names, ended, strict=True)}


def rewrite_classes(project: Path) -> None:
    path = project / LISTS / "classInd.txt"
    names = [line.split()[1] for line in path.read_text().splitlines()]
    path.write_text("".join(f"{number} {name}\n" for number, name in enumerate(reversed(names), start=1)))


def swap_lists(project: Path) -> None:
    train, test = (project / LISTS / f"{part}list01.txt" for part in ("train", "test"))
    lines = [line.split()[0] for line in train.read_text().splitlines()]
    train.write_text("".join(f"{line.split()[0]} 1\n" for line in test.read_text().splitlines()))
    test.write_text("".join(f"{line}\n" for line in lines))


# ------------------------------------------------------------------------------------------- labels and splits


@pytest.mark.parametrize(
    ("change", "expected_text"), [(rewrite_classes, "another class order"), (swap_lists, "another split")]
)
def test_after_other_labels_or_splits_nothing_trained_is_used(
    project: Path, change: Callable[[Path], None], expected_text: str
) -> None:
    change(project)
    run("moclip", "index", cwd=project)
    for name, text in refusals(project, *SCORING, "embed_mv", "train_fusion").items():
        assert f"data/models/mv_tsn.safetensors: it was trained on {expected_text} than the index has now" in text, name
        assert "run: dvc repro train_mv (or: moclip train_mv)" in text


def run_as_told(project: Path, command: str) -> list[str]:
    """Run a command, and first every stage that it asks for; returns those, as they ran."""
    ran: list[str] = []
    while (done := run("moclip", command, cwd=project, code=None)).returncode:
        wanted = done.stderr.rpartition("moclip ")[2].strip().rstrip(")")
        assert wanted not in ran, f"once is enough: {done.stderr}"
        ran += [*run_as_told(project, wanted), wanted]
    return ran


def test_running_what_the_messages_say_repairs_the_project(project: Path) -> None:
    rewrite_classes(project)
    run("moclip", "index", cwd=project)
    assert run_as_told(project, "evaluate") == ["train_mv", "embed_mv", "train_probe", "clip_text", "train_fusion"]
    assert json.loads((project / "metrics/fusion.json").read_text())["n"] == 12
    ended = in_turn(project, *SCORING.values())
    assert not any(one.code for one in ended), ended


def test_the_image_baseline_is_refused_where_it_learnt_something_else(project: Path) -> None:
    set_keys(project / "params.yaml", {"baselines.image": "test_resnet", "tsn.epochs": 1})
    for stage in ("train_image", "embed_image", "evaluate"):
        run("moclip", stage, cwd=project)
    assert json.loads((project / "metrics/mv_image.json").read_text())["n"] == 12
    swap_lists(project)
    for stage in ("index", "train_mv"):
        run("moclip", stage, cwd=project)
    printed = run("moclip", "embed_image", cwd=project, code=1).stderr
    assert "data/baselines/image/model.safetensors: it was trained on another split" in printed
    for stage in ("embed_mv", "train_probe", "train_fusion"):
        run("moclip", stage, cwd=project)
    assert "image/model.safetensors: it was trained on another split" in refusals(project, "evaluate")["evaluate"]
    run("moclip", "train_image", cwd=project)
    printed = refusals(project, "evaluate")["evaluate"]
    assert "data/baselines/image_logits: it was made from another image baseline" in printed
    assert "run: dvc repro embed_image" in printed
    set_keys(project / "params.yaml", {"baselines.image": False})
    assert 'baselines.image: "test_resnet", and params.yaml says false' in refusals(project, "evaluate")["evaluate"]


def test_fewer_shots_than_were_trained_on_are_refused(project: Path) -> None:
    set_keys(project / "params.yaml", {"dataset.shots": 2})
    for text in refusals(project, *SCORING).values():
        assert "mv_tsn.safetensors: it was made with dataset.shots: false, and params.yaml says 2" in text


# ------------------------------------------------------------------------------------- CLIP, texts, other models


def test_another_clip_of_the_same_width_is_refused(project: Path) -> None:
    shutil.rmtree(project / "data/demo/clip")
    tiny_clip(project / "data/demo/clip")
    for text in refusals(project, *SCORING, "train_fusion").values():
        assert "it was made from another CLIP" in text
        assert "run: dvc repro clip_" in text
    run("moclip", "clip_text", cwd=project)
    for text in refusals(project, *SCORING).values():
        assert "data/models/fusion.safetensors: it was made from another CLIP" in text
    assert "clip_image.zarr: it was made from another CLIP" in refusals(project, "train_fusion")["train_fusion"]


def test_text_features_of_a_clip_of_another_width_are_refused(project: Path) -> None:
    tiny_clip(project / "other", width=32)
    run("moclip", "clip_text", "--clip-model", "other", cwd=project)
    for text in refusals(project, *SCORING).values():
        assert 'clip_text.zarr: it was made with clip.model: "other", and params.yaml says "data/demo/clip"' in text


def test_text_features_of_other_words_are_refused(project: Path) -> None:
    prompts = project / "data/prompts.json"
    prompts.write_text(json.dumps(["{}, seen from above"]))
    for text in refusals(project, *SCORING).values():
        assert "clip_text.zarr: it was made from another data/prompts.json" in text
    run("moclip", "clip_text", cwd=project)
    run("moclip", "predict", CLIP, cwd=project)  # the head has learnt nothing from the words
    set_keys(project / "params.yaml", {"fusion.head": "text"})
    run("moclip", "train_fusion", cwd=project)
    prompts.write_text(json.dumps(["{}, seen from below"]))
    run("moclip", "clip_text", cwd=project)
    for text in refusals(project, *SCORING).values():
        assert "fusion.safetensors: it was trained with other text features" in text


def test_a_head_of_another_motion_network_is_refused(project: Path) -> None:
    run("moclip", "train_mv", "--seed", "1", cwd=project)
    for name, text in refusals(project, *SCORING).items():
        assert "data/models/fusion.safetensors: it was made from another MV-TSN" in text, name
    run("moclip", "embed_mv", cwd=project)
    printed = refusals(project, "train_fusion")["train_fusion"]
    assert "data/models/motion_probe.safetensors: it was made from another MV-TSN" in printed
    assert "run: dvc repro train_probe" in printed
    still = (project / "data/models/still.safetensors").read_bytes()
    run("moclip", "train_probe", cwd=project)
    run("moclip", "train_fusion", cwd=project)
    found = refusals(project, "export", "report")
    assert "data/models/rejection.safetensors: it was made from another fusion head" in found["export"]
    assert "metrics/fusion.json: it was made from other models" in found["report"]
    assert all("run: dvc repro evaluate" in text for text in found.values())
    run("moclip", "predict", CLIP, cwd=project)
    (project / "data/models/still.safetensors").write_bytes(still)
    text = refusals(project, "evaluate")["evaluate"]
    assert "data/models/still.safetensors: it was made from another fusion head" in text


@pytest.mark.parametrize(
    ("key", "value", "model"),
    [("clip.frames", 2, "fusion"), ("clip.choice", "random", "fusion"), ("mv.accumulate", "grid", "mv_tsn")],
)
def test_params_yaml_must_say_what_the_models_were_trained_with(
    project: Path, key: str, value: Any, model: str
) -> None:
    set_keys(project / "params.yaml", {key: value})
    for name, text in refusals(project, *SCORING).items():
        assert f"{model}.safetensors: it was made with {key}: " in text, name
        assert f"and params.yaml says {json.dumps(value)}" in text


# ------------------------------------------------------------------------------------------------- other data


def test_other_data_in_params_yaml_is_refused(project: Path) -> None:
    shutil.copytree(project / "data/demo/videos", project / "other")
    for clip in sorted((project / "other").glob("*/*")):
        clip.rename(clip.with_name(f"other_{clip.name}"))
    run("moclip", "use", "folder", "--root", "other", "--force", cwd=project)
    set_keys(project / "params.yaml", {"fit.refit": False})  # as what is there was made
    for name, text in refusals(project, *SCORING, "train_fusion", "extract_mv", "clip_text").items():
        assert "data/index.parquet: it is of other clips than those in dataset.root, other" in text, name
        assert "run: dvc repro index" in text
    run("moclip", "index", cwd=project)
    for name, text in refusals(project, *SCORING).items():
        assert "data/models/mv_tsn.safetensors: it was trained on" in text, name


def test_scores_of_other_test_clips_are_refused(project: Path) -> None:
    """A test clip is left out of the list: what was trained fits, the scores do not."""
    test = project / LISTS / "testlist01.txt"
    test.write_text("".join(test.read_text().splitlines(keepends=True)[1:]))
    run("moclip", "index", cwd=project)
    run("moclip", "predict", CLIP, cwd=project)
    for name, text in refusals(project, "export", "report").items():
        assert "metrics/fusion.json: it was made from other test clips" in text, name
    assert "made from other clips" in refusals(project, "evaluate")["evaluate"]


# ------------------------------------------------------------------------------- what is not there is not missed


def test_a_prediction_needs_models_and_text_features_alone(project: Path, tmp_path: Path) -> None:
    clip = shutil.copy(project / CLIP, tmp_path / "clip.avi")
    before = run("moclip", "predict", clip, "--json", cwd=project).stdout
    for path in ("data/index.parquet", "data/features/mv.parquet", "data/features/clip_image.parquet"):
        (project / path).unlink()
    for path in ("data/features/mv.zarr", "data/features/clip_image.zarr", "data/features/mv_embed.zarr", "metrics"):
        shutil.rmtree(project / path)
    assert run("moclip", "predict", clip, "--json", cwd=project).stdout == before
    run("moclip", "predict", clip, "--evaluate-protocol", "5x1", cwd=project)
    run("moclip", "predict", clip, "--clip-frames", "2", cwd=project, code=1)
    text = project / "data/features/clip_text.zarr"
    shutil.rmtree(text)
    assert "run: moclip clip_text" in run("moclip", "predict", clip, cwd=project, code=1).stderr


def test_a_model_that_does_not_say_what_it_learnt_from_is_refused(project: Path) -> None:
    """As those of earlier versions; a bundle of theirs is loaded all the same."""
    run("moclip", "export", "earlier", cwd=project)
    assert PROVENANCE not in read_config(project / "earlier/mv_tsn.safetensors", "")
    for name, load in (("mv_tsn", load_mv_tsn), ("fusion", load_fusion)):
        path = project / f"data/models/{name}.safetensors"
        tensors, config = load_weights(path, "")
        save_weights(path, tensors, {key: value for key, value in config.items() if key != PROVENANCE})
        load(path)
    text = refusals(project, "evaluate")["evaluate"]
    assert "mv_tsn.safetensors: it does not say what it was trained on" in text
    run("moclip", "predict", "--bundle", "earlier", CLIP, cwd=project)


def test_predictions_of_an_earlier_evaluation_are_refused(project: Path) -> None:
    """As a run of evaluate leaves them that is killed between the metrics and the predictions."""
    path = project / "data/predictions.parquet"
    table = pd.read_parquet(path)
    assert len(table.attrs["models"]) == 16
    table.attrs["models"] = "0" * 16
    table.to_parquet(path, index=False)
    assert "data/predictions.parquet: it was made from other models" in refusals(project, "report")["report"]


def test_edited_lists_and_seeds_are_noticed_before_the_index_is_made_again(project: Path) -> None:
    path = project / "data/demo/splits/trainlist01.txt"
    content = path.read_text()
    path.unlink()  # a link into DVC's cache, perhaps
    path.write_text("".join(content.splitlines(keepends=True)[1:]))
    for command in (("moclip", "evaluate"), ("moclip", "train_fusion"), ("moclip", "predict", "data/demo/videos")):
        printed = run(*command, cwd=project, code=1).stderr
        assert "data/index.parquet: it was made from other split lists" in printed
        assert "moclip index" in printed
    path.write_text(content)
    set_keys(project / "params.yaml", {"seed": 3})
    assert "it was made with seed: 0, and params.yaml says 3" in run("moclip", "evaluate", cwd=project, code=1).stderr


def test_motion_fields_of_other_parameters_are_not_embedded(project: Path) -> None:
    run("moclip", "extract_mv", "--mv-clip", "10", cwd=project)
    printed = run("moclip", "embed_mv", cwd=project, code=1).stderr
    assert "data/features/mv.zarr: it was made with mv.clip: 10.0, and params.yaml says" in printed


def test_stages_that_read_no_clip_notice_changed_clips(project: Path) -> None:
    clip = sorted((project / "data/demo/videos").rglob("*.avi"))[0]
    content = clip.read_bytes()
    clip.unlink()
    clip.write_bytes(content + b"more")
    for command in ("evaluate", "train_fusion", "embed_mv"):
        assert "changed since the index was written" in run("moclip", command, cwd=project, code=1).stderr


def test_another_pipelines_parameters_are_not_written_over(project: Path) -> None:
    before = (project / "data/demo/params.yaml").read_bytes()
    printed = run("moclip", "use", "folder", "--root", "videos", cwd=project / "data/demo", code=1).stderr
    assert "params.yaml: of another pipeline" in printed
    assert (project / "data/demo/params.yaml").read_bytes() == before


def test_moved_clips_are_the_same_clips(project: Path) -> None:
    (project / "data/demo/videos").rename(project / "moved")
    set_keys(project / "params.yaml", {"dataset.root": str(project / "moved")})
    for command in (("moclip", "evaluate"), ("moclip", "predict", "moved")):
        run(*command, cwd=project)
    (project / "moved").rename(project / "gone")
    run("moclip", "evaluate", cwd=project)
