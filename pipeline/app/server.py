"""Serve the page until Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import TYPE_CHECKING, Any

from moclip.errors import MoclipError
from pipeline.app.uploads import Uploads

if TYPE_CHECKING:
    from pipeline.app.answers import Settings
    from pipeline.app.models import OfferedModel

LOOPBACK = ("127.0.0.1", "localhost", "::1")
SWEEP_EVERY = 60.0  # seconds
FAREWELL = 2  # seconds that open connections get at the end


def check_gradio() -> None:
    """Raise MoclipError without the extra `app`. Turn off what Gradio would tell of its use, before it is imported."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio  # noqa: F401
    except ModuleNotFoundError as problem:
        raise MoclipError(f'the package {problem.name} is not installed: pip install "moclip[app]"') from None


@contextmanager
def uploads_folder() -> Iterator[Uploads]:
    """Yield a folder for the files of visitors, which is deleted at the end."""
    with TemporaryDirectory(prefix="moclip-app-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        yield Uploads(Path(folder))


def open_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Port 0 stands for a free one. Raises MoclipError."""
    where = f"--host {host} --port {port}"
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as problem:
        known = problem.errno is not None and problem.errno > 0  # unlike those of names that are not found
        what = f"cannot listen here: {os.strerror(problem.errno or 0) if known else problem.strerror}"
        raise MoclipError(what, where=where, fix="name another --port, or 0 for a free one") from None


def serve(
    models: Sequence[OfferedModel],
    settings: Settings,
    uploads: Uploads,
    listener: socket.socket,
    at_once: int,
    waiting: int,
) -> None:
    """Serve the page on a socket until SIGINT or SIGTERM."""
    import fastapi
    import gradio as gr
    import uvicorn

    from pipeline.app.guard import Guard
    from pipeline.app.page import build_page
    from pipeline.app.result_page import TITLE

    page = build_page(models, settings, uploads, at_once, waiting)
    fonts: dict[str, Any] = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    mounted = gr.mount_gradio_app(
        fastapi.FastAPI(title=TITLE, docs_url=None, redoc_url=None, openapi_url=None),
        page,
        path="/",
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        max_file_size=settings.limits.size,
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=gr.themes.Default(**fonts),
    )
    host = listener.getsockname()[0]
    hosts = frozenset((*LOOPBACK, "[::1]")) if host in LOOPBACK else None
    guard = Guard(mounted, uploads, settings.limits.size, hosts)
    config = uvicorn.Config(
        guard, log_level="warning", timeout_graceful_shutdown=FAREWELL, ws="none", server_header=False
    )
    with _sweeping(uploads), closing(listener), _ended_by_signal():
        uvicorn.Server(config).run(sockets=[listener])


@contextmanager
def _sweeping(uploads: Uploads) -> Iterator[None]:
    """Delete old files every minute while the block runs."""
    ended = threading.Event()

    def sweep() -> None:
        while not ended.wait(SWEEP_EVERY):
            with suppress(OSError):  # Gradio may have moved a file meanwhile
                uploads.sweep()

    threading.Thread(target=sweep, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


@contextmanager
def _ended_by_signal() -> Iterator[None]:
    """Let the signal that ends the server end the block, not the program: its folder is to be deleted."""

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except KeyboardInterrupt:  # uvicorn sends the signal again when it has ended
        pass
    finally:
        signal.signal(signal.SIGTERM, previous)
