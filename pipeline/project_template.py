"""What `make sync` writes into pipeline/templates: what `moclip new` needs of the files in this repository."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import paths

if TYPE_CHECKING:
    from ruamel.yaml import YAML

TEMPLATES = Path("pipeline/templates")
DATA_FILES = ("data/none", "data/prompts*.json", "data/classes/*.json")
"""Files that stages read from the project's folder."""

HEADING = """\
# The pipeline. A stage depends on every file and every key of params.yaml that can change what it writes, and on its
# own code, by the digest that the stage `code` writes.
stages:
  # runs each time, in a tenth of a second; the others run again only if their own digest has changed
  code:
    cmd: python -m stages.code
    always_changed: true
    outs:
      - {code}:
          cache: false

"""


def template_texts(dvc_yaml: str, yaml: YAML) -> dict[Path, str]:
    """Return the text of each generated template, from the text of this repository's dvc.yaml."""
    tree = yaml.load(dvc_yaml)
    data = [path for pattern in DATA_FILES for path in sorted(Path().glob(pattern))]
    return {
        TEMPLATES / "stages.yaml": _project_dvc_yaml(tree, yaml),
        **{TEMPLATES / path: path.read_text(encoding="utf-8") for path in data},
    }


def _project_dvc_yaml(tree: Any, yaml: YAML) -> str:
    """Return a project's dvc.yaml: its stage `code` runs each time, as a project has no code that DVC could watch."""
    del tree["stages"]["code"]
    out = io.StringIO()
    yaml.dump(tree, out)
    return HEADING.format(code=paths.CODE) + out.getvalue().partition("stages:\n")[2]
