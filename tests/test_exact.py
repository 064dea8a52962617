"""For every supported kind of stream, stored fields are the definition's, whichever backend reads the vectors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest

from moclip.errors import VideoError
from moclip.motion.extract import Output, extract
from moclip.motion.extract_plan import FieldRecipe
from moclip.motion.field import motion_field
from moclip.motion.windows import motion_fields
from moclip.store.reader import FieldReader
from moclip.video.clip_files import file_md5
from moclip.video.frames import read_frames
from moclip.video.probe import VideoInfo, probe
from moclip.video.vectors import has_mvextractor, read_vectors, vector_windows
from tests import reference
from tests.clips import encode, moving_texture, without_first_packets

I_FRAME_EVERY = 5
FRAMES = 13
CANVAS, CELL = (48, 64), 8


def made(
    suffix: str, codec: str, size: tuple[int, int] = (48, 64), b_frames: int = 0, **more: Any
) -> Callable[[Path], Path]:
    film = moving_texture(FRAMES, size, (3, -1.5), seed=size[0])
    return lambda folder: encode(
        folder / f"a{suffix}", film, codec, b_frames=b_frames, gop=I_FRAME_EVERY, **more
    )  # fmt: skip


def beginning_late(make: Callable[[Path], Path], suffix: str) -> Callable[[Path], Path]:
    return lambda folder: without_first_packets(make(folder), folder / f"late{suffix}", 2)


x264: Callable[[str], dict[str, Any]] = lambda options: {"options": {"x264-params": options}}  # noqa: E731

STREAMS: dict[str, Callable[[Path], Path]] = {
    "MPEG-4": made(".avi", "mpeg4"),
    "MPEG-4, four vectors, quarter pel": made(".mp4", "mpeg4", options={"flags": "+mv4+qpel"}),
    "MPEG-4 with B": made(".mp4", "mpeg4", b_frames=2),
    "MPEG-4 with B in AVI": made(".avi", "mpeg4", b_frames=2),
    "MPEG-4 of odd size": made(".avi", "mpeg4", (45, 71)),
    "MPEG-4 not beginning with a key frame": beginning_late(made(".avi", "mpeg4"), ".avi"),
    "H.264 baseline": made(".mp4", "libx264", options={"profile": "baseline"}),
    "H.264 main": made(".mkv", "libx264", options={"profile": "main"}),
    "H.264 main with B": made(".mp4", "libx264", b_frames=2, options={"profile": "main"}),
    "H.264 high": made(".mp4", "libx264", options={"profile": "high"}),
    "H.264 high with B": made(".mp4", "libx264", b_frames=3, options={"profile": "high"}),
    "H.264, all partitions": made(".mp4", "libx264", b_frames=2, **x264("bframes=2:partitions=all:8x8dct=0:subme=9")),
    "H.264, several references": made(".mp4", "libx264", **x264("bframes=0:ref=4")),
    "H.264, several references, open GOP": made(
        ".mp4", "libx264", b_frames=3, **x264("bframes=3:ref=4:b-pyramid=normal:open-gop=1")
    ),
    "H.264, weighted prediction": made(".mkv", "libx264", b_frames=3, **x264("bframes=3:weightp=2:weightb=1:ref=3")),
    "H.264, no multiple of 16": made(".mp4", "libx264", (42, 74), b_frames=2),
    "H.264 of odd size": made(".mp4", "libx264", (51, 67), b_frames=2, pix_fmt="yuv444p"),
    "H.264, variable frame rate": made(".mp4", "libx264", b_frames=2, skip_times=(3, 4, 9)),
    "H.264 behind a sound track": made(".mkv", "libx264", b_frames=2, sound=True),
    "MPEG-4 behind a sound track": made(".avi", "mpeg4", sound=True),
    "H.264 not beginning with a key frame": beginning_late(made(".mkv", "libx264"), ".mkv"),
    "H.264 with B not beginning with a key frame": beginning_late(made(".mkv", "libx264", b_frames=2), ".mkv"),
    "H.264 with B in AVI": made(".avi", "libx264", b_frames=2),
    "MPEG-1": made(".mkv", "mpeg1video"),
    "MPEG-2 with B": made(".mkv", "mpeg2video", b_frames=2),
}
MANNERS: dict[bool | str, Callable[..., np.ndarray]] = {False: reference.field, "pixel": reference.traced}


@dataclass(frozen=True)
class Stream:
    path: Path
    info: VideoInfo
    frames: list[reference.Frame]

    @functools.cache  # noqa: B019 (a stream lives as long as its tests)
    def slow(self, accumulate: bool | str, canvas: tuple[int, int]) -> np.ndarray:
        return MANNERS[accumulate](self.frames, canvas, CELL)

    def __hash__(self) -> int:
        return hash(self.path)


@pytest.fixture(scope="module", params=STREAMS)
def stream(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Stream:
    path = STREAMS[request.param](tmp_path_factory.mktemp("stream"))
    return Stream(path, probe(path), reference.decode(path))


@pytest.mark.parametrize("accumulate", MANNERS)
def test_fields_are_the_definition(stream: Stream, accumulate: bool | str) -> None:
    assert len(stream.frames) >= FRAMES - I_FRAME_EVERY
    letters = "".join(frame.letter for frame in stream.frames)
    for canvas in ((stream.info.height, stream.info.width), CANVAS):
        slow = stream.slow(accumulate, canvas)
        assert np.abs(slow).max() > 1
        for backend in exact_backends(stream.info):
            ((made_, types),) = motion_fields(vector_windows(stream.path, backend), canvas, CELL, accumulate)
            count = len(types)
            # where the file's end is another stream's, mvextractor stops a frame early
            assert count == len(letters) or (backend == "mvextractor" and count == len(letters) - 1)
            assert bytes(types).decode() == letters[:count]
            np.testing.assert_allclose(made_, slow[:count], rtol=0, atol=1e-6, err_msg=backend)


@pytest.mark.parametrize("accumulate", MANNERS)
def test_stored_fields_are_the_definition_in_int8(stream: Stream, accumulate: bool | str, tmp_path: Path) -> None:
    row = {name: getattr(stream.info, name) for name in ("frames", "codec", "has_b")}
    videos = pd.DataFrame([row | {"id": "a", "path": stream.path.name, "md5": file_md5(stream.path)}])
    zarr_path, table_path, root = tmp_path / "mv.zarr", tmp_path / "mv.parquet", stream.path.parent
    recipe = FieldRecipe(CANVAS, accumulate=accumulate, shard_frames=64)
    table = extract(videos, root, Output(zarr_path, table_path), recipe)
    count = len(stream.frames)
    assert (table["status"].item(), table["length"].item()) == ("ok", count)
    short = f"{count} of {stream.info.frames} frames decoded"
    assert table["reason"].item() == ("" if count == stream.info.frames else short)
    stored = FieldReader(zarr_path, table_path).read_video("a") * (20 / 127)
    slow = np.clip(stream.slow(accumulate, CANVAS), -20, 20)
    np.testing.assert_allclose(stored, slow, rtol=0, atol=20 / 254 + 1e-6)


def exact_backends(info: VideoInfo) -> list[str]:
    fast = has_mvextractor() and not (info.codec == "h264" and info.has_b)
    return ["pyav", "mvextractor"] if fast else ["pyav"]


# ----------------------------------------------------------------------------------------------- orientation

TURNS = {90: 1, 180: 2, -90: 3}  # degrees counterclockwise: quarter turns of numpy's rot90


@pytest.mark.slow
@pytest.mark.parametrize("degrees", TURNS)
@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_a_rotated_video_is_read_as_it_is_shown(codec: str, degrees: int, tmp_path: Path) -> None:
    path = made(".mp4", codec, (42, 74), b_frames=2, rotation=degrees)(tmp_path)
    frames, turns = reference.decode(path), TURNS[degrees]
    shown = [np.rot90(frame.picture, turns) for frame in frames]
    np.testing.assert_array_equal(read_frames(path, [0, 7]), [shown[0], shown[7]])
    info = probe(path)
    assert (info.height, info.width) == shown[0].shape[:2]
    for accumulate, canvas in (
        (False, CANVAS),
        ("pixel", CANVAS),
        (False, (44, 61)),
        (False, (info.height, info.width)),
    ):
        slow = turned(frames, turns, accumulate, canvas)
        for backend in exact_backends(info):
            (fields, _), *_ = motion_fields(vector_windows(path, backend), canvas, CELL, accumulate)
            np.testing.assert_allclose(fields, slow, rtol=0, atol=1e-6)


def turned(frames: list[reference.Frame], turns: int, accumulate: bool | str, canvas: tuple[int, int]) -> np.ndarray:
    """The definition on pixels that were turned first."""
    height, width = frames[0].picture.shape[:2]
    if accumulate:
        pixels = reference.traced(frames, (height, width), 1)
    else:
        pixels = np.stack([reference.painted(frame.blocks, height, width) for frame in frames])
    dx, dy = (np.rot90(pixels[:, axis], turns, (1, 2)) for axis in (0, 1))
    for _ in range(turns):  # a quarter turn counterclockwise takes right (1, 0) to up (0, -1)
        dx, dy = dy, -dx
    return np.stack([reference.averaged(np.stack(pair), canvas, CELL) for pair in zip(dx, dy, strict=True)])


def test_a_mirrored_video_is_read_as_it_is_shown(tmp_path: Path) -> None:
    path = made(".mp4", "libx264", rotation=180)(tmp_path)
    content = path.read_bytes()
    at = content.index(b"tkhd") + 44
    mirror = b"".join(value.to_bytes(4, "big", signed=True) for value in (-65536, 0, 0, 0, 65536))
    path.write_bytes(content[:at] + mirror + content[at + 20 :])
    frames = reference.decode(path)
    np.testing.assert_array_equal(read_frames(path, [3])[0], frames[3].picture[:, ::-1])
    plain = reference.field(frames, (48, 64), CELL)[..., ::-1] * np.array([-1, 1])[:, None, None]
    np.testing.assert_allclose(motion_field(read_vectors(path, "pyav"), (48, 64)), plain, rtol=0, atol=1e-6)


# ------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("mpeg4", {"flags": "+ildct+ilme"}),
        ("mpeg2video", {"flags": "+ildct+ilme"}),
        ("libx264", {"x264-params": "interlaced=1"}),
    ],
)
def test_interlaced_video_is_refused_by_name(codec: str, options: dict[str, str], tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", moving_texture(8, (64, 64)), codec, options=options)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    with pytest.raises(VideoError, match="interlaced"):
        probe(path)
