"""Hung and dying readers, full disks, two runs at once, damage at rest, no numbers: each ends as promised."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import psutil
import pytest
import torch
import zarr

from moclip.data import index as index_module
from moclip.data.clip_folder import scan_folder
from moclip.data.probing import ProbeJob, probe_clip
from moclip.data.split_lists import read_splits
from moclip.errors import DatasetError, MoclipError, ModelError, StoreError, VideoError
from moclip.files.atomic import write_error
from moclip.inference.encode import check_finite
from moclip.inference.prepare_stills import StillsJob, StillsTask, prepare_stills, worker_died
from moclip.models.encoders.source import EncoderSource
from moclip.models.fusion import FusionConfig, load_fusion
from moclip.models.heads.concat import ConcatFusion
from moclip.models.mv_tsn import MvTsn, MvTsnConfig, load_mv_tsn
from moclip.motion import extract as extract_module
from moclip.motion import extract_workers
from moclip.training.distributed import World
from moclip.training.fusion import FusionRecipe, train_fusion_head
from moclip.training.mirroring import Mirroring
from moclip.training.mv_batches import MotionData
from moclip.training.mv_checkpoint import Checkpoint
from moclip.training.mv_tsn import train_mv_tsn
from moclip.video.clip_files import file_md5
from moclip.video.frames import read_frames
from moclip.video.probe import probe
from moclip.workers.processes import run_jobs, run_jobs_in_order
from moclip.workers.time_limit import TIME_LIMIT_VARIABLE
from pipeline import params as parameters
from pipeline import paths
from pipeline.inputs import Inputs
from pipeline.run_lock import run_lock
from pipeline.training_log import loss_errors_name_clips
from pipeline.training_recipe import training_recipe
from tests import audit, dying
from tests.clips import encode, moving_texture
from tests.conftest import ROOT, run, run_fresh, run_stages, set_keys, stages_from, surroundings
from tests.test_dag import digests
from tests.test_extract import clips, index
from tests.test_extract import run as extract
from tests.test_index import clean, index_of, write_lists
from tests.tiny_clip import load_clip

__all__ = ["clean", "clips"]  # fixtures


def refused(*command: str | Path, cwd: Path, **environment: str) -> str:
    """What a command says on stderr that fails as it should: one message, no traceback."""
    printed = run(*command, cwd=cwd, code=1, **environment).stderr
    assert "error: " in printed
    assert "Traceback" not in printed
    assert "internal error" not in printed
    return printed


# --------------------------------------------------------------------------------- readers that die or never end


@pytest.mark.slow
def test_a_clip_whose_decoder_hangs_fails_alone(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos = index(clips)
    with monkeypatch.context() as patch:
        patch.setenv(TIME_LIMIT_VARIABLE, "1")
        patch.setattr(extract_module, "write_shard", dying.write_or_hang)
        patch.setattr(extract_workers, "read_clip", dying.read_or_hang)
        table = extract(videos, clips, tmp_path / "hurt", workers=2).set_index("id")
    assert table.loc["v3", "reason"] == "its decoder gave nothing for 1 s"
    assert (table.drop("v3")["status"] == "ok").all()
    extract(videos, clips, tmp_path / "hurt")  # it may have been the machine: such a clip is tried again
    extract(videos, clips, tmp_path / "well")
    assert digests(tmp_path / "hurt", ".") == digests(tmp_path / "well", ".")


@pytest.mark.parametrize("in_order", [True, False])
def test_a_process_that_dies_costs_its_job_alone(tmp_path: Path, in_order: bool) -> None:
    """The job is tried again once; jobs of other processes go on, also those that start in that moment."""
    jobs = [(tmp_path, number) for number in range(8)]
    if in_order:
        found = list(run_jobs_in_order(dying.note_and_die, jobs, 2, lambda job, reason: -job[1] - 1))
    else:
        ended = dict(run_jobs(dying.note_and_die, jobs[::-1], 2, lambda job, reason: -job[1] - 1))
        found = [ended[job] for job in jobs]
    assert found == [-1, 1, 2, 3, 4, -6, 6, 7]
    begun = [(tmp_path / str(number)).read_text().count("begun") for number in range(8)]
    assert begun == [2, 1, 1, 1, 1, 2, 1, 1]


def test_a_process_that_dies_in_its_answer_costs_its_job_alone() -> None:
    found = list(run_jobs_in_order(dying.die_in_its_answer, range(3), 2, lambda job, reason: -job))
    assert found == [0, -1, 2]


def test_too_few_open_files_for_a_worker_is_an_error_that_says_so(tmp_path: Path) -> None:
    script = tmp_path / "many.py"
    script.write_text("""if True:
        import resource, os
        from moclip.errors import MoclipError
        from moclip.workers.processes import run_jobs_in_order
        if __name__ == "__main__":
            files = len(os.listdir("/dev/fd")) + 16
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
            try:
                print(list(run_jobs_in_order(abs, range(99), 32, lambda job, reason: job)))
            except MoclipError as error:
                print(error)
    """)
    printed = run("python", script, cwd=tmp_path).stdout
    assert "a worker process cannot be started" in printed
    assert "use fewer workers" in printed


@pytest.mark.slow
def test_ctrl_c_does_not_reach_the_fork_server(tmp_path: Path) -> None:
    script = tmp_path / "interrupted.py"
    script.write_text("""if True:
        import os, signal, time
        from moclip.workers.processes import run_jobs_in_order, start_fork_server
        if __name__ == "__main__":
            os.setpgid(0, 0)
            start_fork_server()
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            for _ in range(20):  # while it imports
                time.sleep(0.02)
                os.killpg(0, signal.SIGINT)
            print(list(run_jobs_in_order(abs, [-1], 1, lambda job, reason: job)))
    """)
    ended = run_fresh("python", script, cwd=tmp_path)
    assert (ended.stdout, ended.stderr) == ("[1]\n", "")


def test_what_a_job_raises_names_where() -> None:
    with pytest.raises(ValueError, match="no such thing") as caught:
        list(run_jobs_in_order(dying.fail, ["no such thing"], 1, lambda job, reason: None))
    assert str(caught.value) == "no such thing"
    assert "dying.py" in "".join(caught.value.__notes__)
    with pytest.raises(AttributeError, match="give_what_cannot_be_sent"):
        list(run_jobs_in_order(dying.give_what_cannot_be_sent, ["a"], 1, lambda job, reason: None))


@pytest.mark.slow
def test_a_file_that_crashes_its_reader_gets_a_reason(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = index_of(clean).set_index("id")
    monkeypatch.setenv(TIME_LIMIT_VARIABLE, "2")
    monkeypatch.setattr(index_module, "probe_clip", dying.probe_or_die)
    found = index_of(clean).set_index("id")
    assert set(found.index[found["status"] != "ok"]) == {f"{name}.avi" for name in dying.ENDS}
    for name, (_, reason) in dying.ENDS.items():
        assert str(found.loc[f"{name}.avi", "reason"]).startswith(reason)
    well = found.index[found["status"] == "ok"]
    assert found.loc[well, ["codec", "frames", "md5"]].equals(usual.loc[well, ["codec", "frames", "md5"]])


@pytest.mark.slow
def test_stills_of_a_clip_that_kills_its_reader_are_left_out(clean: Path) -> None:
    given = StillsTask(EncoderSource(""), str(clean), False, 2, "middle", 0, 1, 2, "", "", {})
    jobs = [[StillsJob(name, "", 8, False, given, dying.stacked)] for name in scan_folder(clean).clips]
    found = list(run_jobs_in_order(dying.read_or_die, jobs, 2, worker_died))
    for (job,), ((numbers, stills),) in zip(jobs, found, strict=True):
        assert numbers.tolist() == [2, 6]
        if "g01_c01" in job.path:
            assert str(stills) == "its decoder died"
        else:
            assert isinstance(stills, dict)
            assert (stills["pixels"] == read_frames(clean / job.path, [2, 6])).all()


def test_stills_of_a_clip_that_has_changed_since_it_was_indexed_are_not_read(clean: Path) -> None:
    clip = scan_folder(clean).clips[0]
    indexed = StillsTask(EncoderSource(""), str(clean), True, 2, "middle", 0, 1, 2, "", "", {})
    job = StillsJob(clip, file_md5(clean / clip), 8, False, indexed, dying.stacked)
    ((_, stills),) = prepare_stills([job])
    assert isinstance(stills, dict)
    np.testing.assert_array_equal(stills["pixels"], read_frames(clean / clip, [2, 6]))
    ((_, refused),) = prepare_stills([dataclasses.replace(job, md5="0" * 32)])
    assert "it has changed since it was indexed" in str(refused)


# ------------------------------------------------------------------------------------------- names, lists and links


@pytest.mark.slow
def test_clips_with_odd_names_are_used(clean: Path, tmp_path: Path) -> None:
    root = tmp_path / "videos"
    shutil.copytree(clean, root)
    source = clean / "Run/v_Run_g01_c01.avi"
    names = ["a b.avi", "two\nlines.avi", "-rf.avi", "ünï😀.avi", "<script>alert(1)<b>.avi", "x" * 251 + ".avi"]
    for name in names:
        shutil.copy(source, root / "Run" / name)
    wrong = os.fsencode(root / "Run") + b"/not\xff.avi"
    shutil.copy(source, os.fsdecode(wrong))
    (root / "Run/round.avi").symlink_to("round.avi")
    found = index_of(root).set_index("id")
    assert (found.loc[[f"Run/{name}" for name in names], "status"] == "ok").all()
    assert found.loc["Run/not\\xff.avi", "reason"] == "its name is not UTF-8"
    assert scan_folder(root).ignored == ["Run/round.avi"]
    run("moclip", "use", "folder", "--root", root, cwd=tmp_path)
    printed = run("moclip", "index", cwd=tmp_path)
    assert "not\\xff.avi: its name is not UTF-8" in printed.stdout
    assert "Traceback" not in printed.stderr
    run("moclip", "extract_mv", cwd=tmp_path)
    table = pd.read_parquet(tmp_path / "data/features/mv.parquet").set_index("id")
    assert set(table.index) == set(found.index[found["status"] == "ok"])
    assert (table["status"] == "ok").all()


def test_links_out_of_the_data_set_are_refused(clean: Path, tmp_path: Path) -> None:
    root, outside = tmp_path / "videos", tmp_path / "outside.avi"
    shutil.copytree(clean, root)
    shutil.copy(clean / "Run/v_Run_g01_c01.avi", outside)
    cached = tmp_path / "cache/files/md5/0a" / ("b" * 30)
    cached.parent.mkdir(parents=True)
    shutil.copy(outside, cached)
    (root / "Run/out_g01_c05.avi").symlink_to(outside)
    (root / "Run/in_g01_c06.avi").symlink_to("v_Run_g01_c01.avi")
    (root / "Run/dvc_g01_c07.avi").symlink_to(cached)
    linked = tmp_path / "link"
    linked.symlink_to(root)
    for folder in (root, linked):
        found = index_of(folder).set_index("id")
        assert {"Run/in_g01_c06.avi", "Run/dvc_g01_c07.avi"} < set(found.index)
        assert "Run/out_g01_c05.avi" not in found.index
        assert (found["status"] == "ok").all()
        assert scan_folder(folder).links_out == ["Run/out_g01_c05.avi"]
    row = probe_clip(ProbeJob(str(root), "Run/out_g01_c05.avi", str(outside), None, in_manifest=True))
    assert row["reason"] == "a link that leads out of dataset.root; to read it, set dataset.follow_links: true"


@pytest.mark.parametrize("name", ["../outside.avi", "/outside.avi", "Run/..", "Run/../../outside.avi"])
def test_listed_paths_out_of_the_data_set_are_refused(clean: Path, tmp_path: Path, name: str) -> None:
    lists = write_lists(tmp_path / "lists", [name], ["Run/v_Run_g01_c01.avi"])
    with pytest.raises(DatasetError, match="expected <Class>/<file>"):
        read_splits(lists, 1)
    (tmp_path / "hmdb").mkdir()
    (tmp_path / "hmdb/Run_test_split1.txt").write_text(f"{name} 1\n")
    with pytest.raises(DatasetError, match="is no clip of Run"):
        read_splits(tmp_path / "hmdb", 1)


def test_a_header_that_claims_a_giant_picture_allocates_nothing(tmp_path: Path) -> None:
    clip = encode(tmp_path / "giant.avi", moving_texture(8, (48, 64)), "msmpeg4v2")  # whose pictures say no size
    assert probe(clip).width == 64
    content = bytearray(clip.read_bytes())
    at = content.index(b"strf") + 12  # width and height in BITMAPINFOHEADER
    for side, expected_text in (
        (9000, "pictures of 9000x9000 px, more than 67,108,864 px"),
        (100_000, "no picture in it"),
    ):
        content[at : at + 8] = np.array([side, side], "<i4").tobytes()
        clip.write_bytes(content)
        with pytest.raises(VideoError, match=expected_text):
            probe(clip)


def test_file_titles_in_any_encoding_are_accepted(tmp_path: Path) -> None:
    clip = encode(tmp_path / "clip.avi", moving_texture(8, (48, 64)))
    with av.open(str(clip)) as given, av.open(str(tmp_path / "titled.avi"), "w", metadata_encoding="latin-1") as made:
        made.metadata["title"] = "Ü"
        stream = made.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = stream
                made.mux(packet)
    assert probe(tmp_path / "titled.avi").frames == 8


# --------------------------------------------------------------------------------------- one run at a time, no room


def test_a_second_run_of_a_stage_says_that_the_first_is_running(project: Path) -> None:
    command = ["python", "-m", "stages.train_mv", "--tsn-epochs", "9999"]
    first = subprocess.Popen(command, cwd=project, env=surroundings(), stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert first.stdout.readline().startswith("train_mv: ")
    printed = refused("moclip", "train_mv", cwd=project)
    told = re.search(r"train_mv: this stage is already running in this folder \(process (\d+)\)", printed)
    assert told, printed
    named = psutil.Process(int(told[1]))
    assert named.cwd() == str(project)
    named.kill()
    assert first.wait(60) == -signal.SIGKILL, "it was that process"
    run("moclip", "train_mv", cwd=project)  # the lock went with its process
    assert list((project / "data/work").iterdir()) == []


def test_temporary_files_of_killed_runs_are_removed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    ended = subprocess.Popen(["true"])
    ended.wait()
    host = os.uname().nodename.partition(".")[0]
    names = ("data/.index.parquet", "data/baselines/.image", "metrics/.a.json")
    left = [Path(f"{name}.{host}-{ended.pid}.tmp") for name in names]
    others = [
        Path(f"data/.index.parquet.{host}-{os.getpid()}.tmp"),
        Path(f"data/.index.parquet.elsewhere-{ended.pid}.tmp"),
    ]
    for path in left + others:
        path.touch()
    with run_lock("index"):
        assert all(path.exists() for path in left)
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in others)


STAGES = {
    "index": ("data/index.parquet",),
    "extract_mv": ("data/features/mv.zarr", "data/features/mv.parquet"),
    "train_mv": ("data/models/mv_tsn.safetensors",),
}


@pytest.mark.slow
def test_a_full_disk_is_reported_and_the_run_resumes_with_room(project: Path) -> None:
    for name, outputs in STAGES.items():
        before = digests(project, *outputs)
        for output in outputs:
            path = project / output
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        printed = refused("bash", "-c", f"ulimit -f 1; exec python -m stages.{name}", cwd=project)
        assert re.search("cannot be written: (File too large|disk I/O error)", printed), (name, printed)
        assert "run the same command again" in printed
        run("python", "-m", f"stages.{name}", cwd=project)
        assert digests(project, *outputs) == before, name
    assert not [path for path in project.rglob("*.tmp") if ".dvc" not in path.parts]


def test_permission_errors_name_the_file(tmp_path: Path) -> None:
    error = write_error(PermissionError(13, "Permission denied", "data/index.parquet"))
    assert str(error).startswith("data/index.parquet: no access: Permission denied")
    assert write_error(OSError(5, "Input/output error")) is None


# ------------------------------------------------------------------------------------------------- damage at rest


def _flip(path: Path, at: int = -100) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.fixture
def inputs(project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Inputs]:
    """What stages read in the project, anew; values for keys of params.yaml."""
    monkeypatch.chdir(project)
    return lambda **values: Inputs(parameters.load(paths.PARAMS, values))


def test_a_damaged_model_is_named_with_the_stage_to_run(project: Path) -> None:
    loaders: tuple[tuple[str, str, Callable[[Path], Any]], ...] = (
        ("mv_tsn", "train_mv", load_mv_tsn),
        ("fusion", "train_fusion", load_fusion),
    )
    for name, stage, load in loaders:
        path = project / f"data/models/{name}.safetensors"
        whole = path.read_bytes()
        for damaged in (whole[: len(whole) // 2], b"", b"\xff" * 8 + whole[8:], b"\x80\x02" + whole):
            path.write_bytes(damaged)
            problem = rf"{name}\.safetensors: not a model file of this pipeline(?s:.*)moclip {stage}"
            with pytest.raises(ModelError, match=problem):
                load(path)
        path.write_bytes(whole)
    path.write_bytes(whole[:-9])
    printed = refused("moclip", "evaluate", cwd=project)
    assert "fusion.safetensors: not a model file of this pipeline" in printed


def test_damaged_features_are_named_with_the_stage_to_run(project: Path, inputs: Callable[..., Inputs]) -> None:
    shutil.copytree(project / "data/features", project / "kept")
    for name, stage, array in (("clip_image", "clip_image", "features"), ("mv_embed", "embed_mv", "views/features")):
        folder = project / f"data/features/{name}.zarr/{array}"
        for damage in (_flip, Path.unlink):
            damage(next(path for path in sorted(folder.rglob("*")) if path.name != "zarr.json" and path.is_file()))
            with pytest.raises(StoreError, match=rf"{name}\.zarr.* is damaged(?s:.*)moclip {stage}"):
                inputs().final_data()
            shutil.rmtree(project / "data/features")
            shutil.copytree(project / "kept", project / "data/features")
    next(path for path in (project / "data/features/mv.zarr/field/c").rglob("*") if path.is_file()).unlink()
    printed = refused("moclip", "train_mv", cwd=project)
    assert "damaged" in printed
    assert "BallRising/v_" in printed
    assert "No such file" in refused("moclip", "store", "verify", cwd=project)


def test_nothing_trains_on_clips_that_have_changed(project: Path, inputs: Callable[..., Inputs]) -> None:
    clip = next((project / "data/demo/videos").rglob("*.avi"))
    name = f"{clip.parent.name}/{clip.name}"
    _flip(clip)
    printed = refused("moclip", "train_mv", cwd=project)
    assert f"{name} changed since the index was written" in printed
    assert "run: dvc repro" in printed
    clip.write_bytes(clip.read_bytes() + b"0")
    os.utime(clip, (0, 0))
    with pytest.raises(MoclipError, match=f"{name} changed since the index was written"):
        inputs().sampled_fields()
    run("moclip", "extract_mv", "--rebuild", cwd=project)
    table = pd.read_parquet(project / "data/features/mv.parquet").set_index("id")
    assert table.loc[name, "reason"] == "it has changed since it was indexed"
    run("moclip", "index", cwd=project)
    with pytest.raises(StoreError, match=r"other clips(?s:.*)run: dvc repro (train_mv|embed_mv)"):
        inputs().final_data()
    run("moclip", "extract_mv", cwd=project)
    assert name in set(inputs().motion_rows()["id"])


@pytest.mark.parametrize(
    ("key", "value", "read", "maker"),
    [
        ("mv.clip", 10.0, Inputs.sampled_fields, "extract_mv"),
        ("mv.accumulate", "grid", Inputs.sampled_fields, "extract_mv"),
        ("clip.frames", 2, Inputs.final_data, "clip_image"),
        ("clip.prompts", "data/other.json", Inputs.text_features, "clip_text"),
        ("evaluate.protocol", "2x1", Inputs.final_data, "embed_mv"),
    ],
)
def test_artifacts_made_with_other_parameters_are_refused(
    inputs: Callable[..., Inputs], key: str, value: Any, read: Callable[[Inputs], Any], maker: str
) -> None:
    printed = re.escape(f"it was made with {key}: ") + ".*" + re.escape(f"and params.yaml says {json.dumps(value)}")
    with pytest.raises(StoreError, match=f"{printed}\n  run: dvc repro {maker}"):
        read(inputs(**{key: value}))


def test_features_of_another_model_are_refused(inputs: Callable[..., Inputs]) -> None:
    _flip(paths.MV_TSN)
    with pytest.raises(StoreError, match="it was made from another MV-TSN\n  run: dvc repro embed_mv"):
        inputs().final_data()


# ------------------------------------------------------------------------------------------------------- security


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch run",)


def test_a_malicious_checkpoint_runs_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    torch.save({"conv_stem.weight": _Evil()}, "evil.pt")
    with pytest.raises(ModelError, match=r"evil\.pt"):
        MvTsn(MvTsnConfig("test_resnet", ("a", "b"), 32, 0.5), "evil.pt")
    Path("data/demo/clip/model.safetensors").unlink()
    torch.save({"logit_scale": _Evil()}, "data/demo/clip/pytorch_model.bin")
    with pytest.raises(ModelError, match="data/demo/clip: cannot load this encoder"):
        load_clip("data/demo/clip")
    assert not Path("run").exists()


def test_nothing_loads_pickles_runs_a_shell_or_trusts_remote_code() -> None:
    forbidden = re.compile(
        r"\bpickle\b(?!\.)|allow_pickle *= *True|weights_only *= *False|trust_remote_code(?! *= *False)"
        r"|shell *= *True|os\.system|yaml\.(unsafe_load|full_load|Loader)|(?<!\.)\b(eval|exec)\(|read_pickle|joblib"
        r"|dill"
    )
    for folder in ("src", "pipeline", "stages", "data/demo"):
        for path in (ROOT / folder).rglob("*.py"):
            for line in path.read_text(encoding="utf-8").splitlines():
                code = line.split("#")[0]
                assert not forbidden.search(code), f"{path}: {line}"
                assert "torch.load(" not in code or "weights_only=True" in code, f"{path}: {line}"


def test_known_vulnerabilities_in_packages_are_named() -> None:
    good = {"name": "a", "version": "1", "vulns": []}
    bad = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
    unknown = {"name": "c", "version": "1", "skip_reason": "not found"}
    found = [audit.verdict(json.dumps({"dependencies": packages})) for packages in ([good, unknown], [good, bad])]
    assert found[0] == (0, "1 of 2 locked packages looked up, 0 known vulnerabilities")
    assert found[1] == (1, "2 of 2 locked packages looked up, 1 known vulnerabilities\nb 2: CVE-1, fixed in 3")
    assert audit.verdict("")[0] == 0


@pytest.mark.slow
def test_the_report_shows_names_as_text(project: Path) -> None:
    evil = "<script>alert(1)<b>&\"'"
    shutil.copytree(project / "data/demo/videos", project / "clips")
    shutil.copytree(project / "data/demo/splits", project / "lists")
    (project / "clips/RedBallRising").rename(project / "clips" / evil)
    for path in (project / "lists").iterdir():
        path.write_text(re.sub(r"\bRedBallRising\b", lambda _: evil, path.read_text()))
    short = {"tsn.epochs": 1, "fusion.epochs": 1, "embed.views": 1}
    set_keys(project / "params.yaml", short | {"dataset.root": "clips", "dataset.splits": "lists"})
    run_stages(*stages_from("transcode", "report"), cwd=project)
    page = (project / "data/report/index.html").read_text()
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert "<b>&" not in page


# ------------------------------------------------------------------------------------------------------- numerics


def test_a_loss_that_is_not_finite_names_step_and_clips(inputs: Callable[..., Inputs], tmp_path: Path) -> None:
    given, params = inputs(), parameters.load(paths.PARAMS, {})
    rows = given.motion_rows("train")
    data = MotionData(given.sampled_fields(), given.motion_clips("train"), given.motion_clips("val"))
    model = MvTsn(MvTsnConfig("test_resnet", tuple("abcd"), 32, 0.5))
    wild, checkpoint = (
        dataclasses.replace(training_recipe(params, 3, Mirroring(True)), lr=1e30, batch=4),
        Checkpoint(tmp_path / "c", "", 0.0),
    )
    with (
        pytest.raises(
            ModelError, match=r"NaN or infinite in epoch 1, step 2, with (\w+/v_\w+\.\w+(, )?){4}\n  lower tsn.lr"
        ),
        loss_errors_name_clips(rows),
    ):
        train_mv_tsn(model, data, wild, World(torch.device("cpu")), checkpoint, lambda row: None)
    train, val = given.fold_data(1, given.clips.folds()[0])
    train.stills[5] = torch.nan
    head = ConcatFusion(FusionConfig(train.motion.shape[-1], train.stills.shape[-1], 8, 4, 0.0, "mean"))
    with (
        pytest.raises(ModelError, match=r"in epoch 1, step \d+, with .*\n  lower fusion.lr") as error,
        loss_errors_name_clips(rows),
    ):
        train_fusion_head(head, train, val, FusionRecipe(1e-3, 0, 2, 1, 0), torch.device("cpu"), lambda row: None)
    assert f"with {rows['id'][5]}\n" in str(error.value)


def test_features_that_are_not_finite_are_named(inputs: Callable[..., Inputs]) -> None:
    group = zarr.open_group(paths.CLIP_IMAGE, mode="r+")
    values = group["features"][:]
    values[3, 0, 7] = np.inf
    group["features"][:] = values
    with pytest.raises(StoreError, match=f"no number is stored for {group['id'][3]}"):
        inputs().final_data()
    with pytest.raises(ModelError, match="gives NaN or infinite raw for b and 1 more"):
        check_finite(["a", "b", "c"], {"raw": np.array([[1.0], [np.nan], [np.inf]])})


def test_more_segments_than_frames_and_batches_larger_than_the_data_set(project: Path) -> None:
    index = pd.read_parquet(project / "data/index.parquet")
    assert index["frames"].min() < 32
    run("moclip", "train_mv", "--tsn-segments", "32", "--tsn-batch", "4096", "--tsn-epochs", "1", cwd=project)
    run("moclip", "embed_mv", "--evaluate-protocol", "3x1", cwd=project)
    run("moclip", "train_probe", cwd=project)
    run("moclip", "train_fusion", "--fusion-batch", "4096", "--fusion-epochs", "1", cwd=project)


@pytest.mark.slow
def test_a_single_class_is_refused_and_an_untrained_class_is_scored(clean: Path, tmp_path: Path) -> None:
    root = tmp_path / "one"
    shutil.copytree(clean / "Run", root / "Run")
    with pytest.raises(DatasetError, match="only one class"):
        index_of(root)
    shutil.copytree(clean / "Jump", root / "Jump")
    (root / "Sit").mkdir()
    shutil.copy(clean / "Run/v_Run_g01_c01.avi", root / "Sit/v_Sit_g01_c01.avi")
    every = [clip for clip in scan_folder(root).clips if "Sit" not in clip]
    tests = [clip for clip in every if "g03_c01" in clip] + ["Sit/v_Sit_g01_c01.avi"]
    lists = write_lists(tmp_path / "lists", sorted({*every} - {*tests}), tests, ["Run", "Sit", "Jump"])
    run("moclip", "use", "folder", "--root", root, "--splits", lists, cwd=tmp_path)
    printed = run("moclip", "index", cwd=tmp_path).stdout
    assert "class Sit: 1 usable clip of 1 source, none to train on" in printed


def test_fields_of_zeros_give_numbers() -> None:
    torch.manual_seed(0)
    model = MvTsn(MvTsnConfig("test_resnet", ("a", "b"), 32, 0.5))
    zeros = torch.zeros(4, 3, 2, 32, 32)
    for mode in (model.train(), model.eval()):
        logits = mode(zeros)
        assert torch.isfinite(logits).all()
    torch.nn.functional.cross_entropy(model.train()(zeros), torch.tensor([0, 1, 0, 1])).backward()
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters() if weight.grad is not None)


def test_memory_that_is_refused_is_no_damage_of_the_clip(tmp_path: Path) -> None:
    encode(tmp_path / "large.avi", np.zeros((3, 2048, 2048, 3), np.uint8))
    program = (
        "import os, resource\n"
        "from pathlib import Path\n"
        "from moclip.video.probe import probe\n"
        "size = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + 2**22, -1))\n"
        "try:\n    print(probe(Path('large.avi')))\nexcept MemoryError:\n    print('memory ran out')\n"
    )
    assert run_fresh("python", "-c", program, cwd=tmp_path).stdout == "memory ran out\n"
