"""Extraction survives bad videos, dying processes and kills, and leaves the same bytes whatever the way."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from moclip.errors import MoclipError, StoreError
from moclip.motion import extract as extract_module
from moclip.motion import extract_workers
from moclip.motion.extract import Output, code_of_store, extract
from moclip.motion.extract_plan import ClipToExtract, FieldRecipe, ShardJob
from moclip.motion.extract_workers import _decode, read_clip, write_shard
from moclip.motion.field import motion_field
from moclip.motion.quantise import quantise
from moclip.motion.windows import motion_fields
from moclip.store.layout import MISSING, PARTS_FOLDER
from moclip.store.reader import FieldReader
from moclip.store.table import TABLE_COLUMNS, rows_of
from moclip.store.verify import verify_store
from moclip.video import mvextractor_backend, vector_records
from moclip.video.clip_files import file_md5
from moclip.video.probe import probe
from moclip.video.vector_records import Vectors
from moclip.video.vectors import has_mvextractor, read_vectors, vector_windows
from moclip.workers.processes import run_jobs, run_jobs_in_order
from tests.clips import encode, moving_texture

SHARD = 64
CANVAS = (48, 64)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight clips of several kinds and lengths, one of them longer than a shard."""
    folder = tmp_path_factory.mktemp("clips")
    kinds = [("mpeg4", 0, ".avi"), ("libx264", 2, ".mp4"), ("libx264", 0, ".mkv"), ("mpeg4", 2, ".mp4")]
    for number, length in enumerate([20, 31, 16, 33, 12, 40, 9, 90]):
        codec, b_frames, suffix = kinds[number % 4]
        film = moving_texture(length, (48, 64 + 8 * number), (2, 1), seed=number)
        encode(folder / f"v{number}{suffix}", film, codec, b_frames=b_frames)
    return folder


def index(folder: Path) -> pd.DataFrame:
    return pd.DataFrame([row_of(path) for path in sorted(folder.iterdir())])


def row_of(path: Path) -> dict[str, Any]:
    info = probe(path)
    return {
        "id": path.stem,
        "path": path.name,
        "md5": file_md5(path),
        "frames": info.frames,
        "codec": info.codec,
        "has_b": info.has_b,
    }


def run(videos: pd.DataFrame, root: Path, out: Path, **more: Any) -> pd.DataFrame:
    """Extract into `out`; options that a recipe knows go into that."""
    storage = more.pop("storage", None)
    recipe = {field.name: more.pop(field.name) for field in dataclasses.fields(FieldRecipe) if field.name in more}
    return extract(
        videos,
        root,
        Output(out / "mv.zarr", out / "mv.parquet", storage),
        FieldRecipe(**{"canvas": CANVAS, "shard_frames": SHARD, **recipe}),
        **more,
    )


