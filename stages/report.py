"""Stage `report`: metrics, predictions and clips -> one static page, data/report/index.html."""

from __future__ import annotations

from moclip.wording import counted
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
    "clip.models",
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
        from moclip.evaluation.report import GALLERY_KINDS, PAPER_COST
        from moclip.evaluation.report_pictures import colour_wheel_uri
        from moclip.evaluation.verdict import unbalanced_sentence, verdict_on_page
        from pipeline.advice.from_index import all_index_findings
        from pipeline.consistency import check_consistent, check_scores
        from pipeline.index_file import SEEDED
        from pipeline.logits import stacked_logits
        from pipeline.provenance import check_digest
        from pipeline.report_curves import trainings
        from pipeline.report_matrix import clip_links
        from pipeline.report_page import data_facts, gallery, is_ucf101, page_template, stream_row
        from pipeline.report_scores import scores_part
        from pipeline.results import next_steps

    inputs = check_consistent(params)
    check_scores(inputs)
    predictions = read_parquet(paths.PREDICTIONS, "evaluate")
    models = inputs.artifacts.models_digest()
    check_digest(models, predictions.attrs.get("models"), "other models", paths.PREDICTIONS, "evaluate")
    cost, verdict = read_json(paths.COST_JSON, "evaluate"), read_json(paths.VERDICT_JSON, "evaluate")
    counts, extracted = read_json(paths.INDEX_COUNTS, "index"), read_json(paths.EXTRACT_COUNTS, "extract_mv")
    logits, index, pictures = stacked_logits(predictions), inputs.clips.index, inputs.artifacts.clip_image
    streams = [stream_row(name, cost) for name in logits]
    links = clip_links(index[index["id"].isin(predictions["id"])], params.dataset.root)
    scores = scores_part(inputs, predictions, logits, streams, verdict, links)
    verdict_answer, verdict_rest = verdict_on_page(verdict, STREAM_LABELS)
    text = page_template().render(
        **scores.values,
        data_root=params.dataset.root,
        clip_model=pictures.attributes["model"] if pictures else "",
        clip_warning=demo_clip_warning(params.clip.model, params.clip.models, params.dataset.root),
        counts=counts,
        streams=streams,
        answer=verdict["test"]["majority"]["answer"],
        verdict=verdict_answer,
        verdict_rest=verdict_rest,
        sources=verdict["test"]["sources"],
        trusted=verdict["trusted"]["stream"],
        unbalanced=unbalanced_sentence(streams[0]),
        paper_cost=PAPER_COST if is_ucf101(inputs.clips.classes) else None,
        parameters=cost["parameters"],
        kinds=GALLERY_KINDS,
        clips=gallery(scores.chosen, predictions, inputs, scores.probabilities, links, workers),
        wheel=colour_wheel_uri(),
        trainings=trainings(inputs.multi_label, (params.fit.folds or 1) if inputs.clips.refits else None),
        findings=all_index_findings(index, not counts["split_source"].startswith(SEEDED), params),
        facts=data_facts(counts, extracted),
    )
    write_text(paths.REPORT, text)
    print_note(
        f"report: {paths.REPORT}, {len(text) / 1e6:.1f} MB, {counted(len(scores.chosen), 'clip')} in the gallery"
    )
    print_note(f"open in a browser: {paths.REPORT.absolute()}")
    for number, line in enumerate(next_steps(params, index)):
        print_note(f"{'next: ' if number == 0 else '      '}{line}")


if __name__ == "__main__":
    report()
