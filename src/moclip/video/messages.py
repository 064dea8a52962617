"""Texts that several error messages about videos share."""

from __future__ import annotations

from pathlib import Path


def error_text(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)


def recheck_fix(path: str | Path) -> str:
    return f"check that {Path(path).name} plays; copy it again if it was cut short"


def re_encode_fix(path: str | Path) -> str:
    name = Path(path).name
    return f"re-encode the file, for example: ffmpeg -i {name} -c:v mpeg4 -q:v 1 -g 12 -bf 0 out.avi"
