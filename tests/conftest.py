"""Fixtures: real git and DVC repositories in temporary folders, in which tests run commands as a user would."""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from filelock import FileLock

from benchmarks.common import copy_product
from pipeline import params as parameters
from pipeline.dag import STAGES
from tests import warm

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads starve each other
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # the cores are taken by other tests: more threads would wait
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # else it starts processes, each a fresh Python
os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "0")  # to learn which vectors work, it compiles for 10 s
os.environ.setdefault("RAY_worker_niceness", "0")  # by default Ray's workers wait until all other tests have paused
os.environ["HF_HUB_OFFLINE"] = "1"
IN_MEMORY = Path("/dev/shm")  # for temporary files: disks take their time to remove them
ROOM = 8 << 30  # bytes: twice what the tests write
if "PYTEST_XDIST_WORKER" not in os.environ:
    if "TMPDIR" not in os.environ and IN_MEMORY.is_dir():
        about = os.statvfs(IN_MEMORY)
        if about.f_bavail * about.f_frsize > ROOM and not about.f_flag & os.ST_NOEXEC:
            os.environ["TMPDIR"] = tempfile.mkdtemp(prefix="tests", dir=IN_MEMORY)
            tempfile.tempdir = None
            atexit.register(shutil.rmtree, os.environ["TMPDIR"], ignore_errors=True)
    os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="hub")  # a cache of models for the session, without any at first
os.environ.pop("HF_HUB_CACHE", None)
STARTED_WITH = frozenset(os.environ)

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.prefix) / "bin"
REAL_DATA = "MOCLIP_REAL_DATA"
WARM = "MOCLIP_WARM"  # the folder of warm.py's shims

DEMO = ("dvc.yaml", "params.yaml", "*.py", ".gitignore")

SMALL = {
    "mv.shard": 128,
    "tsn.backbone": "test_resnet",
    "tsn.size": 32,
    "tsn.epochs": 2,
    "tsn.batch": 8,
    "tsn.lr_steps": [2],
    "baselines.image": False,
    "embed.views": 2,
    "fusion.lr": 0.01,
    "fusion.epochs": 20,
    "evaluate.protocol": "3x1",
    "report.clips": 1,
}
"""Parameters that make every stage run in a second or two."""

SMALL_DEMO = {
    "appearances": 2,
    "motions": 2,
    "train": 6,
    "test": 3,
    "group": 2,
    "clip.stills": 64,
    "clip.steps": 4,
    "clip.batch": 16,
}

LONG = (
    "demo", "docs", "benchmarks", "cluster", "sweep", "mutants", "dag", "bundle", "predict", "reading", "storage",
    "stale", "sharing", "queue", "faults", "fit", "presets", "devices", "training", "transcode", "extract", "index",
)  # fmt: skip
"""Test files that take long. They run first: a long one at the end would leave the other cores idle.

Of the first three only one needs the finished project, so nobody waits for it.
"""

SLOW = ("app", "new", "site", "sync", "terminal", "timeline_live")
"""Test files that `make test-fast` leaves out as a whole: they start servers, terminals or many commands."""

LONGEST = 580  # s that a command may take

Run = Callable[..., subprocess.CompletedProcess[str]]


