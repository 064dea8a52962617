"""`moclip new` and `moclip train`: a project of one's own, whose stages run from a moclip installed from its wheel."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from moclip.errors import MoclipError
from pipeline.code_digests import code_digests, in_repository, stages_with_other_code
from pipeline.dag import STAGES
from pipeline.estimate.stale import following
from pipeline.new_project import clip_source, make_project
from pipeline.repro import _Filter
from pipeline.whole_progress import WholeProgress
from tests.clips import encode, moving_texture
from tests.conftest import ROOT, SMALL, commit, run, run_fresh
from tests.test_dag import ran

SOURCES = ("pyproject.toml", "README.md", "LICENSE", "pipeline", "stages", "src")
TEMPLATES = ROOT / "pipeline/templates"
CODE = "data/code.json"


# ------------------------------------------------------------------------------------------------ what is shared


def make_clips(root: Path, clips: int = 10) -> Path:
    """Two classes of small clips, whose textures move to the left or to the right."""
    for label, dx in (("Left", -3.0), ("Right", 3.0)):
        (root / label).mkdir(parents=True)
        for number in range(clips):
            film = moving_texture(8, (48, 64), (dx, 0.5), seed=number)
            encode(root / label / f"clip_g{number:02d}_c01.avi", film)
    return root


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clips(tmp_path_factory.mktemp("own") / "my clips")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this repository."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(ROOT / name, source / name)
    pip = ("python", "-m", "pip", "--disable-pip-version-check")
    run_fresh(*pip, "wheel", ".", "--no-deps", "--no-build-isolation", "-q", "-w", out, cwd=source)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the wheel is installed, with a preset that trains in a second."""
    folder = tmp_path_factory.mktemp("installed") / "site"
    pip = ("python", "-m", "pip", "--disable-pip-version-check")
    run_fresh(*pip, "install", "-q", "--no-deps", "--target", folder, wheel, cwd=wheel.parent)
    preset = folder / "pipeline/presets/folder.yaml"
    values = yaml.safe_load(preset.read_text())
    for key, value in SMALL.items():
        group, name = key.split(".")
        values.setdefault(group, {})[name] = value
    values["tsn"] |= {"min_steps": 0, "stack": 1}
    values["embed"]["batch"] = 16
    values["report"]["clips"] = 1
    preset.write_text(yaml.safe_dump(values))
    return folder


@pytest.fixture
def installed(site: Path, tmp_path: Path) -> Path:
    """A copy of what is installed, for a test to change."""
    folder = tmp_path / "site"
    shutil.copytree(site, folder)
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty folder to work in."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def new(folder: str | Path, *options: str | Path, cwd: Path, code: int = 0, **env: str) -> str:
    """Run `moclip new`; what it prints."""
    done = run("moclip", "new", folder, *options, cwd=cwd, code=code, **env)
    return done.stderr if code else done.stdout


def params_of(project: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((project / "params.yaml").read_text()))


def stages_in(dvc_yaml: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(dvc_yaml.read_text())["stages"])


# ------------------------------------------------------------------------------------------------- its dvc.yaml


def test_the_template_differs_from_dvc_yaml_in_the_stage_code_alone() -> None:
    own, template = stages_in(ROOT / "dvc.yaml"), stages_in(TEMPLATES / "stages.yaml")
    assert list(template) == list(own) == ["code", *STAGES]
    code = {"cmd": "python -m stages.code", "outs": [{CODE: {"cache": False}}]}
    assert template.pop("code") == code | {"always_changed": True}
    assert own.pop("code") == code | {"deps": ["pipeline", "src/moclip", "stages"]}
    assert template == own
    plots = [yaml.safe_load(path.read_text())["plots"] for path in (ROOT / "dvc.yaml", TEMPLATES / "stages.yaml")]
    assert plots[0] == plots[1]


def test_a_digest_is_of_the_files_that_the_stage_uses() -> None:
    found = code_digests()
    assert list(found) == list(STAGES)
    for name, files in json.loads((TEMPLATES / "code_of_stages.json").read_text()).items():
        digest = hashlib.sha256()
        for file in files:
            content = (ROOT / "src" / file if file.startswith("moclip/") else ROOT / file).read_bytes()
            digest.update(f"{file} {len(content)}\n".encode() + content)
        assert found[name] == digest.hexdigest()[:16]
    assert len(set(found.values())) == len(found)