def contents(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def reader_of(out: Path) -> FieldReader:
    return FieldReader(out / "mv.zarr", out / "mv.parquet")


def test_stored_fields_are_those_of_the_videos(clips: Path, tmp_path: Path) -> None:
    videos = index(clips)
    table = run(videos, clips, tmp_path)
    assert (table["status"] == "ok").all()
    assert list(table.columns) == list(TABLE_COLUMNS)
    assert verify_store(tmp_path / "mv.zarr", tmp_path / "mv.parquet") == []
    reader = reader_of(tmp_path)
    for row in rows_of(videos):
        vectors = read_vectors(clips / row.path, "pyav")
        np.testing.assert_array_equal(reader.frame_types(row.id), vectors.frame_types)
        expected = quantise(motion_field(vectors, CANVAS))
        np.testing.assert_array_equal(reader.read_video(row.id), expected)
        assert np.abs(expected).max() > 5
    assert reader.attributes["scale"] == 20.0 / 127
    assert reader.attributes["canvas"] == [48, 64]
    assert set(reader.attributes["versions"]) >= {"av", "ffmpeg"}


@pytest.mark.parametrize("manner", ["grid", "pixel"])
def test_accumulated_fields_are_traced_across_windows(
    manner: str, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_records, "WINDOW_FRAMES", 5)
    videos = index(clips).iloc[[1]]
    run(videos, clips, tmp_path, accumulate=manner)
    monkeypatch.undo()
    vectors = read_vectors(clips / videos["path"].iloc[0], "pyav")
    ((expected, _),) = motion_fields([vectors], CANVAS, 8, manner)
    np.testing.assert_array_equal(reader_of(tmp_path).read_video("v1"), quantise(expected))


def test_bytes_do_not_depend_on_workers_order_or_repetition(clips: Path, tmp_path: Path) -> None:
    videos = index(clips)
    run(videos, clips, tmp_path / "one")
    run(videos.iloc[::-1], clips, tmp_path / "two", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    run(videos, clips, tmp_path / "one")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_workers_get_the_current_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the credentials of an object store, in a notebook that has extracted before."""
    for setting in ("early", "late"):
        monkeypatch.setenv("MOCLIP_SET_LATER", setting)
        jobs = run_jobs(os.getenv, ["MOCLIP_SET_LATER"], 1, lambda job, reason: reason)
        assert list(jobs) == [("MOCLIP_SET_LATER", setting)]
        assert list(run_jobs_in_order(os.getenv, ["MOCLIP_SET_LATER"], 1, lambda *_: "lost")) == [setting]


def test_progress_reaches_the_number_of_videos(clips: Path, tmp_path: Path) -> None:
    for _ in range(2):  # the second time there is nothing to do
        seen: list[int] = []
        run(index(clips), clips, tmp_path, advance=seen.append)
        assert sum(seen) == 8


def test_nothing_is_read_again_when_nothing_changed(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = index(clips)
    run(videos, clips, tmp_path)
    monkeypatch.setattr(extract_module, "write_shard", lambda job: pytest.fail(f"worked again on {job}"))
    assert (run(videos, clips, tmp_path)["status"] == "ok").all()


def decoded_ids(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the clips decoded from here on."""
    seen: list[str] = []
    decode = _decode

    def spy(slot: np.ndarray, clip: ClipToExtract, recipe: FieldRecipe) -> Any:
        seen.append(clip.id)
        return decode(slot, clip, recipe)

    monkeypatch.setattr(extract_workers, "_decode", spy)
    return seen


def test_only_a_new_clip_is_decoded(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos = index(clips)
    run(videos[videos["id"] != "v2"], clips, tmp_path)
    before, files = reader_of(tmp_path), contents(tmp_path)
    seen = decoded_ids(monkeypatch)
    table = run(videos, clips, tmp_path, workers=0)
    assert seen == ["v2"]
    assert list(table["id"]) == sorted(videos["id"])
    assert verify_store(tmp_path / "mv.zarr", table) == []
    after = reader_of(tmp_path)
    for name in set(videos["id"]) - {"v2"}:
        assert after.offset(name) == before.offset(name)
    touched = [n for n in files if "/c/" in n and "field" in n and contents(tmp_path)[n] != files[n]]
    assert len(touched) <= 1


def test_removed_and_changed_clips_leave_nothing_behind(clips: Path, tmp_path: Path) -> None:
    videos = index(clips)
    run(videos, clips, tmp_path)
    assert (tmp_path / "mv.zarr/field/c/0").exists()
    kept = pd.DataFrame([row_of(clips / "v0.avi") | {"id": "v4"}, row_of(clips / "v6.mkv")])
    table = run(kept, clips, tmp_path)
    assert list(table["id"]) == ["v4", "v6"]
    reader = reader_of(tmp_path)
    np.testing.assert_array_equal(
        reader.read_video("v4"),
        quantise(motion_field(read_vectors(clips / "v0.avi", "pyav"), CANVAS)),
    )
    _assert_only_frames_of_the_table_are_stored(tmp_path, table)


@pytest.mark.parametrize("change", ["another film", "left out"])
def test_a_shard_is_written_again_for_one_clip(clips: Path, tmp_path: Path, change: str) -> None:
    """A clip with another film of the same length has the slot of the earlier one; a clip left out leaves a hole."""
    root = Path(shutil.copytree(clips, tmp_path / "clips"))
    run(index(root), root, tmp_path)
    path = root / "v4.avi"
    if change == "left out":
        path.unlink()
    else:
        encode(path, moving_texture(12, (48, 96), (-3, 1), seed=99))
    table = run(index(root), root, tmp_path)
    assert (table["status"] == "ok").all()
    assert verify_store(tmp_path / "mv.zarr", table) == []
    reader = reader_of(tmp_path)
    for row in rows_of(index(root)):
        expected = quantise(motion_field(read_vectors(root / row.path, "pyav"), CANVAS))
        np.testing.assert_array_equal(reader.read_video(row.id), expected)
    _assert_only_frames_of_the_table_are_stored(tmp_path, table)


def _assert_only_frames_of_the_table_are_stored(out: Path, table: pd.DataFrame) -> None:
    stored = set(np.flatnonzero((_everything(out) != MISSING).any((1, 2, 3))))
    assert stored == {frame for row in rows_of(table) for frame in range(row.offset, row.offset + row.length)}


def _everything(out: Path) -> np.ndarray:
    import zarr

    return np.asarray(zarr.open_group(out / "mv.zarr", mode="r")["field"][:])


@pytest.mark.parametrize(
    "change", [{"clip": 10.0}, {"canvas": (32, 32)}, {"accumulate": "pixel"}, {"shard_frames": 128}]
)
def test_other_parameters_extract_again(
    change: Mapping[str, Any], clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = index(clips).iloc[:3]
    run(videos, clips, tmp_path / "store")
    seen = decoded_ids(monkeypatch)
    run(videos, clips, tmp_path / "store", **change)
    assert sorted(seen) == ["v0", "v1", "v2"]
    run(videos, clips, tmp_path / "fresh", **change)
    assert contents(tmp_path / "store") == contents(tmp_path / "fresh")


def test_bad_videos_get_a_row_with_the_reason(clips: Path, tmp_path: Path) -> None:
    videos = index(clips).iloc[:3]
    (tmp_path / "text.mp4").write_text("no video " * 100)
    encode(tmp_path / "stills.mp4", moving_texture(5, (48, 64)), gop=1)
    extra = [
        {"id": "absent", "path": str(tmp_path / "absent.mp4")},
        {"id": "stills", "path": str(tmp_path / "stills.mp4")},
        {"id": "text", "path": str(tmp_path / "text.mp4")},
        {"id": "longer", "path": str(clips / "v5.mp4")},
    ]
    common = {"frames": 10, "codec": "mpeg4", "has_b": False}
    files = [Path(row["path"]) for row in extra]
    sums = [file_md5(file) if file.exists() else "x" for file in files]
    bad = pd.DataFrame([{**row, **common, "md5": md5} for row, md5 in zip(extra, sums, strict=True)])
    table = run(pd.concat([videos, bad]), clips, tmp_path / "out", workers=2).set_index("id")
    assert list(table.index[table["status"] == "ok"]) == ["v0", "v1", "v2"]
    reasons = {str(name): str(reason) for name, reason in table["reason"].items()}
    assert reasons["absent"] == "no such file"
    assert "not a video file" in reasons["text"]
    assert reasons["stills"] == "no motion vectors in any frame"
    assert reasons["longer"] == "more frames decoded than the 10 indexed"
    reader = reader_of(tmp_path / "out")
    assert len(reader.read_video("v1")) == 31
    with pytest.raises(StoreError, match="text: its extraction failed"):
        reader.read_video("text")


def test_fewer_frames_than_indexed_are_noted(clips: Path, tmp_path: Path) -> None:
    videos = index(clips).iloc[:1].assign(frames=25)
    row = run(videos, clips, tmp_path).iloc[0]
    assert (row["status"], row["length"], row["reason"]) == ("ok", 20, "20 of 25 frames decoded")


@pytest.mark.skipif(not has_mvextractor(), reason="mvextractor is not installed here")
def test_pyav_takes_over_where_the_index_missed_b_frames(clips: Path, tmp_path: Path) -> None:
    videos = index(clips).iloc[[1]].assign(has_b=False)
    row = run(videos, clips, tmp_path, backend="mvextractor").iloc[0]
    assert (row["backend"], row["status"]) == ("pyav", "ok")


@pytest.mark.skipif(not has_mvextractor(), reason="mvextractor is not installed here")
def test_backends_fill_the_same_store(clips: Path, tmp_path: Path) -> None:
    table = run(index(clips), clips, tmp_path / "a", backend="mvextractor")
    assert set(table["backend"]) == {"pyav", "mvextractor"}
    assert set(run(index(clips), clips, tmp_path / "b")["backend"]) == {"pyav"}
    shards = [{k: v for k, v in contents(tmp_path / name).items() if "/c/" in k} for name in "ab"]
    assert len(shards[0]) > 3
    assert shards[0] == shards[1]


@pytest.mark.skipif(not has_mvextractor(), reason="mvextractor is not installed here")
def test_pyav_reads_past_where_mvextractor_stops(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos = index(clips).iloc[[0]]
    windows = vector_windows

    def stops_early(path: str, backend: str, **options: bool) -> Iterator[Vectors]:
        read = windows(path, backend, **options)
        return itertools.islice(read, 1) if backend == "mvextractor" else read

    monkeypatch.setattr(mvextractor_backend, "WINDOW_FRAMES", 8)
    assert run(videos, clips, tmp_path / "whole", backend="mvextractor").iloc[0]["backend"] == "mvextractor"
    monkeypatch.setattr(extract_workers, "vector_windows", stops_early)
    row = run(videos, clips, tmp_path / "early", backend="mvextractor").iloc[0]
    assert (row["backend"], row["length"], row["reason"]) == ("pyav", 20, "")
    np.testing.assert_array_equal(
        reader_of(tmp_path / "early").read_video("v0"), reader_of(tmp_path / "whole").read_video("v0")
    )


def test_no_videos_make_an_empty_store(clips: Path, tmp_path: Path) -> None:
    table = run(index(clips).iloc[:0], clips, tmp_path)
    assert len(table) == 0
    assert len(reader_of(tmp_path)) == 0


def test_wrong_options_stop_at_once(clips: Path, tmp_path: Path) -> None:
    for wrong in ({"backend": "fast"}, {"accumulate": "twice"}, {"shard_frames": 50 + 1}):
        with pytest.raises(MoclipError):
            run(index(clips), clips, tmp_path, **wrong)


# --------------------------------------------------------------------------------------- kills and deaths


def write_or_die(job: ShardJob) -> None:
    if any(clip.id == "v3" for clip in job.clips):
        os.kill(os.getpid(), signal.SIGKILL)
    write_shard(job)


def read_or_die(job: ShardJob, clip: ClipToExtract) -> tuple[np.ndarray, dict[str, Any]]:
    if clip.id == "v3":
        os.kill(os.getpid(), signal.SIGSEGV)
    return read_clip(job, clip)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_clip_that_kills_its_process_gets_a_row(
    workers: int, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = index(clips)
    with monkeypatch.context() as patch:
        patch.setattr(extract_module, "write_shard", write_or_die)
        patch.setattr(extract_workers, "read_clip", read_or_die)
        table = run(videos, clips, tmp_path / "hurt", workers=workers).set_index("id")
    assert list(table.index[table["status"] == "failed"]) == ["v3"]
    assert table.loc["v3", "reason"] == "its decoder died"
    assert verify_store(tmp_path / "hurt/mv.zarr", tmp_path / "hurt/mv.parquet") == []
    run(videos, clips, tmp_path / "hurt")  # it may have been bad luck: such a clip is tried again
    run(videos, clips, tmp_path / "well")
    assert contents(tmp_path / "hurt") == contents(tmp_path / "well")


class Killed(BaseException):
    """What stands for a kill between two file operations."""


@pytest.mark.slow
def test_after_a_kill_at_any_moment_the_next_run_completes(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From an older store (a clip less, another changed), killed before each write or rename in turn."""
    videos = index(clips)
    other = pd.DataFrame([row_of(clips / "v3.mp4") | {"id": "v1"}])
    older = pd.concat([other, videos[~videos["id"].isin(["v0", "v1"])]])
    run(older, clips, tmp_path / "older")
    shutil.copytree(tmp_path / "older", tmp_path / "right")
    run(videos, clips, tmp_path / "right")
    right = contents(tmp_path / "right")
    moment, ended = 0, False
    while not ended:
        out = Path(shutil.copytree(tmp_path / "older", tmp_path / f"run{moment}"))
        with monkeypatch.context() as patch:
            countdown = iter(range(moment, -1, -1))
            _kill_when_zero(patch, countdown)
            try:
                run(videos, clips, out)
                ended = True
            except Killed:
                if (out / "mv.zarr" / PARTS_FOLDER).exists():
                    with pytest.raises(StoreError):
                        reader_of(out)
        run(videos, clips, out)
        assert contents(out) == right, f"killed at moment {moment}"
        moment += 1
    assert moment > 8


def _kill_when_zero(patch: pytest.MonkeyPatch, countdown: Any) -> None:
    replace = Path.replace

    def killing(self: Path, target: Path) -> Path:
        if next(countdown, 1) == 0:
            raise Killed
        return replace(self, target)

    patch.setattr(Path, "replace", killing)


@pytest.mark.parametrize("change", [False, True])
def test_a_run_that_broke_off_goes_on_and_reads_what_changed_meanwhile(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: bool
) -> None:
    root = Path(shutil.copytree(clips, tmp_path / "clips"))
    left = iter(range(2))

    def advance(count: int) -> None:
        if next(left, None) is None:
            raise Killed

    seen = decoded_ids(monkeypatch)
    with pytest.raises(Killed):
        run(index(root), root, tmp_path / "out", advance=advance)
    first = seen[0]
    if change:  # another film of the same length
        path = next(root.glob(f"{first}.*"))
        about = probe(path)
        film = moving_texture(about.frames, (48, 64), (-3, 1), seed=99)
        encode(path, film, "mpeg4" if about.codec == "mpeg4" else "libx264", b_frames=2 if about.has_b else 0)
    before = len(seen)
    run(index(root), root, tmp_path / "out")
    assert 0 < len(seen[before:]) < len(index(root))
    assert (first in seen[before:]) == change
    run(index(root), root, tmp_path / "right")
    assert contents(tmp_path / "out") == contents(tmp_path / "right")


SLOW = """
import sys, time
import pandas as pd
from pathlib import Path
from moclip.motion.extract import Output, extract
from moclip.motion.extract_plan import FieldRecipe
if __name__ == "__main__":
    videos, root, out, workers = pd.read_parquet(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    output = Output(out / "mv.zarr", out / "mv.parquet", sys.argv[5] if len(sys.argv) > 5 else None)
    recipe = FieldRecipe((48, 64), shard_frames=64)
    extract(videos, root, output, recipe, workers=workers, advance=lambda count: time.sleep(0.3))
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_killed_extraction_resumes(
    workers: int, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = index(clips)
    run(videos, clips, tmp_path / "right")
    (tmp_path / "slow.py").write_text(SLOW)
    videos.to_parquet(tmp_path / "videos.parquet")
    out = tmp_path / "out"
    arguments = [tmp_path / "slow.py", tmp_path / "videos.parquet", clips, out, workers]
    process = subprocess.Popen([sys.executable, *map(str, arguments)], start_new_session=True)
    parts = out / "mv.zarr" / PARTS_FOLDER
    deadline = time.monotonic() + 30
    while _written(parts) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    _wait_for_group_end(process.pid)
    assert _written(parts) >= 2
    seen = decoded_ids(monkeypatch)
    run(videos, clips, out)
    assert len(seen) < len(videos)
    assert contents(out) == contents(tmp_path / "right")


class _KilledError(Exception):
    pass


def _kill(count: int) -> None:
    if count:
        raise _KilledError


@pytest.mark.parametrize(("code", "resumes"), [("a", True), ("b", False), ("", False)])
def test_what_a_killed_run_left_is_taken_only_by_the_same_code(
    code: str, resumes: bool, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos, recipe = index(clips), FieldRecipe((48, 64), shard_frames=64)
    output = Output(tmp_path / "out/mv.zarr", tmp_path / "out/mv.parquet")
    run(videos, clips, tmp_path / "right")
    with pytest.raises(_KilledError):
        extract(videos, clips, output, recipe, code="a", advance=_kill)
    assert code_of_store(output, recipe) == "a"
    seen = decoded_ids(monkeypatch)
    extract(videos, clips, output, recipe, code=code)
    assert (len(seen) < len(videos)) == resumes
    assert (code_of_store(output, recipe) or "") == code
    (tmp_path / "out/mv.code").unlink(missing_ok=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "right")
    (tmp_path / "out/mv.code").write_text('{"contents": "of another store", "code": "c"}')
    assert code_of_store(output, recipe) is None


def test_a_store_at_a_url_says_to_all_which_code_made_it(clips: Path, tmp_path: Path) -> None:
    recipe = FieldRecipe((48, 64), shard_frames=64)
    one, other = (
        Output(tmp_path / name / "mv.zarr", tmp_path / name / "mv.parquet", f"file://{tmp_path}/at") for name in "ab"
    )
    extract(index(clips), clips, one, recipe, code="a")
    assert code_of_store(one, recipe) == code_of_store(other, recipe) == "a"


def _written(parts: Path) -> int:
    """How many shards are there; the part of one that is being written names no clip yet."""
    return sum(bool(json.loads(part.read_text())["rows"]) for part in parts.glob("[0-9]*.json"))


def _wait_for_group_end(group: int) -> None:
    """Workers of a killed run must not outlive it."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.killpg(group, signal.SIGKILL)
    pytest.fail("worker processes outlived the run")


# ---------------------------------------------------------------------------------------------- real clips


def real_clips() -> list[Path]:
    root = os.environ.get("MOCLIP_REAL_DATA")
    return sorted(Path(root, "fight_surv", "videos").glob("*/*.mp4")) if root else []


@pytest.mark.skipif(not real_clips(), reason="MOCLIP_REAL_DATA names no folder of real clips")
@pytest.mark.slow
def test_real_clips_give_the_same_bytes_with_any_workers_in_any_order(tmp_path: Path) -> None:
    videos = pd.DataFrame([row_of(path) | {"path": str(path)} for path in real_clips()[::5]])
    table = run(videos, Path("/"), tmp_path / "1", canvas=(240, 320), shard_frames=512, workers=1)
    assert (table["status"] == "ok").all()
    assert (table["reason"] == "").all()
    for workers in (2, 4):
        shuffled = videos.sample(frac=1, random_state=workers)
        run(shuffled, Path("/"), tmp_path / str(workers), canvas=(240, 320), shard_frames=512, workers=workers)
        assert contents(tmp_path / str(workers)) == contents(tmp_path / "1")


@pytest.mark.skipif(not real_clips(), reason="MOCLIP_REAL_DATA names no folder of real clips")
@pytest.mark.slow
def test_real_clips_with_b_frames_give_the_same_fields_twenty_times(tmp_path: Path) -> None:
    rows = [row_of(path) | {"path": str(path)} for path in real_clips()]
    steady = [row for row in rows if row["has_b"]][::20]
    assert len(steady) > 5
    again = pd.DataFrame([row | {"id": f"{row['id']} {time}"} for time in range(20) for row in steady])
    table = run(again, Path("/"), tmp_path, canvas=(240, 320), shard_frames=512, workers=4)
    assert len(table) == 20 * len(steady)
    assert (table.groupby("md5")["checksum"].nunique() == 1).all()
