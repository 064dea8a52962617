"""Compute the features of many clips in parts, so that a killed run resumes and many machines can share the work.

A part holds `CLIPS_PER_PART` clips. It is two files, each written atomically: its notes (JSON), then its arrays
(safetensors). When all parts are finished, they are copied into a feature store, some rows at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from moclip.files.folders import Folder
from moclip.store.layout import short_digest

CLIPS_PER_PART = 64


def part_slices(clips: int) -> list[slice]:
    """Return the rows of each part, for this number of clips."""
    return [slice(start, min(start + CLIPS_PER_PART, clips)) for start in range(0, clips, CLIPS_PER_PART)]


class ResumableParts:
    """The finished parts of one run.

    Parameters
    ----------
    folder : path or URL of a folder that holds the parts of this run and nothing else.
    key : a digest of everything that the features depend on. Parts with another key are removed.
    """

    def __init__(self, folder: str, key: str) -> None:
        self.folder = Folder(folder)
        self.key = key

    def start(self) -> set[str]:
        """Remove parts of runs with another key. Return the names of the parts that are already finished."""
        files = self.folder.sizes()
        if "key" in files and self.folder.read("key").decode() == self.key:
            return {name.removesuffix(".safetensors") for name in files if name.endswith(".safetensors")}
        self.folder.clear()
        self.folder.write("key", self.key.encode())
        return set()

    def is_visible(self) -> bool:
        """Return whether this machine sees the folder, after `start` was called on any machine."""
        return self.folder.exists("key")

    def write(self, name: str, arrays: Mapping[str, np.ndarray], notes: Mapping[str, Any]) -> None:
        """Write a part. The arrays are written last and mark it as finished."""
        self.folder.write(f"{name}.json", json.dumps(notes).encode())
        contiguous = {key: np.ascontiguousarray(values) for key, values in arrays.items()}
        self.folder.write(f"{name}.safetensors", save(contiguous))

    def notes(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield the notes of parts, in the order of `names`."""
        return (json.loads(content) for content in self.folder.read_many([f"{name}.json" for name in names]))

    def arrays(self, names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        """Yield the arrays of parts, in the order of `names`."""
        return (load(content) for content in self.folder.read_many([f"{name}.safetensors" for name in names]))

    def forget(self, name: str) -> None:
        """Remove a part, so that it is computed again."""
        for suffix in (".safetensors", ".json"):
            self.folder.remove(f"{name}{suffix}")

    def remove(self) -> None:
        """Remove all parts, after they were copied into a feature store."""
        self.folder.clear()


def run_key(**inputs: object) -> str:
    """Return the key of a run: the same for the same inputs."""
    return short_digest(inputs)