def test_the_template_has_the_files_that_stages_read_from_the_folder() -> None:
    for file in (path for path in (TEMPLATES / "data").rglob("*") if path.is_file()):
        assert file.read_text() == (ROOT / file.relative_to(TEMPLATES)).read_text()
    outs = {
        next(iter(out)) if isinstance(out, dict) else out
        for stage in stages_in(ROOT / "dvc.yaml").values()
        for out in (*stage["outs"], *stage.get("metrics", ()))
    }
    read = {path for stage in stages_in(TEMPLATES / "stages.yaml").values() for path in stage.get("deps", ())}
    for path in {path for path in read if not path.startswith("${")} - outs:
        assert any(out.startswith(f"{path}/") for out in outs) or (TEMPLATES / path).exists(), path


# -------------------------------------------------------------------------------------------------------- new


def test_new_makes_a_whole_project_and_commits_it(clips: Path, home: Path) -> None:
    relative = os.path.relpath(clips, home)
    printed = new("deep/pro ject", "--clips", relative, cwd=home)
    assert "a project for 20 clips of 2 classes" in printed
    project = home / "deep/pro ject"
    dataset = params_of(project)["dataset"]
    assert dataset["root"] == dataset["splits"] == str(clips), "absolute: it is not relative to the caller's folder"
    assert run("git", "status", "--porcelain", cwd=project).stdout == ""
    assert len(run("git", "log", "--format=%h", cwd=project).stdout.split()) == 1
    tracked = set(run("git", "-c", "core.quotePath=false", "ls-files", cwd=project).stdout.splitlines())
    assert tracked >= {"dvc.yaml", "params.yaml", "README.md", ".gitignore", ".dvcignore", CODE, "data/none"}
    assert (project / "README.md").read_text().startswith("# pro ject\n")
    assert json.loads((project / CODE).read_text()) == code_digests()
    status = run("dvc", "status", "--json", cwd=project).stdout
    assert set(json.loads(status)) == {"code", *STAGES}, "DVC reads dvc.yaml, and nothing has run"


def test_each_cached_output_is_ignored_by_git(clips: Path, home: Path) -> None:
    new("p", "--clips", clips, cwd=home)
    outs = [out for stage in stages_in(home / "p/dvc.yaml").values() for out in stage["outs"]]
    cached = [
        name
        for out in outs
        for name, options in (out.items() if isinstance(out, dict) else [(out, {})])
        if options.get("cache", True)
    ]
    assert len(cached) > 10
    ignored = run("git", "check-ignore", "--no-index", *(f"{name}/x" for name in cached), cwd=home / "p")
    assert len(ignored.stdout.splitlines()) == len(cached)


def test_new_for_a_table_of_clips_with_an_encoder(clips: Path, home: Path) -> None:
    lines = [f"{path.relative_to(clips)},{path.parent.name}" for path in sorted(clips.rglob("*.avi"))]
    (home / "table.csv").write_text("\n".join(["path,label", *lines]))
    (home / "encoder").mkdir()
    new("p", "--manifest", "table.csv", "--clips", clips, "--clip", "encoder", cwd=home)
    params = params_of(home / "p")
    assert params["dataset"]["manifest"] == str(home / "table.csv")
    assert params["dataset"]["splits"] == "data/none"
    assert params["clip"]["model"] == params["clip"]["files"] == str(home / "encoder")


