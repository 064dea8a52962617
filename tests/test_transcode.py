"""Transcoding holds its settings, repeats its bytes, survives bad clips and kills, and feeds the whole pipeline."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest
from av.video.reformatter import VideoReformatter

from moclip.data.clip_folder import scan_folder
from moclip.data.index import build_index
from moclip.errors import DatasetError, VideoError
from moclip.models.weights import read_config
from moclip.video import transcode, transcoded_folder
from moclip.video.clip_files import file_md5
from moclip.video.decoding import open_pictures
from moclip.video.frames import read_frames
from moclip.video.probe import probe
from moclip.video.transcode import SCALING, transcode_clip
from moclip.video.transcoded_folder import _transcode_or_reason, read_failures, transcode_clips
from moclip.video.vectors import has_mvextractor, read_vectors
from moclip.workers import processes
from tests.clips import encode, moving_texture, without_first_packets
from tests.conftest import run, set_keys

LENGTH = 30
KINDS: dict[str, dict[str, Any]] = {
    "h264_b.mp4": {"codec": "libx264", "b_frames": 2},
    "variable_rate.mkv": {"codec": "libx264", "skip_times": (4, 5, 17)},
    "hevc.mp4": {"codec": "libx265"},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "chroma_444.mp4": {"codec": "libx264", "pix_fmt": "yuv444p"},
    "full_range.mp4": {"codec": "libx264", "pix_fmt": "yuvj420p"},
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of each kind, 60 x 100 px, 30 frames at 25 a second."""
    folder = tmp_path_factory.mktemp("sources") / "Class"
    folder.mkdir()
    for number, (name, options) in enumerate(KINDS.items()):
        encode(folder / name, moving_texture(LENGTH, (60, 100), (2, 1), seed=number), **options)
    return folder.parent


def names(root: Path) -> list[str]:
    return scan_folder(root).clips


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def planes(path: Path) -> np.ndarray:
    """Every decoded picture at 340 x 256 px, bicubic: (frames, rows of the three planes, 340)."""
    scale = VideoReformatter()
    with av.open(str(path)) as container:
        pictures = [
            scale.reformat(picture, 340, 256, "yuv420p", **SCALING).to_ndarray()
            for picture in container.decode(video=0)
        ]
    return np.stack(pictures).astype(float)


def quantisers(path: Path) -> list[tuple[str, int]]:
    """Each picture's kind and quantiser, from its header (ISO/IEC 14496-2, 6.2.5), for 25 frames a second."""
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    found = []
    for packet in packets:
        at = packet.index(b"\0\0\1\xb6") + 4
        bits = "".join(f"{byte:08b}" for byte in packet[at : at + 8])
        kind = "IPBS"[int(bits[:2], 2)]
        place = bits.index("0", 2) + 1 + 1 + 5 + 1  # seconds gone, marker, time in 1/25 s, marker
        assert bits[place] == "1", "a coded picture"
        place += 1 + (kind == "P") + 3  # rounding, threshold of intra DC
        found.append((kind, int(bits[place : place + 5], 2)))
    return found


