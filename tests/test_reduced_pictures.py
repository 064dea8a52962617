"""Vectors from reduced pictures (FFmpeg's `lowres`) are those of a plain decode, for every codec that is read that way.

The plain decode is written here, and shares no code with the library.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest
from av.error import FFmpegError
from av.sidedata.sidedata import SideDataContainer

from moclip.errors import VideoError
from moclip.motion.extract import Output, extract
from moclip.motion.extract_plan import FieldRecipe
from moclip.motion.field import motion_field
from moclip.motion.quantise import quantise
from moclip.store.reader import FieldReader
from moclip.video.clip_files import file_md5
from moclip.video.decoding import REDUCIBLE_CODECS
from moclip.video.mvextractor_backend import read_mvextractor
from moclip.video.probe import probe
from moclip.video.vector_records import Vectors
from moclip.video.vectors import DamagedError, has_mvextractor, vector_windows
from tests import reference
from tests.clips import cut_by_edit_list, encode, moving_texture, with_flipped_bits
from tests.global_motion import with_global_motion

CANVAS = (48, 64)
SIZES = ((16, 16), (46, 70), (96, 128), (233, 317), (242, 322), (720, 1280))
# codec: containers, and encoder options. H.263 has no other size than its own.
ENCODERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "mpeg4": (
        "avi",
        ("", "flags=+mv4+qpel", "flags=+aic+mv4", "data_partitioning=1:ps=150", "ps=100", "mbd=rd:trellis=1"),
    ),
    "mpeg2video": ("mkv", ("", "slices=2")),
    "mpeg1video": ("mkv", ("",)),
    "msmpeg4v2": ("avi", ("",)),
    "msmpeg4": ("avi", ("",)),
    "wmv1": ("avi", ("",)),
    "wmv2": ("avi", ("",)),
    "flv": ("flv", ("", "flags=+mv4+loop")),
    "h263": ("avi", ("", "flags=+mv4:obmc=1", "ps=100")),
    "h263p": ("avi", ("flags=+mv4+aic+loop:umv=1",)),
}
S_FRAME = 4  # FFmpeg's number
WITH_B = ("mpeg4", "mpeg1video", "mpeg2video")


def film_for(codec: str, size: tuple[int, int], frames: int = 7) -> np.ndarray:
    return moving_texture(frames, (144, 176) if codec == "h263" else size, (5, -3))


def encoded(folder: Path, codec: str, size: tuple[int, int], options: str = "", b_frames: int = 0) -> Path:
    suffix = ENCODERS[codec][0]
    given = dict(pair.split("=") for pair in options.split(":") if pair)
    film = film_for(codec, size)
    return encode(folder / f"a.{suffix}", film, codec, b_frames=b_frames, gop=5, options=given)


def plain_decode(path: Path) -> tuple[np.ndarray, str, tuple[int, int]]:
    """All blocks of a plain decode, each behind the number of its frame; the letters; width and height."""
    blocks: list[list[int]] = []
    letters = ""
    size = (0, 0)
    with av.open(str(path)) as container:
        stream: Any = container.streams.video[0]
        stream.codec_context.thread_type = "NONE"
        stream.codec_context.options = {"flags2": "+export_mvs"}
        exports_b = stream.codec_context.name.startswith(("mpeg1", "mpeg2"))
        for packet in container.demux(stream):
            try:
                pictures: list[Any] = list(packet.decode())
            except FFmpegError:
                continue
            for picture in pictures:
                letter, size = "?IPBP"[int(picture.pict_type)], (picture.width, picture.height)
                side = SideDataContainer(picture).get("MOTION_VECTORS")  # type: ignore[call-arg]
                if side is not None and (letter != "B" or exports_b):
                    found = side.to_ndarray()
                    columns = [found[name].astype(int).tolist() for name in reference.COLUMNS]
                    blocks += [[len(letters), *row] for row in zip(*columns, strict=True)]
                letters += letter
    return np.array(blocks, np.int32).reshape(-1, 11), letters, size


def assert_plain(windows: list[Vectors], path: Path) -> None:
    blocks, letters, size = plain_decode(path)
    assert b"".join(window.frame_types.tobytes() for window in windows).decode() == letters
    assert {(window.width, window.height) for window in windows} == {size}
    starts = np.cumsum([0, *(len(window.frame_types) for window in windows)])
    found = [
        np.column_stack([window.frame + start, window.blocks]) for start, window in zip(starts, windows, strict=False)
    ]
    np.testing.assert_array_equal(np.concatenate(found), blocks)


def reduced(path: Path) -> list[Vectors]:
    return list(vector_windows(path, "pyav", damaged=False))


def clips_of(folder: Path, codec: str) -> Iterator[Path]:
    """Clips of all sizes, options and frame types of an encoder, each in place of the one before.

    The largest size has the first options only.
    """
    odd_sizes, any_sizes = codec not in ("wmv1", "wmv2"), codec not in ("h263", "h263p")
    for size in SIZES if any_sizes else ((96, 128), (720, 1280)):
        if size[0] % 2 and not odd_sizes:
            continue
        for options in ENCODERS[codec][1][: 1 if size == SIZES[-1] else None]:
            for b_frames in (0, 2) if codec in WITH_B and size == (96, 128) else (0,):
                yield encoded(folder, codec, size, options, b_frames)


@pytest.mark.slow
@pytest.mark.parametrize("codec", ENCODERS)
def test_vectors_are_those_of_a_plain_decode(codec: str, tmp_path: Path) -> None:
    compared = 0
    for path in clips_of(tmp_path, codec):
        about = probe(path)
        assert about.codec in REDUCIBLE_CODECS
        assert not about.damage
        if about.width > 16 or plain_decode(path)[0].size:  # else the only macroblock is intra coded
            assert_plain(reduced(path), path)
            compared += 1
    assert compared > 1


def test_every_codec_with_reduced_pictures_is_compared() -> None:
    h263p = "h263p"  # its decoder is H.263's
    assert set(ENCODERS) - {h263p} == REDUCIBLE_CODECS


@pytest.mark.parametrize("points", [0, 1, 2, 3])
def test_global_motion(points: int, tmp_path: Path) -> None:
    path = with_global_motion(tmp_path / "a.m4v", film_for("mpeg4", (96, 128), 12), points)
    assert not probe(path).damage
    with av.open(str(path)) as container:
        assert S_FRAME in {int(picture.pict_type) for picture in container.decode(video=0)}
    assert_plain(reduced(path), path)


@pytest.mark.parametrize("rotation", [0, 90])
def test_edit_lists_and_rotation(rotation: int, tmp_path: Path) -> None:
    whole = encode(tmp_path / "whole.mp4", film_for("mpeg4", (96, 128), 14), b_frames=2, rotation=rotation)
    path = cut_by_edit_list(whole, tmp_path / "cut.mp4", 5)
    windows = reduced(path)
    assert sum(len(window.frame_types) for window in windows) == 9
    assert windows[0].orientation.swaps == bool(rotation)
    assert_plain(windows, path)


@pytest.mark.skipif(not has_mvextractor(), reason="mvextractor is not installed here")
def test_mvextractor_gives_the_same(tmp_path: Path) -> None:
    path = encoded(tmp_path, "mpeg4", (233, 317), "flags=+mv4+qpel")
    (ours,), (theirs,) = reduced(path), read_mvextractor(path, refuse_b=False)
    np.testing.assert_array_equal(ours.blocks, theirs.blocks)
    assert (ours.width, ours.height) == (theirs.width, theirs.height) == (317, 233)


@pytest.mark.parametrize("codec", ENCODERS)
def test_damage_that_the_index_finds_is_read_as_a_plain_decode_conceals_it(codec: str, tmp_path: Path) -> None:
    whole = encoded(tmp_path, codec, (96, 128), ENCODERS[codec][1][-1], 2 * (codec in WITH_B))
    rows = []
    for seed in range(12):
        path = with_flipped_bits(whole, tmp_path / f"{seed}{whole.suffix}", seed)
        about = probe(path)
        row = {name: getattr(about, name) for name in ("frames", "codec", "has_b", "damage")}
        rows.append(row | {"id": path.name, "path": path.name, "md5": file_md5(path)})
        assert_plain(list(vector_windows(path, "pyav", damaged=bool(about.damage))), path)
    for name, videos in (("known", pd.DataFrame(rows)), ("unknown", pd.DataFrame(rows).drop(columns="damage"))):
        output = Output(tmp_path / name / "mv.zarr", tmp_path / name / "mv.parquet")
        extract(videos, tmp_path, output, FieldRecipe(CANVAS, shard_frames=128))
        reader = FieldReader(output.zarr, output.table)
        for path in map(tmp_path.joinpath, videos["path"]):
            windows = vector_windows(path, "pyav", damaged=True)
            expected = np.concatenate([quantise(motion_field(window, CANVAS)) for window in windows])
            np.testing.assert_array_equal(reader.read_video(path.name), expected)


def test_damage_in_reduced_pictures_goes_unnoticed(tmp_path: Path) -> None:
    """This is why the index has to say that there is none."""
    whole = encoded(tmp_path, "mpeg4", (96, 128))
    damaged = [with_flipped_bits(whole, tmp_path / f"{seed}.avi", seed) for seed in range(6)]
    damaged = [path for path in damaged if "damaged" in probe(path).damage]
    assert damaged
    for path in damaged:
        reduced(path)
        with pytest.raises(DamagedError):
            list(vector_windows(path, "pyav"))


@pytest.mark.parametrize("codec", ["mpeg4", "mpeg2video"])
def test_a_size_that_changes_by_less_than_a_reduced_pixel_is_refused(codec: str, tmp_path: Path) -> None:
    parts = [encode(tmp_path / f"{height}.ts", moving_texture(8, (height, 96)), codec) for height in (64, 60)]
    path = tmp_path / "sizes.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    for damaged in (True, None, False):
        with pytest.raises(VideoError, match="size changes from 96x64 to 96x60 midway"):
            list(vector_windows(path, "pyav", damaged=damaged))


@pytest.mark.parametrize("codec", ["mpeg4", "mpeg2video"])
def test_interlaced_pictures_are_refused(codec: str, tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", moving_texture(8, (64, 64)), codec, options={"flags": "+ildct+ilme"})
    with pytest.raises(VideoError, match="interlaced"):
        reduced(path)


def test_the_size_is_the_streams_where_the_container_says_another(tmp_path: Path) -> None:
    path = encoded(tmp_path, "mpeg4", (96, 128))
    written, wrong = struct.pack("<II", 128, 96), struct.pack("<II", 192, 80)
    content = path.read_bytes()
    assert content.count(written) > 1
    path.write_bytes(content.replace(written, wrong))
    assert (probe(path).width, probe(path).height) == (128, 96)
    assert_plain(reduced(path), path)
