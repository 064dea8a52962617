"""How well `moclip timeline` found the annotated events: printed, and written to metrics.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from moclip.data.annotations import Annotation, annotations_of
from moclip.evaluation.timeline_metrics import F1_OVERLAPS, Segment, VideoEvents, timeline_metrics
from pipeline.console.output import STREAM_LABELS, print_error, print_note, print_result
from pipeline.io import write_json
from pipeline.timeline_files import VideoTimeline


def score_events(
    found: Sequence[VideoTimeline],
    annotations: list[Annotation],
    background: str | None,
    file: Path,
    quiet: bool,
) -> None:
    """Compare the events of each stream with the annotations, over the videos that have some. `quiet`: print no table.

    Annotations of the background class are no action, like stretches without one.
    """
    named = annotations_of(annotations, [one.video for one in found])
    actual = [[one for one in mine if one.name != background] for mine in named]
    used = [row for row, mine in enumerate(named) if mine]
    if left_out := len(annotations) - sum(map(len, named)):
        print_error(f"--annotations: {left_out} of {len(annotations)} rows belong to none of these videos")
    if unknown := sorted({one.name for mine in actual for one in mine} - set(found[0].timeline.classes)):
        print_error(f"--annotations: not classes of the models, so never found: {', '.join(unknown)}")
    if not used:
        file.unlink(missing_ok=True)  # that of an earlier run is not about these videos
        return
    metrics = {}
    for stream in found[0].events:
        videos = [
            VideoEvents(
                [Segment(*event) for event in found[row].events[stream]],
                [Segment(one.start, one.end, one.name) for one in actual[row]],
                float(found[row].timeline.edges[-1]),
                found[row].timeline.rate,
            )
            for row in used
        ]
        metrics[stream] = timeline_metrics(videos)
    write_json(file, metrics)
    if quiet:
        return
    names = ["frame_accuracy", *(f"f1_at_{round(100 * overlap)}" for overlap in F1_OVERLAPS), "edit", "map_at_50"]
    rows = [
        (STREAM_LABELS[stream], *("-" if values[name] is None else f"{values[name]:.4f}" for name in names))
        for stream, values in metrics.items()
    ]
    titles = ("", "frame accuracy", *(f"F1@{round(100 * overlap)}" for overlap in F1_OVERLAPS), "edit", "mAP@50")
    print_result(f"compared with {sum(len(actual[row]) for row in used)} annotated actions", titles, rows)
    print_note(f"timeline: {file}")
