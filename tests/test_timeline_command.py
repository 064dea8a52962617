"""`moclip timeline`: the files that it writes, its page in a browser, its metrics."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from tests.clips import encode, moving_texture, without_first_packets
from tests.conftest import WARM, run
from tests.test_predict import answers
from tests.test_report import browser  # noqa: F401  a fixture
from tests.test_terminal import screen, terminal

WORDS = ("--window", "1s", "--every", "0.25", "--smooth", "none")


def joined(clips: list[Path], target: Path) -> Path:
    """Re-encode clips into one video."""
    pictures = []
    for clip in clips:
        with av.open(str(clip)) as container:
            pictures += [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return encode(target, np.stack(pictures), "libx264", gop=25)


@pytest.fixture(scope="module")
def folder(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two long videos of demo clips, one that browsers play, and a broken one."""
    folder = tmp_path_factory.mktemp("long videos")
    clips = sorted((finished / "data/demo/videos").glob("*/*_g01_c01.avi"))
    joined(clips, folder / "all of them.mp4")
    joined(clips[:2], folder / "two.mkv")
    (folder / "broken.mp4").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def written(finished: Path, folder: Path) -> tuple[Path, Any]:
    """Where the command wrote its files, and how it ended."""
    out = folder / "out"
    done = run("moclip", "timeline", folder, *WORDS, "--out", out, cwd=finished)
    return out / folder.name, done


def test_it_writes_the_same_events_into_every_file(written: tuple[Path, Any]) -> None:
    out, done = written
    for name in ("all of them.mp4", "two.mkv"):
        told = json.loads((out / f"{name}.json").read_text())
        events = told["events"][told["stream"]]
        assert told["stream"] == told["trusted"]
        assert events
        rows = list(csv.DictReader(io.StringIO((out / f"{name}.csv").read_text())))
        assert [(row["class"], float(row["start"]), float(row["end"])) for row in rows] == [
            (event["class"], event["start"], event["end"]) for event in events
        ]
        for suffix in (".vtt", ".srt"):
            text = (out / f"{name}{suffix}").read_text()
            assert text.count(" --> ") == len(events)
            assert re.findall(r"^(\w+) [\d.]+$", text, re.MULTILINE) == [event["class"] for event in events]
        windows = told["windows"]
        assert set(windows["probabilities"]) == {"fusion", "mv_tsn", "zero_shot"}
        assert {len(rows) for rows in windows["probabilities"].values()} == {len(windows["unknown"])}
        labels = np.argmax(windows["probabilities"][told["stream"]], axis=1)
        changes = 1 + int((np.diff(labels) != 0).sum())
        assert len(events) == changes, "without smoothing each change is an event"
        assert re.search(rf"{re.escape(name)}: {len(events)} events? in ", done.stdout)
    assert "broken.mp4: not a video" in done.stderr
    assert not list(out.glob("broken*"))


def test_a_clip_has_the_answer_of_predict(finished: Path, tmp_path: Path) -> None:
    clip = next((finished / "data/demo/videos").glob("*/*_g01_c01.avi"))
    said = answers(clip, "--top", "4", cwd=finished)[0]
    done = run("moclip", "timeline", clip, "--window", "1m", "--out", tmp_path, "--json", cwd=finished)
    told = json.loads(done.stdout)[0]
    for stream in ("fusion", "mv_tsn", "zero_shot"):
        found = dict(zip(told["classes"], told["windows"]["probabilities"][stream][0], strict=True))
        for one in said[stream]:
            assert found[one["class"]] == pytest.approx(one["probability"], abs=2e-4)
        assert [event["class"] for event in told["events"][stream]] == [said[stream][0]["class"]]


def test_rules_leave_events_out(finished: Path, folder: Path, tmp_path: Path, written: tuple[Path, Any]) -> None:
    told = json.loads((written[0] / "two.mkv.json").read_text())
    name = told["events"]["mv_tsn"][0]["class"]
    words = (*WORDS, "--out", tmp_path, "--json", "--stream", "mv_tsn", "--background", name, "--threshold", "0.3")
    done = run("moclip", "timeline", folder / "two.mkv", *words, cwd=finished)
    fewer = json.loads(done.stdout)[0]
    assert fewer["stream"] == "mv_tsn"
    assert fewer["events"]["mv_tsn"] == [
        event for event in told["events"]["mv_tsn"] if event["class"] != name and event["probability"] >= 0.3
    ]


