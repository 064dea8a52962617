"""What to tell the user about a folder and its split lists."""

from __future__ import annotations

from pathlib import Path

from moclip.data.clip_folder import ClipFolder, describe_misplaced, misplaced_fix
from moclip.data.list_matching import match_lists
from moclip.data.split_lists import Splits


def list_notes(root: str | Path, folder: ClipFolder, splits: Splits | None) -> list[str]:
    """Return notes for the user, a line each: clips that are not read, and names that differ from the lists."""
    notes = match_lists(folder, splits).notes if splits else []
    if splits and splits.contradictions:
        first, count = splits.contradictions[0], len(splits.contradictions)
        notes = [f"{first}; such lines: {count}; a clip's class is its folder, whatever the number", *notes]
    if folder.misplaced:
        notes = [f"{describe_misplaced(folder)}: not read; {misplaced_fix(root, folder)}", *notes]
    return notes
