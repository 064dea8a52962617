"""Features of many clips made part by part: a killed run goes on, and many machines may work on the parts.

A part is the next `CLIPS` clips: its notes, then its arrays as a safetensors file, each set down whole. At the end the
parts become a feature store, some rows at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from moclip.files.folders import Folder
from moclip.store.layout import short_digest

CLIPS_A_PART = 64


def part_slices(clips: int) -> list[slice]:
    """The clips of each part."""
    return [slice(start, min(start + CLIPS_A_PART, clips)) for start in range(0, clips, CLIPS_A_PART)]


class ResumableParts:
    """The finished parts of one run in a folder, or at a URL. Parts of a run with another `key` are removed.

    Parameters
    ----------
    place : the folder of this run alone.
    key : differs when anything that the features depend on does.
    """

    def __init__(self, place: str, key: str) -> None:
        self.folder = Folder(place)
        self.key = key

    def begin(self) -> set[str]:
        """Remove what another run left; return the names of the parts that this one finished before."""
        there = self.folder.sizes()
        if "key" in there and self.folder.read("key").decode() == self.key:
            return {name.removesuffix(".safetensors") for name in there if name.endswith(".safetensors")}
        self.folder.clear()
        self.folder.write("key", self.key.encode())
        return set()

    def seen(self) -> bool:
        """Whether the run's folder is to be seen from here."""
        return self.folder.exists("key")

    def write(self, name: str, arrays: Mapping[str, np.ndarray], notes: Mapping[str, Any]) -> None:
        """Set a part down; with its arrays it is finished."""
        self.folder.write(f"{name}.json", json.dumps(notes).encode())
        whole = {key: np.ascontiguousarray(values) for key, values in arrays.items()}
        self.folder.write(f"{name}.safetensors", save(whole))

    def notes(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The notes of parts, in the order of `names`."""
        return (json.loads(content) for content in self.folder.read_many([f"{name}.json" for name in names]))

    def arrays(self, names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        """The arrays of parts, in the order of `names`."""
        return (load(content) for content in self.folder.read_many([f"{name}.safetensors" for name in names]))

    def end(self) -> None:
        """Remove them all: the feature store has taken their place."""
        self.folder.clear()


def run_key(**inputs: object) -> str:
    """The key of a run: the same for the same inputs."""
    return short_digest(inputs)
