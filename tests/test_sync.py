"""`make sync` writes dvc.yaml's lists from the code; `--check` names what is out of date."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.common import copy_product
from pipeline.dag import STAGES
from tests.conftest import ROOT, commit, run, run_fresh


@pytest.fixture
def product(tmp_path: Path) -> Path:
    """A copy of the product's files, to change at will."""
    copy_product(tmp_path)
    for name in ("params.yaml", "docs/parameters.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def sync(folder: Path, *options: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    return run_fresh("python", "-m", "pipeline.sync", *options, cwd=folder, code=code, PYTHONPATH=str(folder / "src"))


def stages_of(folder: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((folder / "dvc.yaml").read_text())["stages"])


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_the_generated_files_are_current() -> None:
    run("python", "-m", "pipeline.sync", "--check", cwd=ROOT)


def code_of(folder: Path) -> dict[str, list[str]]:
    return dict(json.loads((folder / "pipeline/templates/code_of_stages.json").read_text()))


def test_dvc_yaml_has_the_stages_that_moclip_lists() -> None:
    assert list(stages_of(ROOT)) == ["code", *STAGES]
    assert list(code_of(ROOT)) == list(STAGES)


def test_a_template_that_a_stages_code_names_is_code_of_the_stage() -> None:
    templates = [path for path in (ROOT / "src/moclip/templates").iterdir() if path.suffix != ".py"]
    assert len(templates) > 10
    for stage, files in code_of(ROOT).items():
        places = [next(root / name for root in (ROOT, ROOT / "src") if (root / name).exists()) for name in files]
        text = "".join(path.read_text() for path in places)
        for template in templates:
            named = f'"{template.name}"' in text or f"'{template.name}'" in text
            assert named == (f"moclip/templates/{template.name}" in files), (stage, template.name)


def test_a_file_is_code_of_each_stage_that_imports_it_through_others(product: Path) -> None:
    (product / "pipeline/new_part.py").write_text('"""New."""\n')
    io = product / "pipeline/io.py"
    io.write_text(f"{io.read_text()}\n\ndef later() -> None:\n    from pipeline import new_part  # noqa: F401\n")
    (product / "pipeline/of_types.py").write_text('"""New."""\n')
    edit(io, "if TYPE_CHECKING:\n", "if TYPE_CHECKING:\n    from pipeline import of_types\n")
    assert "error: pipeline/templates/code_of_stages.json: out of date" in sync(product, "--check", code=1).stderr
    assert code_of(product) == code_of(ROOT), "--check writes nothing"
    sync(product)
    for name, files in code_of(product).items():
        assert "pipeline/new_part.py" in files, name
        assert files[0] == f"stages/{name}.py" not in files[1:]
        assert "pipeline/of_types.py" not in files, "imported for types alone"
    sync(product, "--check")


def test_what_is_written_by_hand_stays_in_dvc_yaml(product: Path) -> None:
    edit(product / "dvc.yaml", "      - data/index.parquet\n", "      - data/index.parquet\n      - data/more.json\n")
    before = (product / "dvc.yaml").read_text()
    edit(product / "dvc.yaml", "      - seed\n", "      - seed\n      - fusion.gone\n")
    sync(product)
    assert (product / "dvc.yaml").read_text() == before


def test_a_removed_unwatched_module_is_an_error(product: Path) -> None:
    edit(product / "pipeline/sync.py", '"pipeline.dag": ', '"pipeline.dagg": ')
    assert "no module pipeline.dagg" in sync(product, code=1).stderr


def test_a_new_parameter_is_a_line_in_the_model_and_a_word_in_the_stage(product: Path) -> None:
    run("git", "init", "-q", cwd=product)
    commit(product)
    edit(
        product / "pipeline/params.py",
        'class Fusion(Group):\n    """The fusion head on motion, picture and text features."""\n\n',
        'class Fusion(Group):\n    """The fusion head on motion, picture and text features."""\n\n'
        '    warmup: Whole = Field(default=5, ge=0, description="epochs of rising learning rate")\n',
    )
    edit(product / "stages/train_fusion.py", '"fusion.lr",', '"fusion.lr", "fusion.warmup",')
    commit(product)
    for preset in ("folder", "ucf101"):
        run("moclip", "use", preset, "--root", "src", cwd=product, PYTHONPATH=f"{product}:{product}/src")
        assert yaml.safe_load((product / "params.yaml").read_text())["fusion"]["warmup"] == 5
    run("git", "checkout", "-q", "params.yaml", cwd=product)
    sync(product)
    diff = run("git", "diff", "-U0", cwd=product).stdout
    added = [line for line in diff.splitlines() if line.startswith(("+", "-")) and "warmup" not in line]
    assert [line[6:] for line in added if line.startswith("+++")] == [
        "docs/parameters.md",
        "dvc.yaml",
        "params.yaml",
        "pipeline/templates/stages.yaml",
    ]
    assert [line for line in added if not line.startswith(("+++", "---"))] == []
    assert "fusion.warmup" in stages_of(product)["train_fusion"]["params"]
    assert yaml.safe_load((product / "params.yaml").read_text())["fusion"]["warmup"] == 5
    assert "| `fusion.warmup` | 5 |" in (product / "docs/parameters.md").read_text()


def test_values_and_heading_of_params_yaml_stay(product: Path) -> None:
    path = product / "params.yaml"
    path.write_text("# Mine.\n" + path.read_text().split("\n", 1)[1])
    edit(path, "seed: 0 ", "seed: 7 ")
    edit(path, "root: data/demo/videos ", "root: 'my: clips' ")
    sync(product)
    assert path.read_text().startswith("# Mine.\nseed: 7 ")
    values = yaml.safe_load(path.read_text())
    assert values["dataset"]["root"] == "my: clips"
    edit(path, "fusion:\n", "fusion:\n  lrr: 1\n")
    assert "did you mean fusion.lr?" in sync(product, code=1).stderr, "an unknown key is not dropped in silence"
