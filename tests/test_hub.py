"""Encoders from a hub: a real server on this machine, with revisions, and with every refusal that users meet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import zarr

from tests.conftest import run, set_keys
from tests.hub_server import COMMITS, Hub, serve
from tests.tiny_clip import tiny_clip
from tests.tiny_encoders import tiny_encoder, tiny_timm

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("hub")
    clip = {"main": tiny_clip(folder / "new", seed=1), "v1": tiny_clip(folder / "old", seed=0)}
    (folder / "timm").mkdir()
    (folder / "timm/config.json").write_text('{"architecture": "test_resnet"}')
    tiny_timm(folder / "timm/model.safetensors", "test_resnet")
    models = {
        "some/clip": clip,
        "some/gated": clip,
        "some/dino": {"main": tiny_encoder(folder / "dino", "dinov2")},
        "timm/test_resnet.r160_in1k": {"main": folder / "timm"},
    }
    with serve(Hub(models, frozenset(["some/gated"]))) as server:
        yield server


def clip_text(
    project: Path,
    hub: Hub | None,
    model: str,
    code: int = 0,
    revision: str | bool = False,
    stage: str = "clip_text",
    **more: str,
) -> str:
    """Run a stage with an empty cache of the hub, unless HF_HOME is given. Return what it printed."""
    set_keys(project / "params.yaml", {"clip.model": model, "clip.files": "data/none", "clip.revision": revision})
    given = {"HF_HUB_OFFLINE": "0", "HF_HOME": str(project / "hub"), "HF_ENDPOINT": hub.url if hub else ""}
    given |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "5", "HF_HUB_ETAG_TIMEOUT": "5"} | more
    done = run("moclip", stage, cwd=project, code=code, **given)
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def made_from(project: Path) -> tuple[str, str]:
    about = zarr.open_group(project / "data/features/clip_text.zarr", mode="r").attrs
    return str(about["model"]), str(about["clip"])


def test_a_model_and_its_revision_come_from_the_hub(project: Path, hub: Hub) -> None:
    clip_text(project, hub, "some/clip")
    assert made_from(project) == ("some/clip", COMMITS["main"])
    first = zarr.open_group(project / "data/features/clip_text.zarr", mode="r")["features"][:]
    clip_text(project, hub, "some/clip", revision="v1")
    assert made_from(project) == ("some/clip", COMMITS["v1"])
    second = zarr.open_group(project / "data/features/clip_text.zarr", mode="r")["features"][:]
    assert abs(first - second).max() > 1e-3
    asked = len(hub.requests)
    clip_text(project, hub, "some/clip", HF_HUB_OFFLINE="1")
    assert len(hub.requests) == asked, "it is in the cache"


def test_an_image_encoder_of_the_hub_has_no_texts(project: Path, hub: Hub) -> None:
    assert "some/dino encodes no texts" in clip_text(project, hub, "some/dino")


def test_a_timm_model_comes_from_the_hub_by_its_name(project: Path, hub: Hub) -> None:
    clip_text(project, hub, "timm:test_resnet", stage="clip_image")
    about = zarr.open_group(project / "data/features/clip_image.zarr", mode="r").attrs
    assert (about["model"], about["clip"]) == ("timm:test_resnet", COMMITS["main"])


@pytest.mark.parametrize(
    ("model", "revision", "offline", "told"),
    [
        ("some/other", False, "0", ("the hub has no such model, or it is private", "HF_TOKEN")),
        ("some/clip", "v9", "0", ("the hub has no such revision", "correct clip.revision")),
        ("some/gated", False, "0", ("its makers ask for your consent first", "accept its terms")),
        ("some/clip", False, "1", ("it is not in the hub's cache, and HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE")),
    ],
)
def test_what_the_hub_refuses_is_told(
    project: Path, hub: Hub, model: str, revision: str | bool, offline: str, told: tuple[str, str]
) -> None:
    printed = clip_text(project, hub, model, 1, revision, HF_HUB_OFFLINE=offline)
    assert model in printed
    for part in told:
        assert part in printed


def test_a_hub_that_does_not_answer_is_told(project: Path) -> None:
    printed = clip_text(project, None, "some/clip", 1, HF_ENDPOINT="http://127.0.0.1:9")
    assert "some/clip" in printed
    assert "it is not in the hub's cache, and the hub does not answer" in printed


def test_a_download_that_breaks_off_is_told_and_is_resumed(project: Path, hub: Hub) -> None:
    hub.cut = True
    try:
        printed = clip_text(project, hub, "some/clip", 1)
    finally:
        hub.cut = False
    assert "some/clip: cannot load this encoder" in printed
    clip_text(project, hub, "some/clip")
    assert made_from(project)[1] == COMMITS["main"]
