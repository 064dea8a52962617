"""Small models, long videos and a server that breaks off, for tests of timelines."""

from __future__ import annotations

import functools
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moclip.data.sampling import motion_frames, neighbours, segment_frames
from moclip.inference.clip_input import ClipInput, FieldSettings, ViewSettings
from moclip.inference.predictor import Prediction, Predictor
from moclip.inference.timeline import read_timeline
from moclip.inference.windows import Windows
from moclip.models.class_texts import ClassTexts, text_features
from moclip.models.encoders.base import TextEncoder
from moclip.models.fusion import FusionConfig
from moclip.models.heads.concat import ConcatFusion
from moclip.models.mv_tsn import MvTsn, MvTsnConfig
from moclip.motion.quantise import quantise
from moclip.motion.windows import motion_fields
from moclip.video.frames import read_pictures
from moclip.video.vectors import vector_windows
from tests.test_training import sharpened
from tests.tiny_clip import load_clip, tiny_clip

CLASSES = ("left", "right", "up")


@functools.cache
def _encoder() -> TextEncoder:
    return load_clip(str(tiny_clip(Path(tempfile.mkdtemp()))))


def small_predictor(
    network: dict[str, Any] | None = None, fields: dict[str, Any] | None = None, encode: bool = True, **views: Any
) -> Predictor:
    """Networks with random weights, whose answers differ from clip to clip."""
    encoder = _encoder()
    torch.manual_seed(0)
    config: dict[str, Any] = {"backbone": "test_resnet", "classes": CLASSES, "size": 32, "dropout": 0.5} | (
        network or {}
    )
    mv_tsn = sharpened(MvTsn(MvTsnConfig(**config)))
    picture = encoder.width if encode else 1
    head = ConcatFusion(FusionConfig(mv_tsn.width, picture, 16, len(CLASSES), 0.5)).eval()
    texts = text_features(encoder, CLASSES, {name: [name] for name in CLASSES}, ["a {}"])
    settings: dict[str, Any] = {"transcode": False, "canvas": (240, 320), "cell": 8, "clip": 20.0, "accumulate": False}
    shown: dict[str, Any] = {"segments": 3, "crops": 1, "crop": 0.875, "stills": 1, "choice": "middle", "seed": 0}
    return Predictor(
        mv_tsn=mv_tsn,
        fusion=head,
        encoder=encoder if encode else None,
        classes=CLASSES,
        texts=ClassTexts(texts, 20.0, 0.0, ("a {}",)) if encode else None,
        fields=FieldSettings(**settings | (fields or {})),
        views=ViewSettings(**shown | {"stack": mv_tsn.config.stack} | views),
    )


def plain_window(predictor: Predictor, path: Path, first: int, frames: int) -> Prediction:
    """The answer for `frames` frames of a video from `first` on: all fields and pictures are read, and some used."""
    settings, views = predictor.fields, predictor.views
    parts = list(motion_fields(vector_windows(path, "pyav", damaged=True), settings.canvas, settings.cell, False))
    fields = quantise(np.concatenate([fields for fields, _ in parts]), settings.clip)
    types = np.concatenate([types for _, types in parts])
    moving = motion_frames(types, np.array([0]), np.array([len(types)]), np.array([True]))
    chosen = first + segment_frames(np.array([frames]), views.segments)
    around = neighbours(chosen, np.array([len(types)]), views.stack)[0]
    levels = fields[moving[around]].reshape(views.segments, -1, *fields.shape[2:])
    stills = first + segment_frames(np.array([frames]), views.stills)[0]
    return predictor.classify(ClipInput(levels, read_pictures(path, stills)))


class BreakingServer:
    """Serves parts of a stream, one per connection, in chunks; after the last one there is no such page.

    A part is broken off without its last chunk, as when a server dies.
    """

    def __init__(self, parts: Sequence[bytes], pause: float = 0.0) -> None:
        self.parts, self.pause = list(parts), pause
        self.served = 0
        self.closing = threading.Event()

    @contextmanager
    def running(self) -> Iterator[str]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/live.ts"
        finally:
            self.closing.set()
            server.shutdown()
            server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        own = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if own.served >= len(own.parts):
                    self.send_error(404)
                    return
                part, own.served = own.parts[own.served], own.served + 1
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.send_header("Connection", "close")
                self.end_headers()
                for start in range(0, len(part), 4096):
                    chunk = part[start : start + 4096]
                    try:
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                        self.wfile.flush()
                    except OSError:  # the client has gone
                        return
                    own.closing.wait(own.pause)
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def balanced(predictor: Predictor, path: Path, windows: Windows) -> Predictor:
    """Change the network's bias so that it names each class in some windows of this video, and is sure of it."""
    logits = np.log(read_timeline(predictor, path, windows).probabilities["mv_tsn"])
    with torch.no_grad():
        predictor.mv_tsn.head.bias.sub_(torch.from_numpy(np.median(logits, axis=0))).mul_(20)
        predictor.mv_tsn.head.weight.mul_(20)
    return predictor
