"""Which action happens when: windows of a long video have the answers of clips, and events are told from them."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.common import repeat_clip
from moclip.data.annotations import annotations_of, read_annotations
from moclip.data.sampling import segment_frames
from moclip.drawing import thumbnails
from moclip.errors import DatasetError, VideoError
from moclip.inference import timeline as timeline_module
from moclip.inference.event_files import events_csv, events_srt, events_vtt
from moclip.inference.events import Event, EventRules, find_events
from moclip.inference.label_stream import LabelStream
from moclip.inference.predictor import Predictor
from moclip.inference.read_ahead import ReadAhead
from moclip.inference.rejection import Rejection
from moclip.inference.sample_decoding import NoObserver, Span, samples_of
from moclip.inference.smoothing import Smoothing, median_scores, smoothed_labels, viterbi_labels
from moclip.inference.timeline import read_timeline, sample_settings, score_serially
from moclip.inference.windows import GridCursor, Windows, window_grid
from moclip.video.probe import count_packets, probe
from moclip.video.timed_frames import open_timed
from moclip.video.times import FrameClock, read_times, without_outliers
from moclip.workers.processes import DECODER_DIED, SingleWorker
from moclip.workers.time_limit import TIME_LIMIT_VARIABLE
from pipeline.timeline_files import VideoTimeline
from pipeline.timeline_run import Request, read_videos
from tests import dying
from tests.clips import encode, moving_texture, with_clock_set_back, with_zeros
from tests.conftest import ROOT, run
from tests.test_spans import KINDS, clip_of_kind
from tests.timelines import CLASSES, plain_window, small_predictor

# ------------------------------------------------------------------------------------- the same as for clips

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("mpeg4", {}),
    ("libx264", {"network": {"channels": 6, "moments": 3}, "segments": 8, "stills": 4}),
    ("libx264", {"network": {"channels": 4}, "crops": 5, "segments": 4, "encode": False}),
    ("libx264", {"fields": {"accumulate": "grid"}}),
    ("mpeg4", {"fields": {"accumulate": "pixel"}}),
    ("mpeg4", {"fields": {"per": "second"}}),
    ("libx264", {"fields": {"transcode": True}}),
]


def same_answers(found: dict[str, np.ndarray], row: int, expected: dict[str, np.ndarray]) -> None:
    for stream, probabilities in expected.items():
        np.testing.assert_allclose(found[stream][row], probabilities, atol=1e-5, err_msg=f"{stream}, window {row}")


@pytest.mark.parametrize(("codec", "variant"), VARIANTS, ids=str)
def test_a_clip_that_fits_into_a_window_has_the_answer_of_predict(
    tmp_path: Path, codec: str, variant: dict[str, Any]
) -> None:
    predictor = small_predictor(**variant)
    path = encode(tmp_path / "a.mp4", moving_texture(19, (64, 80)), codec, b_frames=2)
    expected = predictor(path)
    for windows in (Windows(19 / 25, 0.5), Windows(3.0, 0.5)):
        timeline = read_timeline(predictor, path, windows)
        assert timeline.unknown.tolist() == [False]
        assert timeline.duration == pytest.approx(19 / 25)
        same_answers(timeline.probabilities, 0, expected.probabilities)
    assert set(expected.probabilities) == set(predictor.streams) == set(timeline.probabilities)


@pytest.fixture(scope="module")
def film() -> np.ndarray:
    """Five seconds in which the motion changes: it goes right, up, left, down."""
    steps = ((3, 0), (0, -3), (-3, 0), (0, 3))
    return np.concatenate([moving_texture(32, (64, 80), step, seed) for seed, step in enumerate(steps)])[:125]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return small_predictor(network={"channels": 6, "moments": 2}, segments=4, stills=2)


def test_each_window_of_a_long_video_has_the_answer_of_its_frames(
    predictor: Predictor, film: np.ndarray, tmp_path: Path
) -> None:
    path = encode(tmp_path / "a.mp4", film, "libx264", b_frames=2)
    timeline = read_timeline(predictor, path, Windows(1.6, 0.4))
    assert len(timeline.unknown) == 1 + math.ceil((5 - 1.6) / 0.4)
    answers = [plain_window(predictor, path, 10 * row, 40).probabilities for row in range(9)]
    for row, expected in enumerate(answers):
        same_answers(timeline.probabilities, row, expected)
    assert np.ptp([answer["mv_tsn"][0] for answer in answers]) > 0.01, "answers that do not differ would say nothing"
    serial = list(score_serially(predictor, path, Windows(1.6, 0.4)))
    found = np.concatenate([scores.probabilities["fusion"] for scores in serial])
    np.testing.assert_allclose(found, timeline.probabilities["fusion"], atol=1e-5)


def test_a_window_has_the_answer_of_the_clip_that_is_cut_out(film: np.ndarray, tmp_path: Path) -> None:
    predictor = small_predictor(segments=4)
    path = encode(tmp_path / "a.mp4", film, gop=25)
    timeline = read_timeline(predictor, path, Windows(1.0, 1.0))
    for second in range(5):
        cut = cut_packets(path, tmp_path / f"{second}.mp4", 25 * second, 25)
        same_answers(timeline.probabilities, second, predictor(cut).probabilities)


def cut_packets(path: Path, target: Path, first: int, count: int) -> Path:
    """Copy some packets of a video without B-frames; the first is of a key frame."""
    import av

    with av.open(str(path)) as source, av.open(str(target), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        for number, packet in enumerate(packets[first : first + count]):
            packet.pts = packet.dts = number
            packet.stream = stream
            container.mux(packet)
    return target


def test_what_windows_share_is_read_once(predictor: Predictor, film: np.ndarray, tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", film)
    with open_timed(path) as video:
        samples = list(samples_of(video, sample_settings(predictor, Windows(1.6, 0.1)), path, Span(), NoObserver()))
    for kind in ("motion", "still"):
        times = [sample.time for sample in samples if sample.kind == kind]
        assert len(times) == len(set(times)) <= 125
        places = [place for sample in samples if sample.kind == kind for place in sample.places]
        assert places == sorted(set(places))
    with open_timed(path) as video:
        apart = list(samples_of(video, sample_settings(predictor, Windows(0.4, 2.0)), path, Span(), NoObserver()))
    assert {round(sample.time % 2.0, 2) for sample in apart if sample.kind == "motion"} == {0.04, 0.12, 0.24, 0.32}


# ------------------------------------------------------------------------------------------------- the windows


@given(st.integers(1, 60), st.integers(1, 40))
def test_a_whole_clip_is_sampled_as_a_clip(frames: int, parts: int) -> None:
    duration = frames / 25
    grid = window_grid(Windows(duration, duration), parts)
    taken: dict[int, int] = {}
    cursor = GridCursor(grid, 1 / 25)
    for number in range(frames):
        taken |= dict.fromkeys(cursor.take(number / 25), number)
    assert [taken[place] for place in grid.places(0)] == segment_frames(np.array([frames]), parts)[0].tolist()


@given(st.floats(0.1, 10), st.floats(0.05, 10), st.integers(1, 40), st.integers(0, 30))
def test_places_are_near_the_middles_of_the_parts(length: float, every: float, parts: int, number: int) -> None:
    grid = window_grid(Windows(length, every), parts)
    times = grid.first + grid.step * grid.places(number)
    wanted = every * number + (np.arange(parts) + 0.5) * length / parts
    assert np.abs(times - wanted).max() <= length / parts / 2 + 1e-6
    assert grid.step <= length / parts + 1e-6
    assert all(grid.is_used(place) for place in grid.places(number).tolist())
    if abs(every * parts / length - round(every * parts / length)) < 1e-9:
        np.testing.assert_allclose(times, wanted, atol=1e-5)


@given(st.floats(0.1, 5), st.floats(0.05, 8), st.floats(0.04, 60))
def test_the_stretches_of_the_windows_cover_the_video(length: float, every: float, duration: float) -> None:
    windows = Windows(length, every)
    count = windows.count(duration)
    edges = windows.edges(count, duration)
    assert edges[0] == 0
    assert edges[-1] == duration
    assert (np.diff(edges) >= 0).all()
    assert (count - 1) * every < duration, "each window begins in the video"
    assert (count - 1) * every + length >= duration - 1e-5 or count * every >= duration - 1e-5
    for number in range(count - 1):
        start, end = windows.stretch(number)
        assert edges[number] == pytest.approx(min(start, duration))
        assert edges[number + 1] == pytest.approx(min(end, duration))


# --------------------------------------------------------------------------------------------- odd videos


def test_index_predict_and_timeline_miss_the_same_pictures(predictor: Predictor, tmp_path: Path) -> None:
    found = set()
    for number, kind in enumerate(["clock set back", *KINDS]):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = clip_of_kind(kind, folder)
        info = probe(path)
        part = info.damage.partition(",")[0]  # the index also counts pictures that are damaged
        lost = part if part.endswith("give no picture") else ""
        transcoded = dataclasses.replace(predictor.fields, transcode=True)
        assert predictor.read(path).damage == lost, kind
        assert dataclasses.replace(predictor, fields=transcoded).read(path).damage.startswith(lost), kind
        assert count_packets(path).damage(info.frames).startswith(lost), kind
        assert read_timeline(predictor, path, Windows(0.4, 0.4)).damage == lost, kind
        found.add(bool(lost))
    assert found == {False, True}


def test_times_always_go_forward() -> None:
    def times(*stamps: int | None) -> list[float]:
        clock = FrameClock(10_000_000, 10)
        return [round(clock.time_of(pts, Fraction(1, 10)) / 1e6, 3) for pts in stamps]

    assert times(100, 101, 102, 105) == [0, 0.1, 0.2, 0.5]
    assert times(103, None, None, 106) == [0.3, 0.4, 0.5, 0.6]
    assert times(None, None) == [0, 0.1]
    assert times(100, 150, 100, 101, 103) == [0, 5, 5.1, 5.2, 5.4], "a clock that was set back counts on"
    assert times(100, 102, 102, 103, 104) == [0, 0.2, 0.2, 0.3, 0.4]
    assert times(100, 105, 103, 104, 106) == [0, 0.5, 0.6, 0.7, 0.8], "frames out of order do not set the clock"
    assert times(100, 10**9, 10**9 + 1) == [0, 0.1, 0.2], "nor is a clock that was set forward a pause"


@pytest.mark.parametrize(("stamps", "changed"), [((20, 4000), {20: 800}), ((20, 900), {20: 800}), ((39, 9000), {})])
def test_a_lone_time_stamp_that_is_out_of_line_moves_no_other_picture(
    tmp_path: Path, stamps: tuple[int, int], changed: dict[int, int]
) -> None:
    """The last picture's cannot be told from a pause."""
    source = encode(tmp_path / "a.avi", moving_texture(40, (64, 80)))
    path, (number, by) = tmp_path / "b.mkv", stamps
    with av.open(str(source)) as given, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(given.streams.video[0])
        packets = (packet for packet in given.demux(video=0) if packet.size)
        for place, packet in enumerate(packets):
            moved = av.Packet(bytes(packet))
            moved.stream, moved.time_base, moved.is_keyframe = stream, Fraction(1, 1000), packet.is_keyframe
            moved.dts = 40 * place
            moved.pts = 40 * place + (by if place == number else 0)
            container.mux(moved)
    expected = {place: 40 * place + (by if place == number else 0) for place in range(40)} | changed
    np.testing.assert_allclose(read_times(path) / 1000, list(expected.values()), atol=1)
    with open_timed(path, False) as video:
        np.testing.assert_allclose([1000 * frame.time for frame in video.frames], list(expected.values()), atol=1)


