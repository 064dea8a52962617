"""Stage `evaluate`: score the test split -> metrics/*.json, plots and data/predictions.parquet.

No earlier stage uses the test split.
"""

from __future__ import annotations

from pipeline import paths
from pipeline.console.command import while_importing
from pipeline.console.output import print_scores
from pipeline.io import write_json
from pipeline.params import Params
from pipeline.stage import stage


@stage("seed", "dataset.shots", "dataset.base_to_new", "clip.frames", "evaluate.protocol")
def evaluate(params: Params) -> None:
    """Score the test split: zero-shot CLIP, motion alone, the sum of their scores, fusion, and their cost.

    Writes metrics/zero_shot.json, mv_image.json, mv_tsn.json, score_sum.json, fusion.json and cost.json, and in
    summary.json the figures to compare experiments by. Writes the plots' data to metrics/plots and every clip's logits
    to data/predictions.parquet. mv_image.json is empty if baselines.image is false.
    """
    with while_importing():
        from moclip.data.selection import base_classes
        from moclip.evaluation.metrics import base_to_new, complementarity, stream_scores
        from moclip.models.fusion import load_fusion
        from pipeline.consistency import check_consistent
        from pipeline.scoring import (
            compute_logits,
            stills_protocol,
            summary,
            video_cost,
            write_plots,
            write_predictions,
        )

    inputs = check_consistent(params)
    rows = inputs.fused_rows("test")
    ids, labels = list(rows["id"]), rows["label"].to_numpy()
    classes = inputs.clips.classes
    model = load_fusion(paths.FUSION)
    logits = compute_logits(inputs, model, ids)
    skipped = inputs.skipped_counts("test")
    stills, views = stills_protocol(params), params.evaluate.protocol
    models = inputs.artifacts.models_digest()
    both = f"{views} + {stills}"
    protocols = {"zero_shot": stills, "mv_image": views, "mv_tsn": views, "score_sum": both, "fusion": both}
    base = base_classes(len(classes))
    sources = (rows["class"] + "/" + rows["group"]).to_numpy()
    common = {
        "n": len(rows),
        "coverage": len(rows) / (len(rows) + sum(skipped.values())),
        "skipped": skipped,
        "fingerprint": inputs.clips.fingerprint("test"),
        "models": models,
    }
    scores = {
        name: score | common | {"protocol": protocols[name]}
        for name, score in stream_scores(logits, labels, sources, params.seed).items()
    }
    if params.dataset.base_to_new:
        for name, values in logits.items():
            scores[name]["base_to_new"] = base_to_new(values, labels, base)
    predicted = {name: values.argmax(axis=1) for name, values in logits.items()}
    scores["fusion"]["streams"] = complementarity(predicted["mv_tsn"], predicted["zero_shot"], labels)
    for name, path in paths.STREAM_JSON.items():
        write_json(path, scores.get(name, {}))
    costs = video_cost(inputs, model, params, rows)
    write_json(paths.COST_JSON, costs)
    write_json(paths.SUMMARY_JSON, summary(scores, costs))
    write_predictions(rows, logits, models)
    write_plots(labels, logits, classes, scores)
    print_scores(scores, costs["multiply_adds_m"]["video"])


if __name__ == "__main__":
    evaluate()
