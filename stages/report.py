"""Stage `report`: metrics, predictions and clips -> one static page, data/report/index.html."""

from __future__ import annotations

from typing import Any

from pipeline import paths
from pipeline.console.command import while_importing
from pipeline.console.output import STREAM_LABELS, print_note
from pipeline.demo_clip import demo_clip_warning
from pipeline.io import read_json, read_parquet, write_text
from pipeline.options import Workers, cpu_count
from pipeline.params import Params
from pipeline.stage import stage


@stage(
    "seed",
    "dataset.root",
    "dataset.shots",
    "dataset.base_to_new",
    "clip.model",
    "fit.folds",
    "fit.refit",
    "tsn.segments",
    "tsn.flip",
    "evaluate.protocol",
    "report.clips",
)
def report(params: Params, workers: Workers = cpu_count()) -> None:
    """Write the results as one static page.

    Shows the verdict, scores, classes, confusions with their clips, curves, what the data suffers from, and a gallery:
    the clips where fusion gains most, those where it is most wrong, and random ones, each with a still and its motion.
    Reads the outputs of the earlier stages and the clips in the gallery. Writes data/report/index.html. With several
    labels a clip, it has the average precision of each class in place of confusions.
    """
    with while_importing():
        from moclip.evaluation.label_report import choose_label_gallery
        from moclip.evaluation.metrics import class_probabilities
        from moclip.evaluation.report import GALLERY_KINDS, PAPER_COST, choose_gallery, class_table, confusion
        from moclip.evaluation.report_pictures import colour_wheel_uri
        from moclip.evaluation.verdict import unbalanced_sentence, verdict_on_page
        from moclip.models.fusion import load_fusion
        from pipeline.advice.from_index import all_index_findings
        from pipeline.consistency import check_consistent, check_scores
        from pipeline.index_file import SEEDED
        from pipeline.logits import stacked_logits
        from pipeline.multi_label import head_rules
        from pipeline.provenance import check_digest
        from pipeline.report_curves import trainings
        from pipeline.report_matrix import cell_clips, clip_links, matrix_drawing, worst_cells
        from pipeline.report_page import (
            data_facts,
            gallery,
            is_ucf101,
            label_section,
            label_summary_sentence,
            page_template,
            standalone_streams,
            stream_row,
            summary_sentence,
        )

    inputs = check_consistent(params)
    check_scores(inputs)
    predictions = read_parquet(paths.PREDICTIONS, "evaluate")
    models = inputs.artifacts.models_digest()
    check_digest(models, predictions.attrs.get("models"), "other models", paths.PREDICTIONS, "evaluate")
    cost, verdict = read_json(paths.COST_JSON, "evaluate"), read_json(paths.VERDICT_JSON, "evaluate")
    labels, pictures = inputs.targets(predictions), inputs.artifacts.clip_image
    logits = stacked_logits(predictions)
    names = inputs.clips.classes
    streams = [stream_row(name, cost) for name in logits]
    counts, extracted = read_json(paths.INDEX_COUNTS, "index"), read_json(paths.EXTRACT_COUNTS, "extract_mv")
    head, shown, trusted = load_fusion(paths.FUSION), standalone_streams(logits), verdict["trusted"]["stream"]
    index, sources = inputs.clips.index, verdict["test"]["sources"]
    links = clip_links(index[index["id"].isin(predictions["id"])], params.dataset.root)
    if inputs.multi_label:
        rules = head_rules(head)
        shares = {name: rules[name].probabilities(logits[name]) for name in shown}
        chosen = choose_label_gallery(shares, labels, params.report.clips, params.seed)
        of_scores: dict[str, Any] = {
            "lead": label_summary_sentence({stream["name"]: stream["map"] for stream in streams}),
            "label_section": label_section(streams, trusted, names, sources),
            "cells": None,
        }
    else:
        confused = confusion(logits["fusion"], labels, names)
        shares = {name: class_probabilities(logits[name] / head.temperature(name)) for name in shown}
        chosen = choose_gallery(shares, labels, params.report.clips, params.seed)
        of_scores = {
            "lead": summary_sentence({stream["name"]: stream["top1"] for stream in streams}),
            "label_section": "",
            "classes": class_table(logits, labels, names),
            "without_clips": [name for label, name in enumerate(names) if label not in labels],
            "matrix": matrix_drawing(confused),
            "cells": cell_clips(confused, list(predictions["id"]), links, {choice.row for choice in chosen}),
            "worst": worst_cells(confused),
        }
    verdict_answer, verdict_rest = verdict_on_page(verdict, STREAM_LABELS)
    text = page_template().render(
        **of_scores,
        data_root=params.dataset.root,
        clip_model=pictures.attributes["model"] if pictures else "",
        clip_warning=demo_clip_warning(params.clip.model, params.clip.models, params.dataset.root),
        counts=counts,
        streams=streams,
        answer=verdict["test"]["majority"]["answer"],
        verdict=verdict_answer,
        verdict_rest=verdict_rest,
        sources=sources,
        trusted=trusted,
        unbalanced=unbalanced_sentence(streams[0]),
        paper_cost=PAPER_COST if is_ucf101(names) else None,
        parameters=cost["parameters"],
        kinds=GALLERY_KINDS,
        clips=gallery(chosen, predictions, inputs, shares, links, workers),
        wheel=colour_wheel_uri(),
        trainings=trainings(inputs.multi_label, (params.fit.folds or 1) if inputs.clips.refits else None),
        findings=all_index_findings(index, not counts["split_source"].startswith(SEEDED), params),
        facts=data_facts(counts, extracted),
    )
    write_text(paths.REPORT, text)
    print_note(f"report: {paths.REPORT}, {len(text) / 1e6:.1f} MB, {len(chosen)} clips in the gallery")


if __name__ == "__main__":
    report()
