"""Clips that are spans of longer videos: their frames, fields and stills are those of a plain decode of the video."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest

from moclip.data.clip_batches import SampledFields, SplitClips
from moclip.data.index import INDEX_COLUMNS, build_index
from moclip.data.manifest import read_manifest
from moclip.data.sampling import motion_frames, segment_frames
from moclip.data.scene_groups import read_thumbnails
from moclip.data.spans import SPAN_COLUMNS, fields_of_clips, ordered_by_video, too_late_notes, videos_of
from moclip.evaluation.report_pictures import motion_uri, still_uri
from moclip.inference import prepare_stills
from moclip.inference.prepare_stills import CLIPS_PER_JOB, StillsJob, StillsTask, prepare_in_order
from moclip.models.encoders.source import EncoderSource
from moclip.motion.accumulate import accumulate_grid
from moclip.motion.extract import Output, extract
from moclip.motion.extract_plan import FieldRecipe
from moclip.motion.field import motion_field
from moclip.motion.quantise import quantise
from moclip.store.reader import FieldReader
from moclip.store.table import rows_of
from moclip.store.verify import verify_store
from moclip.video import frames as frames_module
from moclip.video.decoding import open_stream
from moclip.video.frames import read_frames
from moclip.video.times import read_times, shown_times
from moclip.video.transcoded_folder import transcode_clips
from moclip.video.vectors import read_vectors
from tests import dying
from tests.clips import (
    cut_by_edit_list,
    encode,
    moving_texture,
    with_clock_set_back,
    with_flipped_bits,
    with_zeros,
    without_first_packets,
)
from tests.conftest import run, set_keys

CANVAS = (48, 64)
FRAMES = 60
FILM = moving_texture(FRAMES, CANVAS)

Span = tuple[str, str]


def delayed(path: Path, target: Path, seconds: Fraction) -> Path:
    """Copy a clip's packets so that its clock starts later, as the clock of a transport stream does."""
    with av.open(str(path)) as source, av.open(str(target), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size and packet.time_base:
                shift = int(seconds / packet.time_base)
                packet.pts, packet.dts = (packet.pts or 0) + shift, (packet.dts or 0) + shift
                packet.stream = stream
                container.mux(packet)
    return target


def clip_of_kind(kind: str, folder: Path) -> Path:
    path = folder / "clip.mp4"
    if kind == "mpeg4 avi":
        return encode(folder / "clip.avi", FILM)
    if kind == "mpeg4 avi B":
        return encode(folder / "clip.avi", FILM, b_frames=2)
    if kind == "mkv 29.97":
        return encode(folder / "clip.mkv", FILM, "libx264", b_frames=2, fps=Fraction(30000, 1001))
    if kind == "without time stamps":
        return encode(folder / "clip.264", FILM, "libx264", b_frames=2)
    if kind == "variable frame rate":
        return encode(path, FILM, "libx264", b_frames=2, skip_times=(5, 20, 21, 40))
    if kind == "sound first":
        return encode(path, FILM, "libx264", sound=True)
    if kind == "clock set back":
        return with_clock_set_back(folder / "clip.ts", FILM)
    whole = encode(folder / "whole.mp4", FILM, "libx264", b_frames=2)
    if kind == "edit list":
        return cut_by_edit_list(whole, path, 7)
    if kind == "starts at 1.4 s":
        return delayed(encode(folder / "whole.ts", FILM, "libx264", b_frames=2), folder / "clip.ts", Fraction(7, 5))
    if kind == "bits flipped":
        return with_flipped_bits(whole, path, seed=3, bits=4)
    if kind == "broken off":
        return with_zeros(whole, path, 0.7)
    if kind == "no key frame first":
        return without_first_packets(encode(folder / "whole.avi", FILM), folder / "clip.avi", 5)
    assert kind == "h264 B"
    return whole


KINDS = [
    "mpeg4 avi", "mpeg4 avi B", "mkv 29.97", "without time stamps", "variable frame rate", "sound first", "edit list",
    "starts at 1.4 s", "bits flipped", "broken off", "no key frame first", "h264 B",
]  # fmt: skip
SPANS: list[Span] = [
    ("", ""), ("0", "99"), ("0.2", "0.6"), ("0.5", "0.75"), ("0:00:00.48", "0:01.2"), ("1.2", ""), ("", "0.4"),
    ("0.231", "1.003"), ("0.23", "0.9"),
]  # fmt: skip


def plain_times(path: Path) -> list[Fraction]:
    """The time of each picture that PyAV shows, by the time stamps alone."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        start = Fraction(container.start_time or 0, 1_000_000)
        times: list[Fraction] = []
        for packet in container.demux(stream):
            try:
                pictures = packet.decode()
            except av.FFmpegError:
                continue
            for picture in pictures:
                unknown = times[-1] + 1 / Fraction(stream.average_rate or 25) if times else Fraction(0)
                stamp = None if picture.pts is None else round(1_000_000 * picture.pts * stream.time_base)
                times.append(unknown if stamp is None else Fraction(stamp, 1_000_000) - start)
    return times


def seconds_of(text: str, default: Fraction) -> Fraction:
    parts = [Fraction(part) for part in text.split(":")] if text else [default]
    return sum((part * 60**power for power, part in enumerate(reversed(parts))), Fraction(0))


def write_manifest(folder: Path, rows: Sequence[tuple[str, str, str]], **columns: Sequence[Any]) -> Path:
    """A manifest of (path, start, end), with two labels in turn."""
    table = pd.DataFrame(rows, columns=["path", "start", "end"])
    table["label"] = [("A", "B")[number % 2] for number in range(len(rows))]
    file = folder / "clips.csv"
    table.assign(**columns).to_csv(file, index=False)
    return file


def index_of(
    folder: Path, rows: Sequence[tuple[str, str, str]], transcoded: Path | None = None, **columns: Sequence[Any]
) -> tuple[pd.DataFrame, list[str]]:
    """The index of a manifest, whose ids are the rows' numbers, and what is told. Splits are in turn by default."""
    columns.setdefault("split", [("train", "val", "test")[number % 3] for number in range(len(rows))])
    columns.setdefault("id", [f"{number:03d}" for number in range(len(rows))])
    manifest = read_manifest(write_manifest(folder, rows, **columns), str(folder))
    told = list(manifest.notes)
    table = build_index(
        folder, manifest.clips, None, 0.3, 0.3, 0, transcoded=transcoded, manifest=manifest, tell=told.append
    )
    return table, told


def extracted(index: pd.DataFrame, folder: Path, root: Path, **recipe: Any) -> FieldReader:
    """The motion fields of an index's clips: a reader of each clip's own."""
    output = Output(folder / "mv.zarr", folder / "mv.parquet")
    usable = index[index["status"] == "ok"]
    table = extract(videos_of(usable), root, output, FieldRecipe(canvas=CANVAS, shard_frames=128, **recipe))
    assert verify_store(folder / "mv.zarr", folder / "mv.parquet") == []
    return FieldReader(folder / "mv.zarr", fields_of_clips(usable, table))


# ----------------------------------------------------------------------------------------------- frames and times


@pytest.mark.parametrize("kind", KINDS)
def test_frames_fields_and_pictures_are_those_of_a_plain_decode(kind: str, tmp_path: Path) -> None:
    path = clip_of_kind(kind, tmp_path)
    index, _ = index_of(tmp_path, [(path.name, *span) for span in SPANS])
    times = plain_times(path)
    vectors = read_vectors(path, "pyav")
    fields = quantise(motion_field(vectors, CANVAS))
    assert index["video_frames"].eq(len(times)).all()
    reader = extracted(index, tmp_path, tmp_path)
    assert len(reader.table["offset"]) == (index["status"] == "ok").sum() > 5
    for (start, end), row in zip(SPANS, rows_of(index), strict=True):
        low, high = seconds_of(start, Fraction(0)), seconds_of(end, Fraction(999))
        wanted = [number for number, time in enumerate(times) if low <= time < high]
        assert row.frames == len(wanted), (start, end)
        if len(wanted) < 2:
            assert row.status == "failed"
            continue
        assert wanted == list(range(row.first, row.first + row.frames))
        np.testing.assert_array_equal(reader.read_video(row.id), fields[wanted])
        np.testing.assert_array_equal(reader.frame_types(row.id), vectors.frame_types[wanted])
    row = index.iloc[3]
    numbers = [row["first"], row["first"] + row["frames"] - 1]
    pictures = [picture.to_ndarray(format="rgb24", threads=1) for picture in plain_pictures(path)]
    np.testing.assert_array_equal(read_frames(path, numbers, row["seekable"]), [pictures[n] for n in numbers])


def plain_pictures(path: Path) -> list[Any]:
    with open_stream(path) as (container, stream):
        found = []
        for packet in container.demux(stream):
            try:
                found += packet.decode()
            except av.FFmpegError:
                continue
        return found


def test_times_go_on_where_there_are_none_or_the_clock_is_set_back(tmp_path: Path) -> None:
    tick = Fraction(1, 100)
    assert shown_times([5, None, 13, 17, None, None], tick, 50_000, 25).tolist() == [
        0,
        40000,
        80000,
        120000,
        160000,
        200000,
    ]
    assert shown_times([None, 4, 9, 2, 3, 30], tick, None, 25).tolist() == [0, 40000, 90000, 130000, 170000, 300000]
    assert shown_times([0, 4, 3, 8], tick, 0, 25).tolist() == [0, 40000, 40000, 80000], "a little earlier is no jump"
    assert shown_times([3, 7], tick, 35_000, 25).tolist() == [0, 35000], "never before the start"
    assert shown_times([None, None], tick, 0, 0).tolist() == [0, 40000], "25 frames a second where the rate is unknown"
    hour = shown_times([None] * 108_001, tick, 0, 30000 / 1001)
    assert hour[-1] == 3_603_600_000, "no rounding adds up"
    path = clip_of_kind("clock set back", tmp_path)
    assert read_times(path).tolist() == [40_000 * number for number in range(FRAMES)]


def test_first_picture_of_a_container_has_time_0_whatever_the_time_base(tmp_path: Path) -> None:
    """The start time is rounded to microseconds: a picture at 6/90 s must not come 0.3 microseconds before it."""
    path = encode(tmp_path / "a.mp4", FILM[:10], "libx264", fps=Fraction(30000, 1001))
    index, _ = index_of(tmp_path, [(path.name, "0", "0.1"), (path.name, "", "0.2"), (path.name, "0.0", "0.25")])
    assert index["first"].tolist() == [0, 0, 0]
    assert index["frames"].tolist() == [3, 6, 8]


# ------------------------------------------------------------------------------------------------------ the index


def test_an_index_without_spans_has_no_new_column(tmp_path: Path) -> None:
    for name in ("a.avi", "b.avi", "c.avi"):
        encode(tmp_path / name, FILM[:12])
    index, told = index_of(tmp_path, [("a.avi", "", ""), ("b.avi", "0", ""), ("c.avi", "", "")])
    assert list(index.columns) == list(INDEX_COLUMNS)
    assert not told


def test_default_names_groups_and_columns_of_spans(tmp_path: Path) -> None:
    path = encode(tmp_path / "day, 1.avi", FILM)
    encode(tmp_path / "b.avi", FILM)
    rows = [(path.name, "", ""), (path.name, "0", "1"), (path.name, "0:01", "2.400"), (path.name, "1.5", ""),
            ("b.avi", "", "")]  # fmt: skip
    file = write_manifest(tmp_path, rows)
    found = read_manifest(file, str(tmp_path)).rows
    names = ["day, 1.avi", "day, 1.avi@0-1", "day, 1.avi@1-2.4", "day, 1.avi@1.5-", "b.avi"]
    assert found["id"].tolist() == names
    assert found["video"].tolist() == ["day, 1.avi"] * 4 + ["b.avi"]
    assert found["group"].tolist() == ["day, 1"] * 4 + ["b"]
    index = index_of(tmp_path, rows, id=names)[0].set_index("id")
    assert list(index.columns)[-4:] == list(SPAN_COLUMNS)
    assert index["md5"].nunique() == 4, "the whole videos have the same bytes, each span has contents of its own"
    assert len(set(index["video_md5"])) == 1
    assert list(index.loc["b.avi", ["video", "first", "video_frames"]]) == ["b.avi", 0, FRAMES]


def test_spans_that_cannot_be_used_have_a_reason_and_the_others_go_on(tmp_path: Path) -> None:
    video = encode(tmp_path / "a.avi", FILM, gop=30).name
    (tmp_path / "broken.avi").write_bytes(b"broken")
    spans = [("", "1"), ("1", "2"), ("0.5", "1.5"), ("60", ""), ("2.405", "3"), ("0.21", "0.25"), ("0.21", "0.23")]
    rows = [(video, *span) for span in spans]
    rows += [("broken.avi", "", "1"), ("broken.avi", "1", "2"), ("gone.avi", "1", "2"), (video, "2", "9")]
    split = ["train", "val", "test", *["train"] * 8]
    index, told = index_of(tmp_path, rows, split=split)
    assert index["reason"].tolist() == [
        "", "", "",
        "its start is beyond the video's end",
        "no frame from its start to its end",
        "1 frame from its start to its end: a clip needs at least 2 to have motion",
        "no frame from its start to its end",
        *["not a video file (Invalid data found when processing input)"] * 2,
        "named in the manifest, but there is no such file",
        "",
    ]  # fmt: skip
    assert told[-1] == "1 clip ends after its video: used up to its end: 010"
    assert too_late_notes(pd.DataFrame({"id": []})) == [], "where none does"
    assert index["frames"].iloc[-1] == FRAMES + 1 - 50


def test_a_span_of_key_frames_has_no_motion(tmp_path: Path) -> None:
    """A video whose first half has key frames only, by two encoders."""
    moving = encode(tmp_path / "b.avi", FILM[:20])
    still = encode(tmp_path / "i.avi", FILM[:20], gop=1)
    join(tmp_path / "a.avi", [still, moving])
    rows = [("a.avi", "0", "0.5"), ("a.avi", "0", "1"), ("a.avi", "1", ""), ("a.avi", "0.9", "1.4")]
    index, _ = index_of(tmp_path, rows, split=["train", "train", "val", "test"])
    assert index["reason"].tolist() == ["no motion vectors from its start to its end", "", "", ""]


def join(path: Path, clips: Sequence[Path]) -> list[int]:
    """Copy the packets of MPEG-4 clips without B-frames into one file; returns how many frames each clip has.

    Each begins with a key frame, so a decoder shows of each what it shows of the clip alone.
    """
    counts: list[int] = []
    with av.open(str(path), "w") as container:
        stream: Any = None
        for clip in clips:
            with av.open(str(clip)) as source:
                stream = stream or container.add_stream_from_template(source.streams.video[0])
                packets = [packet for packet in source.demux(video=0) if packet.size]
                for number, packet in enumerate(packets, start=sum(counts)):
                    packet.pts = packet.dts = number
                    packet.time_base = 1 / Fraction(source.streams.video[0].average_rate or 25)
                    packet.stream = stream
                    container.mux(packet)
                counts.append(len(packets))
    return counts


@pytest.mark.parametrize(
    ("rows", "columns", "expected_text"),
    [
        ([("a", "1", "2"), ("a", "1.0", "0:02"), ("b", "", "")], {},
         "rows 2 and 3 name the same span, a@1-2: used once; such rows: 1"),
        ([("a", "", ""), ("a", "0", ""), ("b", "", "")], {}, "rows 2 and 3 name the same file, a: used once"),
        ([("a", "1", "2"), ("a", "2", "3"), ("b", "", "")], {"split": ["train", "test", "test"]},
         "the video a is in test (row 3) and in train (row 2); such videos: 1; clips cut from one video are alike"),
        ([("a", "1", "2"), ("a", "2", "3"), ("b", "", "")], {"group": ["x", "y", "x"]},
         "clips of the video a are in several groups (rows 2 and 3), and so perhaps in train and in test"),
    ],
)  # fmt: skip
def test_what_is_told_of_spans(
    tmp_path: Path, rows: list[tuple[str, str, str]], columns: dict[str, list[str]], expected_text: str
) -> None:
    labels = ["A", "A", "B"]
    notes = read_manifest(write_manifest(tmp_path, rows, label=labels, **columns), str(tmp_path)).notes
    assert [expected_text in note for note in notes] == [True]


def test_all_spans_of_a_video_are_in_one_split_by_the_seed(tmp_path: Path) -> None:
    for name in "abcdef":
        encode(tmp_path / f"{name}.avi", FILM[:30])
    rows = [(f"{name}.avi", *span) for name in "abcdef" for span in (("", "0.4"), ("0.4", "0.8"), ("0.3", "0.9"))]
    label = [("A", "B")[number % 2] for number in range(len(rows))]
    manifest = read_manifest(write_manifest(tmp_path, rows, label=label), str(tmp_path))
    for seed in range(3):
        index = build_index(tmp_path, manifest.clips, None, 0.3, 0.3, seed, manifest=manifest)
        assert index.groupby("path")["split"].nunique().eq(1).all()
        assert set(index["split"]) == {"train", "val", "test"}


def test_transcoded_spans_are_cut_by_the_times_of_their_source(tmp_path: Path) -> None:
    source = clip_of_kind("variable frame rate", tmp_path)
    spans = [("", "1"), ("0.3", "0.9"), ("1.5", "")]
    rows = [(source.name, *span) for span in spans]
    assert transcode_clips(tmp_path, [source.name], tmp_path / "transcoded") == {}
    index, _ = index_of(tmp_path, rows, tmp_path / "transcoded")
    plain, _ = index_of(tmp_path, rows)
    columns = ["first", "frames", "video_frames"]
    assert index[columns].equals(plain[columns])
    assert index["w"].eq(340).all()
    assert not index["seekable"].any()


@pytest.mark.slow
def test_a_million_spans_are_read_in_seconds(tmp_path: Path) -> None:
    """A tenth of them, so that this stays quick."""
    starts = [str(number / 10) for number in range(1000)] * 100
    table = pd.DataFrame({"path": np.repeat([f"{n}.mp4" for n in range(100)], 1000), "label": "A", "start": starts})
    table["end"] = [f"{float(start) + 2:g}" for start in starts]
    table.loc[::2, "label"] = "B"
    table.to_csv(tmp_path / "clips.csv", index=False)
    found = read_manifest(tmp_path / "clips.csv", str(tmp_path))
    assert len(found.rows) == found.rows["id"].nunique() == 100_000
    assert len(found.clips.clips) == 100


# --------------------------------------------------------------------------------------------------- motion fields


def test_accumulated_fields_of_a_span_go_back_to_the_key_frame_before_it(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", FILM)
    index, _ = index_of(tmp_path, [(path.name, "0.2", "0.4"), (path.name, "0.6", "0.9"), (path.name, "1", "")])
    reader = extracted(index, tmp_path, tmp_path, accumulate="grid")
    vectors = read_vectors(path, "pyav")
    whole = accumulate_grid(motion_field(vectors, CANVAS), vectors.frame_types, CANVAS)
    for row in rows_of(index):
        np.testing.assert_array_equal(reader.read_video(row.id), quantise(whole)[row.first : row.first + row.frames])


def test_motion_of_overlapping_spans_never_comes_from_outside_of_them(tmp_path: Path) -> None:
    """Frames without vectors take the motion of another frame of their clip; which one depends on where the clip ends.

    Compared with each span alone, whose frame types are cut out.
    """
    path = encode(tmp_path / "a.avi", FILM, gop=9, b_frames=1)
    rng = np.random.default_rng(0)
    starts = rng.integers(0, FRAMES - 12, 30)
    lengths = rng.integers(3, 12, len(starts))
    spans = {(f"{0.04 * a:.2f}", f"{0.04 * (a + n):.2f}") for a, n in zip(starts, lengths, strict=True)}
    index, _ = index_of(tmp_path, [(path.name, *span) for span in sorted(spans)])
    index = index[index["status"] == "ok"]
    assert len(index) > 20
    reader = extracted(index, tmp_path, tmp_path)
    rows = index.merge(reader.table[["id", "offset", "length"]], on="id")
    sampled = SampledFields.of(reader, rows)
    clips = SplitClips.of(rows)
    for segments in (3, 8):
        found = sampled.read_async(clips, segments)().reshape(len(rows), segments, 2, *reader.grid)
        numbers = segment_frames(clips.lengths, segments)
        for place, row in enumerate(rows_of(rows)):
            types, fields = reader.frame_types(row.id), reader.read_video(row.id)
            target = motion_frames(types, np.array([0]), np.array([len(types)]), np.array([False]))
            np.testing.assert_array_equal(found[place], fields[target[numbers[place]]])
            assert fields[target].any(axis=(1, 2, 3)).all(), "each frame has some motion"


# ---------------------------------------------------------------------------------------------------------- stills


def stills_jobs(index: pd.DataFrame, folder: Path, stills: int = 2) -> list[StillsJob]:
    task = StillsTask(EncoderSource(""), str(folder), True, stills, "middle", 0, 1, 2, "", "", {})
    return [
        StillsJob(
            row.path, row.video_md5, int(row.frames), bool(row.seekable), task, dying.stacked, int(row.first), row.md5
        )
        for row in rows_of(ordered_by_video(index[index["status"] == "ok"], stills))
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["h264 B", "edit list"])
def test_stills_of_many_spans_are_those_of_a_plain_decode(kind: str, tmp_path: Path) -> None:
    """A video that is seekable, and one that is not and is read in one pass by a process of its own."""
    path = clip_of_kind(kind, tmp_path)
    encode(tmp_path / "z.avi", FILM[:9])
    starts = [number / 25 for number in range(0, 48)]
    rows = [(path.name, f"{start:.2f}", f"{start + 0.04 * (2 + n % 9):.2f}") for n, start in enumerate(starts)]
    index, _ = index_of(tmp_path, [*rows, ("z.avi", "", "")])
    jobs = stills_jobs(index, tmp_path)
    assert len(jobs) > CLIPS_PER_JOB + 1
    assert {job.seekable for job in jobs if job.path == path.name} == {kind == "h264 B"}
    pictures = {name: [one.to_ndarray(format="rgb24", threads=1) for one in plain_pictures(tmp_path / name)]
                for name in (path.name, "z.avi")}  # fmt: skip
    for job, (numbers, found) in zip(jobs, prepare_in_order(jobs, 2, 4), strict=True):
        assert isinstance(found, dict), found
        expected = [pictures[job.path][job.first + number] for number in numbers.tolist()]
        np.testing.assert_array_equal(found["pixels"], np.stack(expected))


def test_a_video_that_is_not_seekable_is_decoded_once_for_all_its_spans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = clip_of_kind("edit list", tmp_path)
    index, _ = index_of(tmp_path, [(path.name, f"{n / 25}", f"{n / 25 + 0.2}") for n in range(45)])
    jobs = stills_jobs(index, tmp_path)
    opened: list[Path] = []

    def counted(path: Path) -> Any:
        opened.append(path)
        return open_stream(path)

    monkeypatch.setattr(frames_module, "open_stream", counted)
    assert all(isinstance(found, dict) for _, found in prepare_stills._stills_in_order(jobs))
    assert len(opened) == 1


def test_thumbnails_are_of_the_middle_of_each_span(tmp_path: Path) -> None:
    path = clip_of_kind("edit list", tmp_path)
    index, _ = index_of(tmp_path, [(path.name, "0", "0.4"), (path.name, "0.4", "1.6"), (path.name, "1", "1.2")])
    found = read_thumbnails(tmp_path, index, workers=1)
    for row, thumbnail in zip(rows_of(index), found, strict=True):
        middle = pd.DataFrame([{"path": path.name, "frames": 2 * (row.first + row.frames // 2), "seekable": False}])
        np.testing.assert_array_equal(read_thumbnails(tmp_path, middle, workers=1)[0], thumbnail)


@pytest.mark.slow
def test_pictures_of_a_span_are_those_of_the_clip_alone(tmp_path: Path) -> None:
    clips = [encode(tmp_path / f"{number}.avi", FILM[30 * number : 30 * number + 30]) for number in (0, 1)]
    joined = tmp_path / "joined.avi"
    join(joined, clips)
    fields = np.random.default_rng(0).normal(size=(30, 2, 6, 8)).astype(np.float32)
    motion, still = motion_uri(clips[1], fields), still_uri(clips[1], 7)
    for seekable in (False, True):
        assert motion_uri(joined, fields, 30, seekable) == motion
        assert still_uri(joined, 37, seekable) == still


# ---------------------------------------------------------------------------------------------------- the commands

STAGES = (
    "index",
    "extract_mv",
    "clip_image",
    "train_mv",
    "embed_mv",
    "train_probe",
    "train_fusion",
    "evaluate",
    "report",
)


def join_by_kind(project: Path) -> pd.DataFrame:
    """Join the demo's MPEG-4 clips, of each size and rate, into longer videos; returns the manifest of all clips."""
    index = pd.read_parquet(project / "data/index.parquet")
    root = project / "data/demo/videos"
    rows = index[["id", "path", "class", "split", "group"]].rename(columns={"class": "label"})
    rows = rows.assign(start="", end="").set_index("id")
    plain = index[(index["codec"] == "mpeg4") & ~index["has_b"] & index["path"].str.endswith(".avi")]
    for number, (_, clips) in enumerate(plain.groupby(["w", "h", "fps"])):
        target = root / f"joined/{number}.avi"
        target.parent.mkdir(exist_ok=True)
        ends = np.cumsum(join(target, [root / path for path in clips["path"]])) / clips["fps"]
        starts = np.concatenate([[0], ends[:-1]])
        times = {"start": [f"{one:.6f}" for one in starts], "end": [f"{one:.6f}" for one in ends]}
        rows.loc[clips["id"], ["path", "start", "end"]] = pd.DataFrame(
            {"path": f"joined/{number}.avi", **times}
        ).to_numpy()
    return rows.reset_index()


def scores_of(project: Path) -> dict[str, Any]:
    found = {}
    for name in ("fusion", "mv_tsn", "still", "zero_shot", "motion_probe"):
        scores = json.loads((project / f"metrics/{name}.json").read_text())
        found[name] = {key: value for key, value in scores.items() if key not in ("fingerprint", "models")}
    return found


def pictures_of(page: Path) -> list[str]:
    return sorted(re.findall(r"data:image/(?:jpeg|webp);base64,[^\"]+", page.read_text()))


@pytest.mark.slow
def test_clips_joined_into_longer_videos_give_the_results_of_the_clips(project: Path, tmp_path: Path) -> None:
    """The same fields, splits, scores and pictures, from the motion to the report and the questions to the features."""
    before = {
        name: pd.read_parquet(project / f"data/{name}.parquet") for name in ("index", "features/mv", "predictions")
    }
    scores, pictures = scores_of(project), pictures_of(project / "data/report/index.html")
    reader = FieldReader(project / "data/features/mv.zarr", before["features/mv"])
    fields = {name: reader.read_video(name) for name in before["index"]["id"]}
    asked = before["index"]["id"].iloc[0]
    commands = {
        "similar": ("similar", asked, "-k", "5"),
        "duplicates": ("duplicates",),
        "suspects": ("suspects", "-n", "6"),
    }
    for name, command in commands.items():
        run("moclip", *command, "--csv", tmp_path / f"{name}.csv", "--page", tmp_path / f"{name}.html", cwd=project)
    shown = run("moclip", "store", "show", asked, cwd=project).stdout.split("displacement")[1]

    rows = join_by_kind(project)
    assert (rows["start"] != "").sum() > 8
    rows.to_csv(project / "clips.csv", index=False)
    set_keys(project / "params.yaml", {"dataset.manifest": "clips.csv", "dataset.splits": "data/none"})
    printed = {stage: run("moclip", stage, cwd=project).stdout for stage in STAGES}
    index = pd.read_parquet(project / "data/index.parquet")
    same = ["id", "class", "label", "split", "group", "codec", "w", "h", "frames", "has_b", "status"]
    pd.testing.assert_frame_equal(index[same], before["index"][same])
    videos = pd.read_parquet(project / "data/features/mv.parquet")
    assert set(videos["id"]) == set(index["video"])
    assert f"{len(index)} of {len(index)} clips of {len(videos)} videos" in printed["extract_mv"]
    reader = FieldReader(project / "data/features/mv.zarr", fields_of_clips(index, videos))
    for name, expected in fields.items():
        np.testing.assert_array_equal(reader.read_video(name), expected)
    predictions = pd.read_parquet(project / "data/predictions.parquet")
    for stream in ("mv_tsn", "fusion", "zero_shot"):
        ours, theirs = (np.stack(table[stream].to_list()) for table in (predictions, before["predictions"]))
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    for name, found in scores_of(project).items():
        assert found == scores[name], name
    assert pictures_of(project / "data/report/index.html") == pictures
    for name, command in commands.items():
        run("moclip", *command, "--csv", tmp_path / "again.csv", "--page", tmp_path / "again.html", cwd=project)
        one, other = (pd.read_csv(tmp_path / f"{file}.csv") for file in ("again", name))
        pd.testing.assert_frame_equal(one, other, atol=1e-3)
        assert pictures_of(tmp_path / "again.html") == pictures_of(tmp_path / f"{name}.html")
    assert run("moclip", "store", "show", asked, cwd=project).stdout.split("displacement")[1] == shown
    assert "all clips are intact" in run("moclip", "store", "verify", cwd=project).stdout
    check_whole_file_commands(project, rows)


def check_whole_file_commands(project: Path, rows: pd.DataFrame) -> None:
    """What reads whole files leaves spans out, and says so."""
    cut = (rows["start"] != "").to_numpy()
    rows["split"] = rows["split"].where(cut, "none")
    rows.loc[np.flatnonzero(cut & (rows["split"] == "train"))[:1], "split"] = "none"
    rows.to_csv(project / "clips.csv", index=False)
    run("moclip", "index", cwd=project)
    said = run("moclip", "timing", cwd=project, code=1).stderr
    assert "all test clips are spans of longer videos, and only whole files can be timed" in said
    asked = run("moclip", "label-next", "1", cwd=project, code=1)
    assert "label-next: 1 clip left out: spans of longer videos" in asked.stdout
    assert "it was made from other clips" in asked.stderr or "than the index has now" in asked.stderr


@pytest.mark.slow
def test_a_whole_file_as_a_span_is_the_file(project: Path) -> None:
    """Start 0 and an end beyond the end: the rows, fields and scores of the folder, to the byte."""
    before = pd.read_parquet(project / "data/index.parquet")
    rows = before[["path", "class", "split", "group"]].rename(columns={"class": "label"})
    rows.assign(id=rows["path"], start=0, end="0:01:39").to_csv(project / "clips.csv", index=False)
    watched = ("data/features/mv.parquet", "metrics/fusion.json", "metrics/mv_tsn.json", "metrics/verdict.json")
    content = {name: (project / name).read_bytes() for name in watched}
    set_keys(project / "params.yaml", {"dataset.manifest": "clips.csv", "dataset.splits": "data/none"})
    printed = [run("moclip", stage, cwd=project).stdout for stage in ("index", "extract_mv", "evaluate")]
    assert f"{len(rows)} clips end after their video: used up to its end:" in printed[0]
    index = pd.read_parquet(project / "data/index.parquet")
    pd.testing.assert_frame_equal(index[list(INDEX_COLUMNS)], before)
    assert {name: (project / name).read_bytes() for name in watched} == content
    fields = (project / "data/features/mv.zarr/field/c/0/0/0/0").read_bytes()
    run("moclip", "extract_mv", "--rebuild", cwd=project)
    assert (project / "data/features/mv.zarr/field/c/0/0/0/0").read_bytes() == fields
