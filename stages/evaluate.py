"""Stage `evaluate`: score the test split -> metrics/*.json, plots and data/predictions.parquet.

No earlier stage uses the test split. Also chooses on the validation clips, before it reads the test clips, when
`moclip predict --reject` answers unknown -> data/models/rejection.safetensors.
"""

from __future__ import annotations

from pipeline import paths
from pipeline.console.command import while_importing
from pipeline.console.label_scores import left_out_note
from pipeline.console.output import (
    STREAM_LABELS,
    print_calibration,
    print_note,
    print_rejection,
    print_scores,
    print_verdict,
)
from pipeline.io import write_json
from pipeline.params import Params
from pipeline.stage import stage


@stage(
    "seed",
    "dataset.shots",
    "dataset.base_to_new",
    "dataset.unknown",
    "dataset.background",
    "clip.frames",
    "evaluate.protocol",
    "evaluate.reject_score",
    "evaluate.reject_coverage",
    "evaluate.reject_false_alarms",
)
def evaluate(params: Params) -> None:
    """Score the test split: zero-shot CLIP, motion alone, the sum of their scores, fusion, and their cost.

    Also scores baselines: the commonest class, the head on the still alone, a linear probe on the motion. Writes
    majority.json, zero_shot.json, still.json, mv_image.json, motion_probe.json, mv_tsn.json, score_sum.json,
    fusion.json and cost.json to metrics, in verdict.json what the test clips say about the stream to trust, and in
    summary.json the figures to compare experiments by. Writes the plots' data to metrics/plots and every clip's logits
    to data/predictions.parquet. mv_image.json is empty if baselines.image is false. With several labels a clip, the
    scores are the mean average precision and the F1 of each class. Writes when `moclip predict --reject` answers
    unknown, chosen on the validation clips, to data/models/rejection.safetensors, and what that does to test clips to
    reject.json.
    """
    with while_importing():
        from pipeline.baselines import load_heads
        from pipeline.calibration import stream_temperatures
        from pipeline.compute_logits import compute_logits
        from pipeline.consistency import check_consistent
        from pipeline.logits import read_sum_weights, write_logits
        from pipeline.multi_label import stream_rules
        from pipeline.reject_metrics import reject_metrics
        from pipeline.rejection import choose_rejection
        from pipeline.rejection_file import write_rejection
        from pipeline.scoring import score_label_streams, score_streams, summary, video_cost, write_plots
        from pipeline.verdict import make_verdict

    inputs = check_consistent(params)
    heads, artifacts = load_heads(inputs), inputs.artifacts
    weights = read_sum_weights(inputs)
    chosen = None if inputs.multi_label else choose_rejection(inputs, heads.fusion)
    write_rejection(inputs, chosen.rejection if chosen else None)
    rows = inputs.fused_rows("test")
    ids = list(rows["id"])
    logits = compute_logits(inputs, heads, ids, artifacts.mv_embed, artifacts.image_baseline, weights)
    if inputs.multi_label:
        scores = score_label_streams(inputs, params, rows, logits, stream_rules(inputs, heads.fusion))
    else:
        scores = score_streams(inputs, params, rows, logits, stream_temperatures(inputs, heads.fusion))
    for name, path in paths.STREAM_JSON.items():
        write_json(path, scores.get(name, {}))
    cost = video_cost(inputs, heads, params, rows)
    write_json(paths.COST_JSON, cost)
    verdict = make_verdict(inputs, params, rows, logits)
    write_json(paths.VERDICT_JSON, verdict)
    rejected = reject_metrics(inputs, heads, chosen, rows, logits) if chosen else {}
    write_json(paths.REJECT_JSON, rejected)
    write_json(paths.SUMMARY_JSON, summary(scores, cost))
    write_logits(paths.PREDICTIONS, rows, logits, {"models": inputs.artifacts.models_digest()})
    write_plots(inputs.targets(rows), logits, inputs.clips.classes, scores)
    print_scores(scores, cost["multiply_adds_m"]["video"])
    if inputs.multi_label:
        print_note(left_out_note(STREAM_LABELS))
    print_calibration(scores)
    print_verdict(verdict, scores["majority"])
    if rejected:
        print_rejection(rejected)


if __name__ == "__main__":
    evaluate()
