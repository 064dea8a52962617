"""What the folders above a clip mean: its class, split and source. For `moclip.data.clip_folder`, which lists clips."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

_SPLIT = re.compile(
    "((?P<train>train|training)|(?P<val>val|valid|validate|validation)|(?P<test>test|testing))"
    "([ _-]?(set|split|data|videos?|clips?))?",
    re.IGNORECASE,
)


def split_named(folder: str) -> str | None:
    """Return the split that a folder is named after, train, val or test; None: the name is not that of a split."""
    found = _SPLIT.fullmatch(folder)
    return next(split for split, name in found.groupdict().items() if name) if found else None


@dataclass(frozen=True)
class Layout:
    """Where the folders of splits lie, and which folders tell nothing.

    splits : folder of a split -> its split, train, val or test. Empty where there are none.
    splits_within : the folders of splits lie in the class folders, "Class/train/file", not above them.
    common : folders that all clips have in common below those of class and split; they tell nothing.
    """

    splits: dict[str, str] = field(default_factory=dict)
    splits_within: bool = False
    common: int = 0

    @property
    def described(self) -> str:
        """Where clips lie, for users."""
        splits = "|".join(self.splits)
        if not splits:
            return "<class>/<clip>"
        return f"<class>/{splits}/<clip>" if self.splits_within else f"{splits}/<class>/<clip>"

    @property
    def class_level(self) -> int:
        return 1 if self.splits and not self.splits_within else 0

    @property
    def split_level(self) -> int:
        return 1 if self.splits_within else 0

    @property
    def least(self) -> int:
        """How many folders a clip lies in at least."""
        return 2 if self.splits else 1

    def is_placed(self, clip: str) -> bool:
        """Return whether a clip lies in the folder of a class, and in that of a split if there are any."""
        folders = clip.split("/")[:-1]
        return len(folders) >= self.least and (not self.splits or folders[self.split_level] in self.splits)

    def inner_folders(self, clip: str) -> list[str]:
        """Return the folders below those of class and split, without those that tell nothing.

        These are the folders in common, and those of the class's own name, as some programs unpack archives.
        """
        folders = clip.split("/")[:-1]
        if len(folders) <= self.class_level:  # a manifest may list clips without a folder
            return []
        class_name = folders[self.class_level]
        return [name for name in folders[self.least :] if name != class_name][self.common :]


def find_layout(videos: Iterable[str]) -> Layout:
    """Return the layout of clips, by the names of their files."""
    names = list(videos)
    layout = Layout(_splits_above(names))
    if not layout.splits:
        within = _splits_within(names)
        layout = Layout(within, bool(within))
    inner = [layout.inner_folders(name) for name in names if layout.is_placed(name)]
    return Layout(layout.splits, layout.splits_within, _count_common(inner))


def _splits_above(names: Iterable[str]) -> dict[str, str]:
    """Return the folders of splits in the root, and the split of each; none unless there are train and another one.

    None of them may hold clips by itself: such a folder is a class, or `clips_beside_splits` has its clips.
    """
    depths: dict[str, int] = {}
    for name in names:
        first, *rest = name.split("/")
        depths[first] = min(depths.get(first, len(rest)), len(rest))
    splits = _splits_among(depths)
    return {} if any(depths[name] < 2 for name in splits) else splits


def _splits_within(names: Iterable[str]) -> dict[str, str]:
    """Return the folders of splits in the class folders, and the split of each.

    None unless at least two classes have such folders, and there are train and another one.
    """
    inner: dict[str, set[str]] = defaultdict(set)
    for name in names:
        if name.count("/") >= 2:
            class_name, folder, _ = name.split("/", 2)
            if split_named(folder):
                inner[class_name].add(folder)
    return _splits_among(sorted(set().union(*inner.values()))) if len(inner) > 1 else {}


def _splits_among(folders: Iterable[str]) -> dict[str, str]:
    """Return the split of each folder that has the name of one. Without a folder for test, val is the test split."""
    splits = {name: split for name in sorted(folders) if (split := split_named(name))}
    if not {"train"} < set(splits.values()):
        return {}
    if "test" not in splits.values():
        return {name: split.replace("val", "test") for name, split in splits.items()}
    return splits


def _count_common(inner: list[list[str]]) -> int:
    """Return how many folders all of these chains begin with."""
    count = 0
    for level in zip(*inner, strict=False):
        if len(set(level)) > 1:
            break
        count += 1
    return count


def clips_beside_splits(videos: Iterable[str], layout: Layout) -> tuple[list[str], list[str]]:
    """Return the folders that look like those of splits, and the clips for which they cannot be read as such.

    Above the classes: clips directly in folders of splits, one of which holds class folders, without any other class.
    Below the classes: clips beside the folders of splits. Both lists are empty where nothing is in doubt.
    """
    names = [name for name in videos if "/" in name]
    if layout.splits_within:
        loose = [name for name in names if not layout.is_placed(name)]
        return (list(layout.splits), loose) if loose else ([], [])
    tops = {name.split("/")[0] for name in names}
    loose = [name for name in names if name.count("/") == 1]
    if layout.splits or not loose or len(loose) == len(names):
        return [], []
    splits = _splits_among(tops)
    return (list(splits), loose) if splits.keys() == tops else ([], [])
