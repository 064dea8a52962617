"""What `moclip predict` tells of each clip: as a table, as JSON rows, as CSV."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

from moclip.errors import VideoError
from pipeline.console.output import STREAM_LABELS, print_result
from pipeline.io import rounded

if TYPE_CHECKING:
    from moclip.inference.predictor import Prediction, Predictor

REJECT_COLUMNS = ("unknown", "score")
"""What --reject adds to a result."""


def top_classes(answer: Prediction | VideoError, top: int) -> dict[str, Any]:
    """Return what is told of a clip: the `top` classes of each stream and the stream to trust, or the error.

    Of a clip that does not decode as a whole also its damage.
    """
    if isinstance(answer, VideoError):
        return {"error": answer.what, "fix": answer.fix}
    if answer.thresholds:
        classes = {stream: _labels_and_top(answer, top, stream) for stream in answer.probabilities}
    else:
        classes = {
            stream: [{"class": name, "probability": share} for name, share in answer.top(top, stream)]
            for stream in answer.probabilities
        }
    validated = "mv_tsn" in classes  # not with other labels
    damage = {"damage": answer.damage} if answer.damage else {}
    return classes | ({"trusted": answer.trusted} if validated else {}) | damage


def rejected(answer: Prediction | VideoError) -> dict[str, Any]:
    """Return what --reject adds: whether the clip is unknown, and how well it is known."""
    return {} if isinstance(answer, VideoError) else {"unknown": answer.unknown, "score": answer.known_score}


def background_name(predictor: Predictor) -> str | None:
    """Return the class that means none of the others; None without one."""
    rejection = predictor.rejection
    return None if rejection is None or rejection.background is None else predictor.classes[rejection.background]


def _labels_and_top(answer: Prediction, top: int, stream: str) -> list[dict[str, Any]]:
    """Return the predicted classes of a stream and its `top` most probable ones, the most probable first."""
    predicted = {name for name, _ in answer.labels(stream)}
    return [
        {"class": name, "probability": share, "predicted": name in predicted}
        for rank, (name, share) in enumerate(answer.top(len(answer.classes), stream))
        if rank < top or name in predicted
    ]


def print_table(results: list[dict[str, Any]], background: str | None = None) -> None:
    """Print the classes of each clip that could be read. `background` is the class for everything else."""
    from moclip.inference.predictor import STREAMS

    answered = [result for result in results if "error" not in result]
    if not answered:
        return
    trusted = answered[0].get("trusted")
    streams = sorted((stream for stream in STREAMS if stream in answered[0]), key=lambda stream: stream != trusted)
    rows = [
        (result["clip"] if rank == 0 else "", *(_cell(result, stream, rank, background) for stream in streams))
        for result in answered
        for rank in range(max(len(result[stream]) for stream in streams))
    ]
    titles = [STREAM_LABELS[stream] + (" (trusted)" if stream == trusted else "") for stream in streams]
    several = any("predicted" in answered[0][stream][0] for stream in streams)
    title = "which actions? (*: predicted, at or above the threshold of the class)" if several else "which action?"
    print_result(title, ("clip", *titles), rows)


def _cell(result: dict[str, Any], stream: str, rank: int, background: str | None) -> str:
    """Return what the table shows: a class and its probability; "unknown" in their place for a rejected clip."""
    if rank >= len(result[stream]):
        return ""  # with several labels another stream has more
    answer = result[stream][rank]
    if stream != result.get("trusted") or not result.get("unknown"):
        return f"{answer['class']} {answer['probability']:.2f}{' *' if answer.get('predicted') else ''}"
    if rank > 0:
        return ""
    return f"unknown ({background})" if answer["class"] == background else "unknown"


def csv_text(results: list[dict[str, Any]], more: tuple[str, ...] = ()) -> str:
    """Return CSV with a row per clip and rank, or one row with the error of a clip.

    Columns: clip, rank, a class and its probability per stream, error, the stream to trust, and `more` of a result.
    With several labels a clip also whether a class is predicted, per stream; a stream with fewer rows leaves its cells
    empty.
    """
    from moclip.inference.predictor import STREAMS

    text = io.StringIO()
    several = any("predicted" in one for result in results for one in result.get("fusion", []))
    parts = ("", "_probability", "_predicted") if several else ("", "_probability")
    of_streams = [f"{stream}{part}" for stream in STREAMS for part in parts]
    columns = ["clip", "rank", *of_streams, "error", "trusted", *more]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for result in results:
        if "error" in result:
            writer.writerow({"clip": result["clip"], "error": result["error"]})
            continue
        for rank in range(max(len(result[stream]) for stream in STREAMS if stream in result)):
            row: dict[str, Any] = {"clip": result["clip"], "rank": rank + 1, "trusted": result.get("trusted")}
            row |= {name: json.dumps(rounded(result[name])) for name in more}
            for stream in STREAMS:
                if stream in result and rank < len(result[stream]):
                    answer = result[stream][rank]
                    row |= {stream: answer["class"], f"{stream}_probability": rounded(answer["probability"])}
                    if several:
                        row[f"{stream}_predicted"] = str(answer["predicted"]).lower()
            writer.writerow(row)
    return text.getvalue()
