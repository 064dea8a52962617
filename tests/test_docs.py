"""The code blocks of README and docs run as they stand, one after the other, in a project that has run once."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import pytest
import yaml
from nbclient import NotebookClient

from tests.conftest import ROOT, commit, run, set_keys, surroundings

NOTEBOOK = ROOT / "examples/quickstart.ipynb"
PAGES = [
    Path("README.md"),
    Path("CONTRIBUTING.md"),
    *(path.relative_to(ROOT) for path in sorted((ROOT / "docs").glob("*.md"))),
]
FEW_STEPS: dict[str, dict[str, Any]] = {
    "tsn": {"epochs": 2, "min_steps": 2, "batch": 8},
    "embed": {"views": 2, "batch": 16},
    "fusion": {"epochs": 4},
    "evaluate": {"protocol": "3x1"},
    "report": {"clips": 1},
}
"""What the reader's preset for clips of their own has in place of the product's, so that no stage takes long."""
FENCE = re.compile(r"^(?:<!-- not run: (?P<why>[^\n]+) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S)


class Block(NamedTuple):
    """A code block of a page; `why` is the reason why it is not run."""

    language: str
    code: str
    why: str | None


def blocks(page: Path) -> list[Block]:
    found = FENCE.finditer((ROOT / page).read_text(encoding="utf-8"))
    return [Block(one["language"], one["code"], one["why"]) for one in found]


def command(line: str) -> str:
    """A line of a block, without what it says of itself."""
    return line.partition("  #")[0].strip()


def runnable(page: Path) -> list[Block]:
    """The blocks to run: of other pages without the lines that README runs by itself."""
    to_run = [block for block in blocks(page) if block.language in ("bash", "python") and block.why is None]
    if page == PAGES[0]:
        return to_run
    before = {command(line) for block in runnable(PAGES[0]) for line in block.code.splitlines()}
    others = [[line for line in block.code.splitlines() if command(line) not in before | {""}] for block in to_run]
    return [block._replace(code="\n".join(lines)) for block, lines in zip(to_run, others, strict=True) if lines]


@pytest.fixture(scope="module")
def prepared(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project of somebody who reads: with clips of their own beside the demo's.

    Its preset for them trains a few steps.
    """
    project = tmp_path_factory.mktemp("prepared") / "project"
    shutil.copytree(finished, project, symlinks=True)
    preset = project / "pipeline/presets/folder.yaml"
    values = yaml.safe_load(preset.read_text())
    for group, few in FEW_STEPS.items():
        values.setdefault(group, {}).update(few)
    preset.write_text(yaml.safe_dump(values))
    shutil.copy(project / "params.yaml", preset.with_name("demo.yaml"))  # so that nothing in params.yaml is an edit
    for name, kind in (("running", "RedBallRising"), ("jumping", "RedBallFalling")):
        (project / "clips" / name).mkdir(parents=True)
        sources = sorted((project / "data/demo/videos").glob(f"{kind}/*"))
        assert sources, kind
        for number, clip in enumerate(sources):
            shutil.copy(clip, project / "clips" / name / f"whatever_g{number // 2 + 1:02d}_c{number % 2 + 1:02d}.avi")
    (project / ".gitignore").open("a").write("/clips\n/classes.csv\n")
    commit(project)
    return project


@pytest.fixture
def reader(prepared: Path, tmp_path: Path) -> Path:
    """A copy of the project for a page."""
    folder = tmp_path / "project"
    shutil.copytree(prepared, folder, symlinks=True)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)], ids=str)
def test_the_blocks_of_a_page_run(page: Path, reader: Path) -> None:
    presets = os.pathsep.join(filter(None, (str(reader), os.environ.get("PYTHONPATH"))))  # commands take the reader's
    params = reader / "params.yaml"
    unedited = params.read_text()
    for block in runnable(page):
        if "moclip use" in block.code:  # on a terminal it would ask whether to replace what an experiment has edited
            params.write_text(unedited)
        program = ["bash", "-euo", "pipefail", "-c"] if block.language == "bash" else ["python", "-c"]
        run(*program, block.code, cwd=reader, PYTHONPATH=presets)


@pytest.mark.slow
def test_the_notebook_goes_from_clips_to_a_prediction(
    reader: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_keys(reader / "pipeline/presets/folder.yaml", {"tsn.backbone": "test_resnet", "tsn.size": 32})
    (reader / "examples").mkdir()
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    environment = surroundings() | {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(reader), os.environ.get("PYTHONPATH")))),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # a kernel sets it before it imports matplotlib
    }
    python = shutil.which("python", path=environment["PATH"])
    kernel = {"argv": [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": "warm"}
    (tmp_path / "kernels/warm").mkdir(parents=True)
    (tmp_path / "kernels/warm/kernel.json").write_text(json.dumps(kernel))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(reader / "examples")}}
    NotebookClient(notebook, timeout=500, kernel_name="warm", resources=resources).execute(env=environment)
    printed, pictures = notebook_outputs(notebook)
    assert "RedBallFalling 9 clips\nRedBallRising 9 clips" in printed
    assert "MV-TSN, motion alone" in printed
    assert "beats always answering" in printed, "the verdict"
    assert printed.rstrip().splitlines()[-1].split()[2] in ("RedBallFalling", "RedBallRising"), "the table of answers"
    assert pictures == 2


def test_the_stored_notebook_is_small_and_names_no_folder_of_a_machine() -> None:
    """With results, as `jupyter execute --inplace` stores them, or without."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    executed = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert executed in ([None] * len(executed), list(range(1, len(executed) + 1)))
    assert NOTEBOOK.stat().st_size < 200_000
    assert not re.search(r"/(home|root|tmp|work)/", NOTEBOOK.read_text())


def notebook_outputs(notebook: nbformat.NotebookNode) -> tuple[str, int]:
    """Return all text that the cells printed or showed, and the number of pictures."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs]
    return "\n".join(texts), sum("image/png" in output.get("data", {}) for output in outputs)


def test_few_blocks_are_not_run_and_each_says_why() -> None:
    left_out = [block for page in PAGES for block in blocks(page) if block.language in ("bash", "python") and block.why]
    assert len(left_out) <= 8
    assert sum(len(runnable(page)) for page in PAGES) > 2 * len(left_out)


def test_links_and_pictures_lead_somewhere() -> None:
    for page in PAGES:
        text = FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if "://" in target:
                continue
            path, _, anchor = target.partition("#")
            file = (ROOT / page).parent / path if path else ROOT / page
            assert file.exists(), f"{page}: {target}"
            if anchor:
                heads = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
                named = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
                assert anchor in named, f"{page}: {target}"