@pytest.mark.parametrize("name", KINDS)
def test_every_source_becomes_the_papers_format(name: str, sources: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.avi"
    transcode_clip(sources / "Class" / name, target)
    info = probe(target)
    assert (info.codec, info.width, info.height, info.gop, info.has_b) == ("mpeg4", 340, 256, 12, False)
    with av.open(str(sources / "Class" / name)) as container:
        assert info.fps == pytest.approx(float(container.streams.video[0].average_rate), abs=0.01)
        assert info.frames == sum(1 for _ in container.decode(video=0)) == LENGTH
    with av.open(str(target)) as container:
        assert container.streams.video[0].sample_aspect_ratio in (None, 1)
        assert len(container.streams) == 1
    types = read_vectors(target, "pyav").frame_types
    assert bytes(types).decode() == "".join("I" if number % 12 == 0 else "P" for number in range(LENGTH))
    error = np.square(planes(target) - planes(sources / "Class" / name)).mean(axis=(1, 2))
    assert (10 * np.log10(255**2 / error)).min() > 37, "dB, in each frame"


def test_every_picture_has_the_quantiser_of_the_papers_command(sources: Path, tmp_path: Path) -> None:
    transcode_clip(sources / "Class/h264_b.mp4", tmp_path / "out.avi")
    kinds = "".join(kind for kind, _ in quantisers(tmp_path / "out.avi"))
    assert kinds == ("I" + 11 * "P") * 2 + "I" + 5 * "P"
    assert Counter(scale for _, scale in quantisers(tmp_path / "out.avi")) == {2: LENGTH}, "as ffmpeg -q:v 1"


def test_full_range_becomes_the_range_of_video(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 255, 340).astype(np.uint8)[:, None], (3, 256, 1, 3))
    for name, pixels in (("full.mp4", "yuvj420p"), ("video.mp4", "yuv420p")):
        encode(tmp_path / name, ramp, "libx264", pix_fmt=pixels, options={"crf": "3"})
        transcode_clip(tmp_path / name, tmp_path / "out.avi")
        with av.open(str(tmp_path / "out.avi")) as container:
            luma = next(container.decode(video=0)).to_ndarray()[:256]
        assert (luma.min(), luma.max()) == (pytest.approx(16, abs=2), pytest.approx(235, abs=3))


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_pictures_are_turned_as_the_source_asks(degrees: int, tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", moving_texture(4, (64, 96)), "libx264", rotation=degrees)
    transcode_clip(path, tmp_path / "out.avi")
    shown, made = (read_frames(name, [3])[0] for name in (path, tmp_path / "out.avi"))
    scaled = av.VideoFrame.from_ndarray(np.ascontiguousarray(shown), "rgb24").reformat(340, 256).to_ndarray()
    assert np.abs(made.astype(int) - scaled).mean() < 4


def test_a_scene_cut_adds_no_key_frame(tmp_path: Path) -> None:
    film = np.concatenate([moving_texture(7, (64, 80), seed=seed) for seed in range(4)])
    encode(tmp_path / "cuts.mp4", film, "libx264")
    transcode_clip(tmp_path / "cuts.mp4", tmp_path / "out.avi")
    types = bytes(read_vectors(tmp_path / "out.avi", "pyav").frame_types).decode()
    assert [number for number, letter in enumerate(types) if letter == "I"] == [0, 12, 24]


def test_both_backends_read_the_same_motion(sources: Path, tmp_path: Path) -> None:
    transcode_clip(sources / "Class/hevc.mp4", tmp_path / "out.avi")
    exact = read_vectors(tmp_path / "out.avi", "pyav")
    moving = exact.blocks[exact.blocks[:, 7] != 0]
    displacement = -moving[:, 7] / moving[:, 9]
    assert np.median(displacement) == pytest.approx(2 * 340 / 100, abs=0.6), "2 px a frame in 100 px of width"
    if has_mvextractor():
        fast = read_vectors(tmp_path / "out.avi", "mvextractor")
        np.testing.assert_array_equal(fast.blocks, exact.blocks)


@pytest.mark.parametrize("rate", ["1/10", "5", "30000/1001", "2997/125", "240", "1000"])
def test_odd_rates_are_kept(rate: str, tmp_path: Path) -> None:
    encode(tmp_path / "odd.mkv", moving_texture(5, (48, 64)), "libx264", fps=Fraction(rate))
    transcode_clip(tmp_path / "odd.mkv", tmp_path / "out.avi")
    with av.open(str(tmp_path / "odd.mkv")) as container:
        stated = float(container.streams.video[0].average_rate)
    info = probe(tmp_path / "out.avi")
    assert info.frames == 5
    assert info.fps == pytest.approx(stated, rel=1e-3)


def test_unusable_clips_are_refused_by_name(tmp_path: Path) -> None:
    film = moving_texture(6, (64, 80))
    encode(tmp_path / "fields.mp4", film, "libx264", options={"flags": "+ildct+ilme", "x264-params": "tff=1"})
    (tmp_path / "text.mp4").write_text("no video " * 100)
    for name, reason in (("fields.mp4", "interlaced video"), ("text.mp4", "not a video"), ("none.mp4", "no such file")):
        with pytest.raises(VideoError, match=reason):
            transcode_clip(tmp_path / name, tmp_path / "out.avi")
    assert not (tmp_path / "out.avi").exists()


def test_a_clip_cut_short_keeps_what_decodes(tmp_path: Path) -> None:
    path = encode(tmp_path / "cut.mkv", moving_texture(40, (64, 80)), "libx264")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    transcode_clip(path, tmp_path / "out.avi")
    with open_pictures(path) as (_, pictures):
        whole = sum(1 for _ in pictures)
    assert 1 < probe(tmp_path / "out.avi").frames == whole < 40


# -------------------------------------------------------------------------------------------------- a folder


def test_bytes_repeat_whatever_the_number_of_processes(sources: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    assert transcode_clips(sources, names(sources), tmp_path / "one", 2, seen.append) == {}
    assert sum(seen) == len(KINDS)
    transcode_clips(sources, names(sources), tmp_path / "two", 1)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert set(contents(tmp_path / "one")) == {f"Class/{name}.avi" for name in KINDS} | {"failed.json"}


@pytest.fixture
def done(sources: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A folder of three clips to change at will, and it transcoded."""
    root = tmp_path / "videos"
    (root / "Class").mkdir(parents=True)
    for name in list(KINDS)[:3]:
        shutil.copy(sources / "Class" / name, root / "Class")
    transcode_clips(root, names(root), tmp_path / "out", 2)
    return root, tmp_path / "out"


def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the clips that are encoded from here on, in this process."""
    seen: list[str] = []

    def here(work: Callable[[Any], str], waiting: list[Any], *_: Any) -> Any:
        while waiting:
            seen.append(Path(waiting[-1].source).name)
            yield waiting[-1], work(waiting.pop())

    monkeypatch.setattr(processes, "run_jobs_on_pool", here)
    return seen


def test_with_nothing_to_do_nothing_is_encoded(done: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = done
    before, seen = contents(out), encoded(monkeypatch)
    assert transcode_clips(root, names(root), out) == {}
    assert seen == []
    assert contents(out) == before


def test_only_new_and_changed_clips_are_encoded(done: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = done
    seen = encoded(monkeypatch)
    shutil.copy(root / "Class/hevc.mp4", root / "Class/new.mp4")
    shutil.copy(root / "Class/hevc.mp4", root / "Class/h264_b.mp4")
    transcode_clips(root, names(root), out)
    assert sorted(seen) == ["h264_b.mp4", "new.mp4"]
    assert (out / "Class/new.mp4.avi").read_bytes() == (out / "Class/h264_b.mp4.avi").read_bytes()


@pytest.mark.parametrize("setting", ["WIDTH", "TRANSCODE_REVISION"])
def test_other_settings_encode_again(setting: str, done: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = done
    seen = encoded(monkeypatch)
    monkeypatch.setattr(transcode, setting, getattr(transcode, setting) + 4)
    transcode_clips(root, names(root), out)
    assert sorted(seen) == sorted(list(KINDS)[:3])


def test_files_of_no_clip_are_removed(done: tuple[Path, Path]) -> None:
    root, out = done
    (out / "Gone").mkdir()
    (out / "Gone/old.mp4.avi").write_bytes(b"old")
    (out / "Class/.hevc.mp4.avi.1.tmp").write_bytes(b"half")
    (root / "Class/hevc.mp4").unlink()
    (root / "Class/h264_b.mp4").write_text("broken now")
    failed = transcode_clips(root, names(root), out)
    assert list(failed) == ["Class/h264_b.mp4"]
    assert set(contents(out)) == {"Class/variable_rate.mkv.avi", "failed.json"}
    assert not (out / "Gone").exists()


def _transcode_or_die(job: Any) -> str:
    if job.source.endswith("hevc.mp4"):
        os.kill(os.getpid(), signal.SIGSEGV)
    return _transcode_or_reason(job)


@pytest.mark.slow
def test_a_clip_that_kills_its_process_gets_a_reason(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(transcoded_folder, "_transcode_or_reason", _transcode_or_die)
        failed = transcode_clips(sources, names(sources), tmp_path / "out", 2)
    assert failed == {"Class/hevc.mp4": "its decoder died"} == read_failures(tmp_path / "out")
    assert len(contents(tmp_path / "out")) == len(KINDS) - 1 + 1
    assert transcode_clips(sources, names(sources), tmp_path / "out", 2) == {}, "it may have been bad luck"


def test_the_index_describes_the_transcoded_clips(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "videos")
    folder = scan_folder(root)

    def index() -> pd.DataFrame:
        return build_index(root, folder, None, 0.3, 0.3, 0, transcoded=tmp_path / "out").set_index("id")

    with pytest.raises(DatasetError, match=r"not all transcoded\n.*moclip transcode"):
        index()
    transcode_clips(root, folder.clips, tmp_path / "out", 2)
    table = index()
    assert (table["path"] == table.index).all()
    good = table.drop(["Run/v_Run_g01_c08.mp4", "Run/v_Run_g01_c09.mp4"])
    assert (good[["codec", "w", "h", "gop", "has_b"]] == ["mpeg4", 340, 256, 12, False]).all(axis=None)
    for name, row in good.iterrows():
        assert row["md5"] == file_md5(tmp_path / "out" / f"{name}.avi")
    broken = table.loc["Run/v_Run_g01_c09.mp4"]
    assert broken["status"] == "failed"
    assert broken["reason"].startswith("not a video file")
    assert table.loc["Run/v_Run_g01_c08.mp4", "reason"] == "1 frame: a clip needs at least 2 to have motion"
    (tmp_path / "out/Jump/v_Jump_g01_c01.mp4.avi").unlink()
    with pytest.raises(DatasetError, match=r"v_Jump_g01_c01.mp4.avi: the clip is not transcoded\n.*moclip transcode"):
        index()


@pytest.mark.parametrize("codec", ["libx265", "libx264", "libvpx", "libvpx-vp9"])
def test_what_of_a_source_does_not_decode_is_its_damage(tmp_path: Path, codec: str) -> None:
    root = tmp_path / "videos"
    whole = encode(tmp_path / "whole.mkv", moving_texture(24, (64, 80)), codec, gop=12)
    for name in ("Run", "Jump"):
        (root / name).mkdir(parents=True)
        for group in range(4):
            shutil.copy(whole, root / name / f"v_{name}_g0{group}_c01.mkv")
    cut = without_first_packets(whole, root / "Run/v_Run_g01_c02.mkv", 3).relative_to(root).as_posix()
    folder = scan_folder(root)
    transcode_clips(root, folder.clips, tmp_path / "out", 2)
    table = build_index(root, folder, None, 0.3, 0.3, 0, transcoded=tmp_path / "out").set_index("id")
    damage = table["damage"].to_dict()
    frames = table["frames"].to_dict()[cut]
    assert frames < 21, "pictures before the next key frame do not decode"
    wanted = "" if codec == "libvpx" else f"{21 - frames} of 21 packets give no picture"
    assert damage.pop(cut) == wanted, "of VP8 nobody knows: some packets hold no picture to show"
    assert set(damage.values()) == {""}


# ------------------------------------------------------------------------------------------------- the stage


def two_classes(root: Path) -> Path:
    """Two classes of six clips in three groups, H.264 with B-frames but one HEVC; a clip of one frame, a broken one."""
    for number in range(6):
        for name in ("Run", "Jump"):
            path = root / name / f"v_{name}_g{number // 2 + 1:02d}_c{number % 2 + 1:02d}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            film = moving_texture(14, (48, 64), (3, 0) if name == "Run" else (0, 3), seed=number)
            codec = "libx265" if (name, number) == ("Jump", 3) else "libx264"
            encode(path, film, codec, b_frames=2)
    encode(root / "Run/v_Run_g01_c08.mp4", moving_texture(1, (48, 64)), "libx264")
    (root / "Run/v_Run_g01_c09.mp4").write_text("this is no video\n")
    return root


def transcoding(project: Path, root: Path) -> None:
    """Set the project's params.yaml to a folder of clips, to be transcoded."""
    run("moclip", "use", "folder", "--root", root, "--force", cwd=project)
    small = {
        "index.transcode": "mpeg4",
        "mv.shard": 64,
        "tsn.backbone": "test_resnet",
        "tsn.size": 32,
        "tsn.epochs": 1,
        "tsn.min_steps": 0,
        "tsn.batch": 4,
        "embed.views": 1,
        "fusion.epochs": 2,
        "evaluate.protocol": "2x1",
        "dataset.val_fraction": 0.4,
    }
    set_keys(project / "params.yaml", small)


@pytest.mark.slow
def test_a_killed_stage_resumes(tmp_path: Path) -> None:
    root, folder = tmp_path / "long", tmp_path
    for number in range(8):
        (root / "Class").mkdir(parents=True, exist_ok=True)
        encode(root / f"Class/v{number}.avi", moving_texture(150, (96, 128), seed=number))
    transcoding(folder, root)
    out = folder / "data/transcoded"
    command = [sys.executable, "-m", "stages.transcode", "--workers", "2"]
    process = subprocess.Popen(command, cwd=folder, start_new_session=True, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(out.glob("*/v*.avi"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in out.glob("*/v*.avi")}
    assert 2 <= len(kept) < 8
    assert not (out / "failed.json").exists()
    run(*command, cwd=folder)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    transcode_clips(root, names(root), tmp_path / "right", 2)
    assert contents(out) == contents(tmp_path / "right")


@pytest.mark.slow
def test_the_whole_pipeline_runs_on_transcoded_clips(project: Path, tmp_path: Path) -> None:
    root = two_classes(tmp_path / "videos")
    transcoding(project, root)
    done = run("dvc", "repro", "evaluate", cwd=project)
    assert "not usable: Run/v_Run_g01_c09.mp4: not a video file" in done.stdout
    counts = json.loads((project / "metrics/counts/transcode.json").read_text())
    assert (counts["clips"], counts["encoded"], sum(counts["failed"].values())) == (14, 13, 1)
    extracted = json.loads((project / "metrics/counts/extract_mv.json").read_text())
    assert extracted["extracted"] == 12
    assert sum(extracted["not_usable"].values()) == 2
    index = json.loads((project / "metrics/counts/index.json").read_text())
    assert index["codecs"] == {"mpeg4": 12}
    scores = json.loads((project / "metrics/fusion.json").read_text())
    assert scores["n"] >= 4
    assert "up to date" in run("dvc", "status", "evaluate", cwd=project).stdout

    stored = pd.read_parquet(project / "data/predictions.parquet").set_index("id")
    name = str(stored.index[0])
    answer = json.loads(run("moclip", "predict", root / name, "--json", "--top", "2", cwd=project).stdout)[0]
    temperature = read_config(project / "data/models/fusion.safetensors", "")["temperatures"]["mv_tsn"]
    logits = np.asarray(stored["mv_tsn"][name], float) / temperature
    expected = np.sort(np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum())[::-1]
    assert [one["probability"] for one in answer["mv_tsn"]] == pytest.approx(expected.tolist(), abs=2e-3)

    set_keys(project / "params.yaml", {"index.transcode": False})
    run("python", "-m", "stages.transcode", cwd=project)
    assert [path.name for path in (project / "data/transcoded").iterdir()] == ["unused.txt"]
    run("python", "-m", "stages.index", cwd=project)
    rows = pd.read_parquet(project / "data/index.parquet").set_index("id")
    assert "hevc" in rows["reason"]["Jump/v_Jump_g02_c02.mp4"]
    assert rows["codec"]["Run/v_Run_g01_c01.mp4"] == "h264"


@pytest.mark.slow
def test_a_real_clip_looks_like_the_papers_own(real_data: Path, tmp_path: Path) -> None:
    clip = real_data / "codecs/v_Basketball_g01_c01.avi"
    transcode_clip(clip, tmp_path / "out.avi")
    theirs = real_data / "codecs/v_Basketball_g01_c01_mpeg4_340x256.m4v"
    ours, papers = planes(tmp_path / "out.avi"), planes(theirs)
    assert ours.shape == papers.shape
    errors = np.square(ours - papers).mean(axis=(1, 2))
    assert 10 * np.log10(255**2 / errors.max()) > 45
    types = [bytes(read_vectors(path, "pyav").frame_types) for path in (tmp_path / "out.avi", theirs)]
    assert types[0] == types[1]
