"""The layout of the page, in Gradio."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from moclip.errors import MoclipError, VideoError
from moclip.video.clip_files import VIDEO_SUFFIXES
from pipeline.app.answers import Settings, answer_clip, answer_row, error_row
from pipeline.app.models import OfferedModel
from pipeline.app.result_page import TITLE, answer_html, error_html, intro_html, style_html
from pipeline.app.uploads import Uploads
from pipeline.io import rounded

if TYPE_CHECKING:
    import gradio as gr

QUEUE = "clips"
"""The name under which both ways to send a clip share the limit of answers at once."""

Result = tuple[str, dict[str, Any]]


def build_page(
    models: Sequence[OfferedModel], settings: Settings, uploads: Uploads, at_once: int, waiting: int
) -> gr.Blocks:
    """Return the page. So many clips are answered `at_once`, and so many more may be `waiting`."""
    import gradio as gr

    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.HTML(style_html() + intro_html(settings.limits, settings.windows.length))
        names = [model.name for model in models]
        model = gr.Dropdown(names, value=names[0], label="Models", visible=len(models) > 1)
        can_reject = any(model.can_reject for model in models)
        reject = gr.Checkbox(can_reject, label="Answer “unknown” where none of the classes fits", visible=can_reject)
        with gr.Tab("File"):
            file = gr.File(label="Clip or video", file_types=["video", *VIDEO_SUFFIXES], height=140)
        with gr.Tab("Webcam"):
            camera = gr.Video(
                label="Record a clip",
                sources=["webcam"],
                webcam_options=gr.WebcamOptions(mirror=False),
                include_audio=True,  # or Gradio takes it out with an ffmpeg program
            )
        result = gr.HTML()
        with gr.Accordion("As JSON", open=False):
            row = gr.JSON(label="what moclip predict --json says, and more")
        answer = _answerer(models, settings, uploads)
        shared: dict[str, Any] = {
            "outputs": [result, row],
            "concurrency_id": QUEUE,
            "concurrency_limit": at_once,
            "preprocess": False,
        }
        for sent, source, name in ((file.upload, file, "answer"), (camera.stop_recording, camera, False)):
            done = sent(answer, [source, model, reject], api_name=name, **shared)
            done.then(None, None, source, js="() => null")  # the file is deleted
    page.queue(max_size=waiting, api_open=False)
    return page


def _answerer(models: Sequence[OfferedModel], settings: Settings, uploads: Uploads) -> Callable[..., Result]:
    import gradio as gr

    by_name = {model.name: model for model in models}

    def answer(sent: Any, name: str, reject: bool, progress: Any = gr.Progress()) -> Result:  # noqa: B008
        """Answer for a file that a visitor has sent: HTML, and the row of `moclip predict --json`."""
        if not sent:
            raise gr.Error("send a file first", print_exception=False)
        if name not in by_name:
            raise gr.Error(f"there are no models of this name: {name}", print_exception=False)
        shown = str(sent.get("orig_name") or "recording")

        def advance(share: float, what: str) -> None:
            progress(share, desc=what)

        try:
            with uploads.in_use(str(sent["path"])) as path:
                found = answer_clip(by_name[name], path, shown, settings, bool(reject), advance)
            return answer_html(found, settings.top), rounded(answer_row(found, settings.top))
        except VideoError as problem:
            return error_html(shown, problem), error_row(shown, problem)
        except MoclipError as problem:  # a full disk
            raise gr.Error(problem.what, print_exception=False) from None

    return answer
