"""A live stream: events while it runs, over breaks, from a file that grows, until Ctrl-C."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from moclip.errors import VideoError
from moclip.inference.events import Event, EventRules
from moclip.inference.live_timeline import LiveTimeline
from moclip.inference.predictor import Predictor
from moclip.inference.smoothing import Smoothing
from moclip.inference.timeline import read_timeline
from moclip.inference.windows import Windows
from moclip.video.live import LiveSource
from tests.clips import encode, moving_texture
from tests.conftest import run, surroundings
from tests.timelines import BreakingServer, balanced, small_predictor

WINDOWS = Windows(1.0, 0.5)
RULES = EventRules(Smoothing("none", 2.0))


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of a transport stream, in which the motion changes."""
    steps = ((3, 0), (0, -3), (-4, 2), (0, 3))
    film = np.concatenate([moving_texture(25, (64, 80), step, seed) for seed, step in enumerate(steps)])
    return encode(tmp_path_factory.mktemp("live") / "a.ts", film, "libx264", gop=25)


@pytest.fixture(scope="module")
def predictor(part: Path) -> Predictor:
    return balanced(small_predictor(segments=4), part, WINDOWS)


def watch(predictor: Predictor, source: LiveSource, rules: EventRules = RULES) -> tuple[list[Event], list[str]]:
    notes: list[str] = []
    live = LiveTimeline(predictor, source, WINDOWS, rules, "mv_tsn", notes.append)
    return list(live.events()), notes


def test_a_source_is_a_device_a_file_or_an_address() -> None:
    """An address may be longer than a file's name, and files may lie below /dev."""
    kinds = {"/dev/null": (True, False), "/dev/shm/a.ts": (False, True), "a.ts": (False, True)}
    kinds |= {f"https://host/live?token={'t' * 300}": (False, False), "rtsp://host/1": (False, False)}
    assert {url: (LiveSource(url).is_device, LiveSource(url).is_file) for url in kinds} == kinds


def test_a_stream_without_a_break_has_the_events_of_the_file(predictor: Predictor, part: Path) -> None:
    for rules in (RULES, EventRules(Smoothing("median", 2.0))):
        expected = read_timeline(predictor, part, WINDOWS).events(rules, "mv_tsn")
        assert len(expected) > 1
        with BreakingServer([part.read_bytes()]).running() as url:
            found, notes = watch(predictor, LiveSource(url, retries=0), rules)
        assert notes == []
        assert [event.name for event in found] == [event.name for event in expected]
        np.testing.assert_allclose([event[:2] for event in found], [event[:2] for event in expected], atol=1e-6)
        np.testing.assert_allclose([event[3] for event in found], [event[3] for event in expected], atol=1e-5)


