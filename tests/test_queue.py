"""Experiments side by side: DVC's queue with two workers, and the scripts for SLURM with stand-ins for its commands."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from tests.conftest import ROOT, run, set_keys, surroundings
from tests.test_dag import ran

SLURM = ROOT / "examples/slurm"
RECORD = """#!/bin/bash
echo "$(basename "$0") ${MOCLIP_RAY:+MOCLIP_RAY=$MOCLIP_RAY }$*" >> "$LOG"
"""
SRUN = RECORD + 'while [[ $1 == --* ]]; do shift; done; exec "$@"'
ACCELERATE = RECORD + 'while [[ $1 != -m ]]; do shift; done; exec python "$@"'
SCONTROL = "#!/bin/bash\nprintf '%s\\n' node1 node2 node3"
PYTHON = """#!/bin/bash
case "$2" in
  *get_node_ip_address*) echo 10.0.0.1 ;;
  *token_hex*) echo secret ;;
  *"ray.nodes()) < "*) sleep 0.5; wanted=${2##*< }; [ "$(grep -c ^ray "$LOG")" -ge "${wanted%)}" ] ;;
esac
"""


def wait(until: Callable[[], bool], seconds: float = 220) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(1)


def processes(folder: Path) -> list[psutil.Process]:
    """Whatever runs in the folder or below."""
    found = psutil.process_iter(["cwd"])
    return [process for process in found if folder in (Path(process.info["cwd"] or "/") / "x").parents]


def experiments(project: Path) -> list[str]:
    """Names of the experiments that git holds."""
    return run("git", "for-each-ref", "--format=%(refname:lstrip=4)", "refs/exps", cwd=project).stdout.split()


@pytest.fixture
def queue(project: Path) -> Iterator[Path]:
    """A project whose workers are stopped at the end, whatever has come of them."""
    yield project
    run("dvc", "queue", "stop", "--kill", cwd=project, code=None)


@pytest.mark.slow
def test_two_workers_do_what_is_queued_and_leave(queue: Path) -> None:
    run("dvc", "exp", "run", "--queue", "-n", "lr", "-S", "fusion.lr=1e-3,1e-4", "evaluate", cwd=queue)
    run("bash", "-c", "dvc queue start --jobs 2 &> /dev/null", cwd=queue)  # in a pipe it would wait for the workers
    assert len(processes(queue)) >= 2
    wait(lambda: {"lr-1", "lr-2"} <= set(experiments(queue)))
    run("dvc", "queue", "stop", cwd=queue)  # those that are idle would go by themselves, or nearly always
    wait(lambda: not processes(queue))
    assert run("git", "status", "--porcelain", cwd=queue).stdout == "", "the workspace stays"
    status = run("dvc", "queue", "status", cwd=queue).stdout
    assert status.count("Success") == 2
    shown = json.loads(run("dvc", "exp", "show", "--json", cwd=queue).stdout)
    data = {one["name"]: one["revs"][0]["data"] for one in shown[-1]["experiments"]}
    lr = {name: of["params"]["params.yaml"]["data"]["fusion"]["lr"] for name, of in data.items()}
    assert lr == {"lr-1": 0.001, "lr-2": 0.0001}
    top1 = [of["metrics"]["metrics/summary.json"]["data"]["top1"]["fusion"] for of in data.values()]
    assert all(0 <= score <= 1 for score in top1)
    models = {of["outs"]["data/models/fusion.safetensors"]["hash"] for of in data.values()}
    assert len(models) == 2, "each trained with its own rate"
    logs = run("dvc", "queue", "logs", "lr-1", cwd=queue).stdout
    assert ran(logs) == ["train_fusion", "evaluate"]


Submit = Callable[..., tuple[list[str], str]]


@pytest.fixture
def submit(tmp_path: Path) -> Submit:
    """Run a script in a folder as `sbatch` would; returns the calls of commands that were stood in for, and stdout."""

    def submitted(
        folder: Path, script: str, *arguments: str, stand_ins: dict[str, str], code: int = 0, **variables: str
    ) -> tuple[list[str], str]:
        programs, log = tmp_path / "bin", tmp_path / "calls"
        programs.mkdir()
        log.touch()
        for name, text in stand_ins.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        path = os.pathsep.join((str(programs), surroundings()["PATH"]))
        variables |= {"PATH": path, "LOG": str(log), "SLURM_SUBMIT_DIR": str(folder), "TMPDIR": str(tmp_path)}
        done = run("bash", SLURM / script, *arguments, cwd=tmp_path, code=code, **variables)
        return log.read_text().splitlines(), done.stdout

    return submitted


@pytest.mark.parametrize("script", ["experiments.sbatch", "extract.sbatch", "train.sbatch"])
def test_the_scripts_for_slurm_are_bash(script: str) -> None:
    run("bash", "-n", script, cwd=SLURM)


def test_a_task_of_the_array_leaves_its_experiment_in_the_project(
    project: Path, tmp_path: Path, submit: Submit
) -> None:
    (tmp_path / "settings.txt").write_text("fusion.lr=1e-3\nfusion.lr=1e-4 fusion.epochs=3\n")
    task = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}
    submit(project, "experiments.sbatch", str(tmp_path / "settings.txt"), "HEAD", "train_fusion", stand_ins={}, **task)
    assert experiments(project) == ["job-7-2"]
    assert run("git", "status", "--porcelain", cwd=project).stdout == "", "the workspace stays"
    assert not list(tmp_path.glob("moclip-*")), "the clone is gone"
    run("dvc", "exp", "apply", "job-7-2", cwd=project)
    fusion = yaml.safe_load((project / "params.yaml").read_text())["fusion"]
    assert (fusion["lr"], fusion["epochs"]) == (0.0001, 3)
    assert "up to date" in run("dvc", "status", "train_fusion", cwd=project).stdout, "the model is in the shared cache"


def test_a_training_outside_dvc_can_be_committed(project: Path, submit: Submit) -> None:
    set_keys(project / "params.yaml", {"tsn.epochs": 1})
    calls, printed = submit(
        project, "train.sbatch", "train_mv", stand_ins={"accelerate": ACCELERATE}, SLURM_GPUS_ON_NODE="4"
    )
    assert calls == ["accelerate launch --multi_gpu --num_processes 4 --main_process_port 0 -m stages.train_mv"]
    assert ran(printed) == [], "it is not trained again"
    assert "up to date" in run("dvc", "status", "train_mv", cwd=project).stdout
    locked = yaml.safe_load((project / "dvc.lock").read_text())["stages"]["train_mv"]
    assert locked["params"]["params.yaml"]["tsn.epochs"] == 1


def test_training_outside_dvc_refuses_stale_fields(project: Path, submit: Submit) -> None:
    set_keys(project / "params.yaml", {"mv.clip": 10})
    calls, _ = submit(project, "train.sbatch", stand_ins={"accelerate": ACCELERATE}, code=1, SLURM_GPUS_ON_NODE="4")
    assert calls == []


@pytest.mark.slow
def test_a_ray_cluster_over_all_nodes_of_the_job(tmp_path: Path, submit: Submit) -> None:
    stand_ins = {"srun": SRUN, "scontrol": SCONTROL, "ray": RECORD + "exec sleep 100", "python": PYTHON, "dvc": RECORD}
    job = {"SLURM_JOB_ID": "123456", "SLURM_JOB_NODELIST": "node[1-3]", "SLURM_CPUS_PER_TASK": "16"}
    begun = time.monotonic()
    calls, _ = submit(tmp_path, "extract.sbatch", stand_ins=stand_ins, **job)
    assert time.monotonic() - begun < 60, "the cluster ends with the job"
    nodes = {call.split("--nodelist=")[1].split()[0]: call for call in calls if call.startswith("srun")}
    assert sorted(nodes) == ["node1", "node2", "node3"]
    assert "ray start --head --port=23456 " in nodes["node1"]
    assert all("ray start --address=10.0.0.1:23456 " in nodes[node] for node in ("node2", "node3"))
    assert calls[-1] == "dvc MOCLIP_RAY=10.0.0.1:23456 repro extract_mv clip_image"
