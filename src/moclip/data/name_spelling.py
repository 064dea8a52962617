"""Compare names without regard to case, encoding of accents, and suffix."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

from moclip.video.clip_files import VIDEO_SUFFIXES

_OTHER_SUFFIXES = (".mpg", ".mpeg", ".m4v", ".wmv", ".flv", ".3gp", ".ts", ".mts", ".ogv", ".divx")
"""Beside those of clips here: lists were written before clips were converted."""


def grouped(names: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return groups


def name_stem(clip: str) -> str:
    return PurePosixPath(clip).with_suffix("").as_posix()


def without_suffix(listed: str) -> str:
    """A listed name without a video's suffix, if it has one; other dots are a part of the name."""
    suffix = PurePosixPath(listed).suffix.lower()
    return name_stem(listed) if suffix in (*VIDEO_SUFFIXES, *_OTHER_SUFFIXES) else listed


def fold_name(name: str) -> str:
    """A name where neither upper and lower case counts, nor how an accent is encoded."""
    return unicodedata.normalize("NFC", name).casefold()


def unambiguous(names: Iterable[str]) -> dict[str, str]:
    """`_folded` name -> name, for those that no other is like."""
    return {key: group[0] for key, group in grouped(names, fold_name).items() if len(group) == 1}


def speller(names: Iterable[str]) -> Callable[[str], str]:
    """The function that spells a name as the one of `names` that is like it; it leaves others as they are."""
    exact, alone = set(names), unambiguous(names)
    return lambda name: name if name in exact else alone.get(fold_name(name), name)