def test_events_go_on_after_breaks(predictor: Predictor, part: Path) -> None:
    content = part.read_bytes()
    server = BreakingServer([content, content[: len(content) // 2], content])
    begun = time.monotonic()
    with server.running() as url:
        found, notes = watch(predictor, LiveSource(url, retries=1))
    assert server.served == 3
    assert sum("connecting again in 0.5 s" in note for note in notes) == 3, notes
    assert "attempts to connect again: 1, the last one failed too" in notes[-1]
    times = [time for event in found for time in event[:2]]
    assert times == sorted(times)
    assert 9.5 < times[-1] < 11 + time.monotonic() - begun, "4 s, 2 s, 4 s, and the time between them"
    expected = read_timeline(predictor, part, WINDOWS).events(RULES, "mv_tsn")
    first, last = found[: len(expected)], found[-len(expected) :]
    assert len(found) > 2 * len(expected)
    for events, start in ((first, 0.0), (last, last[0].start)):
        assert [event.name for event in events] == [event.name for event in expected], "no event over a break"
        shifted = [(event.start - start, event.end - start) for event in events]
        np.testing.assert_allclose(shifted, [event[:2] for event in expected], atol=0.05)


def test_a_file_that_grows_is_read_to_its_end(predictor: Predictor, part: Path, tmp_path: Path) -> None:
    content, path = part.read_bytes(), tmp_path / "grows.ts"
    path.write_bytes(content[:2000])

    def grow() -> None:
        with path.open("ab") as file:
            for start in range(2000, len(content), len(content) // 15):
                file.write(content[start : start + len(content) // 15])
                file.flush()
                time.sleep(0.05)

    threading.Thread(target=grow).start()
    found, notes = watch(predictor, LiveSource(str(path), timeout=1.0))
    expected = read_timeline(predictor, part, WINDOWS).events(RULES, "mv_tsn")
    assert [event.name for event in found] == [event.name for event in expected]
    assert found[-1].end == pytest.approx(4.0, abs=0.1)
    assert notes == [], "nothing is dropped: a file waits"


def test_a_file_that_no_longer_grows_is_read_to_its_last_frame(predictor: Predictor, tmp_path: Path) -> None:
    """With B-frames, the decoder holds the last frames back until it is told that the file has ended."""
    path = encode(tmp_path / "b.mp4", moving_texture(40, (64, 80)), "libx264", b_frames=2)
    expected = read_timeline(predictor, path, WINDOWS).events(RULES, "mv_tsn")
    found, notes = watch(predictor, LiveSource(str(path), timeout=1.0))
    assert notes == []
    assert found[-1].end == pytest.approx(expected[-1].end) == pytest.approx(1.6)


def test_a_file_that_is_not_there_is_not_waited_for(predictor: Predictor, tmp_path: Path) -> None:
    for path, why in ((tmp_path / "nothing.ts", "no such file"), (tmp_path, "a folder, not a file")):
        with pytest.raises(VideoError, match=why):
            watch(predictor, LiveSource(str(path)))


def test_whoever_cannot_keep_up_is_told_what_was_dropped(predictor: Predictor, part: Path) -> None:
    notes: list[str] = []
    with BreakingServer([part.read_bytes() * 8]).running() as url:
        live = LiveTimeline(predictor, LiveSource(url, 0, 5.0, 1.0), WINDOWS, RULES, "mv_tsn", notes.append)
        events = live.events()
        found = [next(events)]
        while live.frames < 700:  # the networks wait, the stream does not
            time.sleep(0.01)
        found += events
    assert live.dropped > 10
    assert "the networks cannot keep up" in notes[0]
    times = [time for event in found for time in event[:2]]
    assert times == sorted(times)
    assert max(after.start - before.end for before, after in itertools.pairwise(found)) > 5, "a gap"


def test_a_camera_without_motion_vectors_is_re_encoded(predictor: Predictor, tmp_path: Path) -> None:
    path = encode(tmp_path / "camera.mkv", moving_texture(60, (64, 80)), "mjpeg", pix_fmt="yuvj420p")
    found, _ = watch(predictor, LiveSource(str(path), timeout=0.5))
    assert found
    transcoded = dataclasses.replace(predictor, fields=dataclasses.replace(predictor.fields, transcode=True))
    expected = read_timeline(transcoded, path, WINDOWS).events(RULES, "mv_tsn")
    assert [event.name for event in found] == [event.name for event in expected]


def test_a_stream_that_cannot_be_opened_says_why(predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="no such file"):
        watch(predictor, LiveSource(str(tmp_path / "nothing.ts"), retries=0))
    os.mkfifo(tmp_path / "pipe.ts")
    for path, why in ((tmp_path, "a folder, not a file"), (tmp_path / "pipe.ts", "no regular file")):
        with pytest.raises(VideoError, match=why):
            watch(predictor, LiveSource(str(path), retries=0))
    with BreakingServer([]).running() as url, pytest.raises(VideoError, match=r"cannot be opened \(.*404"):
        watch(predictor, LiveSource(url, retries=1))
    with BreakingServer([b"no video" * 1000]).running() as url, pytest.raises(VideoError, match="cannot be opened"):
        watch(predictor, LiveSource(url, retries=0))


def test_stopping_tells_what_is_going_on(predictor: Predictor, part: Path) -> None:
    with BreakingServer([part.read_bytes()] * 2, pause=0.02).running() as url:
        live = LiveTimeline(predictor, LiveSource(url), WINDOWS, RULES, "mv_tsn", lambda note: None)
        threading.Timer(2.0, live.stop).start()
        found = list(live.events())
    assert found
    assert all(event.end > event.start for event in found)


# ---------------------------------------------------------------------------------------------- the command


def test_the_command_prints_lines_until_the_stream_ends(finished: Path, part: Path) -> None:
    words = ("moclip", "timeline", "--window", "1s", "--smooth", "none", "--retries", "0", "--live")
    with BreakingServer([part.read_bytes()] * 2).running() as url:
        told = run(*words, url, "--json", cwd=finished)
        lines = run(*words, url, cwd=finished).stdout.splitlines()
        failed = run(*words, url, cwd=finished, code=1)
    rows = [json.loads(line) for line in told.stdout.splitlines()]
    assert rows
    assert all(set(row) == {"start", "end", "class", "probability"} for row in rows)
    assert [line.split("  ")[2] for line in lines] == [row["class"] for row in rows]
    assert "cannot be opened" in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.slow
def test_a_stream_without_an_event_is_told(finished: Path, tmp_path: Path) -> None:
    path = encode(tmp_path / "short.mkv", moving_texture(2, (64, 80)), "libx264")
    done = run("moclip", "timeline", "--retries", "0", "--live", path, cwd=finished)
    assert (done.stdout, done.stderr) == ("", "timeline: the stream has ended, and had no event\n")


@pytest.mark.slow
def test_ctrl_c_ends_the_command_with_what_is_going_on(finished: Path, part: Path) -> None:
    words = ("moclip", "timeline", "--window", "1s", "--smooth", "none", "--json", "--live")
    with BreakingServer([part.read_bytes() * 20], pause=0.02).running() as url:
        process = subprocess.Popen(
            [*words, url], cwd=finished, env=surroundings(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout
        first = process.stdout.readline()
        os.kill(process.pid, signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    rows = [json.loads(line) for line in [first, *rest.splitlines()]]
    assert len(rows) > 1
