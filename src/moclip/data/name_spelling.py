"""Compare names without regard to case, encoding of accents, and suffix."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

from moclip.video.clip_files import VIDEO_SUFFIXES


def group_by(key: Callable[[str], str], names: Iterable[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return groups


def name_stem(clip: str) -> str:
    return PurePosixPath(clip).with_suffix("").as_posix()


def without_suffix(listed: str) -> str:
    """Return a listed name without its video suffix; any other dot belongs to the name."""
    suffix = PurePosixPath(listed).suffix.lower()
    return name_stem(listed) if suffix in VIDEO_SUFFIXES else listed


def fold_name(name: str) -> str:
    """Return the form of a name that ignores upper and lower case and how accents are encoded."""
    return unicodedata.normalize("NFC", name).casefold()


def unambiguous(names: Iterable[str]) -> dict[str, str]:
    """Map each folded name to its name; names that share a folded form are left out."""
    return {folded: group[0] for folded, group in group_by(fold_name, names).items() if len(group) == 1}


def speller(names: Iterable[str]) -> Callable[[str], str]:
    """Return a function that spells a name like the matching one of `names`, and leaves other names unchanged."""
    exact, by_folded = set(names), unambiguous(names)
    return lambda name: name if name in exact else by_folded.get(fold_name(name), name)
