"""`moclip app`: a local web page to try trained models with."""

from __future__ import annotations

import socket
from typing import Annotated

import typer

from pipeline.commands.predict import PREDICT_KEYS
from pipeline.commands.timeline import parse_seconds
from pipeline.console.command import while_importing
from pipeline.console.output import print_note
from pipeline.params import Params
from pipeline.stage import command

ANSWERED_AT_ONCE = 2


@command("dataset.root", "dataset.background", *PREDICT_KEYS)
def app(
    params: Params | None,
    bundles: Annotated[
        list[str] | None,
        typer.Option(
            "--bundle",
            metavar="DIR|ID",
            help="What `moclip export` wrote: a folder, or OWNER/NAME of the hub (@REVISION). May be given several "
            "times.  [the models of dvc repro]",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on. 0.0.0.0: all of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 7860,
    max_mb: Annotated[float, typer.Option(min=0.001, help="The largest file, in MB.")] = 200.0,
    max_seconds: Annotated[float, typer.Option(min=0.1, help="The longest video.")] = 600.0,
    top: Annotated[int, typer.Option("--top", "-k", min=1, help="How many classes of each stream to show.")] = 5,
    window: Annotated[str, typer.Option(help="Timeline: length of a window: 2, 2s, 500ms.")] = "2s",
    every: Annotated[str, typer.Option(help="Timeline: time from one window to the next.")] = "0.5s",
    at_once: Annotated[int, typer.Option(min=1, help="How many clips are answered at the same time.")] = (
        ANSWERED_AT_ONCE
    ),
    waiting: Annotated[int, typer.Option(min=1, help="How many clips may wait in the queue.")] = 20,
) -> None:
    """Serve a web page with which trained models are tried on clips, long videos and the webcam.

    Without --bundle it has the models that `dvc repro` trained. The page shows the most probable classes of each
    stream, the motion in colours, the timeline of a video that is longer than a window, and the nearest clips of the
    training. Only this machine can open it, unless you name another --host. The page loads nothing from the internet.
    Files are deleted when they are answered. Ctrl-C ends it.
    """
    length, distance = parse_seconds(window, "--window"), parse_seconds(every, "--every")
    with while_importing():
        from pipeline.app.server import check_gradio, open_socket, serve, uploads_folder

        check_gradio()
    listener = open_socket(host, port)
    with while_importing():
        from moclip.inference.untrusted_clip import Limits
        from moclip.inference.windows import Windows
        from moclip.workers.processes import start_fork_server
        from pipeline.app.answers import Settings
        from pipeline.app.models import offered_models
    limits = Limits(round(max_mb * 1e6), max_seconds)
    settings = Settings(limits, top, Windows(length, distance))
    start_fork_server("moclip.inference.untrusted_clip")  # it starts while the models are loaded
    print_note("app: loading the models")
    models = offered_models(params, bundles or ())
    with uploads_folder() as uploads:
        print(f"app: {_address(listener)}  (Ctrl-C ends it)", flush=True)
        serve(models, settings, uploads, listener, at_once, waiting)


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


if __name__ == "__main__":
    app()