def run(*command: str | Path, cwd: Path, code: int | None = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user would; `code` is the exit code to expect (None: any).

    `python`, `moclip`, `dvc` and `torchrun` run in a fork of a warm process (see warm.py).
    """
    return _run(command, cwd, code, surroundings() | environment)


def run_fresh(
    *command: str | Path, cwd: Path, code: int | None = 0, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in a fresh process, to test its start or its imports."""
    return _run(command, cwd, code, surroundings(fresh=True) | environment)


def _run(
    command: tuple[str | Path, ...], cwd: Path, code: int | None, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    words = [str(part) for part in command]
    done = warm.run_command(words, cwd, environment, LONGEST) or subprocess.run(
        words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=LONGEST
    )
    if code is not None:
        assert done.returncode == code, f"{command} gave {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


IN_TURN = """if True:
    import contextlib, io, json, sys
    from pipeline.cli import main
    found = []
    for words in json.loads(sys.argv[1]):
        sys.argv = ["moclip", *words]
        printed, told = (io.TextIOWrapper(io.BytesIO(), write_through=True) for _ in range(2))
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(told):
            try:
                main()
            except SystemExit as end:
                found.append((end.code or 0, *(stream.buffer.getvalue().decode() for stream in (printed, told))))
    print(json.dumps(found))
"""


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


def in_turn(project: Path, *commands: tuple[str, ...]) -> list[Ended]:
    """Run commands of `moclip` one after the other in one process, which takes less time."""
    ended = json.loads(run("python", "-c", IN_TURN, json.dumps(commands), cwd=project).stdout)
    assert len(ended) == len(commands)
    return [Ended(*one) for one in ended]


def run_stages(*names: str, cwd: Path) -> str:
    """Run stages in turn, without DVC, which takes more time than they do; what they print."""
    ended = in_turn(cwd, *((name,) for name in names))
    assert not any(one.code for one in ended), ended
    return "".join(one.stdout for one in ended)


def stages_from(first: str, last: str = "evaluate") -> list[str]:
    """The names of the stages from `first` to `last`, in order."""
    names = list(STAGES)
    return names[names.index(first) : names.index(last) + 1]


def surroundings(fresh: bool = False) -> dict[str, str]:
    """Return the environment of a command."""
    folders = [str(BIN), os.environ["PATH"]]
    if not fresh and WARM in os.environ:
        folders.insert(0, os.environ[WARM])
    env = {  # without what libraries have set in this process for themselves
        name: value
        for name, value in os.environ.items()
        if name in STARTED_WITH or not name.startswith(warm.READ_AT_START)
    } | {
        "PATH": os.pathsep.join(folders),
        "DVC_NO_ANALYTICS": "1",
        "GIT_AUTHOR_NAME": "t",
        "GIT_AUTHOR_EMAIL": "t@example.org",
        "GIT_COMMITTER_NAME": "t",
        "GIT_COMMITTER_EMAIL": "t@example.org",
        "COLUMNS": "120",
    }
    env.pop("DVC_ROOT", None)
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # each of hundreds of commands would compile the product anew
    return env


def set_keys(path: Path, values: dict[str, Any]) -> None:
    """Change keys ("fusion.lr") of a YAML file."""
    tree = parameters.with_values(yaml.safe_load(path.read_text()), values)
    path.write_text(yaml.safe_dump(tree, sort_keys=False))


def new_project(folder: Path) -> Path:
    """Create a git and DVC repository with the product's files, in which nothing has run yet."""
    folder.mkdir(parents=True)
    copy_product(folder)
    (folder / "data/demo").mkdir()
    for pattern in DEMO:
        for source in (ROOT / "data/demo").glob(pattern):
            shutil.copy(source, folder / "data/demo" / source.name)
    (folder / "metrics").mkdir()
    run("git", "init", "-q", "-b", "main", cwd=folder)
    run("dvc", "init", "-q", cwd=folder)
    run("moclip", "use", "demo", cwd=folder)
    set_keys(folder / "params.yaml", SMALL)
    set_keys(folder / "data/demo/params.yaml", SMALL_DEMO)
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    run("git", "add", "-A", cwd=folder)
    run("git", "commit", "-q", "-m", "state", "--allow-empty", cwd=folder)


def pytest_configure(config: pytest.Config) -> None:
    """Start the warm process that runs the commands, once for all workers of pytest-xdist, which are forked from it."""
    gc.set_threshold(warm.GARBAGE)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a shell's background: commands would, too
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput"):
        sys.executable = str(BIN / "python")  # the shim otherwise: only the commands of `run` are to be warm
        multiprocessing.set_executable(str(Path(os.environ[WARM]) / "python"))
        return
    session = contextlib.ExitStack()
    commands = session.enter_context(warm_commands())
    os.environ[WARM] = str(commands)
    multiprocessing.set_executable(str(commands / "python"))  # worker processes of a test are forked from a warm one
    if config.getoption("numprocesses", None):
        config.option.tx = [f"popen//python={commands / 'python'}"] * len(config.option.tx)

    def end() -> None:
        session.close()
        shutil.rmtree(os.environ["HF_HOME"])

    config.add_cleanup(end)


@contextlib.contextmanager
def warm_commands(**environment: str) -> Iterator[Path]:
    """Start a warm process with these variables. Yields the folder of the commands that it runs."""
    folder = Path(tempfile.mkdtemp(prefix="warm"))  # a socket's path is short
    warm.write_shims(folder / "bin", folder / "socket")
    listener = socket.create_server(str(folder / "socket"), family=socket.AF_UNIX, backlog=64)
    server = subprocess.Popen(
        [BIN / "python", warm.__file__, str(listener.fileno())],
        pass_fds=[listener.fileno()],
        cwd=folder,
        env=surroundings(fresh=True) | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,  # no file: children get these streams, which must not be taken for seekable
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )
    listener.close()
    try:
        yield folder / "bin"
    finally:
        print(server.communicate()[0], end="", file=sys.stderr)
        shutil.rmtree(folder)


def pytest_report_header() -> str:
    return f"temporary files: {tempfile.gettempdir()}; set TMPDIR to another folder to keep those of failed tests"


def pytest_xdist_auto_num_workers() -> int:
    """Return two more than the number of cores, at most four: tests wait for commands, servers and time limits."""
    return min(4, (os.cpu_count() or 1) + 2)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs a finished project is slow, and so are some files; the files that take longest come first."""
    for item in items:
        if "finished" in getattr(item, "fixturenames", ()) or _part(item) in SLOW:
            item.add_marker(pytest.mark.slow)

    def place(item: pytest.Item) -> int:
        name = _part(item)
        return LONG.index(name) if name in LONG else len(LONG)

    items.sort(key=place)


def _part(item: pytest.Item) -> str:
    """Return the name of a test's file, without "test_"."""
    return item.path.stem.removeprefix("test_")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A small project after `dvc repro`, committed. Read it; to change something take `project`.

    The first worker of pytest-xdist that wants it makes it, and the others copy it.
    """
    own = tmp_path_factory.mktemp("finished") / "project"
    if worker_id == "master":
        return finished_project(own)
    shared = tmp_path_factory.getbasetemp().parent / "finished"
    with FileLock(shared.with_suffix(".lock")):
        if not shared.exists():
            finished_project(own).rename(shared)
        return shutil.copytree(shared, own, symlinks=True)


def finished_project(folder: Path) -> Path:
    new_project(folder)
    run("dvc", "repro", cwd=folder)
    commit(folder)
    run("git", "gc", "-q", cwd=folder)  # one file in place of hundreds, which each test would copy
    return folder


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished project, for a test to change."""
    folder = tmp_path / "project"
    shutil.copytree(finished, folder, symlinks=True)
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real clips. Without one the test is skipped."""
    given = os.environ.get(REAL_DATA)
    if not given:
        pytest.skip(f"{REAL_DATA} names no folder of real clips")
    return Path(given)


@pytest.fixture
def in_project(project: Path) -> Iterator[Path]:
    """A finished project that is the working folder."""
    before = Path.cwd()
    os.chdir(project)
    yield project
    os.chdir(before)
