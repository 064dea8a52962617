"""`moclip app`: what the page tells, whom it serves, and what a hostile file can do."""

from __future__ import annotations

import csv
import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from moclip.errors import VideoError
from moclip.inference.events import EventRules
from moclip.inference.predictor import Predictor
from moclip.inference.rejection import Rejection
from moclip.inference.smoothing import Smoothing
from moclip.inference.timeline import read_timeline
from moclip.inference.untrusted_clip import MOST_DRAWN, Limits, check_limits, draw_motion, length_text
from moclip.inference.windows import Windows
from moclip.models.fusion import FusionConfig
from moclip.models.heads.concat import ConcatFusion
from moclip.workers import processes
from moclip.workers.processes import WorkerDiedError, stream_from_worker
from moclip.workers.time_limit import TIME_LIMIT_VARIABLE
from pipeline.app import answers as answers_module
from pipeline.app.answers import Settings, answer_clip, answer_row
from pipeline.app.guard import POLICY
from pipeline.app.models import NOT_IN_BUNDLE, SEVERAL_LABELS, OfferedModel
from pipeline.app.result_page import answer_html, error_html
from pipeline.app.uploads import LONGEST_WAIT, Uploads
from tests import dying
from tests.clips import encode, moving_texture
from tests.conftest import in_turn, run, surroundings
from tests.test_report import browser  # noqa: F401  a fixture
from tests.test_timeline_command import joined
from tests.timelines import CLASSES, small_predictor

LIMITS = Limits(10**7, 60.0)
SETTINGS = Settings(LIMITS, top=2, windows=Windows(1.0, 0.25))

# ------------------------------------------------------------------------------------------ what the page tells


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return small_predictor()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode(tmp_path_factory.mktemp("clips") / "clip.avi", moving_texture(20, (96, 128)))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds, with a timeline."""
    film = np.concatenate(
        [moving_texture(25, (96, 128), step, seed) for seed, step in enumerate([(3, 1), (-4, 0), (0, 3)])]
    )
    return encode(tmp_path_factory.mktemp("videos") / "video.mp4", film, "libx264", gop=25)


def test_a_clip_has_the_answer_of_the_predictor(predictor: Predictor, clip: Path) -> None:
    found = answer_clip(OfferedModel("m", predictor), clip, "my clip", SETTINGS)
    expected = predictor(clip)
    for stream, logits in expected.logits.items():
        np.testing.assert_array_equal(found.prediction.logits[stream], logits)
    assert found.strip is None, "a clip that is not longer than a window has no timeline"
    assert found.found[1:] == (20, "mpeg4", True)
    assert found.found.seconds == pytest.approx(21 / 25), "the encoder leaves out a time"
    row = answer_row(found, 2)
    assert row["clip"] == "my clip"
    assert [one["class"] for one in row["fusion"]] == [name for name, _ in expected.top(2)]
    html = answer_html(found, 2)
    assert all(f"{share:.2f}" in html for _, share in expected.top(2))
    assert "data:image/png;base64," in html
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)|url\(""", html)
    assert NOT_IN_BUNDLE in html


def test_a_video_has_the_timeline_of_the_command(predictor: Predictor, video: Path) -> None:
    found = answer_clip(OfferedModel("m", predictor, background="up"), video, "v", SETTINGS)
    expected = read_timeline(predictor, video, SETTINGS.windows)
    assert found.strip
    rules = EventRules(Smoothing(overlap=4.0), background="up")
    for stream, probabilities in expected.probabilities.items():
        np.testing.assert_allclose(found.strip.timeline.probabilities[stream], probabilities, rtol=1e-5)
        events = expected.events(rules, stream)
        assert [event[:3] for event in found.strip.events[stream]] == [event[:3] for event in events]
    assert found.strip.timeline.duration == expected.duration == 3.0
    assert answer_html(found, 2).count('class="strip"') == 3
    assert len(found.strip.thumbnails) == 6


def test_unknown_is_told_only_if_it_is_asked_for(predictor: Predictor, clip: Path) -> None:
    strict = OfferedModel("m", replace(predictor, rejection=Rejection("probability", 1.1, "fusion")))
    asked = answer_clip(strict, clip, "c", SETTINGS, reject=True)
    assert (asked.prediction.unknown, answer_row(asked, 2)["unknown"]) == (True, True)
    assert '<h2 class="verdict">unknown</h2>' in answer_html(asked, 2)
    plain = answer_clip(strict, clip, "c", SETTINGS)
    assert plain.prediction.unknown is None
    assert "unknown" not in answer_row(plain, 2)
    without = answer_clip(OfferedModel("m", predictor), clip, "c", SETTINGS, reject=True)
    assert "These models do not say when a clip is unknown." in without.notes


