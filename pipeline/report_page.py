"""The parts of the report page, made from predictions, metrics and clips."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup

from moclip.evaluation.label_report import label_class_table
from moclip.evaluation.report import GALLERY_KINDS, PAPER_TOP1, GalleryClip
from moclip.files.folders import join_path
from moclip.files.local_copies import local_copy
from moclip.motion.quantise import dequantise
from moclip.store.reader import FieldReader
from pipeline import paths
from pipeline.clip_pages import Place, clip_pictures, draw_cards
from pipeline.console.label_scores import NOT_SCORED, stream_titles
from pipeline.console.output import STREAM_LABELS
from pipeline.inputs import Inputs
from pipeline.io import read_json
from pipeline.pages import template

STANDALONE = ("zero_shot", "still", "mv_tsn", "fusion")


def standalone_streams(names: Iterable[str]) -> list[str]:
    """Return the streams that summary and gallery show: MV-TSN, fusion, and zero-shot CLIP or else the still."""
    there = [name for name in STANDALONE if name in set(names)]
    return [name for name in there if name != "still" or "zero_shot" not in there]


def page_template() -> jinja2.Template:
    return template("report.html", title_of=lambda kind: GALLERY_KINDS[kind], breakable=_breakable)


def _breakable(name: str) -> Markup:
    """Return a class name that may wrap where a word begins: "ApplyEyeMakeup", "brush_hair"."""
    return Markup("<wbr>").join(re.findall(r"[A-Z]?[^A-Z_]*_?", name))


def stream_row(name: str, cost: dict[str, Any]) -> dict[str, Any]:
    scores = read_json(paths.STREAM_JSON[name], "evaluate")
    return scores | {
        "name": name,
        "title": stream_titles(STREAM_LABELS, scores)[name],
        "cost": cost["multiply_adds_m"]["video"][name],
        "missing": sum(scores["skipped"].values()),
        "paper": PAPER_TOP1.get(name),
    }


def is_ucf101(classes: list[str]) -> bool:
    """Return whether these are UCF-101's classes, so that the paper's figures may stand beside the results."""
    return set(classes) == read_json(paths.UCF101_CLASSES, "report").keys()


def summary_sentence(top1: dict[str, float]) -> str:
    """Return the result in one sentence."""
    return _summary("Correct on the test split", top1, "always answering the commonest class")


def label_summary_sentence(maps: dict[str, float]) -> str:
    """Return the result in one sentence, for clips with several labels."""
    return _summary("Mean average precision on the test split", maps, "the same shares for every clip")


def _summary(what: str, scores: dict[str, float], baseline: str) -> str:
    names = {"zero_shot": "zero-shot CLIP", "still": "the still alone", "mv_tsn": "motion alone", "fusion": "fusion"}
    parts = [f"{names[name]} {100 * scores[name]:.1f} %" for name in standalone_streams(scores)]
    return f"{what}: {', '.join(parts)}; {baseline} {100 * scores['majority']:.1f} %."


def label_section(streams: list[dict[str, Any]], trusted: str, names: list[str], sources: int) -> Markup:
    """Return the part of the page that has the scores, for clips with several labels; a confusion matrix has none.

    `sources` is the number of sources of the test clips.
    """
    classes = label_class_table({stream["name"]: stream for stream in streams})
    shown = {row["name"] for row in classes}
    return Markup(
        template("report_labels.html", breakable=_breakable).render(
            streams=streams,
            trusted=trusted,
            sources=sources,
            classes=classes,
            has_still=any(stream["name"] == "still" for stream in streams),
            without_clips=[name for name in names if name not in shown],
            left_out=[(STREAM_LABELS[name], why) for name, why in NOT_SCORED.items()],
        )
    )


def gallery(
    chosen: list[GalleryClip],
    predictions: pd.DataFrame,
    inputs: Inputs,
    shares: dict[str, np.ndarray],
    links: dict[str, str],
    workers: int,
) -> list[dict[str, Any]]:
    """Return a card for each chosen clip: why it was chosen, its pictures, the three best classes of each stream.

    `links` are those to clips that a browser plays, by id.
    """
    if not chosen:
        return []
    reader, stills = FieldReader(paths.MV_STORE, inputs.clips.mv_table), inputs.artifacts.clip_image
    index, labels = inputs.clips.index.set_index("id"), inputs.targets(predictions)
    root, names = inputs.params.dataset.root, inputs.clips.classes

    def card(choice: GalleryClip) -> dict[str, Any]:
        row = predictions.iloc[choice.row]
        own = {int(labels[choice.row])} if labels.ndim == 1 else set(np.flatnonzero(labels[choice.row]).tolist())
        fields = dequantise(reader.read_video(row["id"]), reader.attributes["clip"])
        clip = index.loc[row["id"]]
        middle = int(clip["frames"]) // 2
        frames = stills.rows("frame", [row["id"]])[0] if stills else [middle]
        with local_copy(join_path(root, clip["path"])) as file:
            pictures = clip_pictures(file, fields, int(frames[len(frames) // 2]), Place.of(clip))
        return {
            "id": row["id"],
            "link": links.get(row["id"], ""),
            "class": row["class"],
            "kinds": choice.kinds,
            "gain": choice.gain,
            "error": choice.error,
            "streams": [
                {"title": STREAM_LABELS[name], "top": _top_classes(shares[name][choice.row], own, names)}
                for name in shares
            ],
        } | pictures

    return draw_cards("report", card, chosen, workers)


def _top_classes(shares: np.ndarray, labels: set[int], names: list[str]) -> list[dict[str, Any]]:
    return [
        {"name": names[number], "share": float(shares[number]), "right": number in labels}
        for number in np.argsort(-shares, kind="stable")[:3].tolist()
    ]


def data_facts(counts: dict[str, Any], extracted: dict[str, Any]) -> list[tuple[str, Any]]:
    return [
        ("clips indexed", counts["clips"]),
        *((f"split: {name}", count) for name, count in counts["splits"].items()),
        *((f"codec: {name}", count) for name, count in counts["codecs"].items()),
        *((f"vectors exact by {name}", count) for name, count in extracted["exact_by"].items()),
        ("frames with motion vectors read", f"{extracted['frames']:,}"),
        *((f"not usable: {reason}", count) for reason, count in extracted["not_usable"].items()),
    ]
