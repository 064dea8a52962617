"""One reading of a clip: extraction, stills and predictions agree with a plain decode, on files of every odd kind.

Frame k of a clip is the k-th picture that a plain decode on one thread shows. The plain decode is written here, and
shares no code with the library.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest
from av.error import FFmpegError
from av.sidedata.sidedata import SideDataContainer

from moclip.data.sampling import motion_frames, segment_frames
from moclip.errors import VideoError
from moclip.inference.clip_input import ClipJob, FieldSettings, ViewSettings, read_input, read_or_reason
from moclip.models.encoders.base import TextEncoder
from moclip.motion.extract import Output, extract
from moclip.motion.extract_plan import FieldRecipe
from moclip.motion.field import motion_field
from moclip.motion.quantise import quantise
from moclip.motion.windows import motion_fields
from moclip.store.features import Features
from moclip.store.reader import FieldReader
from moclip.video.clip_files import file_md5, find_clips
from moclip.video.decoding import B_VECTOR_CODECS
from moclip.video.frames import read_frames, read_pictures
from moclip.video.probe import probe
from moclip.video.transcoded_folder import transcode_clips
from moclip.video.vector_records import VECTOR_COLUMNS, Vectors
from moclip.video.vectors import DamagedError, has_mvextractor, read_vectors, vector_windows
from tests import reference
from tests.clips import (
    cut_by_edit_list,
    encode,
    moving_texture,
    with_clock_set_back,
    with_flipped_bits,
    with_zeros,
    without_first_packets,
)
from tests.conftest import REAL_DATA, ROOT, run, set_keys
from tests.tiny_clip import load_clip

CANVAS, LIMIT = (48, 64), 20.0
SEGMENTS, STILLS = 4, 3
FILM = moving_texture(24, (64, 96))
WIDE = moving_texture(24, (64, 160))
CASES = Path(os.environ.get(REAL_DATA, "")).parent / "cases"


@dataclass(frozen=True)
class Kind:
    """A kind of file: how to make it in a folder, and what its maker knows of it.

    rotation : degrees counterclockwise that players turn it by.
    left, top : px that are cropped away at these sides.
    frames : how many pictures are to be seen; None: as many as a plain decode shows.
    """

    make: Callable[[Path], Path]
    rotation: int = 0
    left: int = 0
    top: int = 0
    frames: int | None = len(FILM)


def _encoded(name: str, codec: str, film: np.ndarray = FILM, **options: Any) -> Callable[[Path], Path]:
    return lambda folder: encode(folder / name, film, codec, **options)


def _x264(parameters: str) -> dict[str, str]:
    return {"x264-params": parameters}


def _cut(name: str, codec: str, first: int, **options: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        whole = encode(folder / f"whole{Path(name).suffix}", FILM, codec, gop=30, **options)
        cut = cut_by_edit_list(whole, folder / name, first)
        whole.unlink()
        return cut

    return make


def _changed(change: Callable[..., Path], name: str, codec: str, *given: Any, **options: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        whole = encode(folder / f"whole{Path(name).suffix}", FILM, codec, **options)
        changed = change(whole, folder / name, *given)
        whole.unlink()
        return changed

    return make


def _cut_off(path: Path, target: Path, share: float) -> Path:
    content = path.read_bytes()
    target.write_bytes(content[: int(share * len(content))])
    return target


def _kinds() -> dict[str, Kind]:
    kinds: dict[str, Kind] = {}
    for suffix in ("avi", "mp4", "mkv", "mov"):
        for codec in ("mpeg4", "libx264"):
            for b_frames in (0, 2):
                name = f"{codec} {'with B-frames ' * bool(b_frames)}in {suffix}"
                kinds[name] = Kind(_encoded(f"a.{suffix}", codec, b_frames=b_frames, gop=8))
    for codec in ("mpeg1video", "mpeg2video"):
        kinds[codec] = Kind(_encoded("a.mkv", codec, b_frames=2, gop=8))
    for codec in ("msmpeg4v2", "wmv2", "flv"):
        kinds[codec] = Kind(_encoded("a.avi", codec, gop=8))
    for name, parameters in {
        "open GOP": "bframes=2:open-gop=1:keyint=8",
        "intra refresh": "bframes=0:intra-refresh=1:keyint=8",
        "many references": "bframes=3:ref=4:b-pyramid=normal",
        "four slices without CABAC": "bframes=0:slices=4:cabac=0",
    }.items():
        kinds[f"h264, {name}"] = Kind(_encoded("a.mp4", "libx264", options=_x264(parameters)))
    kinds["mpeg4, four vectors"] = Kind(_encoded("a.mp4", "mpeg4", options={"flags": "+mv4+qpel"}))
    for codec in ("mpeg4", "libx264"):
        kinds[f"{codec} cut at 9"] = Kind(_cut("a.mp4", codec, 9), frames=15)
        kinds[f"{codec} with B-frames cut at 20"] = Kind(_cut("a.mov", codec, 20, b_frames=2), frames=4)
        for degrees in (90, 180, 270):
            kinds[f"{codec} turned by {degrees}"] = Kind(
                _encoded("a.mp4", codec, b_frames=2, rotation=degrees), rotation=degrees
            )
    kinds["turned and cut"] = Kind(_cut("a.mp4", "libx264", 5, b_frames=2, rotation=90), 90, frames=19)
    for name, (left, top, rest) in {
        "at the top": (0, 8, "0,0"),
        "at the top, no whole block": (0, 6, "6,4"),
        "at the left": (64, 0, "0,0"),
        "at all sides": (64, 14, "6,2"),
    }.items():
        cropped = _x264(f"bframes=2:crop-rect={left},{top},{rest}")
        kinds[f"cropped {name}"] = Kind(_encoded("a.mp4", "libx264", WIDE, options=cropped), 0, left, top)
    both = _x264("bframes=0:crop-rect=64,10,2,0")
    kinds["cropped and turned"] = Kind(_encoded("a.mov", "libx264", WIDE, rotation=90, options=both), 90, 64, 10)
    kinds["cropped in mkv"] = Kind(_encoded("a.mkv", "libx264", WIDE, options=both), 0, 64, 10)
    kinds["clock set back"] = Kind(lambda folder: with_clock_set_back(folder / "a.mp4", FILM, b_frames=2, gop=8))
    kinds["variable frame rate"] = Kind(_encoded("a.mp4", "libx264", b_frames=2, skip_times=(5, 6, 20), gop=8))
    kinds["sound first"] = Kind(_encoded("a.mkv", "libx264", b_frames=2, sound=True))
    for codec, suffix in (("libx264", "mp4"), ("libx264", "mkv"), ("mpeg4", "avi"), ("mpeg4", "mp4")):
        for seed in (1, 2):
            change = _changed(with_flipped_bits, f"a.{suffix}", codec, seed, 2, b_frames=2 * (codec == "libx264"))
            kinds[f"{codec} in {suffix}, bits flipped {seed}"] = Kind(change, frames=None)
    for codec in ("libx264", "mpeg4"):
        kinds[f"{codec}, second half zeros"] = Kind(_changed(with_zeros, "a.mp4", codec, 0.5), frames=None)
        without = _changed(without_first_packets, "a.mkv", codec, 3, gop=8)
        kinds[f"{codec} begun midway"] = Kind(without, frames=None)
    begun = _changed(without_first_packets, "a.mkv", "libx264", 3, options=_x264("intra-refresh=1:keyint=8"))
    kinds["intra refresh begun midway"] = Kind(begun, frames=None)
    kinds["avi cut off"] = Kind(_changed(_cut_off, "a.avi", "mpeg4", 0.6), frames=None)
    return kinds


KINDS = _kinds()


# --------------------------------------------------------------------------------------------- the plain reading


@dataclass(frozen=True)
class Plain:
    """What a plain decode shows: pictures as shown, the letters of their types, and their fields, px of the canvas."""

    pictures: list[np.ndarray]
    letters: str
    fields: np.ndarray


def plain_decode(path: Path) -> Iterator[tuple[np.ndarray, str, list[list[int]]]]:
    """Each picture as decoded, its letter and its vectors; what does not decode is left out."""
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        assert stream is not None
        stream.codec_context.thread_type = "NONE"
        stream.codec_context.options = {"flags2": "+export_mvs"}
        blind_b = stream.codec_context.name not in ("h264", "mpeg1video", "mpeg2video")
        for packet in container.demux(stream):
            try:
                pictures: list[Any] = list(packet.decode())
            except FFmpegError:
                continue
            for picture in pictures:
                letter = "?IPB"[int(picture.pict_type)]
                # not `picture.side_data`: that keeps the picture in memory, and where FFmpeg then decodes the next one
                # to changes what its loop filter sees of blocks that are lost
                side = None if letter == "B" and blind_b else SideDataContainer(picture).get("MOTION_VECTORS")  # type: ignore[call-arg]
                rows = [] if side is None else reference.rows(side.to_ndarray())
                yield picture.to_ndarray(format="rgb24"), letter, rows


def plain(path: Path, kind: Kind) -> Plain:
    pictures: list[np.ndarray] = []
    fields: list[np.ndarray] = []
    letters = ""
    turns = kind.rotation // 90
    for picture, letter, rows in plain_decode(path):
        height, width = picture.shape[:2]
        moved = [[*row[:3], *_less_cropping(row[3:7], kind), *row[7:]] for row in rows]
        pixels = np.rot90(reference.painted(moved, height, width), turns, (1, 2))
        for _ in range(turns):  # a turn counterclockwise: what went right goes up
            pixels = np.stack([pixels[1], -pixels[0]])
        pictures.append(np.rot90(picture, turns))
        fields.append(reference.averaged(pixels, CANVAS, 8))
        letters += letter
    return Plain(pictures, letters, np.stack(fields))


def _less_cropping(positions: list[int], kind: Kind) -> list[int]:
    return [at - cropped for at, cropped in zip(positions, 2 * (kind.left, kind.top), strict=True)]


# ------------------------------------------------------------------------------------------ files of every kind


@pytest.fixture(scope="module")
def project(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files of every kind, indexed, extracted and encoded by the stages' commands."""
    folder = tmp_path_factory.mktemp("reading")
    for number, kind in enumerate(KINDS.values()):
        place = folder / "made"
        place.mkdir()
        made = kind.make(place)
        target = folder / f"videos/{'AB'[number % 2]}/k{number:02d}{made.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        made.rename(target)
        place.rmdir()
    shutil.copytree(finished / "data/demo/clip", folder / "clip")
    run("moclip", "use", "folder", "--root", "videos", cwd=folder)
    set_keys(
        folder / "params.yaml",
        {
            "mv.canvas": list(CANVAS),
            "mv.clip": LIMIT,
            "clip.model": "clip",
            "clip.files": "clip",
            "clip.prompts": str(ROOT / "data/prompts.json"),
            "clip.frames": STILLS,
            "clip.choice": "random",
        },
    )
    for stage in ("index", "extract_mv", "clip_image"):
        run("python", "-m", f"stages.{stage}", cwd=folder)
    return folder