def test_models_of_several_labels_say_that_they_make_no_timeline(predictor: Predictor, video: Path) -> None:
    config = FusionConfig(
        predictor.mv_tsn.width,
        predictor.fusion.config.picture,
        16,
        len(CLASSES),
        0.5,
        label_shifts=dict.fromkeys(predictor.streams, 0.0),
        label_thresholds={stream: [0.0, 0.0, 1.1] for stream in predictor.streams},
    )
    several = OfferedModel("m", replace(predictor, fusion=ConcatFusion(config).eval()))
    found = answer_clip(several, video, "v", SETTINGS, reject=True)
    assert found.strip is None
    assert any(SEVERAL_LABELS in note for note in found.notes)
    assert any("has no predicted class" in note for note in found.notes)
    assert {one["class"] for one in answer_row(found, 1)["fusion"] if one["predicted"]} == {"left", "right"}
    assert answer_html(found, 1).count('<tr class="predicted">') >= 2


def test_a_codec_without_vectors_is_re_encoded_as_a_webcam_needs(predictor: Predictor, tmp_path: Path) -> None:
    clip = encode(tmp_path / "webcam.webm", moving_texture(50, (96, 128)), "libvpx")
    found = answer_clip(OfferedModel("m", predictor), clip, "c", SETTINGS)
    assert any("codec vp8 have no motion vectors" in note for note in found.notes)
    transcoding = replace(predictor, fields=replace(predictor.fields, transcode=True))
    np.testing.assert_array_equal(found.prediction.logits["fusion"], transcoding(clip).logits["fusion"])
    assert found.strip
    assert not isinstance(found.motion, VideoError)


def test_names_are_shown_as_text(predictor: Predictor, clip: Path) -> None:
    name = "<script>alert(1)</script>"
    classes = replace(predictor, classes=(name, "b", "c"))
    shown = answer_html(answer_clip(OfferedModel(name, classes), clip, name, SETTINGS), 3)
    assert "<script" not in shown + error_html(name, VideoError(name, fix=name))
    assert "&lt;script&gt;" in shown


# ----------------------------------------------------------------------------------------- limits, hostile files


def test_files_beyond_the_limits_are_refused_before_they_are_decoded(clip: Path, tmp_path: Path) -> None:
    def refusal(path: Path, limits: Limits) -> str:
        with pytest.raises(VideoError) as refused:
            check_limits(path, limits)
        return refused.value.what

    assert refusal(clip, Limits(1000, 60.0)).endswith("more than 0.001 MB")
    long = encode(tmp_path / "long.mp4", moving_texture(75, (32, 32)))
    assert refusal(long, Limits(10**7, 1.5)) == "it is longer than 2 s"
    stream = tmp_path / "long.m4v"  # without a length in the header: the packets count
    with stream.open("wb") as file:
        import av

        with av.open(str(long)) as container:
            file.writelines(bytes(packet) for packet in container.demux(video=0))
    assert "long" in refusal(stream, Limits(10**7, 1.5)) or "frames" in refusal(stream, Limits(10**7, 1.5))
    crowded = encode(tmp_path / "crowded.mp4", np.zeros((300, 32, 32, 3), np.uint8), fps=1000)
    assert refusal(crowded, Limits(10**7, 1.0)) == "it has more than 120 frames"
    wide = encode(tmp_path / "wide.mp4", np.zeros((2, 2320, 4112, 3), np.uint8))
    assert refusal(wide, LIMITS).startswith("pictures of 4112x2320 px")


