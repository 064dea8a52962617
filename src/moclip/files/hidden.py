"""Names of files that no listing should show: hidden ones, and those that operating systems leave behind."""

from __future__ import annotations

SYSTEM_NAMES = frozenset(
    ("__macosx", "@eadir", "@recycle", "#recycle", "$recycle.bin", "system volume information", "lost+found")
)
"""Folders that macOS, Synology, QNAP, Windows and Linux put among a user's own, in small letters."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or a system's own: ".git", "._a.mp4", "__MACOSX"."""
    return name.startswith(".") or name.casefold() in SYSTEM_NAMES
