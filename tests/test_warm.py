"""A command in the warm process does what a fresh one does."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT, run, run_fresh, surroundings

TOLD = """
import json, os, random, resource, signal, sys, tempfile
import __main__
print(json.dumps({
    "argv": sys.argv, "path": sys.path, "name": __name__, "main": __main__.__dict__ is globals(),
    "file": globals().get("__file__"), "folder": os.getcwd(), "environment": {**os.environ, "PATH": "", "_": ""},
    "temporary": tempfile.gettempdir(), "umask": os.umask(0),
    "signals": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)],
    "limit": resource.getrlimit(resource.RLIMIT_FSIZE), "stdout": [sys.stdout.encoding, sys.stdout.errors],
    "terminal": [sys.stdout.write_through, sys.stdout.line_buffering, sys.stderr.line_buffering, sys.stderr.errors],
    "files": sorted(os.listdir("/proc/self/fd"))[:3], "stdin": sys.stdin.read(),
}, sort_keys=True))
sys.exit(3)
"""


@pytest.mark.parametrize("how", ["-c", "-m told.inside", "told/inside.py"])
def test_a_command_finds_what_a_fresh_one_finds(how: str, tmp_path: Path) -> None:
    (tmp_path / "told").mkdir()
    (tmp_path / "told/inside.py").write_text(TOLD)
    (tmp_path / "own").mkdir()
    command = ["python", *(["-c", TOLD] if how == "-c" else how.split()), "one", "two words"]
    script = 'umask 027; ulimit -S -f 1000; trap "" TERM; echo given | "$@"'
    warm, fresh = (
        start(
            "bash",
            "-c",
            script,
            "_",
            *command,
            cwd=tmp_path,
            code=3,
            KEY="välue",
            TMPDIR=str(tmp_path),
            PYTHONPATH="own",
            PYTHONUNBUFFERED="1",
        )
        for start in (run, run_fresh)
    )
    found = json.loads(warm.stdout)
    assert found == json.loads(fresh.stdout)
    assert found["stdin"] == "given\n"
    assert warm.stderr == fresh.stderr


@pytest.mark.slow
def test_it_is_warm_unless_it_has_to_be_fresh(tmp_path: Path) -> None:
    code = "import sys; print('torch' in sys.modules)"
    assert run("python", "-c", code, cwd=tmp_path).stdout == "True\n"
    assert run("bash", "-c", f'python -c "{code}"', cwd=tmp_path).stdout == "True\n"
    own = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    assert run("python", "-c", own, cwd=tmp_path).stdout == "True\n"
    assert run_fresh("python", "-c", code, cwd=tmp_path).stdout == "False\n"
    assert run("python", "-c", code, cwd=tmp_path, OMP_NUM_THREADS="3").stdout == "False\n"
    assert run("python", "-S", "-c", code, cwd=tmp_path).stdout == "False\n"
    drawn = "import matplotlib; print(matplotlib.get_backend(), 'torch' in __import__('sys').modules)"
    assert run("python", "-c", drawn, cwd=tmp_path, MPLBACKEND="svg", FORCE_COLOR="1").stdout == "svg True\n"
    flags = "import sys; print('torch' in sys.modules, sys.stdout.write_through, sys.stderr.write_through)"
    assert run("python", "-u", "-c", flags, cwd=tmp_path).stdout == "True True True\n"
    shutil.copytree(ROOT / "src/moclip", tmp_path / "src/moclip")
    assert run("python", "-c", code, cwd=tmp_path, PYTHONPATH="src").stdout == "True\n", "the same library"
    (tmp_path / "src/moclip/new.py").touch()
    assert run("python", "-c", code, cwd=tmp_path, PYTHONPATH="src").stdout == "False\n"


@pytest.mark.slow
def test_worker_processes_are_forked_from_a_warm_one(tmp_path: Path) -> None:
    code = """if True:
        import multiprocessing
        with multiprocessing.get_context("forkserver").Pool(1) as pool:
            print(pool.apply(eval, ("'torch' in __import__('sys').modules",)))
    """
    assert run("python", "-c", code, cwd=tmp_path).stdout == "True\n"
    assert run_fresh("python", "-c", code, cwd=tmp_path).stdout == "False\n"


def test_worker_processes_of_a_test_are_forked_from_a_warm_one() -> None:
    with multiprocessing.get_context("forkserver").Pool(1) as pool:
        assert pool.apply(eval, ("'torch' in __import__('sys').modules",))


def test_a_command_has_the_files_that_are_passed_to_it(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("given")
    script = 'exec 9< in 7> out; exec python -c "import os; os.write(7, os.read(9, 99))"'
    run("bash", "-c", script, cwd=tmp_path)
    assert (tmp_path / "out").read_text() == "given"


def test_two_commands_draw_other_random_numbers(tmp_path: Path) -> None:
    code = "import random, numpy; print(random.random(), numpy.random.rand())"
    first, second = (run("python", "-c", code, cwd=tmp_path).stdout.split() for _ in range(2))
    assert not set(first) & set(second)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "status"),
    [("raise KeyboardInterrupt", -signal.SIGINT), ("1 / 0", 1), ("import sys; sys.exit('why')", 1), ("", 0)],
)
def test_a_warm_command_exits_like_a_fresh_one(code: str, status: int, tmp_path: Path) -> None:
    warm, fresh = (start("python", "-c", code, cwd=tmp_path, code=status).stderr for start in (run, run_fresh))
    assert warm.splitlines()[-1:] == fresh.splitlines()[-1:]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_reaches_the_command(number: signal.Signals, tmp_path: Path) -> None:
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    command = ["python", "-c", code]
    with subprocess.Popen(
        command, cwd=tmp_path, env=surroundings(), text=True, stdout=subprocess.PIPE, preexec_fn=_heed_interrupts
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() != f"{process.pid}\n"
        process.send_signal(number)
        assert process.stdout.read() == "", "the command's end closes it"
    assert process.returncode == -number


def _heed_interrupts() -> None:
    """Undo that a shell's background jobs ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