def test_which_time_stamps_are_out_of_line() -> None:
    def kept(*stamps: int | None) -> list[int | None]:
        return [stamp for _, stamp in without_outliers(((None, stamp) for stamp in stamps), 1.0, Fraction(1))]

    assert kept(0, 1, 9, 3, 4) == [0, 1, None, 3, 4]
    assert kept(0, 1, 2, -9, 4) == [0, 1, 2, None, 4]
    assert kept(5, 1, 2) == [None, 1, 2]
    assert kept(0, 1, 9, 10, 11) == [0, 1, 9, 10, 11], "a pause"
    assert kept(8, 9, 0, 1, 2) == [8, 9, 0, 1, 2], "a clock that was set back"
    assert kept(0, 2, 1, 3) == [0, 2, 1, 3], "out of order, but in line"
    assert kept(0, None, 9, 2) == [0, None, None, 2]
    assert kept() == []


def test_a_recorder_whose_clock_was_set_back_keeps_its_length(predictor: Predictor, tmp_path: Path) -> None:
    path = with_clock_set_back(tmp_path / "a.ts", moving_texture(120, (64, 80)))
    timeline = read_timeline(predictor, path, Windows(1.0, 0.5))
    assert timeline.duration == pytest.approx(120 / 25, abs=0.1)
    assert timeline.start == 0, "a transport stream begins at any time"
    assert not timeline.unknown.any()


