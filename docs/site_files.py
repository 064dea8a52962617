"""Lays the site of `make docs` out as the repository, so that relative links work in both (see mkdocs.yml)."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

SHOWN = (
    "*.md",
    "LICENSE",
    "CITATION.cff",
    "docs/*.md",
    "docs/*.css",
    "docs/pictures/*",
    "examples/**/*.*",
    "benchmarks/results/**/*.*",
)
"""The pages, and what they link to."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called by mkdocs with the files of docs/ and of the theme: add those outside docs/, at their paths."""
    root = Path(config.config_file_path).parent
    theme = [file for file in files if not (file.abs_src_path or "").startswith(config.docs_dir)]
    paths = sorted({path for pattern in SHOWN for path in root.glob(pattern)})
    pages = [File.generated(config, path.relative_to(root).as_posix(), abs_src_path=str(path)) for path in paths]
    return Files([*theme, *pages])
