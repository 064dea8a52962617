"""What the page shows of an answer, as HTML. It loads nothing: pictures are in it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from moclip.drawing.thumbnails import Thumbnail
from moclip.errors import VideoError
from moclip.inference.predictor import STREAMS, Prediction
from moclip.inference.untrusted_clip import Limits, length_text
from pipeline.app.answers import Answer, VideoStrip
from pipeline.console.output import STREAM_LABELS
from pipeline.pages import template
from pipeline.predict_answers import top_classes
from pipeline.timeline_page import clock, strip_parts

TITLE = "moclip"
PICTURES = 8
"""Small pictures above a timeline."""


def style_html() -> str:
    """Return the style of all results."""
    return template("app_style.html").render()


def intro_html(limits: Limits, window: float) -> str:
    """Return what a visitor reads first."""
    return template("app_intro.html").render(title=TITLE, limits=limits.text, window=length_text(window))


def error_html(name: str, problem: VideoError) -> str:
    """Return what is shown of a file that cannot be used."""
    return template("app_error.html").render(name=name, what=problem.what, fix=problem.fix)


def answer_html(answer: Answer, top: int) -> str:
    """Return all that is told of a clip."""
    motion = answer.motion
    return template("app.html", clock=clock).render(
        name=answer.name,
        model=answer.model.name,
        seconds=answer.found.seconds,
        verdict=_verdict(answer.prediction),
        streams=_streams(answer.prediction, top),
        several=bool(answer.prediction.thresholds),
        motion=None if isinstance(motion, VideoError) else {"source": _uri(motion.png, "png")} | motion._asdict(),
        no_motion=motion.what if isinstance(motion, VideoError) else None,
        strip=None if answer.strip is None else _strip(answer.strip),
        nearest=_nearest(answer),
        kinds=None if answer.model.training_clips is None else answer.model.training_clips.compared.kinds,
        notes=answer.notes,
    )


def _verdict(prediction: Prediction) -> dict[str, Any]:
    """Return the answer in a line: the class, or labels, of the stream to trust, and how sure it is."""
    stream = f"By {STREAM_LABELS[prediction.trusted]}, the stream to trust"
    if prediction.unknown:
        return {"text": "unknown", "by": f"{stream}: none of the classes fits; the nearest is {_top(prediction)}"}
    if prediction.thresholds:
        labels = [f"{name} {share:.2f}" for name, share in prediction.labels()]
        return {"text": ", ".join(labels) or "none of the labels", "by": stream}
    return {"text": _top(prediction), "by": stream}


def _top(prediction: Prediction) -> str:
    name, share = prediction.top(1)[0]
    return f"{name} {share:.2f}"


def _streams(prediction: Prediction, top: int) -> list[dict[str, Any]]:
    rows = top_classes(prediction, top)
    names = sorted((name for name in STREAMS if name in rows), key=lambda name: name != prediction.trusted)
    return [
        {"title": STREAM_LABELS[name], "is_trusted": name == prediction.trusted, "rows": rows[name]} for name in names
    ]


def _strip(strip: VideoStrip) -> dict[str, Any]:
    return {
        "windows": strip.timeline.windows,
        "shown": STREAM_LABELS[strip.stream],
        "events": strip.events[strip.stream],
        "pictures": [_uri(one.jpeg, "jpeg") for one in _spread(strip.thumbnails)],
        **strip_parts(strip.timeline, strip.events, strip.stream),
    }


def _spread(thumbnails: Sequence[Thumbnail]) -> list[Thumbnail]:
    """Return at most `PICTURES` of them, each from the middle of an equal part."""
    count = min(PICTURES, len(thumbnails))
    return [thumbnails[(2 * number + 1) * len(thumbnails) // (2 * count)] for number in range(count)]


def _nearest(answer: Answer) -> list[dict[str, Any]]:
    clips = answer.model.training_clips
    if clips is None:
        return []
    return [row | clips.pictures(row["clip"]) for row in answer.nearest]


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
