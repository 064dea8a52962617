"""Encoders and trained models on a hub: a real server on this machine, with every refusal that users meet.

What is pushed answers like the local bundle.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import zarr
from huggingface_hub import ModelCard

from tests.conftest import ROOT, run, run_fresh, set_keys, surroundings, warm_commands
from tests.hub_server import COMMITS, READER, WRITER, Hub, files_below, nobody_there, serve
from tests.tiny_clip import tiny_clip
from tests.tiny_encoders import tiny_encoder, tiny_timm

pytestmark = pytest.mark.slow

LOAD = """
import json, sys
import moclip
from moclip.errors import MoclipError

for place, revision in json.loads(sys.argv[1]):
    try:
        moclip.load(place, revision=revision)
        print("loaded")
    except MoclipError as problem:
        print(str(problem).replace("\\n", " |"))
"""
"""Prints a line for each bundle to load: `loaded`, or the error."""

PUSH = """
import json, os, sys
from pathlib import Path
from moclip.errors import MoclipError
from moclip.inference.hub_bundle import HubId
from moclip.inference.hub_push import check_push, push_bundle

for token, name, private in json.loads(sys.argv[2]):
    os.environ["HF_TOKEN"] = token
    try:
        check_push(HubId(name))
        print(push_bundle(Path(sys.argv[1]), HubId(name), private))
    except MoclipError as problem:
        print(str(problem).replace("\\n", " |"))
"""
"""Prints a line for each push: the commit, or the error."""


@pytest.fixture(scope="module")
def local(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("local") / "balls"
    run("moclip", "export", folder, cwd=finished)
    return folder


@pytest.fixture(scope="module")
def hub(local: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub that has encoders, bundles, and another model; some need consent."""
    folder = tmp_path_factory.mktemp("hub")
    clip = {"main": tiny_clip(folder / "new", seed=1), "v1": tiny_clip(folder / "old", seed=0)}
    (folder / "timm").mkdir()
    (folder / "timm/config.json").write_text('{"architecture": "test_resnet"}')
    tiny_timm(folder / "timm/model.safetensors", "test_resnet")
    (folder / "other").mkdir()
    (folder / "other/config.json").write_text("{}")
    models = {"me/bundle": local, "me/gated": local, "me/closed": local, "me/other": folder / "other"}
    every = {name: {"main": folder} for name, folder in models.items()} | {
        "some/clip": clip,
        "some/large": clip,
        "some/gated": clip,
        "some/dino": {"main": tiny_encoder(folder / "dino", "dinov2")},
        "timm/test_resnet.r160_in1k": {"main": folder / "timm"},
    }
    gated = frozenset(["me/gated", "me/closed", "some/gated"])
    with serve(Hub(every, gated, tmp_path_factory.mktemp("storage"))) as server:
        yield server


@pytest.fixture(scope="module")
def online(hub: Hub) -> Iterator[dict[str, str]]:
    """The environment of a machine that asks the hub, whose commands run in a warm process of their own.

    The hub's library reads these variables once, when it is imported. All tests share the session's cache of the hub.
    """
    given = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}
    given |= {"HF_HUB_DOWNLOAD_TIMEOUT": "5", "HF_HUB_ETAG_TIMEOUT": "5"}
    with warm_commands(**given, HF_HUB_DISABLE_PROGRESS_BARS="1") as commands:
        yield given | {"PATH": f"{commands}{os.pathsep}{surroundings()['PATH']}"}


# ---------------------------------------------------------------------------------------------------- encoders


