"""Texts that several error messages about videos share."""

from __future__ import annotations

import shlex
from pathlib import Path


def error_text(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)


def recheck_fix(path: str | Path) -> str:
    return f"check that {Path(path).name} plays; copy it again if it was cut short"


NO_VECTORS = "exports no motion vectors"
"""How the reason ends why a clip of another codec cannot be used. Stages look for it, to say what to do."""


def re_encode_fix(path: str | Path) -> str:
    return f"re-encode it: {ffmpeg_line(path, '-c:v mpeg4 -q:v 1 -g 12 -bf 0', '-mpeg4.avi')}"


def ffmpeg_line(path: str | Path, options: str, ending: str) -> str:
    """Return the command that writes a clip anew beside itself, for a shell."""
    source = str(path) if not str(path).startswith("-") else f"./{path}"
    return f"ffmpeg -i {shlex.quote(source)} {options} {shlex.quote(str(Path(source).with_suffix('')) + ending)}"
