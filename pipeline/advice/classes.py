"""Findings on classes: too few clips, missing in a split, unequal, mirror images of each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from moclip.data.label_sets import is_multi_label, one_row_per_label
from moclip.data.mirror_classes import mirror_pairs, unpaired_sides
from moclip.data.selection import class_names, usable_clips
from moclip.wording import shorten_list
from pipeline.advice.finding import Finding, has_key, share_text
from pipeline.params import Params, describe

FEW_TRAIN, FEW_TEST = 10, 5
"""Fewer clips of a class in train, or in test, are few."""
FEW_TEST_CLIPS = 50
"""With fewer test clips in all, the 95 % interval of an accuracy of 50 % is wider than 14 points to each side."""
UNEQUAL = 1.5
"""Classes are unequal if the commonest has more than so many times the mean of the others."""
_PURPOSES = {"train": "train on", "val": "choose epochs on", "test": "test on"}


def class_findings(index: pd.DataFrame, has_lists: bool) -> list[Finding]:
    """Return findings on how many clips the classes of an index have in each split."""
    counts, tested = class_counts(index), len(usable_clips(index, "test"))
    unequal = [] if is_multi_label(index) else _unequal(counts)  # dataset.balance and top-1 are of one label a clip
    return [*_missing_classes(counts, has_lists), *_small_classes(counts), *_few_test_clips(tested), *unequal]


def class_counts(index: pd.DataFrame) -> pd.DataFrame:
    """Return how many usable clips each class has: a row per class in label order; columns train, val, test.

    A clip with several labels counts for each.
    """
    usable = usable_clips(one_row_per_label(index))
    counts = pd.crosstab(usable["class"], usable["split"])
    return counts.reindex(index=class_names(index), columns=list(_PURPOSES), fill_value=0)


def _missing_classes(counts: pd.DataFrame, has_lists: bool) -> list[Finding]:
    if has_lists:
        train, test = "name clips of them in the train list", "name clips of them in the test list"
    else:
        train, test = "add clips", "add clips of other sources, or raise dataset.test_fraction"
    advice = {
        "train": f"they are never predicted: {train}, or remove them",
        "val": "epochs are chosen without them: add train clips of other sources, or raise dataset.val_fraction",
        "test": f"their accuracy is not measured: {test}",
    }
    return [
        Finding(
            "classes",
            f"no clip to {purpose}: {_counts_text(missing)}",
            advice[split],
            {"split": split, "classes": list(missing.index)},
        )
        for split, purpose in _PURPOSES.items()
        if len(missing := counts[(counts[split] == 0) & ((split != "val") | (counts["train"] > 0))])
    ]


def tells_missing_classes(finding: Finding) -> bool:
    """Return whether a finding is on classes without a clip in a split."""
    return finding.about == "classes" and "split" in finding.figures


def _small_classes(counts: pd.DataFrame) -> list[Finding]:
    small = counts[(counts > 0).all(axis=1) & ((counts["train"] < FEW_TRAIN) | (counts["test"] < FEW_TEST))]
    if small.empty:
        return []
    return [
        Finding(
            "classes",
            f"few clips in {len(small)} of {len(counts)} classes: {_counts_text(small)}",
            f"add clips, or leave such classes out: fewer than {FEW_TRAIN} train or {FEW_TEST} test clips are too few",
            {"classes": small.to_dict("index")},
        )
    ]


def _counts_text(counts: pd.DataFrame) -> str:
    """Return "dip (2 train, 1 val, 1 test), ...", the classes with the fewest clips first."""
    ordered = counts.loc[counts.sum(axis=1).sort_values(kind="stable").index]
    return shorten_list(
        f"{row.Index} ({row.train} train, {row.val} val, {row.test} test)" for row in ordered.itertuples()
    )


def _few_test_clips(clips: int) -> list[Finding]:
    if clips >= FEW_TEST_CLIPS:
        return []
    points = 100 * 1.96 * np.sqrt(0.25 / clips)
    return [
        Finding(
            "test clips",
            f"{clips} in all, so an accuracy of 50 % is known to about ±{points:.0f} points",
            "add test clips, and compare 95 % intervals rather than accuracies",
            {"test_clips": clips},
        )
    ]


def _unequal(counts: pd.DataFrame) -> list[Finding]:
    unequal = [split for split in ("train", "test") if _is_unequal(counts[split])]
    if not unequal:
        return []
    texts = [f"{split}: {_commonest_text(counts[split])}" for split in ("train", "test")]
    commonest = counts["test"].idxmax()
    share = share_text(counts["test"].max(), counts["test"].sum())
    advice = f"compare top-1 with {share}, which always answering {commonest} reaches, and see mean class accuracy"
    if "train" in unequal and has_key("dataset.balance"):
        advice = f"set dataset.balance: loss or sampler; {advice}"
    return [Finding("balance", "; ".join(texts), advice, {"unequal": unequal, "classes": counts.to_dict("index")})]


def _is_unequal(counts: pd.Series) -> bool:
    others = (counts.sum() - counts.max()) / (len(counts) - 1)
    return bool(counts.sum() >= 2 * FEW_TRAIN and counts.max() > UNEQUAL * others)


def _commonest_text(counts: pd.Series) -> str:
    most, share = counts.max(), share_text(counts.max(), counts.sum())
    return f"{most} of {counts.sum()} clips ({share}) are {counts.idxmax()}, {counts.idxmin()} has {counts.min()}"


def mirror_findings(classes: Sequence[str], params: Params) -> list[Finding]:
    """Return findings on classes whose mirrored clips show another class, where clips are mirrored."""
    pairs, unpaired = mirror_pairs(classes), unpaired_sides(classes)
    mirrored: list[str] = []
    remedies: list[str] = []
    if params.tsn.flip is True:
        mirrored.append("tsn.flip mirrors half of the training clips")
        remedies.append("tsn.flip: auto" if pairs and "auto" in describe("tsn.flip")[1] else "tsn.flip: false")
    if params.evaluate.views[1] == 10:
        mirrored.append("evaluate.protocol mirrors test clips, with 10 crops")
        remedies.append(f"evaluate.protocol: {params.evaluate.views[0]}x5")
    how, advice = " and ".join(mirrored), f"set {' and '.join(remedies)}"
    found = []
    if mirrored and pairs:
        names = shorten_list(f"{one} and {other}" for one, other in pairs)
        what = f"{names} show each other's motion when mirrored, and {how}"
        found.append(Finding("mirror images", what, advice, {"pairs": pairs}))
    if mirrored and unpaired:
        what = f"{shorten_list(unpaired)} may be another class when mirrored, and {how}"
        found.append(Finding("mirror images", what, f"if the side matters, {advice}", {"classes": unpaired}))
    return found