@pytest.fixture(scope="module")
def encoding(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose encoder each test sets."""
    return shutil.copytree(finished, tmp_path_factory.mktemp("encoding") / "project", symlinks=True)


def encode(
    project: Path,
    environment: dict[str, str],
    model: str,
    code: int = 0,
    revision: str | bool = False,
    stage: str = "clip_text",
) -> str:
    """Run a stage, and return what it printed."""
    set_keys(project / "params.yaml", {"clip.model": model, "clip.files": "data/none", "clip.revision": revision})
    done = run("moclip", stage, cwd=project, code=code, **environment)
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def made_from(project: Path) -> tuple[str, str]:
    about = zarr.open_group(project / "data/features/clip_text.zarr", mode="r").attrs
    return str(about["model"]), str(about["clip"])


def test_a_model_and_its_revision_come_from_the_hub(encoding: Path, hub: Hub, online: dict[str, str]) -> None:
    encode(encoding, online, "some/clip")
    assert made_from(encoding) == ("some/clip", COMMITS["main"])
    first = zarr.open_group(encoding / "data/features/clip_text.zarr", mode="r")["features"][:]
    encode(encoding, online, "some/clip", revision="v1")
    assert made_from(encoding) == ("some/clip", COMMITS["v1"])
    second = zarr.open_group(encoding / "data/features/clip_text.zarr", mode="r")["features"][:]
    assert abs(first - second).max() > 1e-3
    asked = len(hub.requests)
    encode(encoding, {}, "some/clip")
    assert len(hub.requests) == asked, "it is in the cache"


def test_an_image_encoder_of_the_hub_has_no_texts(encoding: Path, hub: Hub, online: dict[str, str]) -> None:
    assert "some/dino encodes no texts" in encode(encoding, online, "some/dino")


def test_a_timm_model_comes_from_the_hub_by_its_name(encoding: Path, hub: Hub, online: dict[str, str]) -> None:
    encode(encoding, online, "timm:test_resnet", stage="clip_image")
    about = zarr.open_group(encoding / "data/features/clip_image.zarr", mode="r").attrs
    assert (about["model"], about["clip"]) == ("timm:test_resnet", COMMITS["main"])


@pytest.mark.parametrize(
    ("model", "revision", "told"),
    [
        ("some/other", False, ("the hub has no such model, or it is private", "HF_TOKEN")),
        ("some/clip", "v9", ("the hub has no such revision", "correct clip.revision")),
        ("some/gated", False, ("its makers ask for your consent first", "accept its terms")),
    ],
)
def test_what_the_hub_refuses_is_told(
    encoding: Path, online: dict[str, str], model: str, revision: str | bool, told: tuple[str, str]
) -> None:
    printed = encode(encoding, online, model, 1, revision)
    assert model in printed
    for part in told:
        assert part in printed


def test_without_a_hub_a_model_that_is_not_in_the_cache_is_told(
    encoding: Path, hub: Hub, online: dict[str, str]
) -> None:
    printed = encode(encoding, {}, "some/new", 1)
    assert "some/new" in printed
    assert "it is not in the hub's cache, and HF_HUB_OFFLINE is set" in printed
    assert "unset HF_HUB_OFFLINE" in printed
    with nobody_there(hub):
        printed = encode(encoding, online, "some/new", 1)
    assert "some/new" in printed
    assert "it is not in the hub's cache, and the hub does not answer" in printed


def test_a_download_that_breaks_off_is_told_and_is_resumed(encoding: Path, hub: Hub, online: dict[str, str]) -> None:
    hub.cut = True
    try:
        printed = encode(encoding, online, "some/large", 1)
    finally:
        hub.cut = False
    assert "some/large: cannot load this encoder" in printed
    encode(encoding, online, "some/large")
    assert made_from(encoding) == ("some/large", COMMITS["main"])


# ---------------------------------------------------------------------------------------------- trained models


def load(places: list[tuple[str, str | None]], cwd: Path, environment: dict[str, str]) -> list[str]:
    return run("python", "-c", LOAD, json.dumps(places), cwd=cwd, code=0, **environment).stdout.splitlines()


def test_what_is_pushed_answers_like_the_local_bundle(
    finished: Path, local: Path, hub: Hub, online: dict[str, str], tmp_path: Path
) -> None:
    """The push is a fresh process: the hub's library would show its progress if it were imported too early."""
    writer = online | {"HF_TOKEN": WRITER}
    push = ("moclip", "export", "--push", "me/balls", "--licence", "MIT", "--private")
    pushed = run_fresh(*push, cwd=finished, code=0, **(writer | {"PATH": surroundings(fresh=True)["PATH"]}))
    assert pushed.stderr == "", "no progress where there is no terminal"
    found = re.search(r"pushed to me/balls, commit (\w{40})", pushed.stdout)
    assert found
    assert "me/balls" in hub.private
    assert "moclip.load('me/balls')" in pushed.stdout
    commit = found[1]
    folder = hub.folders["me/balls", commit]
    assert [name for name in files_below(folder) if name != ".gitattributes"] == files_below(local)
    same = set(files_below(local)) - {"README.md", "config.json"}
    assert all((folder / name).read_bytes() == (local / name).read_bytes() for name in same)

    card = ModelCard((folder / "README.md").read_text())
    assert [card.data.get(key) for key in ("license", "library_name", "model_name")] == ["mit", "moclip", "balls"]
    assert card.data.get("metrics") == ["accuracy"]
    fusion = json.loads((finished / "metrics/fusion.json").read_text())
    scores = {one.metric_name: one.metric_value for one in card.data.get("eval_results")}
    assert scores["top-1, fusion head"] == fusion["top1"]
    assert 'moclip.load("me/balls")' in card.text

    clips = [str(clip) for clip in sorted((finished / "data/demo/videos").rglob("*.avi"))[:2]]
    own = run("moclip", "predict", "--bundle", local, *clips, "--json", cwd=tmp_path)
    there = run("moclip", "predict", "--bundle", f"me/balls@{commit}", *clips, "--json", cwd=tmp_path, code=0, **writer)
    assert json.loads(there.stdout) == json.loads(own.stdout)
    asked = len(hub.requests)
    assert load([("me/balls", commit)], tmp_path, {}) == ["loaded"]
    assert len(hub.requests) == asked, "it is in the cache"


def test_a_push_replaces_an_earlier_bundle_and_nothing_else(
    local: Path, hub: Hub, online: dict[str, str], tmp_path: Path
) -> None:
    earlier = tmp_path / "earlier"
    shutil.copytree(local, earlier)
    for name in ("rejection.safetensors", "moclip.onnx", "clip/old.json", "LICENSE"):
        (earlier / name).write_text("of an earlier one")
    hub.branches["me/again"], hub.folders["me/again", "c" * 40] = {"main": "c" * 40}, earlier
    new = tmp_path / "new"
    shutil.copytree(local, new)
    (new / "rejection.safetensors").unlink()
    pushes = [
        (WRITER, "me/again", False),
        (READER, "me/again", False),
        ("hf_expired", "me/again", False),
        ("", "me/again", False),
        (WRITER, "you/again", False),
        (WRITER, "me/other", False),
        (WRITER, "me/again", True),
    ]
    done = run("python", "-c", PUSH, new, json.dumps(pushes), cwd=tmp_path, code=0, **online)
    commit, *refused = done.stdout.splitlines()
    names = files_below(hub.folders["me/again", commit])
    assert names == sorted([*files_below(new), "LICENSE"])
    assert hub.branches["me/again"] == {"main": commit}
    expected = (
        "the token has no right to this",
        "the hub does not accept the token",
        "no token of the hub",
        "the token has no right to this",
        "this repository holds another model",
        "this repository exists already, and everybody can read it",
    )
    for told, part in zip(refused, expected, strict=True):
        assert part in told
        assert " |  " in told, "what to do"
        assert "127.0.0.1" not in told


def test_a_branch_is_made_and_loaded_by_its_name(
    finished: Path, hub: Hub, online: dict[str, str], tmp_path: Path
) -> None:
    given = online | {"HF_TOKEN": WRITER}
    push = ("--push", "me/branched@v2", "--licence", "other")
    run("moclip", "export", tmp_path / "own", *push, cwd=finished, code=0, **given)
    assert set(hub.branches["me/branched"]) == {"main", "v2"}
    assert files_below(hub.folders["me/branched", hub.branches["me/branched"]["main"]]) == [".gitattributes"]
    places: list[tuple[str, str | None]] = [("me/branched@v2", None), ("me/branched", "v2"), ("me/branched", None)]
    first, second, third = load(places, tmp_path, given)
    assert (first, second) == ("loaded", "loaded")
    assert "this repository of the hub holds no bundle of moclip: it has no config.json, mv_tsn.safetensors" in third


def test_what_cannot_be_loaded_is_told(local: Path, online: dict[str, str], tmp_path: Path) -> None:
    here = tmp_path / "work"
    shutil.copytree(local, here / "me/gated")
    places: list[tuple[str, str | None]] = [
        ("me/gated", None),
        ("me/gated", "v1"),
        ("me/closed", None),
        ("me/none", None),
        ("me/bundle@v9", None),
        ("me/other", None),
        ("me/bundle@v9", "v8"),
        ("a/b/c", "v1"),
    ]
    found = load(places, here, online)
    assert found[0] == "loaded", "a local folder of that name comes first"
    for told, part in zip(
        found[1:],
        (
            "a local folder has no revisions",
            "its makers ask for your consent first",
            "me/none: no such folder, and loading it from the hub failed: the hub has no such model, or it is private",
            "the hub has no such revision",
            "it has no mv_tsn.safetensors, fusion.safetensors",
            "it names a revision twice",
            "not an id of the hub",
        ),
        strict=True,
    ):
        assert part in told
        assert " |  " in told, "what to do"


def test_an_interrupted_download_is_told_and_goes_on(hub: Hub, online: dict[str, str], tmp_path: Path) -> None:
    hub.cut = True
    try:
        (told,) = load([("me/bundle", None)], tmp_path, online)
    finally:
        hub.cut = False
    assert re.search("me/bundle: .*(broke off|interrupted|[Cc]onsistency)", told)
    with nobody_there(hub):
        (told,) = load([("me/bundle", None)], tmp_path, online)
    assert re.search("interrupted|not in the hub's cache, and the hub does not answer|it has no ", told)
    assert load([("me/bundle", None)], tmp_path, online) == ["loaded"]


def test_what_is_missing_on_the_command_line_is_told(finished: Path, hub: Hub, online: dict[str, str]) -> None:
    for words, told in (
        ((), "name a folder, or a repository of the hub with --push"),
        (("own", "--private"), "--private is for a repository of the hub"),
        (("own", "--licence", "no such"), "'no such' is no name of a licence"),
        (("--push", "balls"), "name it OWNER/NAME"),
        (("--push", "me/balls"), "HF_HUB_OFFLINE is set"),
    ):
        assert told in run("moclip", "export", *words, cwd=finished, code=1).stderr
    given = online | {"HF_TOKEN": WRITER}
    with nobody_there(hub):
        told = run("moclip", "export", "--push", "me/balls", "--licence", "mit", cwd=finished, code=1, **given).stderr
    assert "me/balls: cannot push: the connection to the hub broke off, or there is none" in told
    told = run("moclip", "export", "--push", "me/new", cwd=finished, code=1, **given).stderr
    assert "a model on the hub needs a licence" in told
    assert "--licence" in told
    assert "me/new" not in hub.branches


def test_the_example_program_of_a_bundle_runs(local: Path, finished: Path, tmp_path: Path) -> None:
    clip = sorted((finished / "data/demo/videos").rglob("*.avi"))[0]
    done = run(
        "python", local / "inference.py", clip, tmp_path / "none.mp4", cwd=tmp_path, PYTHONPATH=str(ROOT / "src")
    )
    answer = run("moclip", "predict", "--bundle", local, clip, "--json", cwd=tmp_path)
    (found,) = json.loads(answer.stdout)
    best = found[found["trusted"]][0]
    assert done.stdout.splitlines()[1] == f"  {best['probability']:.3f}  {best['class']}"
    assert "none.mp4" in done.stderr