def test_where_no_project_can_be_nothing_is_left(clips: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    (home / "full").mkdir()
    (home / "full/mine.txt").write_text("mine")
    (home / "empty").mkdir()
    (home / "table.csv").write_text("path,label\na.avi,A\n")
    root = str(clips)
    for folder, given, expected_text in (
        ("full", {"clips": root}, "full: exists, and is not empty"),
        ("p", {}, "which clips?"),
        ("p", {"clips": "nowhere"}, "nowhere: no such folder\n  --clips takes"),
        ("p", {"clips": "empty"}, "no clips found"),
        ("empty", {"clips": str(clips / "Left")}, "no clips found"),
        ("p", {"clips": root, "preset": "foldr"}, "no such preset"),
        ("p", {"clips": root, "preset": "demo"}, "make demo"),
        ("p", {"clips": root, "encoder": "no/such/model"}, "no such folder, and no name of a model"),
        ("p", {"clips": "."}, "lies in the folder of the clips"),
        ("{p}", {"clips": root}, "DVC cannot run in a folder with { or } in its path\n  name another folder"),
        ("p", {"manifest": "table.csv"}, "the paths in the table are relative to: --clips DIR"),
        ("p", {"manifest": "none.csv", "clips": root}, "no table of clips"),
        ("p", {"manifest": "none.csv"}, "no table of clips"),
        ("table.csv/p", {"clips": root}, "table.csv/p: no folder can be made here: Not a directory"),
        ("p" * 300, {"clips": root}, "no folder can be made here: File name too long"),
    ):
        names = dict.fromkeys(("clips", "manifest", "splits", "encoder")) | {"preset": "folder"} | given
        with pytest.raises(MoclipError, match=re.escape(expected_text)):
            make_project(Path(folder), clip_source(**names))  # type: ignore[arg-type]
        assert sorted(path.name for path in home.iterdir()) == ["empty", "full", "table.csv"], given
        assert not list((home / "empty").iterdir())
    assert (home / "full/mine.txt").read_text() == "mine"
    assert new("full", "--clips", clips, cwd=home, code=1) == (
        "error: full: exists, and is not empty\n  name a new folder\n"
    )
    assert "`moclip new` did not make a project here" in new("p", "--update", cwd=home, code=1)


def test_without_a_name_for_git_the_project_is_committed_as_moclip(clips: Path, home: Path) -> None:
    unknown: dict[str, Any] = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "user.useConfigOnly",
        "GIT_CONFIG_VALUE_0": "true",
        **{f"GIT_{who}_{what}": "" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    printed = new("p", "--clips", clips, cwd=home, **unknown)
    assert "committed as `moclip`, because git does not know your name" in printed
    assert run("git", "log", "--format=%an %s", cwd=home / "p").stdout == "moclip Project made by moclip new\n"


def test_a_training_in_a_repository_without_a_commit_says_so(project: Path) -> None:
    shutil.rmtree(project / ".git")
    run("git", "init", "-q", cwd=project)
    error = run("python", "-m", "stages.train_fusion", "--fusion-epochs", "1", cwd=project, code=1).stderr
    assert "DVCLive cannot use this git repository" in error
    assert error.endswith("\n  run: git add -A; git commit -m start\n")


def test_a_table_of_clips_without_folders_makes_a_project(clips: Path, home: Path) -> None:
    (home / "flat").mkdir()
    rows = ["path,label"]
    for number, clip in enumerate(sorted(clips.rglob("*.avi"))[:8]):
        shutil.copy(clip, home / "flat" / f"{number}.avi")
        rows.append(f"{number}.avi,class {number % 2}")
    (home / "flat.csv").write_text("\n".join(rows) + "\n")
    printed = new("p", "--manifest", "flat.csv", "--clips", "flat", cwd=home)
    assert printed.splitlines()[0].endswith("p: a project for 8 clips of 2 classes")
    assert run("git", "log", "--format=%s", cwd=home / "p").stdout == "Project made by moclip new\n"


def test_a_folder_may_begin_with_a_tilde(clips: Path, home: Path) -> None:
    shutil.copytree(clips, home / "~clips")
    assert "p: a project for" in new("p", "--clips", "./~clips", cwd=home)
    run("moclip", "use", "folder", "--root", "./~clips", "--force", cwd=home / "p", code=1)
    run("moclip", "use", "folder", "--root", "../~clips", "--force", cwd=home / "p")
    assert yaml.safe_load((home / "p/params.yaml").read_text())["dataset"]["root"].endswith("~clips")


def test_update_brings_a_project_up_to_the_installed_version(clips: Path, home: Path) -> None:
    new("p", "--clips", clips, cwd=home)
    project = home / "p"
    current = (project / "dvc.yaml").read_text()
    assert run("python", "-m", "stages.code", cwd=project).stdout == ""
    (project / "dvc.yaml").write_text(re.sub(r"stages \w+\n", "stages 00000000\n", current, count=1))
    params = (project / "params.yaml").read_text()
    without_key = re.sub(r"^  lr: .*\n", "", params.replace("seed: 0 ", "seed: 5 "), flags=re.MULTILINE)
    (project / "params.yaml").write_text(without_key)
    done = run("dvc", "repro", cwd=project, code=None)
    assert done.returncode != 0
    assert "dvc.yaml: made with moclip" in done.stderr
    assert "moclip new . --update" in done.stderr
    assert "moclip new . --update" in run("moclip", "doctor", cwd=project, code=1).stdout
    printed = new(".", "--update", cwd=project)
    assert "dvc.yaml written; the old one is dvc.yaml.bak" in printed
    assert (project / "dvc.yaml").read_text() == current
    assert params_of(project)["seed"] == 5
    assert {"lr"} <= params_of(project)["fusion"].keys() & params_of(project)["tsn"].keys()
    run("python", "-m", "stages.code", cwd=project)
    assert new(".", "--update", cwd=project) == ".: up to date\n"


def test_the_stage_code_needs_a_project(home: Path) -> None:
    done = run("python", "-m", "stages.code", cwd=home, code=1)
    assert "error: dvc.yaml: `moclip new` did not make this project" in done.stderr
    assert not list(home.iterdir())


@pytest.mark.parametrize("text", ["", "[]", "stages:", "stages:\n  index:", "<<<<<<< HEAD\nstages: {}", "\xff"])
def test_a_damaged_dvc_lock_is_told(home: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(home)
    (home / "data").mkdir()
    (home / CODE).write_text("{}")
    (home / "dvc.lock").write_text(text, encoding="latin-1")
    with pytest.raises(MoclipError, match=r"dvc\.lock: it is damaged\n  restore it: git checkout dvc\.lock"):
        stages_with_other_code()


def test_a_listed_file_that_is_gone_is_told(project: Path) -> None:
    (project / "src/moclip/motion/windows.py").rename(project / "src/moclip/motion/window.py")
    done = run("python", "-m", "stages.code", cwd=project, code=1)
    assert "error: moclip/motion/windows.py: no such file, but" in done.stderr
    assert done.stderr.endswith("make sync\n")
    (project / "pipeline/templates/code_of_stages.json").write_text("<<<<<<< HEAD")
    done = run("python", "-m", "stages.code", cwd=project, code=1)
    assert "code_of_stages.json: it is damaged\n  run: make sync" in done.stderr


def test_a_damaged_file_of_digests_is_written_anew(project: Path) -> None:
    right = (project / CODE).read_bytes()
    (project / CODE).write_bytes(b"\xff<<<<<<<")
    done = run("moclip", "estimate", cwd=project, code=1)
    assert f"error: {CODE}: it is damaged\n  run: dvc repro code" in done.stderr
    run("dvc", "repro", "code", cwd=project)
    assert (project / CODE).read_bytes() == right


def test_a_project_may_have_stages_of_its_own(clips: Path, home: Path) -> None:
    new("p", "--clips", clips, cwd=home)
    (home / "p/stages").mkdir()
    (home / "p/stages/code.py").touch()
    with contextlib.chdir(home / "p"):
        assert not in_repository()


def test_what_a_stage_kept_is_of_other_code_if_dvc_lock_says_so(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    (home / "data").mkdir()
    lock = {"stages": {name: {"params": {CODE: {name: digest}}} for name, digest in code_digests().items()}}
    lock["stages"]["clip_image"]["params"][CODE]["clip_image"] = "0" * 16
    del lock["stages"]["report"]
    (home / "dvc.lock").write_text(yaml.safe_dump(lock))
    assert stages_with_other_code() == set(), "the stage `code` has never run"
    (home / CODE).write_text("{}")
    assert stages_with_other_code() == {"clip_image"}
    (home / "dvc.lock").unlink()
    assert stages_with_other_code() == set(), "nothing has run"


def test_train_refuses_a_project_for_other_clips(clips: Path, home: Path) -> None:
    new("p", "--clips", clips, cwd=home)
    others = make_clips(home / "others", clips=1)
    done = run("moclip", "train", others, "--out", "p", cwd=home, code=1)
    assert f'p: a project with dataset.root: "{clips}", not "{others}"' in done.stderr
    done = run("moclip", "train", clips, "--out", "p", "--clip", "some/model", cwd=home, code=1)
    assert 'clip.model: false, not "some/model"' in done.stderr
    assert "leave --clips out" in run("moclip", "train", clips, "--clips", clips, cwd=home, code=1).stderr
    clip = next(clips.rglob("*.avi"))
    refused = run("moclip", "train", clip, cwd=home, code=1).stderr
    assert f"{clip}: one clip, not a folder of clips\n  name the folder" in refused
    refused = run("moclip", "new", "one", "--clips", clips.parent, cwd=home, code=1).stderr
    assert "which holds the folders" in refused


# ----------------------------------------------------------------------------------- what `train` shows of DVC


def test_dvcs_messages_become_a_line_per_stage() -> None:
    output = """Running stage 'code':
> python -m stages.code

Stage 'transcode' didn't change, skipping
Running stage 'index':
> python -m stages.index
index: 2 of 2 clips usable

  a table of its own
Updating lock file 'dvc.lock'

Running stage 'evaluate':
> python -m stages.evaluate
the results, printed later
Updating lock file 'dvc.lock'

To track the changes with git, run:

	git add dvc.lock
"""
    shown = list(_Filter(WholeProgress({})).lines(iter(output.splitlines(keepends=True))))
    assert shown == [
        "stage 1 of 13: transcode: up to date",
        "stage 2 of 13: index",
        "index: 2 of 2 clips usable",
        "",
        "  a table of its own",
        "stage 3 of 13: evaluate",
    ]


# ------------------------------------------------------------------------------------------ an installed moclip


@pytest.mark.slow
def test_train_predict_and_experiments_with_an_installed_moclip(installed: Path, clips: Path, home: Path) -> None:
    env: dict[str, Any] = {"PYTHONPATH": str(installed)}
    places = "import moclip, pipeline, stages; print(moclip.__file__, pipeline.__file__, stages.__file__)"
    found = run_fresh("python", "-c", places, cwd=home, **env).stdout.split()
    assert all(Path(path).is_relative_to(installed) for path in found)
    done = run("moclip", "train", clips, cwd=home, **env)
    project = home / "my clips-moclip"
    lines = [line for line in done.stdout.splitlines() if line.startswith("stage ")]
    found_in_lines = re.findall(r"^stage \d+ of 13: (\w+) \((\d+) % of the time so far\)$", "\n".join(lines), re.M)
    shares = [int(share) for _, share in found_in_lines]
    assert [name for name, _ in found_in_lines] == list(STAGES)
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert 50 < shares[-1] < 100
    assert re.search(r"^dvc repro takes about \d+ s \(\d+ s to \d+ s\) and \d", done.stdout, re.MULTILINE)
    assert done.stdout.count("test split:") == 1
    assert re.findall(r"^.*(?:dvc|Running stage).*$", done.stdout, re.MULTILINE) == [
        next(line for line in done.stdout.splitlines() if line.startswith("dvc repro takes")),
        next(line for line in done.stdout.splitlines() if "dvc exp run" in line),
    ], "nothing of DVC's own"
    assert done.stdout.count(f"open in a browser: {project}/data/report/index.html") == 1
    assert (project / "data/report/index.html").exists()
    assert run("git", "status", "--porcelain", cwd=project).stdout == "", "the results are committed"
    steps = done.stdout[done.stdout.index("\nnext: ") :].removeprefix("\nnext: ").splitlines()
    assert [" ".join(step.split()[:2]) for step in steps] == ["cd 'my", "moclip predict", "moclip advise", "dvc exp"]
    predicted = run("bash", "-c", " && ".join(steps[:2]), cwd=home, **env).stdout
    assert "which action?" in predicted
    again = run("moclip", "train", clips, cwd=home, **env)
    assert re.findall(r"^stage \d+ of 13: (\w+): up to date$", again.stdout, re.MULTILINE) == list(STAGES)
    assert "continuing it" in again.stdout
    assert "dvc repro has nothing to do: all stages are up to date" in again.stdout

    check_sweep(project, installed)
    check_second_project(home, clips, project, installed)


def check_sweep(project: Path, installed: Path) -> None:
    """A sweep runs the head alone, in a copy of the project; its run is done until the code of a stage changes."""
    env: dict[str, Any] = {"PYTHONPATH": str(installed)}
    sweep = ("moclip", "sweep", "fusion.lr=1e-4", "--dataset-seeds", "[0]", "--name", "lr")
    assert "1 run, 0 done, 1 to go" in run(*sweep, cwd=project, **env).stdout
    assert "1 run, 1 done, 0 to go" in run(*sweep, "--dry", cwd=project, **env).stdout
    head = installed / "moclip/models/heads/concat.py"
    code = head.read_text()
    head.write_text(code + "# edited\n")
    assert "1 run, 0 done, 1 to go" in run(*sweep, "--dry", cwd=project, **env).stdout
    head.write_text(code)
    assert "1 run, 1 done, 0 to go" in run(*sweep, "--dry", cwd=project, **env).stdout
    (name,) = run("git", "for-each-ref", "--format=%(refname:lstrip=4)", "refs/exps", cwd=project).stdout.split()
    before = yaml.safe_load((project / "dvc.lock").read_text())["stages"]
    run("dvc", "exp", "apply", name, cwd=project, **env)
    after = yaml.safe_load((project / "dvc.lock").read_text())["stages"]
    assert [stage for stage in STAGES if after[stage] != before[stage]] == ["train_fusion", "evaluate", "report"]
    assert "fusion.lr" in run("dvc", "params", "diff", cwd=project, **env).stdout
    assert "metrics/summary.json" in run("dvc", "metrics", "diff", "--all", cwd=project, **env).stdout


def check_second_project(home: Path, clips: Path, first: Path, installed: Path) -> None:
    """Another project with the same moclip is independent of the first."""
    before = run("git", "rev-parse", "HEAD", cwd=first).stdout
    env: dict[str, Any] = {"PYTHONPATH": str(installed)}
    new("second", "--clips", clips, cwd=home, **env)
    assert ran(run("dvc", "repro", "index", cwd=home / "second", **env).stdout) == ["code", "transcode", "index"]
    assert run("git", "rev-parse", "HEAD", cwd=first).stdout == before
    assert (home / "second/data/index.parquet").read_bytes() == (first / "data/index.parquet").read_bytes()


@pytest.fixture(scope="module")
def after_extraction(site: Path, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project after `extract_mv`."""
    folder = tmp_path_factory.mktemp("extracted")
    env: dict[str, Any] = {"PYTHONPATH": str(site)}
    new("p", "--clips", clips, cwd=folder, **env)
    run("dvc", "repro", "extract_mv", cwd=folder / "p", **env)
    commit(folder / "p")
    return folder / "p"


@pytest.fixture
def extracted(after_extraction: Path, home: Path) -> Path:
    """A copy of the project after `extract_mv`, for a test to change."""
    return shutil.copytree(after_extraction, home / "p", symlinks=True)


def stale(project: Path, installed: Path) -> set[str]:
    """The stages whose own code DVC takes for changed, after the stage `code` has run."""
    env: dict[str, Any] = {"PYTHONPATH": str(installed)}
    run_fresh("python", "-m", "stages.code", cwd=project, **env)  # a warm one may have another moclip than this one
    recorded = yaml.safe_load((project / "dvc.lock").read_text())["stages"]
    current = json.loads((project / CODE).read_text())
    status = json.loads(run("dvc", "status", "--json", cwd=project).stdout)
    by_dvc = {name for name in status if CODE in json.dumps(status[name]) and name != "code" and name in recorded}
    changed = {name for name in recorded if name != "code" and recorded[name]["params"][CODE][name] != current[name]}
    assert by_dvc == changed
    return {name for name, digest in current.items() if digest != code_digests()[name]}


def fields(project: Path) -> bytes:
    """The bytes of all motion fields."""
    return b"".join(
        path.read_bytes() for path in sorted((project / "data/features/mv.zarr/field").rglob("*")) if path.is_file()
    )


@pytest.mark.slow
def test_changed_code_runs_the_stages_again_that_use_it(extracted: Path, installed: Path, tmp_path: Path) -> None:
    env: dict[str, Any] = {"PYTHONPATH": str(installed)}
    assert stale(extracted, installed) == set()
    for file, expected_stages in (
        ("moclip/motion/quantise.py", {"extract_mv", "report"}),
        ("moclip/models/heads/concat.py", {"train_fusion", "evaluate", "report"}),
        ("moclip/templates/report.html", {"report"}),
        ("pipeline/console/output.py", set()),
        ("moclip/data/index.py", {"index"}),
    ):
        code = (installed / file).read_bytes()
        (installed / file).write_bytes(code + b"\n")
        assert stale(extracted, installed) == expected_stages, file
        (installed / file).write_bytes(code)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(installed, elsewhere)
    for path in (*elsewhere.rglob("*.py"), *elsewhere.rglob("*.html")):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert stale(extracted, elsewhere) == set(), "neither the ends of lines nor the place count"

    before, source = fields(extracted), installed / "pipeline/field_source.py"
    source.write_text(source.read_text() + "# a comment\n")
    assert ran(run("dvc", "repro", "extract_mv", cwd=extracted, **env).stdout) == ["code", "extract_mv"]
    assert fields(extracted) == before, "what follows does not run again"
    quantise = installed / "moclip/motion/quantise.py"
    quantise.write_text(quantise.read_text().replace("(LEVELS / clip)", "(LEVELS / clip / 2)", 1))
    assert ran(run("dvc", "repro", "extract_mv", cwd=extracted, **env).stdout) == ["code", "extract_mv"]
    assert fields(extracted) != before, "what the store keeps is not of the earlier code"


@pytest.mark.slow
def test_two_projects_after_an_update_each_run_what_it_changed_once(extracted: Path, installed: Path) -> None:
    env: dict[str, Any] = {"PYTHONPATH": str(installed)}
    first, second = extracted, shutil.copytree(extracted, extracted.parent / "second", symlinks=True)
    before = fields(first)
    source, template = installed / "pipeline/field_source.py", installed / "pipeline/templates/stages.yaml"
    source.write_text(source.read_text().replace("mv.clip,", "mv.clip / 2,", 1))
    key = "      - report.clips\n"
    template.write_text(template.read_text().replace(key, f"{key}      - embed.batch\n", 1))
    for project in (first, second):
        refused = run("dvc", "repro", "extract_mv", cwd=project, code=None, **env)
        assert refused.returncode != 0
        assert "run: moclip new . --update" in refused.stderr
        assert "dvc.yaml written; the old one is dvc.yaml.bak" in new(".", "--update", cwd=project, **env)
        assert following(project / "dvc.yaml", {"extract_mv"}) == set(STAGES) - {
            "transcode",
            "index",
            "extract_mv",
            "clip_text",
            "clip_image",
        }
        assert stale(project, installed) == {"extract_mv"}
        assert ran(run("dvc", "repro", "extract_mv", cwd=project, **env).stdout) == ["code", "extract_mv"]
        assert fields(project) != before
        assert ran(run("dvc", "repro", "extract_mv", cwd=project, **env).stdout) == ["code"], "once"
    assert fields(first) == fields(second)


@pytest.mark.slow
def test_a_failing_stage_ends_train_with_its_own_message(installed: Path, clips: Path, home: Path) -> None:
    env: dict[str, Any] = {"PYTHONPATH": str(installed)}
    root = shutil.copytree(clips, home / "clips")
    for clip in root.rglob("*.avi"):
        clip.write_bytes(b"no video")
    done = run("moclip", "train", "clips", "--out", "p", cwd=home, code=1, **env)
    assert "stage 2 of 13: index" in done.stdout
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-2:] == [
        "error: p: the stage index failed; the message is above",
        "  when it is solved, run the same command again: it continues there",
    ]
    shutil.rmtree(root)
    shutil.copytree(clips, root)
    assert ran(run("dvc", "repro", "index", cwd=home / "p", **env).stdout) == ["code", "transcode", "index"]