def clip_of(project: Path, name: str) -> str:
    """The id of a kind's file."""
    number = list(KINDS).index(name)
    (path,) = project.glob(f"videos/*/k{number:02d}.*")
    return path.relative_to(project / "videos").as_posix()


@pytest.fixture(scope="module")
def tables(project: Path) -> tuple[pd.DataFrame, FieldReader, Features, TextEncoder]:
    reader = FieldReader(project / "data/features/mv.zarr", project / "data/features/mv.parquet")
    stills = Features(project / "data/features/clip_image.zarr", "clip_image")
    index = pd.read_parquet(project / "data/index.parquet").set_index("id")
    return index, reader, stills, load_clip(str(project / "clip"))


def test_there_are_forty_kinds_and_more() -> None:
    assert len(KINDS) >= 40


@pytest.mark.parametrize("name", KINDS)
def test_every_way_of_reading_gives_what_a_plain_decode_shows(
    project: Path, tables: tuple[pd.DataFrame, FieldReader, Features, TextEncoder], name: str
) -> None:
    index, reader, stills, clip = tables
    kind, id = KINDS[name], clip_of(project, name)
    expected = plain(project / "videos" / id, kind)
    count = len(expected.pictures)
    assert kind.frames in (None, count)

    row = index.loc[id]
    assert (row["status"], row["frames"]) == ("ok", count)
    assert (row["h"], row["w"]) == expected.pictures[0].shape[:2]
    assert row["has_b"] == ("B" in expected.letters)

    levels, types = reader.read_video(id), reader.frame_types(id)
    assert bytes(types).decode() == expected.letters
    wanted_levels = np.clip(expected.fields * 127 / LIMIT, -127, 127)
    assert np.abs(levels - wanted_levels).max() <= 0.5 + 1e-6, "rounded, and nothing else"
    assert levels.any()

    numbers = stills.rows("frame", [id])[0]
    seen = [np.ascontiguousarray(expected.pictures[number]) for number in numbers]
    np.testing.assert_allclose(stills.rows("raw", [id])[0], clip.encode_images(seen), rtol=0, atol=1e-4)

    fields = FieldSettings(False, CANVAS, 8, LIMIT, False)
    read = read_input(ClipJob(project / "videos" / id, fields, ViewSettings(SEGMENTS, 1, 1, STILLS, "random", 0)))
    blind = row["codec"] not in B_VECTOR_CODECS
    target = motion_frames(types, np.array([0]), np.array([count]), np.array([not blind]))
    np.testing.assert_array_equal(read.levels, levels[target[segment_frames(np.array([count]), SEGMENTS)[0]]])
    for still, picture in zip(read.stills, seen, strict=True):
        np.testing.assert_array_equal(still, picture)


