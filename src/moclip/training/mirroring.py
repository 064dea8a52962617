"""Decide whether training clips are mirrored, and which class a mirrored clip shows (`tsn.flip`).

A network that sees TurnLeft mirrored, but still called TurnLeft, cannot tell it from TurnRight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moclip.data.balance import spread_rows
from moclip.data.clip_batches import SampledFields, SplitClips
from moclip.data.groups import divide_into_folds
from moclip.data.mirror_classes import mirror_pairs

SEGMENTS, POOLED, FOLDS, RIDGE = 6, 4, 5, 10.0
CLIPS_PER_CLASS = 100
"""Clips of each class, on average, that are compared with their mirror images: enough to tell."""
READ_AT_ONCE = 500
"""Clips whose fields are in memory at a time."""
FEWEST_CLIPS = 6
"""Classes with fewer clips are not compared with their mirror images: too few to tell."""

NOT_MIRRORED = -1


@dataclass(frozen=True)
class Mirroring:
    """How training clips are mirrored.

    flip : whether half of them are.
    labels : the label of a mirrored clip, by its label; -1: its class is not mirrored; empty: all keep their label.
    note : what the user should know, or "".
    """

    flip: bool
    labels: tuple[int, ...] = ()
    note: str = ""

    @property
    def views(self) -> bool:
        """Whether views may be mirrored that keep their clip's label, such as those the fusion head is trained on."""
        return self.flip and not self.labels


def plan_mirroring(
    flip: bool | str,
    classes: Sequence[str],
    fields: SampledFields,
    clips: SplitClips,
    groups: Sequence[str],
    left_out: Sequence[str] = (),
) -> Mirroring:
    """Return how the training `clips` are mirrored.

    `flip` "auto" mirrors, and gives mirrored clips of classes such as TurnLeft the label of TurnRight. Where the names
    tell nothing, but a linear classifier takes the mirrored clips of two classes for each other's, nothing is mirrored.
    A class is not mirrored if its mirror image is among those `left_out` of training, which shall stay unknown.
    """
    if flip is False:
        return Mirroring(False)
    pairs = [pair for pair in mirror_pairs([*classes, *left_out]) if not set(pair) <= set(left_out)]
    if flip is True:
        note = f"{_listed(pairs)}, yet mirrored clips keep their label: set tsn.flip to auto" if pairs else ""
        return Mirroring(True, note=note)
    if pairs:
        label_of = {name: label for label, name in enumerate(classes)}
        mirror_image = dict(pairs) | {second: first for first, second in pairs}
        labels = [label_of.get(mirror_image.get(name, name), NOT_MIRRORED) for name in classes]
        note = "a mirrored clip counts as the other class"
        note += ", or is not used if that is left out" if NOT_MIRRORED in labels else ""
        return Mirroring(True, tuple(labels), f"{_listed(pairs)}: {note}")
    if clips.labels.ndim == 2:  # the classifier below answers with one class
        return Mirroring(
            True, note="clips have several labels: only their names could tell which classes are mirror images"
        )
    rows = spread_rows(clips.labels, CLIPS_PER_CLASS * len(classes))
    features, mirrored = field_features(fields, clips[rows])
    confused = mirrored_pairs(features, mirrored, clips.labels[rows], [groups[row] for row in rows])
    if confused:
        pairs = [(classes[a], classes[b]) for a, b in confused]
        return Mirroring(False, note=f"{_listed(pairs)}, by their motion: no clip is mirrored")
    return Mirroring(True)


def field_features(fields: SampledFields, clips: SplitClips) -> tuple[np.ndarray, np.ndarray]:
    """Return features of clips and of their mirror images, for a linear classifier: each (n, D) float32.

    They are the mean motion in `POOLED` x `POOLED` parts of the picture, for each of `SEGMENTS` frames.
    """
    starts = range(0, len(clips), READ_AT_ONCE)
    parts = [_field_features(fields, clips[start : start + READ_AT_ONCE]) for start in starts]
    features, mirrored = zip(*parts, strict=True)
    return np.concatenate(features), np.concatenate(mirrored)


def _field_features(fields: SampledFields, clips: SplitClips) -> tuple[np.ndarray, np.ndarray]:
    read = fields.read_async(clips, SEGMENTS)().astype(np.float32)[:, :2] / 127
    rows, columns = fields.grid
    pooled = np.stack(
        [
            part.mean(axis=(-2, -1))
            for band in np.array_split(read, min(POOLED, rows), axis=-2)
            for part in np.array_split(band, min(POOLED, columns), axis=-1)
        ],
        axis=-1,
    ).reshape(len(clips), SEGMENTS, 2, min(POOLED, rows), min(POOLED, columns))
    mirrored = pooled[..., ::-1] * np.array([-1, 1], np.float32)[:, None, None]
    return pooled.reshape(len(clips), -1), mirrored.reshape(len(clips), -1)


def mirrored_pairs(
    features: np.ndarray, mirrored: np.ndarray, labels: np.ndarray, groups: Sequence[str]
) -> list[tuple[int, int]]:
    """Return the pairs of labels of which each one's mirrored clips are taken for the other's, by held-out clips.

    `features` and `mirrored` are (n, D), `labels` and `groups` (n,). The classifier is a ridge regression on one-hot
    labels. More than half of the clips of both classes must be recognised, and of the mirrored ones be taken for the
    other class.
    """
    import pandas as pd

    classes = int(labels.max()) + 1
    seen, taken = np.zeros((classes, classes)), np.zeros((classes, classes))
    part = divide_into_folds(pd.Series(list(groups)), pd.Series(labels), FOLDS, 0).to_numpy()
    for fold in range(FOLDS):
        train, held = part != fold, part == fold
        if not held.any() or not train.any():
            continue
        weights, mean = _ridge(features[train], labels[train], classes)
        for values, counts in ((features[held], seen), (mirrored[held], taken)):
            np.add.at(counts, (labels[held], ((values - mean) @ weights).argmax(axis=1)), 1)
    count = seen.sum(axis=1)
    known = (count >= FEWEST_CLIPS) & (np.diag(seen) > count / 2)
    swapped = taken > count[:, None] / 2
    return [
        (a, b)
        for a in range(classes)
        for b in range(a + 1, classes)
        if known[a] and known[b] and swapped[a, b] and swapped[b, a]
    ]


def _ridge(features: np.ndarray, labels: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (D, classes) and the mean (D,) to subtract from features."""
    mean = features.mean(axis=0)
    scale = features.std(axis=0) + 1e-6
    values = (features - mean) / scale
    targets = np.eye(classes, dtype=np.float32)[labels]
    gram = values.T @ values + RIDGE * np.eye(values.shape[1], dtype=np.float32)
    return np.linalg.solve(gram, values.T @ targets) / scale[:, None], mean


def _listed(pairs: Sequence[tuple[str, str]]) -> str:
    shown = ", ".join(f"{first} and {second}" for first, second in pairs[:3])
    more = f" and {len(pairs) - 3} more pairs" if len(pairs) > 3 else ""
    return f"{shown}{more} are each other's mirror image"
