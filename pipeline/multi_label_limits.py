"""What clips with several labels do not support."""

from __future__ import annotations

from moclip.errors import DatasetError
from pipeline.params import Params


def check_supported(params: Params) -> None:
    """Raise DatasetError for a parameter that has no meaning with several labels a clip."""
    dataset, fusion = params.dataset, params.fusion
    wrong = {
        "dataset.shots": (dataset.shots is not False, dataset.shots, "false", "a clip counts for several classes"),
        "dataset.base_to_new": (dataset.base_to_new, True, "false", "a clip can be of both halves of the classes"),
        "dataset.balance": (
            dataset.balance != "none",
            dataset.balance,
            "none",
            "a clip has no one class to weigh it by",
        ),
        "dataset.unknown": (bool(dataset.unknown), dataset.unknown, "[]", "a clip can have other labels, too"),
        "dataset.background": (
            dataset.background is not False,
            dataset.background,
            "false",
            "a clip without a label above its threshold is of the background",
        ),
        "fusion.head": (fusion.head != "concat", fusion.head, "concat", "it begins as zero-shot CLIP, which picks one"),
        "fusion.blend": (fusion.blend is True, True, "false", "it mixes in probabilities of one answer per clip"),
    }
    for key, (is_wrong, value, instead, why) in wrong.items():
        if is_wrong:
            text = str(value).lower() if value is True else value
            what = f"{key} = {text} does not work with clips of several labels: {why}"
            raise DatasetError(what, where=dataset.manifest, fix=f"set {key} to {instead}")
