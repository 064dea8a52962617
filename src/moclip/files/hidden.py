"""Names of hidden files, and of files that operating systems leave behind: listings skip both."""

from __future__ import annotations

SYSTEM_NAMES = frozenset(
    ("__macosx", "@eadir", "@recycle", "#recycle", "$recycle.bin", "system volume information", "lost+found")
)
"""Folders that macOS, Synology, QNAP, Windows and Linux create, in lower case."""


def is_hidden(name: str) -> bool:
    """Return whether a file or folder name is hidden or a system's own: ".git", "._a.mp4", "__MACOSX"."""
    return name.startswith(".") or name.casefold() in SYSTEM_NAMES