def playlists(target: Path) -> dict[str, str]:
    """Texts that FFmpeg takes for videos which lead to another file."""
    return {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile {target.name}\n",
        "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet><R>'
        f"<BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=a\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    }


def test_a_playlist_leads_to_no_other_file(predictor: Predictor, tmp_path: Path) -> None:
    secret = encode(tmp_path / "secret.ts", moving_texture(20, (96, 128)), "mpeg2video")
    playlist = tmp_path / "list.mp4"
    playlist.write_text(playlists(secret)["concat"])
    with pytest.raises(VideoError, match="a playlist, not a video file"):
        predictor(playlist)
    for name, text in playlists(secret).items():
        playlist.write_text(text)
        with pytest.raises(VideoError, match="not a video file"):
            answer_clip(OfferedModel("m", predictor), playlist, name, SETTINGS)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("die", processes.DECODER_DIED),
        ("kill", processes.DECODER_KILLED),
        ("hang", "its decoder gave nothing for 1 s"),
        ("memory", "MemoryError"),
    ],
)
def test_a_decoder_that_fails_costs_its_own_request(
    name: str, reason: str, predictor: Predictor, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = OfferedModel("m", predictor)
    with monkeypatch.context() as patch, ThreadPoolExecutor() as pool:
        other = pool.submit(answer_clip, model, clip, "c", SETTINGS)
        time.sleep(0.2)
        patch.setattr(answers_module, "read_parts", dying.read_parts_or_die)
        patch.setenv(TIME_LIMIT_VARIABLE, "1")
        with pytest.raises(VideoError, match=reason):
            answer_clip(model, clip.with_name(f"{name}.avi"), "c", SETTINGS)
        assert other.result().prediction
    assert answer_clip(model, clip, "c", SETTINGS).prediction


def test_a_file_gets_so_much_memory_and_no_more(tmp_path: Path) -> None:
    code = (
        "from moclip.inference import untrusted_clip\n"
        "untrusted_clip._limit_memory()\n"
        "bytearray(untrusted_clip.MEMORY // 2)\n"
        "try:\n    bytearray(2 * untrusted_clip.MEMORY)\nexcept MemoryError:\n    print('refused')\n"
    )
    assert run("python", "-c", code, cwd=tmp_path).stdout == "refused\n"


def endless(seconds: float) -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1
        time.sleep(seconds)


def test_a_worker_that_takes_too_long_ends() -> None:
    with pytest.raises(WorkerDiedError, match="takes too long"):
        list(stream_from_worker(endless, 0.05, seconds=1.0))


def test_a_worker_ends_when_nobody_wants_more() -> None:
    parts = stream_from_worker(endless, 0.0)
    assert next(parts) == 0
    before = time.monotonic()
    parts.close()
    assert time.monotonic() - before < 5


def test_the_picture_shows_the_first_window_or_all(video: Path, clip: Path) -> None:
    drawn = draw_motion(video, check_limits(video, LIMITS), 1.0)
    assert not isinstance(drawn, VideoError)
    assert (drawn.frames, drawn.is_part) == (24, True), "the I-frame has no vectors"
    assert Image.open(io.BytesIO(drawn.png)).convert("RGB").getextrema() != ((255, 255),) * 3, "a picture with colours"
    whole = draw_motion(clip, check_limits(clip, LIMITS), 2.0)
    assert not isinstance(whole, VideoError)
    assert not whole.is_part
    assert MOST_DRAWN >= 50
    assert [length_text(seconds) for seconds in (0.4, 45, 60, 90, 600)] == [
        "0 s",
        "45 s",
        "1 min",
        "1 min 30 s",
        "10 min",
    ]


def test_a_file_is_deleted_after_its_last_answer(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    file = tmp_path / "digest/clip.mp4"

    def send() -> None:
        with uploads.arriving() as paths:
            file.parent.mkdir(exist_ok=True)
            file.write_text("clip")
            paths.append(str(file))

    send()
    send()  # the same clip of another visitor
    with uploads.in_use(str(file)):
        with uploads.in_use(str(file)):
            pass
        assert file.exists(), "somebody else reads it"
    assert not file.exists()
    send()
    with uploads.in_use(str(file)):
        with uploads.in_use(str(file)):
            pass
        assert file.exists(), "somebody else reads it, though one answer was due"
    assert not file.exists()
    send()
    send()
    with uploads.in_use(str(file)):
        pass
    assert file.exists(), "a second answer is due"
    with uploads.arriving():
        with uploads.in_use(str(file)):
            pass
        assert file.exists(), "it may be what arrives"
    assert not file.exists()
    with pytest.raises(VideoError, match="not here any more"), uploads.in_use(str(file)):
        pass
    send()
    uploads.sweep(60)
    assert file.exists()
    uploads.sweep(-1)
    assert list(tmp_path.iterdir()) == []


def test_only_files_of_the_folder_are_used(tmp_path: Path) -> None:
    (tmp_path / "uploads").mkdir()
    (tmp_path / "uploads-other").mkdir()
    uploads = Uploads(tmp_path / "uploads")
    secret = tmp_path / "uploads-other/secret"
    secret.write_text("secret")
    (tmp_path / "uploads/link").symlink_to(secret)
    for path in (secret, tmp_path / "uploads/../uploads-other/secret", tmp_path / "uploads/link", "\0", "http://a/b"):
        assert not uploads.holds(str(path))


# ------------------------------------------------------------------------------------------------ the real command


@dataclass(frozen=True)
class Served:
    """A page that the command serves, and the folder in which it keeps files."""

    url: str
    folder: Path
    process: subprocess.Popen[str]

    @cached_property
    def client(self) -> Any:
        from gradio_client import Client

        return Client(self.url, verbose=False, analytics_enabled=False)

    def answer(self, file: Path, model: str = "this project", reject: bool = True) -> dict[str, Any]:
        """Send a file as a program would."""
        from gradio_client import handle_file

        row: dict[str, Any] = self.client.predict(handle_file(file), model, reject, api_name="/answer")[1]
        return row

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
        """Send a request of HTTP as it is."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        content = body if isinstance(body, bytes) or body is None else json.dumps(body)
        connection.request(method, path, content, {"Content-Type": "application/json"} | headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")

    def files(self) -> list[Path]:
        return [path for path in self.folder.rglob("moclip-app-*/**/*") if path.is_file()]


def without(*absent: str) -> tuple[str, ...]:
    """`moclip` where these packages are not installed."""
    code = f"import sys; sys.modules |= dict.fromkeys({absent!r}); sys.argv[0] = 'moclip'; import pipeline.cli"
    return sys.executable, "-c", f"{code}; pipeline.cli.main()"


@contextmanager
def serving(
    *words: str | Path, cwd: Path, folder: Path, command: tuple[str | Path, ...] = ("moclip",)
) -> Iterator[Served]:
    """Run the command on a free port, and end it as Ctrl-C does."""
    pytest.importorskip("gradio", reason="the extra app is not installed")
    folder.mkdir(exist_ok=True)
    environment = surroundings() | {"TMPDIR": str(folder)}
    line = [str(word) for word in (*command, "app", "--quiet", "--port", "0", *words)]
    with (folder / "stderr").open("w") as errors:
        process = subprocess.Popen(line, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout
        told = process.stdout.readline()
        found = re.match(r"app: (http://127\.0\.0\.1:\d+)  \(Ctrl-C ends it\)$", told)
        assert found, told + (folder / "stderr").read_text()
        try:
            yield Served(found[1], folder, process)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder for temporary files; sockets in it allow no long name."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def served(finished: Path) -> Iterator[Served]:
    words = ("--top", "3", "--window", "1s", "--every", "0.25")
    with tempfile.TemporaryDirectory() as folder, serving(*words, cwd=finished, folder=Path(folder)) as page:
        yield page


@pytest.fixture(scope="module")
def demo_clips(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Copies of clips outside the project, where `similar` reads them as files."""
    folder = tmp_path_factory.mktemp("copies")
    found = sorted((finished / "data/demo/videos").glob("*/*_g01_c01.avi"))
    return [Path(shutil.copy(clip, folder)) for clip in found]


def test_it_answers_as_the_commands_do(served: Served, finished: Path, demo_clips: list[Path], tmp_path: Path) -> None:
    row = served.answer(demo_clips[0])
    words = (demo_clips[0], "--json", "--reject", "--top", "3")
    (expected,) = json.loads(run("moclip", "predict", *words, cwd=finished).stdout)
    assert {name: row[name] for name in expected if name != "clip"} == {
        name: value for name, value in expected.items() if name != "clip"
    }
    assert row["clip"] == demo_clips[0].name
    run("moclip", "similar", demo_clips[0], "-k", "5", "--csv", tmp_path / "similar.csv", cwd=finished)
    with (tmp_path / "similar.csv").open() as file:
        nearest = list(csv.DictReader(file))
    assert [(one["clip"], one["cosine"]) for one in row["nearest"]] == [
        (one["clip"], float(one["cosine"])) for one in nearest
    ]
    long = joined(demo_clips, tmp_path / "long.mp4")
    windows = ("--window", "1s", "--every", "0.25", "--reject", "--out", tmp_path / "timeline")
    (timeline,) = json.loads(run("moclip", "timeline", long, "--json", *windows, cwd=finished).stdout)
    events = served.answer(long)["events"]
    assert set(events) == set(timeline["events"])
    for stream, told in timeline["events"].items():  # batches of other sizes: the last digit may be another
        assert events[stream] == [one | {"probability": pytest.approx(one["probability"], abs=2e-4)} for one in told]
    assert served.files() == [], "they are deleted"


def test_requests_at_once_do_not_mix(served: Served, demo_clips: list[Path]) -> None:
    names = demo_clips[:2] * 3  # also the same file several times
    alone = {clip: served.answer(clip) for clip in names[:2]}
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(served.answer, names))
    assert together == [alone[clip] for clip in names]
    assert alone[names[0]]["fusion"] != alone[names[1]]["fusion"]
    assert served.files() == []


def test_a_file_that_is_no_video_costs_its_own_request(served: Served, demo_clips: list[Path], tmp_path: Path) -> None:
    broken = {"text.mp4": b"no video", "empty.avi": b"", "cut.mp4": demo_clips[0].read_bytes()[:200]}
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
        row = served.answer(tmp_path / name)
        assert set(row) == {"clip", "error"}
        assert row["clip"] == name
    for name, text in playlists(demo_clips[0]).items():
        (tmp_path / "list.mp4").write_text(text)
        assert served.answer(tmp_path / "list.mp4")["error"].startswith("not a video file"), name
    assert "fusion" in served.answer(demo_clips[0])
    assert served.files() == []


def boundary_body(name: str, content: bytes) -> tuple[bytes, dict[str, str]]:
    """A file as a browser sends it."""
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    return head + content + b"\r\n--x--\r\n", {"Content-Type": "multipart/form-data; boundary=x"}


def test_no_other_file_of_the_machine_can_be_read(served: Served, finished: Path) -> None:
    secret = (finished / "params.yaml").resolve()
    for path in (secret, f"{served.folder}/../{finished.name}/params.yaml", "http://127.0.0.1/a", "/etc/passwd"):
        for route in ("file=", "file/", "proxy="):
            assert served.ask("GET", f"/gradio_api/{route}{quote(str(path))}")[0] in (403, 404)
        data = {"path": str(path), "meta": {"_type": "gradio.FileData"}}
        for route in ("call/answer", "queue/join", "run/answer", "api/answer", "component_server", "process_recording"):
            body = {"data": [data, "this project", True], "fn_index": 0, "session_hash": "a"}
            status, said = served.ask("POST", f"/gradio_api/{route}", body)
            assert status in (403, 404)
            assert "dataset" not in said
    assert served.ask("POST", "/gradio_api/call/answer", b"{")[0] == 400
    assert served.ask("POST", "/gradio_api/call/answer", b" " * (2**20 + 1))[0] == 413
    content, headers = boundary_body("../../../up.mp4", b"content")
    status, said = served.ask("POST", "/gradio_api/upload", content, **headers)
    assert status == 200
    (path,) = json.loads(said)
    assert Path(path).is_relative_to(served.folder), "a name with path parts stays in the folder"
    assert served.ask("GET", f"/gradio_api/file={path}") == (200, "content")
    Path(path).unlink()


def test_it_listens_on_loopback_and_serves_no_other_host(served: Served) -> None:
    port = urlsplit(served.url).port
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = [row[1] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port]
    assert listening == [f"0100007F:{port:04X}"]
    assert served.ask("GET", "/", Host="evil.example")[0] == 421
    assert served.ask("GET", "/", Host=f"localhost:{port}")[0] == 200
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/")
    answer = connection.getresponse()
    assert answer.getheader("content-security-policy") == POLICY
    assert "https://" not in "".join(re.findall(r"""(?:src|href)=["'][^"']*""", answer.read().decode()))


def test_the_page_in_a_browser_asks_only_its_own_host(
    browser: webdriver.Chrome,  # noqa: F811
    served: Served,
    demo_clips: list[Path],
    tmp_path: Path,
) -> None:
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.set_window_size(1200, 900)
    bad = tmp_path / "a${document.title='x'} <b>.mp4"
    bad.write_text("no video")
    long = joined(demo_clips, tmp_path / "long.mp4")
    browser.get(served.url)

    def shown(selector: str) -> Any:
        return WebDriverWait(browser, 60).until(lambda page: page.find_elements(By.CSS_SELECTOR, selector))[0]

    shown("input[type=file]").send_keys(str(bad))
    assert f"{bad.name} cannot be used" in shown(".moclip .error").text
    shown("input[type=file]").send_keys(str(long))
    shown(".moclip .verdict")
    assert browser.title == "moclip"
    assert len(browser.find_elements(By.CSS_SELECTOR, ".moclip .strip")) == 3
    assert browser.find_elements(By.CSS_SELECTOR, ".moclip .event")
    asked = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert len(asked) > 10
    assert [url for url in asked if not url.startswith((served.url, "data:", "blob:"))] == []
    said = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert said == []
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390


def test_a_file_that_waits_for_its_answer_is_kept_longer(tmp_path: Path) -> None:
    uploads, file = Uploads(tmp_path), tmp_path / "a.mp4"
    file.touch()
    os.utime(file, (time.time() - 100,) * 2)
    uploads.expect([str(file)])
    uploads.sweep(60)
    assert file.exists()
    uploads.sweep(100 / LONGEST_WAIT)
    assert not file.exists(), "a visitor may have left the queue"
    file.touch()
    os.utime(file, (time.time() - 100,) * 2)
    uploads.give_up([str(file)])
    uploads.sweep(60)
    assert not file.exists()


def test_a_full_queue_refuses_and_keeps_no_file(
    finished: Path, demo_clips: list[Path], tmp_path: Path, short_folder: Path
) -> None:
    long = joined(demo_clips, tmp_path / "long.mp4")
    with serving("--at-once", "1", "--waiting", "1", cwd=finished, folder=short_folder) as page:

        def ask(number: int) -> str:
            try:
                return "fusion" if "fusion" in page.answer(long) else "error"
            except Exception as refused:
                return str(refused)

        assert page.client
        with ThreadPoolExecutor(6) as pool:
            told = list(pool.map(ask, range(6)))
        assert told.count("fusion") in (1, 2, 3)
        assert sum("Queue is full" in one for one in told) == 6 - told.count("fusion")
        assert page.files() == []


@pytest.mark.slow
def test_bundles_outside_a_project_and_limits(
    finished: Path, demo_clips: list[Path], tmp_path: Path, short_folder: Path
) -> None:
    """Without the packages of the extra `pipeline`."""
    run("moclip", "export", tmp_path / "one", cwd=finished)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    long = joined(demo_clips[:3], tmp_path / "long.mp4")
    large = tmp_path / "large.avi"
    large.write_bytes(bytes(10**6))
    words = ("--bundle", tmp_path / "one", "--bundle", "two", "--max-mb", "0.5", "--max-seconds", "1.5")
    lean = without(
        "pyarrow", "dvc", "dvclive", "zarr", "tensorstore", "matplotlib", "ruamel", "mvextractor", "accelerate"
    )
    with serving(*words, cwd=tmp_path, folder=short_folder, command=lean) as page:
        rows = [page.answer(demo_clips[0], name, reject=False) for name in (str(tmp_path / "one"), "two")]
        (expected,) = json.loads(
            run("moclip", "predict", demo_clips[0], "--json", "--top", "5", "--bundle", "two", cwd=tmp_path).stdout
        )
        for row in rows:
            assert row["fusion"] == expected["fusion"]
            assert "nearest" not in row
            assert any(NOT_IN_BUNDLE in note for note in row["notes"])
        assert page.answer(long, "two")["error"] == "it is longer than 2 s"
        body, headers = boundary_body("large.avi", large.read_bytes())
        status, said = page.ask("POST", "/gradio_api/upload", body, **headers)
        assert (status, json.loads(said)["error"]) == (413, "this file is larger than 0.5 MB")
        assert "0.5 MB and 2 s" in page.ask("GET", "/config")[1]
        assert page.files() == []
    assert page.process.returncode == 0
    assert list(short_folder.glob("moclip-app-*")) == []
    assert "Traceback" not in (short_folder / "stderr").read_text()


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="the extra app is not installed")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        found = in_turn(
            tmp_path,
            ("app", "--port", "0"),
            ("app", "--port", "0", "--bundle", str(tmp_path)),
            ("app", "--window", "x"),
            ("app", "--port", port),
        )
    for one, expected in zip(
        found,
        (
            "params.yaml: not found",
            "no bundle here",
            "--window: 'x' is not a length of time",
            f"--port {port}: cannot listen here: Address already in use\n  name another --port",
        ),
        strict=True,
    ):
        assert one.code == 1
        assert expected in one.stderr


def test_without_gradio_one_line_says_what_to_install(tmp_path: Path) -> None:
    lean = ("python", *without("gradio")[1:])  # a warm one, which has not imported gradio
    done = run(*lean, "app", cwd=tmp_path, code=1)
    assert done.stderr == 'error: the package gradio is not installed: pip install "moclip[app]"\n'
    assert "--max-seconds" in run(*lean, "app", "--help", cwd=tmp_path).stdout
