"""Trained models travel through the hub: what is pushed answers like the local bundle, and every refusal is told."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from tests.conftest import ROOT, run, run_fresh
from tests.hub_server import READER, WRITER, Hub, files_below, serve

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
    """A hub that has a bundle, one that needs consent, and another model."""
    other = tmp_path_factory.mktemp("other")
    (other / "config.json").write_text("{}")
    models = {"me/bundle": local, "me/gated": local, "me/closed": local, "me/other": other}
    every = {name: {"main": folder} for name, folder in models.items()}
    with serve(Hub(every, frozenset(["me/gated", "me/closed"]), tmp_path_factory.mktemp("storage"))) as server:
        yield server


def at(hub: Hub | None, home: Path, **more: str) -> dict[str, str]:
    """The environment of a machine whose cache of the hub is in `home`."""
    given = {"HF_HUB_OFFLINE": "0", "HF_HOME": str(home), "HF_ENDPOINT": hub.url if hub else "http://127.0.0.1:9"}
    return given | {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "5", "HF_HUB_ETAG_TIMEOUT": "5"} | more


def load(places: list[tuple[str, str | None]], cwd: Path, environment: dict[str, str]) -> list[str]:
    return run_fresh(sys.executable, "-c", LOAD, json.dumps(places), cwd=cwd, code=0, **environment).stdout.splitlines()


def test_what_is_pushed_answers_like_the_local_bundle(finished: Path, local: Path, hub: Hub, tmp_path: Path) -> None:
    writer = at(hub, tmp_path / "writer", HF_TOKEN=WRITER)
    pushed = run(
        "moclip", "export", "--push", "me/balls", "--licence", "MIT", "--private", cwd=finished, code=0, **writer
    )
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
    offline = at(hub, tmp_path / "writer", HF_HUB_OFFLINE="1")
    assert load([("me/balls", commit)], tmp_path, offline) == ["loaded"]
    assert len(hub.requests) == asked, "it is in the cache"


def test_a_push_replaces_an_earlier_bundle_and_nothing_else(local: Path, hub: Hub, tmp_path: Path) -> None:
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
    given = at(hub, tmp_path / "hub")
    done = run_fresh(sys.executable, "-c", PUSH, new, json.dumps(pushes), cwd=tmp_path, code=0, **given)
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


def test_a_branch_is_made_and_loaded_by_its_name(finished: Path, hub: Hub, tmp_path: Path) -> None:
    given = at(hub, tmp_path / "hub", HF_TOKEN=WRITER)
    run(
        "moclip",
        "export",
        tmp_path / "own",
        "--push",
        "me/branched@v2",
        "--licence",
        "other",
        cwd=finished,
        code=0,
        **given,
    )
    assert set(hub.branches["me/branched"]) == {"main", "v2"}
    assert files_below(hub.folders["me/branched", hub.branches["me/branched"]["main"]]) == [".gitattributes"]
    places: list[tuple[str, str | None]] = [("me/branched@v2", None), ("me/branched", "v2"), ("me/branched", None)]
    first, second, third = load(places, tmp_path, given)
    assert (first, second) == ("loaded", "loaded")
    assert "this repository of the hub holds no bundle of moclip: it has no config.json, mv_tsn.safetensors" in third


def test_what_cannot_be_loaded_is_told(local: Path, hub: Hub, tmp_path: Path) -> None:
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
    found = load(places, here, at(hub, tmp_path / "hub"))
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


def test_an_interrupted_download_is_told_and_goes_on(hub: Hub, tmp_path: Path) -> None:
    hub.cut = True
    try:
        (told,) = load([("me/bundle", None)], tmp_path, at(hub, tmp_path / "hub"))
    finally:
        hub.cut = False
    assert re.search("me/bundle: .*(broke off|interrupted|[Cc]onsistency)", told)
    (told,) = load([("me/bundle", None)], tmp_path, at(None, tmp_path / "hub"))
    assert re.search("interrupted|not in the hub's cache, and the hub does not answer|it has no ", told)
    assert load([("me/bundle", None)], tmp_path, at(hub, tmp_path / "hub")) == ["loaded"]


def test_what_is_missing_on_the_command_line_is_told(finished: Path, hub: Hub, tmp_path: Path) -> None:
    for words, told in (
        ((), "name a folder, or a repository of the hub with --push"),
        (("own", "--private"), "--private is for a repository of the hub"),
        (("own", "--licence", "no such"), "'no such' is no name of a licence"),
        (("--push", "balls"), "name it OWNER/NAME"),
        (("--push", "me/balls"), "HF_HUB_OFFLINE is set"),
    ):
        assert told in run("moclip", "export", *words, cwd=finished, code=1).stderr
    given = at(None, tmp_path, HF_TOKEN=WRITER)
    told = run("moclip", "export", "--push", "me/balls", "--licence", "mit", cwd=finished, code=1, **given).stderr
    assert "me/balls: cannot push: the connection to the hub broke off, or there is none" in told
    given = at(hub, tmp_path, HF_TOKEN=WRITER)
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