@pytest.mark.parametrize("kind", ["clock set back", *KINDS])
def test_timelines_and_spans_have_the_same_times(kind: str, tmp_path: Path) -> None:
    path = clip_of_kind(kind, tmp_path)
    with open_timed(path) as video:
        times = [frame.time for frame in video.frames]
    np.testing.assert_array_equal(times, read_times(path) / 1e6)


def test_nothing_is_told_of_a_pause(predictor: Predictor, tmp_path: Path) -> None:
    import av

    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 80, "yuv420p"
        for number, picture in enumerate(moving_texture(100, (64, 80))):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number + (250 if number >= 50 else 0)  # ten seconds without a frame
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    timeline = read_timeline(predictor, path, Windows(1.0, 0.5))
    middles = 0.5 * np.arange(len(timeline.unknown)) + 0.5
    assert timeline.unknown[(middles > 3) & (middles < 11)].all()
    assert not timeline.unknown[(middles < 2) | (middles > 12.5)].any()
    for event in timeline.events(EventRules()):
        assert event.end < 3.5 or event.start > 10.5


def test_a_turned_video_is_seen_upright(tmp_path: Path) -> None:
    predictor = small_predictor(segments=4)
    path = encode(tmp_path / "a.mp4", moving_texture(50, (64, 80)), "libx264", rotation=90)
    timeline = read_timeline(predictor, path, Windows(1.0, 1.0))
    for row in (0, 1):
        same_answers(timeline.probabilities, row, plain_window(predictor, path, 25 * row, 25).probabilities)


