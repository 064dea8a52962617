"""Stage `report`: everything evaluated so far -> one static page, data/report/index.html."""

from __future__ import annotations

from pipeline import paths
from pipeline.console.command import while_importing
from pipeline.console.output import STREAM_LABELS, print_note
from pipeline.io import read_json, read_parquet, write_text
from pipeline.params import Params
from pipeline.stage import Workers, cpu_count, stage


@stage("seed", "dataset.root", "dataset.shots", "dataset.base_to_new", "clip.model", "report.clips")
def report(params: Params, workers: Workers = cpu_count()) -> None:
    """Write the results as one static page.

    Scores, classes, confusions, curves, and a gallery: clips where fusion gains most, where it errs worst, and some
    drawn at random, each with a still and its motion. Reads what evaluate, the training stages and the feature stages
    left, and those clips; writes data/report/index.html.
    """
    with while_importing():
        import numpy as np

        from moclip.evaluation.metrics import class_probabilities
        from moclip.evaluation.report import GALLERY_KINDS, PAPER_COST, choose_gallery, class_table, confusion
        from moclip.evaluation.report_pictures import colour_wheel_uri
        from pipeline.consistency import check_consistent, check_scores
        from pipeline.provenance import check_made_from
        from pipeline.report_page import (
            STANDALONE,
            chart,
            facts,
            gallery,
            lead_over_others,
            matrix,
            stream_row,
            template,
        )

    inputs = check_consistent(params)
    check_scores(inputs)
    predictions = read_parquet(paths.PREDICTIONS, "evaluate")
    check_made_from(inputs.models(), predictions.attrs.get("models"), "other models", paths.PREDICTIONS, "evaluate")
    cost = read_json(paths.COST_JSON, "evaluate")
    labels = predictions["label"].to_numpy()
    logits = {name: np.stack(predictions[name].to_list()) for name in STREAM_LABELS if name in predictions}
    names = inputs.classes
    streams = [stream_row(name, cost) for name in logits]
    max(streams, key=lambda stream: stream["top1"])["best"] = True
    counts, extracted = read_json(paths.INDEX_COUNTS, "index"), read_json(paths.EXTRACT_COUNTS, "extract_mv")
    confused = confusion(logits["fusion"], labels, names)
    shares = {name: class_probabilities(logits[name]) for name in STANDALONE}
    chosen = choose_gallery(shares, labels, params.report.clips, params.seed)
    text = template().render(
        data_root=params.dataset.root,
        clip_model=params.clip.model,
        counts=counts,
        streams=streams,
        lead=lead_over_others({stream["name"]: stream["top1"] for stream in streams}),
        paper_cost=PAPER_COST,
        parameters=cost["parameters"],
        classes=class_table(logits, labels, names),
        matrix=matrix(confused),
        worst=confused.worst,
        kinds=GALLERY_KINDS,
        clips=gallery(chosen, predictions, inputs, shares, names, params.dataset.root, workers),
        wheel=colour_wheel_uri(),
        charts=[
            chart(f"{title}, {what}", folder, metric)
            for title, folder in (("MV-TSN", paths.TRAIN_MV_LOG), ("fusion head", paths.TRAIN_FUSION_LOG))
            for what, metric in (("cross-entropy", "loss"), ("top-1", "top1"))
        ],
        facts=facts(counts, extracted),
    )
    write_text(paths.REPORT, text)
    print_note(f"report: {paths.REPORT}, {len(text) / 1e6:.1f} MB, {len(chosen)} clips to look at")


if __name__ == "__main__":
    report()
