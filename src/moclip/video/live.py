"""Open a live stream: a camera, RTSP, HTTP, or a file that is still being written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
from av.error import ExitError, FFmpegError

from moclip.errors import VideoError
from moclip.video.clip_files import check_regular
from moclip.video.decoding import main_stream
from moclip.video.messages import error_text
from moclip.video.timed_frames import TimedVideo, has_vectors, timed_video

# Little is read before the first frame. Where a source says that it can seek, FFmpeg would first look for its end.
OPTIONS = {"probesize": "1000000", "analyzeduration": "1000000", "seekable": "0"}


@dataclass(frozen=True)
class LiveSource:
    """A live stream, and how patient to be with it.

    url : rtsp://..., http://..., a device such as /dev/video0, or a file.
    retries : how many attempts in a row to connect again.
    timeout : seconds without a frame that count as a break.
    buffer : seconds of the stream that may wait for the networks.
    """

    url: str
    retries: int = 5
    timeout: float = 10.0
    buffer: float = 30.0

    @property
    def is_device(self) -> bool:
        """Whether it is a camera of this machine."""
        return not self._is_address and Path(self.url).is_char_device()

    @property
    def is_file(self) -> bool:
        """Whether it is a file. One that no longer grows has ended."""
        return not self._is_address and not self.is_device

    @property
    def _is_address(self) -> bool:
        return "://" in self.url


@contextmanager
def open_live(source: LiveSource, transcode: bool) -> Iterator[TimedVideo]:
    """Connect to a stream. Its motion vectors are those of re-encoded pictures with `transcode`, or if it has none.

    Frames end where the stream breaks off, or gives nothing for the source's timeout.

    Raises
    ------
    VideoError
        It cannot be opened, or is no video; or as `open_timed`.
    """
    try:
        container = _open(source)
    except ExitError as error:
        raise VideoError(f"nothing came within {source.timeout:g} s", where=source.url) from error
    except (FFmpegError, OSError, ValueError) as error:
        raise VideoError(f"cannot be opened ({error_text(error)})", where=source.url) from error
    with container:
        stream = main_stream(source.url, container)
        yield timed_video(source.url, container, stream, transcode or not has_vectors(stream))


def _open(source: LiveSource) -> av.container.InputContainer:
    waits = (source.timeout, source.timeout)
    if source.is_device:
        return av.open(source.url, format="v4l2", timeout=waits)
    if source.is_file:
        check_regular(source.url)
        if not Path(source.url).is_file():
            raise VideoError("a folder, not a file" if Path(source.url).is_dir() else "no such file", where=source.url)
        return av.open(f"file:{source.url}", options=OPTIONS | {"follow": "1"}, timeout=waits)
    return av.open(source.url, options=OPTIONS | {"rtsp_transport": "tcp"}, timeout=waits)