@pytest.mark.parametrize("name", KINDS)
def test_seeking_gives_what_reading_in_order_gives(project: Path, name: str) -> None:
    path = project / "videos" / clip_of(project, name)
    about = probe(path)
    wanted = range(0, about.frames, 3)
    in_order = read_frames(path, wanted)
    np.testing.assert_array_equal(read_frames(path, wanted, about.seekable), in_order)
    np.testing.assert_array_equal(in_order, _shown_plainly(path, KINDS[name])[::3])


def _shown_plainly(path: Path, kind: Kind) -> list[np.ndarray]:
    return [np.rot90(picture, kind.rotation // 90) for picture, _, _ in plain_decode(path)]


@pytest.mark.parametrize("accumulate", ["grid", "pixel"])
def test_accumulated_fields_are_the_same_in_the_store_and_in_predictions(
    project: Path, tmp_path: Path, accumulate: str
) -> None:
    index = pd.read_parquet(project / "data/index.parquet")
    output = Output(tmp_path / "mv.zarr", tmp_path / "mv.parquet")
    table = extract(index, project / "videos", output, FieldRecipe(CANVAS, clip=LIMIT, accumulate=accumulate))
    reader = FieldReader(tmp_path / "mv.zarr", table)
    fields = FieldSettings(False, CANVAS, 8, LIMIT, accumulate)
    for id, codec in zip(index["id"], index["codec"], strict=True):
        path = project / "videos" / id
        read = read_input(ClipJob(path, fields, ViewSettings(SEGMENTS, 1, 1, 1, "middle", 0)))
        levels, types = reader.read_video(id), reader.frame_types(id)
        moves = np.array([codec in B_VECTOR_CODECS])
        target = motion_frames(types, np.array([0]), np.array([len(types)]), moves)
        np.testing.assert_array_equal(read.levels, levels[target[segment_frames(np.array([len(types)]), SEGMENTS)[0]]])


@pytest.mark.parametrize("name", [name for name in KINDS if KINDS[name].left or KINDS[name].top])
def test_traces_of_a_cropped_clip_lie_where_it_is_shown(project: Path, tmp_path: Path, name: str) -> None:
    kind, path = KINDS[name], project / "videos" / clip_of(project, name)
    if kind.rotation:
        pytest.skip("the plain traces are not turned")
    frames = [
        reference.Frame(picture, letter, [[*row[:3], *_less_cropping(row[3:7], kind), *row[7:]] for row in rows])
        for picture, letter, rows in plain_decode(path)
    ]
    ((found, _),) = motion_fields(vector_windows(path, "pyav"), CANVAS, 8, "pixel")
    np.testing.assert_allclose(found, reference.traced(frames, CANVAS), rtol=0, atol=1e-9)


# --------------------------------------------------------------------------------------------------- transcoded


TRANSCODED = (
    "turned and cut",
    "mpeg4 cut at 9",
    "libx264, second half zeros",
    "clock set back",
    "cropped at all sides",
)


def test_transcoded_clips_keep_the_numbers_of_their_own_frames(project: Path, tmp_path: Path) -> None:
    names = {name: clip_of(project, name) for name in TRANSCODED}
    for id in names.values():
        target = tmp_path / "videos" / id
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(project / "videos" / id, target)
    for name in ("clip", "params.yaml"):
        (shutil.copytree if name == "clip" else shutil.copy)(project / name, tmp_path / name)
    set_keys(tmp_path / "params.yaml", {"index.transcode": "mpeg4"})
    for stage in ("transcode", "index", "extract_mv", "clip_image"):
        run("python", "-m", f"stages.{stage}", cwd=tmp_path)
    index = pd.read_parquet(tmp_path / "data/index.parquet").set_index("id")
    reader = FieldReader(tmp_path / "data/features/mv.zarr", tmp_path / "data/features/mv.parquet")
    stills, clip = (
        Features(tmp_path / "data/features/clip_image.zarr", "clip_image"),
        load_clip(str(tmp_path / "clip")),
    )
    for name, id in names.items():
        path = tmp_path / "videos" / id
        pictures = _shown_plainly(path, KINDS[name])
        assert index.loc[id, "frames"] == len(pictures)
        seen = [np.ascontiguousarray(pictures[number]) for number in stills.rows("frame", [id])[0]]
        np.testing.assert_allclose(stills.rows("raw", [id])[0], clip.encode_images(seen), rtol=0, atol=1e-4)
        fields = FieldSettings(True, CANVAS, 8, LIMIT, False)
        read = read_input(ClipJob(path, fields, ViewSettings(SEGMENTS, 1, 1, STILLS, "random", 0)))
        types = reader.frame_types(id)
        target_frames = motion_frames(types, np.array([0]), np.array([len(types)]), np.array([False]))
        wanted = target_frames[segment_frames(np.array([len(types)]), SEGMENTS)[0]]
        np.testing.assert_array_equal(read.levels, reader.read_video(id)[wanted])
        for still, picture in zip(read.stills, seen, strict=True):
            np.testing.assert_array_equal(still, picture)


# ------------------------------------------------------------------------------------------------------ mutants


def mutants(folder: Path, count: int) -> list[Path]:
    """Clips of H.264 and MPEG-4 with a few bits flipped, zeros in them, or bytes missing."""
    film = moving_texture(20, (64, 96))
    sources = [
        encode(folder / "s0.mp4", film, "libx264", b_frames=2),
        encode(folder / "s1.mkv", film, "libx264", options=_x264("bframes=0:slices=3:cabac=0")),
        encode(folder / "s2.avi", film, "mpeg4"),
        encode(folder / "s3.mp4", film, "mpeg4", b_frames=1, options={"flags": "+mv4"}),
    ]
    made = []
    for number in range(count):
        rng = np.random.default_rng([7, number])
        source = sources[number % len(sources)]
        content = bytearray(source.read_bytes())
        for at in rng.integers(len(content) // 10, len(content) * 9 // 10, int(rng.integers(1, 6))).tolist():
            if number // len(sources) % 3 == 0:
                content[at] ^= 1 << int(rng.integers(8))
            elif number // len(sources) % 3 == 1:
                content[at : at + 16] = bytes(16)
            else:
                del content[at : at + int(rng.integers(1, 9))]
        made.append(folder / f"m{number:03d}{source.suffix}")
        made[-1].write_bytes(content)
    return made


@pytest.mark.slow
def test_damaged_clips_give_every_reader_the_same_result(tmp_path: Path) -> None:
    files = mutants(tmp_path, 200)
    rows, refused = [], set()
    for path in files:
        try:
            about = probe(path)
        except VideoError:
            refused.add(path)
            continue
        named = {"id": path.name, "path": path.name, "md5": file_md5(path)}
        rows.append(named | {name: getattr(about, name) for name in ("frames", "codec", "has_b", "damage")})
    index = pd.DataFrame(rows)
    output = Output(tmp_path / "mv.zarr", tmp_path / "mv.parquet")
    table = extract(index, tmp_path, output, FieldRecipe(CANVAS, clip=LIMIT), workers=1).set_index("id")
    reader = FieldReader(tmp_path / "mv.zarr", tmp_path / "mv.parquet")
    settings, views = FieldSettings(False, CANVAS, 8, LIMIT, False), ViewSettings(20, 1, 1, 2, "middle", 0)
    compared = 0
    for path in files:
        read = read_or_reason(ClipJob(path, settings, views))
        if path in refused or table.loc[path.name, "status"] != "ok":
            assert isinstance(read, VideoError), path
            continue
        assert not isinstance(read, VideoError), (path, read)
        levels, pictures = _read_plainly(path)
        np.testing.assert_array_equal(reader.read_video(path.name), levels, err_msg=path.name)
        types = reader.frame_types(path.name)
        moves = np.array([path.name in set(index["id"][index["codec"] == "h264"])])
        target = motion_frames(types, np.array([0]), np.array([len(types)]), moves)
        np.testing.assert_array_equal(read.levels, levels[target[segment_frames(np.array([len(types)]), 20)[0]]])
        for number, still in zip(segment_frames(np.array([len(types)]), 2)[0], read.stills, strict=True):
            np.testing.assert_array_equal(still, pictures[number])
        compared += 1
    assert compared > 100
    assert (index["damage"] != "").sum() > 50, "most of them are damaged indeed"


def _read_plainly(path: Path) -> tuple[np.ndarray, list[np.ndarray]]:
    """Levels of a plain decode's vectors, and its pictures."""
    decoded = list(plain_decode(path))
    height, width = decoded[0][0].shape[:2]
    rows = [np.array(rows, np.int32).reshape(-1, 10) for _, _, rows in decoded]
    frame = np.repeat(np.arange(len(rows), dtype=np.int32), [len(one) for one in rows])
    types = np.frombuffer("".join(letter for _, letter, _ in decoded).encode(), np.uint8)
    vectors = Vectors(np.concatenate(rows), frame, types, width, height)
    return quantise(motion_field(vectors, CANVAS, 8), LIMIT), [picture for picture, _, _ in decoded]


# ------------------------------------------------------------------------------------------- refusals, names, costs


def joined_streams(folder: Path, second: dict[str, str]) -> Path:
    """A transport stream of progressive pictures and then others, as a recorder writes when its input changes."""
    parts = [
        encode(folder / "1.ts", FILM, "libx264", gop=8),
        encode(folder / "2.ts", FILM, "libx264", gop=8, options=second),
    ]
    path = folder / "joined.mp4"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def test_pictures_that_turn_interlaced_midway_are_refused_everywhere(tmp_path: Path) -> None:
    path = joined_streams(tmp_path, _x264("interlaced=1:bframes=0"))
    settings, views = FieldSettings(False, CANVAS, 8, LIMIT, False), ViewSettings(4, 1, 1, 1, "middle", 0)
    ways: list[Callable[[], object]] = [
        lambda: probe(path),
        lambda: read_vectors(path, "pyav"),
        lambda: read_input(ClipJob(path, settings, views)),
        lambda: read_input(ClipJob(path, dataclasses.replace(settings, transcode=True), views)),
    ]
    for read in ways:
        with pytest.raises(VideoError, match="interlaced"):
            read()


@pytest.mark.parametrize(("height", "width"), [(48, 96), (64, 80)])
def test_a_size_that_changes_midway_is_refused(tmp_path: Path, height: int, width: int) -> None:
    small = encode(tmp_path / "3.ts", FILM[:, :height, :width], "libx264", gop=8)
    path = tmp_path / "sizes.mp4"
    path.write_bytes(encode(tmp_path / "1.ts", FILM, "libx264", gop=8).read_bytes() + small.read_bytes())
    with pytest.raises(VideoError, match=f"size changes from 96x64 to {width}x{height} midway"):
        probe(path)


@pytest.mark.parametrize("name", ["12:30:45.mp4", "data:v1.mp4", "concat:a|b.mp4", "pipe:.mp4", "a%03d.mp4", "-i.mp4"])
def test_names_that_look_like_urls_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    encode(tmp_path / "a.mp4", FILM, "libx264", b_frames=2).rename(tmp_path / name)
    about = probe(name)
    assert about.frames == len(FILM)
    assert read_frames(name, [3], about.seekable).shape == (1, 64, 96, 3)
    assert len(read_vectors(name, "pyav").frame_types) == len(FILM)
    if has_mvextractor():
        assert len(read_vectors(name, "mvextractor").frame_types) == len(FILM)


@pytest.mark.slow
def test_names_with_colons_work_in_all_commands(tmp_path: Path) -> None:
    for name in ("walk", "run"):
        (tmp_path / "data:v1" / name).mkdir(parents=True)
        for number in range(6):
            film = moving_texture(8, (48, 64), seed=number)
            encode(tmp_path / f"data:v1/{name}/12:30:{number}_g{number:02d}.avi", film)
    run("moclip", "use", "folder", "--root", "data:v1", cwd=tmp_path)
    run("moclip", "index", cwd=tmp_path)
    run("moclip", "extract_mv", cwd=tmp_path)
    counts = json.loads((tmp_path / "metrics/counts/extract_mv.json").read_text())
    assert counts["extracted"] == 12
    run("moclip", "draw", "12:30:0_g00.avi", "--out", "out:put", cwd=tmp_path / "data:v1/walk")
    assert list((tmp_path / "data:v1/walk/out:put").rglob("*.mp4"))


# ------------------------------------------------------------------------------- files that were read wrongly once


@pytest.mark.skipif(not CASES.is_dir(), reason=f"no folder of such files beside the one that {REAL_DATA} names")
class TestCases:
    """Right values of files that were read wrongly."""

    settings = FieldSettings(False, CANVAS, 8, LIMIT, False)

    def middle(self, name: str) -> np.ndarray:
        read = read_input(ClipJob(CASES / name, self.settings, ViewSettings(3, 1, 1, 1, "middle", 0)))
        return read.stills[0]

    def test_an_edit_list(self) -> None:
        name = "editlist_40packets_30pictures.mp4"
        assert probe(CASES / name).frames == 30
        np.testing.assert_array_equal(self.middle(name), list(plain_decode(CASES / name))[15][0])

    def test_half_a_file(self) -> None:
        name = "second_half_zeros.mp4"
        about = probe(CASES / name)
        assert about.frames == 6
        assert about.damage.startswith("44 of 50 packets give no picture")
        np.testing.assert_array_equal(self.middle(name), list(plain_decode(CASES / name))[3][0])

    def test_a_clip_whose_clock_jumps_back(self) -> None:
        name = "clock_jumps_back.mp4"
        about = probe(CASES / name)
        expected = list(plain_decode(CASES / name))[25][0]
        for seekable in (False, about.seekable):
            np.testing.assert_array_equal(read_frames(CASES / name, [25], seekable)[0], expected)

    def test_cropping_at_the_left_and_top(self) -> None:
        cropped = read_vectors(CASES / "cropleft64_top32.mp4", "pyav")
        whole = read_vectors(CASES / "uncropped_reference.mp4", "pyav")
        assert (cropped.left, cropped.top) == (64, 32)
        for name, cut in (("src_x", 64), ("dst_x", 64), ("src_y", 32), ("dst_y", 32)):
            column = VECTOR_COLUMNS.index(name)
            np.testing.assert_array_equal(cropped.blocks[:, column], whole.blocks[:, column] - cut)
        field = motion_field(whole, (240, 320))  # a cell 8 px of the picture
        np.testing.assert_array_equal(motion_field(cropped, (208, 256)), field[:, :, 4:, 8:])

    def test_interlaced_pictures_after_progressive_ones(self) -> None:
        path, views = CASES / "progressive_then_interlaced.mkv", ViewSettings(3, 1, 1, 1, "middle", 0)
        for read in (
            lambda: probe(path),
            lambda: read_vectors(path, "pyav"),
            lambda: self.middle(path.name),
            lambda: read_input(ClipJob(path, dataclasses.replace(self.settings, transcode=True), views)),
        ):
            with pytest.raises(VideoError, match="interlaced"):
                read()

    @pytest.mark.slow
    def test_a_flipped_bit(self) -> None:
        path = CASES / "one_bit_flipped_h264.mp4"
        assert probe(path).damage == "1 of 60 pictures are damaged"
        with pytest.raises(DamagedError):
            list(vector_windows(path, "pyav"))
        expected, _ = _read_plainly(path)
        found = quantise(motion_field(read_vectors(path, "pyav"), CANVAS, 8), LIMIT)
        np.testing.assert_array_equal(found, expected)


# ------------------------------------------------------------------------------------------------ more odd files


def test_stills_of_damaged_mpeg2_are_those_of_predictions(tmp_path: Path) -> None:
    whole = encode(tmp_path / "whole.mkv", FILM, "mpeg2video", b_frames=2)
    fields, views = FieldSettings(False, CANVAS, 8, LIMIT, False), ViewSettings(4, 1, 1, 12, "middle", 0)
    damaged = 0
    for seed in range(12):
        path = with_flipped_bits(whole, tmp_path / f"{seed}.mkv", seed, 4)
        about = probe(path)
        damaged += bool(about.damage)
        numbers = segment_frames(np.array([about.frames]), 12)[0]
        read = read_input(ClipJob(path, fields, views))
        for still, picture in zip(read.stills, read_pictures(path, numbers, about.seekable), strict=True):
            np.testing.assert_array_equal(still, picture)
    assert damaged > 6


def test_cropping_that_changes_midway_is_refused(tmp_path: Path) -> None:
    parts = [
        encode(tmp_path / f"{number}.ts", WIDE, "libx264", gop=8, options=_x264(f"bframes=0:crop-rect={rect}"))
        for number, rect in enumerate(("64,0,0,0", "0,0,64,0"))
    ]
    path = tmp_path / "joined.mp4"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(VideoError, match="cropping changes midway"):
        probe(path)


def test_seeking_never_starts_at_a_b_frame_marked_as_key_frame(tmp_path: Path) -> None:
    whole, path = encode(tmp_path / "whole.mp4", FILM, "mpeg4", b_frames=2, gop=12), tmp_path / "keys.mp4"
    with av.open(str(whole)) as source, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.is_keyframe = True
                packet.stream = stream
                container.mux(packet)
    wanted = range(len(FILM))
    plainly = [picture for picture, _, _ in plain_decode(path)]
    for number in wanted:
        np.testing.assert_array_equal(read_frames(path, [number], True)[0], plainly[number])


def test_sizes_may_change_where_clips_are_transcoded(tmp_path: Path) -> None:
    parts = [encode(tmp_path / f"{n}.ts", film, "libx264", gop=8) for n, film in enumerate((FILM, FILM[:, :48]))]
    path = tmp_path / "sizes.mp4"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    fields, views = FieldSettings(True, CANVAS, 8, LIMIT, False), ViewSettings(4, 1, 1, 2, "middle", 0)
    assert [still.shape for still in read_input(ClipJob(path, fields, views)).stills] == [(64, 96, 3), (48, 96, 3)]


@pytest.mark.slow
def test_extreme_shapes_and_long_names_cost_their_clip_alone(tmp_path: Path) -> None:
    (tmp_path / "clips/A").mkdir(parents=True)
    for name in ("a", "b", "x" * 251):
        encode(tmp_path / "a.avi", moving_texture(8, (48, 64))).rename(tmp_path / f"clips/A/{name}.avi")
    encode(tmp_path / "clips/A/tall.avi", moving_texture(8, (416, 16)))  # enlarged 40 times, too tall for WebP
    done = run("moclip", "draw", "clips", "--as", "webp", cwd=tmp_path)
    assert len(list((tmp_path / "drawings").rglob("*.webp"))) >= 2
    assert "clips/A/tall.avi: 640x16696 px: webp allows 16,383 px at most on a side" in done.stderr
    assert "its name is too long for the name of a drawing" in done.stderr
    assert "internal error" not in done.stderr
    failed = transcode_clips(tmp_path / "clips", ["A/a.avi", f"A/{'x' * 251}.avi"], tmp_path / "out", 1)
    assert list(failed) == [f"A/{'x' * 251}.avi"]
    assert "File name too long" in failed[f"A/{'x' * 251}.avi"]
    near = "y" * 245  # with what is added to it while it is written, it is too long
    shutil.copy(tmp_path / "clips/A/a.avi", tmp_path / f"clips/A/{near}.avi")
    assert transcode_clips(tmp_path / "clips", [f"A/{near}.avi"], tmp_path / "near", 1) == {}


@pytest.mark.slow
def test_a_pipe_fails_only_itself_in_draw(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    encode(tmp_path / "clips/a.mp4", FILM, "libx264")
    os.mkfifo(tmp_path / "clips/pipe.mp4")  # to open it would take for ever
    done = run("moclip", "draw", "clips", cwd=tmp_path)
    assert "clips/pipe.mp4: no regular file" in done.stderr
    assert len(list((tmp_path / "drawings").rglob("*.mp4"))) == 1


def test_patterns_match_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "w/empty").mkdir(parents=True)
    clip = encode(tmp_path / "w/a.avi", moving_texture(4, (48, 64)))
    (tmp_path / "w/x[1].avi").symlink_to("nowhere")
    assert find_clips([tmp_path / "w/*"]) == [clip, tmp_path / "w/x[1].avi"]
    assert find_clips([tmp_path / ("z" * 300 + ".avi"), clip]) == [tmp_path / ("z" * 300 + ".avi"), clip]