def test_a_damaged_video_is_used_as_far_as_it_decodes(predictor: Predictor, film: np.ndarray, tmp_path: Path) -> None:
    whole = encode(tmp_path / "a.avi", film)
    damaged = with_zeros(whole, tmp_path / "b.avi", 0.6)
    windows = Windows(1.0, 0.5)
    expected, found = (read_timeline(predictor, path, windows) for path in (whole, damaged))
    assert 2.9 < found.duration <= expected.duration
    for row in range(4):
        np.testing.assert_allclose(found.probabilities["fusion"][row], expected.probabilities["fusion"][row], atol=1e-5)


def test_a_video_that_cannot_be_used_says_why(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    encode(tmp_path / "b.mp4", moving_texture(1, (64, 80)))
    encode(tmp_path / "c.mkv", moving_texture(9, (64, 80)), "ffv1", pix_fmt="yuv420p")
    for name, reason in (("a.mp4", "not a video"), ("b.mp4", "1 frame"), ("c.mkv", "codec ffv1 exports no motion")):
        with pytest.raises(VideoError, match=reason):
            read_timeline(predictor, tmp_path / name, Windows(1.0, 0.5))


@pytest.mark.slow
def test_a_decoder_that_crashes_or_hangs_costs_its_video_alone(
    predictor: Predictor, film: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = [encode(tmp_path / f"{name}.mp4", film, "libx264") for name in ("die", "a", "hang", "b")]
    os.mkfifo(tmp_path / "pipe.mp4")
    videos.append(tmp_path / "pipe.mp4")
    monkeypatch.setattr(timeline_module, "decode_samples", dying.samples_or_die)
    monkeypatch.setenv(TIME_LIMIT_VARIABLE, "2")
    request = Request(Windows(1.6, 0.4), EventRules(), "fusion")
    found = dict(read_videos(predictor, request, videos))
    reasons = {path.stem: one.what for path, one in found.items() if isinstance(one, VideoError)}
    hung = "its decoder gave nothing for 2 s"
    assert reasons == {"die": DECODER_DIED, "hang": hung, "pipe": "no regular file"}
    expected = read_timeline(predictor, videos[1], request.windows)
    for name in (1, 3):
        one = found[videos[name]]
        assert isinstance(one, VideoTimeline)
        np.testing.assert_allclose(one.timeline.probabilities["fusion"], expected.probabilities["fusion"], atol=1e-6)
        assert [thumbnail.time for thumbnail in one.thumbnails] == pytest.approx(np.arange(0, 5, 0.52), abs=0.1)


def test_a_worker_that_streams_is_ended_with_its_reader(
    predictor: Predictor, film: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = encode(tmp_path / "hang.mp4", film, "libx264")
    monkeypatch.setattr(timeline_module, "decode_samples", dying.samples_or_die)
    settings = sample_settings(predictor, Windows(1.6, 0.4))
    begun = time.monotonic()
    with SingleWorker() as worker:
        items = worker.stream(dying.samples_or_die, video, settings, NoObserver())
        with ReadAhead(items, 3, interrupt=worker.interrupt) as reader:
            assert next(reader.batches(1))
        assert worker.run(abs, -3) == 3, "the next job gets a new process"
    assert time.monotonic() - begun < 60, "not the time limit of a decoder"


MEASURE = """
import re, sys
from pathlib import Path
from moclip.drawing.thumbnails import Thumbnails
from moclip.inference.timeline import observe_timeline
from moclip.inference.windows import Windows
from tests.timelines import small_predictor

def mebibytes(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

model, windows = small_predictor(), Windows(2.0, 2.0)
first, *others = sys.argv[1:]
observe_timeline(model, first, windows, Thumbnails())
before = mebibytes("VmRSS")
for path in others:
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    found, _ = observe_timeline(model, path, windows, Thumbnails())
    print(len(found.unknown), mebibytes("VmHWM") - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_video(tmp_path: Path) -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the peak memory of a part of a process is known on Linux only")
    once = encode(tmp_path / "once.mp4", moving_texture(50, (64, 80)), "libx264")
    videos = [tmp_path / f"{minutes}.mp4" for minutes in (1, 12)]
    for path in videos:
        repeat_clip(once, path, 60 * int(path.stem))
    done = run("python", "-c", MEASURE, once, *videos, cwd=ROOT)
    windows, used = zip(*(map(float, line.split()) for line in done.stdout.splitlines()), strict=True)
    assert windows == (30, 360)
    pictures = 12 * 60 * 25 * 64 * 80 * 1.5 / 2**20  # MiB of the longer video's
    assert used[1] < used[0] + pictures / 8, used


# ------------------------------------------------------------------------------------------------- smoothing


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.floats(0, 4))
def test_viterbi_finds_the_cheapest_of_all_orders_of_labels(seed: int, count: int, switch_cost: float) -> None:
    costs = np.random.default_rng(seed).exponential(size=(count, 3))

    def total(labels: tuple[int, ...]) -> float:
        changes = sum(one != other for one, other in itertools.pairwise(labels))
        return sum(costs[row, label] for row, label in enumerate(labels)) + switch_cost * changes

    best = min(map(total, itertools.product(range(3), repeat=count)))
    assert total(tuple(viterbi_labels(costs, switch_cost).tolist())) == pytest.approx(best)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.sampled_from([1, 3, 5]))
def test_the_median_is_that_of_the_rows_around(seed: int, count: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.random((count, 3))
    scores[rng.random(count) < 0.3] = np.nan
    found = median_scores(scores, width)
    for row in range(count):
        around = scores[max(0, row - width // 2) : row + width // 2 + 1]
        known = around[~np.isnan(around[:, 0])]
        np.testing.assert_allclose(found[row], np.median(known, axis=0) if len(known) else 0)


def test_smoothing_takes_out_what_lasts_too_short() -> None:
    probabilities = np.eye(3)[[0, 0, 0, 1, 0, 0, 2, 2, 2, 2]] * 0.9 + 0.03
    unknown = np.zeros(10, bool)
    for smoothing in (Smoothing("median", 2.0), Smoothing("viterbi", 1.0, 2.0)):
        assert smoothed_labels(probabilities, unknown, smoothing).tolist() == [0] * 6 + [2] * 4
    assert smoothed_labels(probabilities, unknown, Smoothing("none")).tolist() == [0, 0, 0, 1, 0, 0, 2, 2, 2, 2]
    unknown[6:9] = True
    assert smoothed_labels(probabilities, unknown, Smoothing("viterbi", 4.0, 2.0))[9] == 0, "one window is not enough"


@pytest.mark.slow
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.sampled_from([1.0, 2.0, 4.0]), st.integers(1, 9))
def test_labels_that_come_one_by_one_are_those_of_all_at_once(
    seed: int, count: int, overlap: float, chunk: int
) -> None:
    rng = np.random.default_rng(seed)
    probabilities, unknown = rng.dirichlet([0.5] * 3, count), rng.random(count) < 0.2
    for kind in ("median", "none"):
        smoothing = Smoothing(kind, overlap)
        stream = LabelStream(smoothing)
        found = [
            window
            for start in range(0, count, chunk)
            for window in stream.add(probabilities[start : start + chunk], unknown[start : start + chunk])
        ]
        assert len(found) == max(0, count - stream.late)
        found += stream.finish()
        labels = smoothed_labels(probabilities, unknown, smoothing).tolist()
        assert [window.number for window in found] == list(range(count))
        assert [window.label for window in found] == [
            None if unknown[row] else label for row, label in enumerate(labels)
        ]


def test_a_viterbi_pass_over_a_stream_is_that_over_all() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat(rng.integers(0, 3, 30), 12)
    probabilities = np.stack([rng.dirichlet(0.7 + 2.0 * np.eye(3)[label]) for label in truth])
    unknown, smoothing = np.zeros(len(truth), bool), Smoothing("viterbi", 4.0)
    stream = LabelStream(smoothing)
    found = [window.label for window in (*stream.add(probabilities, unknown), *stream.finish())]
    assert np.mean(found == smoothed_labels(probabilities, unknown, smoothing)) > 0.97


# --------------------------------------------------------------------------------------------------- events


def test_events_are_told_by_the_rules() -> None:
    probabilities = np.array([[0.9, 0.1, 0], [0.7, 0.2, 0.1], [0, 1, 0], [0, 0.4, 0.6], [0, 0.2, 0.8], [0.5, 0, 0.5]])
    unknown = np.array([False] * 5 + [True])
    edges = np.array([0, 1, 2, 2.5, 3.5, 4.5, 6])

    def told(**rules: Any) -> list[tuple[float, float, str, float]]:
        found = find_events(probabilities, unknown, edges, CLASSES, EventRules(Smoothing("none"), **rules))
        return [(event.start, event.end, event.name, round(event.probability, 6)) for event in found]

    left, right, up = (0, 2, "left", 0.8), (2, 2.5, "right", 1.0), (2.5, 4.5, "up", 0.7)
    assert told() == [left, right, up], "an unknown window has no event"
    assert told(min_length=1.0) == [left, up]
    assert told(threshold=0.75) == [left, right]
    assert told(threshold=1.0) == [right], "the threshold itself is enough"
    assert told(background="left") == [right, up]


def test_the_files_of_events() -> None:
    events = [Event(0.5, 61.0, "a, b", 0.98765), Event(3661.25, 3700.0, "x<y & z", 0.5)]
    assert events_csv(events).splitlines() == [
        "start,end,class,probability",
        '0.500,61.000,"a, b",0.9877',
        "3661.250,3700.000,x<y & z,0.5000",
    ]
    assert events_vtt(events).split("\n\n") == [
        "WEBVTT",
        "00:00:00.500 --> 00:01:01.000\na, b 0.99",
        "01:01:01.250 --> 01:01:40.000\nx(y + z 0.50\n",
    ]
    assert events_srt(events).startswith("1\n00:00:00,500 --> 00:01:01,000\na, b 0.99\n\n2\n01:01:01,250 -->")
    assert events_vtt([]) == "WEBVTT\n"


def test_annotations_name_their_video_and_their_faults(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text("Start;End;Class;Video\n0;1,5;left;a.mp4\n".replace(",", "."))
    assert read_annotations(table)[0] == (0.0, 1.5, "left", "a.mp4")
    table.write_text("start,end,class,video\n1,2,left,x/a.mp4\n2,3,up,b\n3,4,up,\n")
    found = read_annotations(table)
    videos = [Path("x/a.mp4"), Path("y/b.avi")]
    assert [[one.start for one in mine] for mine in annotations_of(found, videos)] == [[1], [2]]
    assert [[one.start for one in mine] for mine in annotations_of(found, videos[1:])] == [[2, 3]]
    with pytest.raises(DatasetError, match=r"fits x/a\.mp4 and z/a\.mp4\n  write the path"):
        annotations_of([found[0]._replace(video="a.mp4")], [*videos, Path("z/a.mp4")])
    by_path = [found[0]._replace(video="z/a.mp4")]
    assert annotations_of(by_path, [Path("x/a.mp4"), Path("z/a.mp4")]) == [[], by_path]
    for row, message in (("2,1,up", "end must come after"), ("a,1,up", "not a number"), ("0,1,", "no class")):
        table.write_text(f"start,end,class\n0,1,left\n{row}\n")
        with pytest.raises(DatasetError, match=f"row 3: .*{message}"):
            read_annotations(table)
    table.write_text("begin,end,class\n")
    with pytest.raises(DatasetError, match="no column start"):
        read_annotations(table)


def test_few_thumbnails_are_kept_of_a_long_video() -> None:
    seen = thumbnails.Thumbnails()
    picture = next(open_pictures_of(moving_texture(1, (64, 80))))
    for number in range(4000):
        seen.see(number / 2, picture)
    times = [one.time for one in seen.kept]
    assert thumbnails.MOST / 2 <= len(times) <= thumbnails.MOST
    assert len({round(step, 3) for step in np.diff(times)}) == 1, "evenly spaced"
    assert seen.kept[0].jpeg[:2] == b"\xff\xd8"


def open_pictures_of(film: np.ndarray) -> Any:
    import av

    return (av.VideoFrame.from_ndarray(picture, format="rgb24") for picture in film)


def test_windows_that_the_rejection_finds_unknown_have_no_event(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", moving_texture(60, (64, 80)), "mpeg4")
    predictor, windows = small_predictor(), Windows(0.8, 0.2)
    answered = read_timeline(predictor, path, windows)
    stream = answered.trusted
    highest = answered.probabilities[stream].max(axis=1)
    middle = len(highest) // 2
    threshold = float(np.sort(highest)[middle - 1 : middle + 1].mean())
    rejection = Rejection("probability", threshold, stream, predictor.fusion.temperature(stream))
    rejected = read_timeline(dataclasses.replace(predictor, rejection=rejection), path, windows)
    np.testing.assert_array_equal(rejected.unknown, highest < threshold)
    assert 0 < rejected.unknown.sum() < len(highest)
    assert not answered.unknown.any()


# --------------------------------------------------------------------------------------------- reading ahead


def test_reading_ahead_keeps_the_order_and_raises_at_the_end() -> None:
    def items() -> Any:
        yield from range(100)
        raise VideoError("broken")

    found: list[int] = []
    batches = ReadAhead(items(), 8).batches(5)
    while len(found) < 100:
        batch = next(batches)
        assert len(batch) <= 5
        found += batch
    assert found == list(range(100))
    with pytest.raises(VideoError, match="broken"):
        next(batches)


def test_whoever_is_slow_makes_the_reader_wait_or_loses_the_oldest() -> None:
    made: list[int] = []

    def items() -> Any:
        for number in range(50):
            made.append(number)
            yield number

    waiting = ReadAhead(items(), 8)
    while len(made) < 9:
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(made) == 9, "one more is made than fits"
    assert [*itertools.chain(*waiting.batches(100))] == list(range(50))
    made.clear()
    lost: list[int] = []

    def drop(number: int) -> bool:
        if number == 3:
            return False
        lost.append(number)
        return True

    dropping = ReadAhead(items(), 8, drop)
    while len(made) < 50:
        time.sleep(0.01)
    time.sleep(0.1)
    assert [*itertools.chain(*dropping.batches(100))] == [3, *range(43, 50)]
    assert lost == [0, 1, 2, *range(4, 43)]


def test_the_thread_has_ended_before_what_it_reads_is_closed() -> None:
    closed: list[int] = []

    def items() -> Any:
        for number in itertools.count():
            assert not closed
            yield number
            time.sleep(0.01)

    reader = ReadAhead(items(), 4)
    with reader:
        assert next(reader.batches(1)) == [0]
    closed.append(1)
    assert not reader._thread.is_alive()