def test_metrics_against_annotations(finished: Path, folder: Path, tmp_path: Path, written: tuple[Path, Any]) -> None:
    told = json.loads((written[0] / "all of them.mp4.json").read_text())
    rows = [f"{event['start']},{event['end']},{event['class']},all of them.mp4" for event in told["events"]["mv_tsn"]]
    table = tmp_path / "true.csv"
    table.write_text("\n".join(["start,end,class,video", *rows, "0,1,up,other.mp4", ""]))
    words = (*WORDS, "--out", tmp_path, "--annotations", table)
    done = run("moclip", "timeline", folder / "all of them.mp4", folder / "two.mkv", *words, cwd=finished)
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert {found["mv_tsn"][name] for name in ("frame_accuracy", "f1_at_50", "edit", "map_at_50")} == {1.0}
    assert found["mv_tsn"]["videos"] == 1
    assert found["fusion"]["actual"] == len(rows)
    assert "1.0000" in next(line for line in done.stdout.splitlines() if line.startswith("MV-TSN"))
    assert "1 of" in done.stderr
    assert "belong to none of these videos" in done.stderr


def test_errors_say_what_to_do(finished: Path, folder: Path, tmp_path: Path) -> None:
    def error(*words: str | Path, code: int = 1) -> str:
        return run("moclip", "timeline", *words, "--out", tmp_path, cwd=finished, code=code).stderr

    assert "no video could be read" in error(folder / "broken.mp4")
    encode(tmp_path / "hevc.mov", moving_texture(4, (64, 80)), "libx265")
    assert f"\n  re-encode it: ffmpeg -i {tmp_path}/hevc.mov -c:v mpeg4" in error(tmp_path / "hevc.mov")
    assert "--window: '2 weeks' is not a length of time" in error(folder, "--window", "2 weeks")
    assert "'Nothing' is not a class of the models" in error(folder, "--background", "Nothing")
    assert "name videos, or a stream" in error()
    assert "name videos, or a stream" in error(folder, "--live", "a.ts")
    (tmp_path / "a.csv").write_text("start,end\n")
    assert "no column class" in error(folder, "--annotations", tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("start,end,class\n")
    assert "a.csv: no rows" in error(folder, "--annotations", tmp_path / "a.csv")
    said = run("moclip", "timeline", folder, "--out", tmp_path / "a.csv/x", cwd=finished, code=1).stderr
    assert "a.csv/x: this folder cannot be made: Not a directory\n  name another folder" in said


def test_what_of_a_video_does_not_decode_is_told(finished: Path, tmp_path: Path) -> None:
    whole = encode(tmp_path / "whole.mkv", moving_texture(40, (64, 80)), "libx264", gop=10)
    cut = without_first_packets(whole, tmp_path / "cut.mkv", 3)
    done = run("moclip", "timeline", whole, cut, *WORDS, "--out", tmp_path / "out", "--json", cwd=finished)
    first, second = json.loads(done.stdout)
    assert "damage" not in first
    assert re.fullmatch(r"\d of 37 packets give no picture", second["damage"])
    assert done.stderr.splitlines() == [f"warning: {cut}: damaged, used as far as it decodes: {second['damage']}"]


def test_a_name_that_cannot_be_written_costs_its_video_alone(finished: Path, folder: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    odd = os.fsdecode(b"b\xff.mkv")
    for name in ("a.mkv", odd, f"{'x' * 251}.mkv", "z.mkv"):
        shutil.copy(folder / "two.mkv", videos / name)
    done = run("moclip", "timeline", videos, *WORDS, "--out", tmp_path / "out", "--json", cwd=finished)
    *read, failed = json.loads(done.stdout)
    assert [Path(one["video"]).name for one in read] == ["a.mkv", "b\\xff.mkv", "z.mkv"]
    assert failed["error"] == "its name is too long for the files about it"
    page = next((tmp_path / "out").rglob(f"{odd}.html")).read_text()
    assert "b\\xff.mkv" in page


def test_a_bundle_has_the_same_events(finished: Path, folder: Path, tmp_path: Path, written: tuple[Path, Any]) -> None:
    run("moclip", "export", tmp_path / "bundle", cwd=finished)
    words = (*WORDS, "--bundle", tmp_path / "bundle", "--out", tmp_path / "out")
    run("moclip", "timeline", folder / "two.mkv", *words, cwd=tmp_path)
    csv_file = next((tmp_path / "out").rglob("two.mkv.csv"))
    assert csv_file.read_text() == (written[0] / "two.mkv.csv").read_text()


def test_a_terminal_gets_a_bar_in_seconds_of_video(finished: Path, folder: Path, tmp_path: Path) -> None:
    moclip = Path(os.environ[WARM]) / "moclip"
    code, told = terminal(moclip, "timeline", folder / "two.mkv", *WORDS, "--out", tmp_path, cwd=finished)
    assert code == 0
    assert "second" in told
    assert any("probability" in line for line in screen(told))


# ------------------------------------------------------------------------------------------------ in a browser


@pytest.fixture
def opened(browser: webdriver.Chrome, written: tuple[Path, Any]) -> webdriver.Chrome:  # noqa: F811
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.set_window_size(1200, 900)
    browser.get((written[0] / "all of them.mp4.html").as_uri())
    browser.execute_async_script(
        "const done = arguments[0]; video.readyState ? done() : video.addEventListener('loadedmetadata', done)"
    )
    return browser


def click_strip(browser: webdriver.Chrome, share: float) -> None:  # noqa: F811
    browser.execute_script(
        "const strip = document.querySelector('.strip'), box = strip.getBoundingClientRect();"
        "strip.dispatchEvent(new MouseEvent('click', {clientX: box.left + arguments[0] * box.width, bubbles: true}))",
        share,
    )


def test_a_click_on_the_strip_or_an_event_moves_the_video(
    opened: webdriver.Chrome, folder: Path, written: tuple[Path, Any]
) -> None:
    assert opened.get_log("browser") == []
    told = json.loads((written[0] / "all of them.mp4.json").read_text())
    end = told["seconds"]
    with av.open(str(folder / "all of them.mp4")) as container:
        offset = (container.start_time or 0) / av.time_base
    assert opened.execute_script("return video.duration") == pytest.approx(end, abs=0.1)
    click_strip(opened, 0.5)
    assert opened.execute_script("return video.currentTime") == pytest.approx(end / 2 + offset, abs=0.02)
    event = told["events"][told["stream"]][-1]
    button = opened.find_elements(By.CSS_SELECTOR, "#events td button")[-1]
    opened.execute_script("arguments[0].click()", button)
    assert opened.execute_script("return video.currentTime") == pytest.approx(event["start"] + offset, abs=0.02)
    assert event["class"] in opened.find_element(By.ID, "now").text
    assert len(opened.find_elements(By.CSS_SELECTOR, ".strip")) == 3
    first = opened.find_element(By.CSS_SELECTOR, ".lines h3").text
    assert first.endswith("(trusted)")


def test_without_a_video_that_plays_the_page_shows_pictures(
    browser: webdriver.Chrome,  # noqa: F811
    written: tuple[Path, Any],
) -> None:
    page = written[0] / "two.mkv.html"
    browser.get(page.as_uri())
    assert browser.get_log("browser") == []
    assert browser.find_elements(By.TAG_NAME, "video") == []
    before = browser.execute_script("return picture.src")
    click_strip(browser, 0.9)
    after = browser.execute_script("return picture.src")
    assert before != after
    assert after.startswith("data:image/jpeg;base64,")
    assert browser.execute_script("return picture.naturalWidth") == 240
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!data:)", page.read_text())


def test_on_a_phone_nothing_is_wider_than_the_screen(opened: webdriver.Chrome) -> None:
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    opened.refresh()
    for zoomed in (0, 4):
        opened.execute_script("zoom.value = arguments[0]; zoom.dispatchEvent(new Event('input'))", zoomed)
        assert opened.execute_script("return document.documentElement.scrollWidth") == 390
    assert opened.execute_script("return lines.clientWidth / view.clientWidth") == pytest.approx(16, rel=0.01)
    assert opened.execute_script("return view.scrollWidth > view.clientWidth")
