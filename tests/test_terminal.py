"""What a user sees of every command: tables, progress, errors, exit codes, completion; on a terminal and in a pipe."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
import typer

from pipeline import cli
from pipeline.dag import STAGES
from tests.clips import encode, moving_texture
from tests.conftest import BIN, ROOT, run

HEAVY = {"torch", "pandas", "transformers", "av", "zarr", "matplotlib"}
COMMANDS = [*STAGES, "use", "metrics"]


def terminal(*command: str | Path, cwd: Path, width: int = 90, **environment: str) -> tuple[int, str]:
    """Run a command on a terminal of its own: exit code, and all that it wrote there."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR", "CI")}
    env |= {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "TERM": "xterm-256color", **environment}
    process = subprocess.Popen(list(map(str, command)), cwd=cwd, env=env, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    written = b""
    try:
        while part := os.read(master, 65536):
            written += part
    except OSError:  # the other end is closed
        pass
    os.close(master)
    return process.wait(), written.decode(errors="replace")


def screen(written: str) -> list[str]:
    """The lines that stand on a terminal in the end: a carriage return goes back, and what follows overwrites."""
    lines = []
    for line in re.sub(r"\x1b\[[\d;]*m", "", written).replace("\r\n", "\n").split("\n"):
        shown = ""
        for part in line.split("\r"):
            shown = part + shown[len(part) :]
        lines.append(shown.rstrip())
    return lines


IMPORTS = """
import sys, time
from pipeline.console import progress
from pipeline.console.command import run_guarded
from pipeline.console.output import print_error, print_note, print_result, set_verbosity
from pipeline.console.progress import show_progress
"""


def program(folder: Path, code: str) -> tuple[str, Path]:
    """A command of ours around some work: how the stages show it."""
    path = folder / "work.py"
    path.write_text(f"{IMPORTS}\n\ndef work():\n{code}\n\n\nrun_guarded(work)\n")
    return sys.executable, path


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    """A folder with the results of a run."""
    shutil.copytree(ROOT / "metrics", tmp_path / "metrics", ignore=shutil.ignore_patterns("plots", "train_*"))
    return tmp_path


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A project with ten clips, whose names are no ASCII, and one that is broken."""
    for number in range(10):
        (tmp_path / "videos" / f"Bälle{number % 2}").mkdir(parents=True, exist_ok=True)
        path = tmp_path / f"videos/Bälle{number % 2}/v_g{number:02d}_c01.avi"
        encode(path, moving_texture(4, (64, 80)))
    path.with_name("kaputt.avi").write_text("no video")
    run("moclip", "use", "folder", "--root", "videos", cwd=tmp_path)
    return tmp_path


# ------------------------------------------------------------------------------------------------------ starting


def test_help_and_version_come_at_once(tmp_path: Path) -> None:
    for option in ("--help", "--version"):
        done = run("moclip", option, cwd=tmp_path, PYTHONPROFILEIMPORTTIME="1")
        assert not imported(done.stderr) & (HEAVY | {"rich", "yaml"})
    assert re.fullmatch(r"moclip \d+\.\d+\.\d+\n", done.stdout)
    assert run("moclip", cwd=tmp_path).stdout == run("moclip", "--help", cwd=tmp_path).stdout


def imported(profile: str) -> set[str]:
    """Top-level packages in what Python tells of its imports."""
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in profile.splitlines()}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_be_quiet_and_verbose(name: str) -> None:
    options = options_of(name)
    assert {"--quiet", "-q", "--verbose", "-v"} <= options
    assert len(options) > 4 or name in ("metrics", "report")


def options_of(*names: str) -> set[str]:
    command = typer.main.get_command(cli.build_app(names[0]))
    for name in names:
        command = command.commands[name]  # type: ignore[attr-defined]
    return {option for parameter in command.params for option in parameter.opts}


def test_the_commands_of_the_store_can_be_quiet_and_verbose() -> None:
    for name in ("info", "show", "verify"):
        assert {"--quiet", "-q", "--verbose", "-v"} <= options_of("store", name)


# ---------------------------------------------------------------------------------------------------- completion


def completed(shell: str, line: str, cwd: Path) -> tuple[str, set[str]]:
    """Return what the shell offers for a line, and the packages that were imported."""
    words = line.split(" ")
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)} if shell == "bash" else {}
    asked |= {} if shell == "bash" else {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = run(
        "moclip",
        cwd=cwd,
        code=None,
        _MOCLIP_COMPLETE=f"complete_{shell}",
        PYTHONPROFILEIMPORTTIME="1",
        **asked,
    )
    return done.stdout, imported(done.stderr)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_a_stages_options_without_loading_torch(shell: str, tmp_path: Path) -> None:
    offered, packages = completed(shell, "moclip train_fusion --fusion-l", tmp_path)
    assert re.findall(r"--[\w-]+", offered) == ["--fusion-lr"]
    assert not packages & HEAVY


CLIP_KEYS = ("model", "models", "files", "revision", "precision", "pool", "frames", "choice")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("moclip train_f", {"train_fusion"}),
        ("moclip train_fusion --fusion-head ", {"concat", "text", "cache"}),
        ("moclip predict --bun", {"--bundle"}),
        ("moclip timing --cli", {"--clips", *(f"--clip-{key}" for key in CLIP_KEYS)}),
        ("moclip use u", {"ucf101"}),
        ("moclip store ve", {"verify"}),
        ("moclip store show --q", {"--quiet"}),
    ],
)
def test_a_shell_completes(line: str, offered: set[str], tmp_path: Path) -> None:
    printed, packages = completed("bash", line, tmp_path)
    assert set(printed.split()) == offered
    assert not packages & HEAVY


def test_bash_itself_completes(tmp_path: Path) -> None:
    script = """
        source <(moclip --show-completion bash)
        COMP_WORDS=(moclip train_fusion --fusion-l) COMP_CWORD=2
        "$(complete -p moclip | sed 's/.*-F \\([^ ]*\\).*/\\1/')" moclip
        echo "${COMPREPLY[@]}"
    """
    done = run("bash", "-c", script, cwd=tmp_path, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.stdout.split() == ["--fusion-lr"]


# ---------------------------------------------------------------------------------------------------- tables


def test_a_piped_table_is_plain_and_whole(scored: Path) -> None:
    long = "a/very/long/path/" * 12 + "clip [b].avi"
    code = f"    print_result('{long}', ('clip', 'px', 'say'), [('{long}', 1.5, 'no'), ('x', 22, '3')])"
    shown = run(*program(scored, code), cwd=scored, COLUMNS="60", FORCE_COLOR="1").stdout
    assert shown.isascii()
    assert "\x1b" not in shown
    title, head, rule, first, second, *_ = shown.splitlines()
    assert title == long
    assert head.split() == ["clip", "px", "say"]
    assert set(rule) == {"-"}
    assert first.split() == [*long.split(), "1.5", "no"]
    assert second.index("22") == first.index("1.5") + 1, "numbers to the right"
    assert second.index("3") == first.index("no"), "and text to the left"


def test_a_table_on_a_terminal_fits_its_width_and_obeys_no_color(scored: Path) -> None:
    code, written = terminal("moclip", "metrics", cwd=scored, width=70)
    assert code == 0
    assert "\x1b[1m" in written
    assert max(map(len, screen(written))) <= 70
    code, written = terminal("moclip", "metrics", cwd=scored, width=200, NO_COLOR="1")
    assert "\x1b" not in written
    piped = run("moclip", "metrics", cwd=scored).stdout
    assert screen(written) == piped.split("\n"), "one look"


@pytest.mark.slow
def test_names_that_stdout_cannot_show_stop_nothing(clips: Path) -> None:
    done = run("moclip", "index", cwd=clips, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert r"B\xe4lle1/kaputt.avi: not a video file" in done.stdout
    code, written = terminal("moclip", "index", cwd=clips, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert code == 0
    assert r"B\xe4lle1/kaputt.avi" in written


# ------------------------------------------------------------------------------------------------- verbosity


@pytest.mark.slow
def test_quiet_keeps_only_results_and_errors(clips: Path, scored: Path) -> None:
    assert "not usable" in run("moclip", "index", cwd=clips).stdout
    done = run("moclip", "index", "--quiet", cwd=clips)
    assert done.stdout + done.stderr == ""
    assert run("moclip", "metrics", "-q", cwd=scored).stdout == run("moclip", "metrics", cwd=scored).stdout
    assert run("moclip", "use", "demo", "-q", cwd=clips).stdout == ""
    assert "error: " in run("moclip", "use", "nothing", "-q", cwd=clips, code=1).stderr


def test_a_stage_of_less_than_a_second_leaves_one_line(tmp_path: Path) -> None:
    code = """
    with show_progress("clip_text", 3) as advance:
        for _ in range(3):
            time.sleep(0.05)
            advance(1)
    print_note("clip_text: 3 classes")
    """
    done = run(*program(tmp_path, code), cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("clip_text: 3 classes\n", "")
    written = terminal(*program(tmp_path, code), cwd=tmp_path)[1]
    assert "3 [00:00<" in written, "the bar was there"
    assert screen(written) == ["clip_text: 3 classes", ""]


# ------------------------------------------------------------------------------------------------------ progress

RESUMED = """
    with show_progress("extract_mv", 1000) as advance:
        {found}
        for _ in range(15):
            time.sleep(0.1)
            advance(1)
"""
FOUND = {"in one step": "advance(900)", "in many": "[advance(1) for _ in range(900)]"}


@pytest.mark.parametrize("found", FOUND.values(), ids=list(FOUND))
def test_the_rate_of_a_resumed_run_counts_only_its_own_work(tmp_path: Path, found: str) -> None:
    _, written = terminal(*program(tmp_path, RESUMED.format(found=found)), cwd=tmp_path)
    *_, last = re.findall(r"915/1000 \[00:01<(\d\d):(\d\d), +([\d.]+) clip/s\]", written)
    assert 6 < float(last[2]) <= 10.5
    assert 8 <= int(last[1]) <= 14, "85 clips are to come"


def test_piped_progress_comes_in_few_whole_lines(tmp_path: Path) -> None:
    lines = "    progress.LINE_INTERVAL = 0.5\n" + RESUMED.format(found="advance(900)")
    done = run(*program(tmp_path, lines), cwd=tmp_path)
    assert done.stdout == ""
    first, *_, last = done.stderr.splitlines()
    assert re.fullmatch(r"extract_mv: 90\d/1,000 clips, (\d|10)\.\d/s, \d+ s left", first)
    assert re.fullmatch(r"extract_mv: 915/1,000 clips, [12] s", last)
    assert len(done.stderr.splitlines()) <= 4


def test_text_above_a_progress_bar_leaves_no_garbage(tmp_path: Path) -> None:
    code = """
    with show_progress("sweep", 4, "run") as advance:
        for number in range(3):
            time.sleep(0.4)
            advance(1)
            if number == 0:
                print_error("lr=1: it failed\\n  lower it")
            if number == 1:
                print_note("a note")
        raise KeyboardInterrupt
    """
    status, written = terminal(*program(tmp_path, code), cwd=tmp_path)
    assert status == 130
    *printed, bar, interrupted, _ = screen(written)
    assert printed == ["error: lr=1: it failed", "  lower it", "a note"]
    assert re.match(r"sweep:  75%\|.*\| 3/4 \[00:01<", bar)
    assert interrupted.startswith("error: interrupted")


def test_a_run_of_all_stages_has_one_bar_and_leaves_nothing_of_it(tmp_path: Path) -> None:
    code = """
    from pipeline.whole_progress import WholeProgress, show_errors, whole_bar
    progress = WholeProgress({"index": (20.0, 1), "train_mv": (60.0, 2)})
    with whole_bar(progress):
        progress.start("index")
        print_note("index: 5 clips")
        progress.start("train_mv")
        show_errors(iter(["train_mv: 10/20 epochs, 1.0/s, 3 s left\\n", "a warning\\n"]), progress)
        time.sleep(1.2)
"""
    _, written = terminal(*program(tmp_path, code), cwd=tmp_path)
    assert re.search(r"train_mv:  44%\|.*\| 00:0\d, .* left", written), "20 s of 80, and a quarter of the 60"
    assert screen(written) == ["index: 5 clips", "a warning", ""]


def test_too_little_memory_is_told_with_what_to_do(tmp_path: Path) -> None:
    for raised, told in (("MemoryError", "memory ran out"), ("MemoryError('9 GiB')", "memory ran out (9 GiB)")):
        done = run(*program(tmp_path, f"    raise {raised}"), cwd=tmp_path, code=1)
        assert done.stderr.startswith(f"error: {told}\n  use fewer workers")


def test_verbose_logs_between_whole_lines(tmp_path: Path) -> None:
    code = """
    set_verbosity(verbose=True)
    run_guarded(loud)


def loud():
    import logging

    with show_progress("train", 2) as advance:
        logging.info("loading")
        time.sleep(1.1)
        advance(2)
    """
    assert screen(terminal(*program(tmp_path, code), cwd=tmp_path)[1]) == [
        "INFO:root:loading",
        "train: 2/2 clips, 1 s",
        "",
    ]


# -------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "expected_text"),
    [
        ("train_fuson", "error: moclip: no such command 'train_fuson'\n  did you mean 'train_fusion'"),
        (
            "train_fusion --fusion-lrr 1",
            "error: moclip train_fusion: no such option: --fusion-lrr\n  did you mean --fus",
        ),
        ("use", "error: moclip use: missing argument 'preset'\n  see: moclip use --help\n"),
        ("index -j 0", "error: moclip index: invalid value for '--workers' / '-j': "),
        (
            "index --workers",
            "error: moclip: option '--workers' requires an argument\n  see: moclip --help\n",
        ),
        ("store", "error: moclip store: missing command\n  see: moclip store --help\n"),
        ("store shw", "error: moclip store: no such command 'shw'\n  did you mean 'show'? see: moclip store --help\n"),
    ],
)
def test_wrong_usage_is_two_lines_with_exit_code_2(arguments: str, expected_text: str, tmp_path: Path) -> None:
    done = run("moclip", *arguments.split(), cwd=tmp_path, code=2, PYTHONPROFILEIMPORTTIME="1")
    assert not imported(done.stderr) & HEAVY, "nobody waits for it"
    printed = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert "\n".join([*printed, ""]).startswith(expected_text)
    assert len(printed) == 2
    assert done.stdout == ""


def test_a_stage_run_with_python_m_prints_the_same_errors(tmp_path: Path) -> None:
    done = run("python", "-m", "stages.transcode", "--jobs", "3", cwd=ROOT, code=2)
    assert done.stderr.startswith("error: python -m stages.transcode: no such option: --jobs\n  ")
    done = run("python", "-m", "stages.transcode", cwd=tmp_path, code=1, PYTHONPATH=str(ROOT))
    assert done.stderr == (
        "error: params.yaml: not found\n"
        "  run from the project's root, or make a project: moclip new DIR --clips DIR (the demo's: moclip use demo)\n"
    )


def test_an_internal_error_is_one_line_and_verbose_adds_the_traceback(scored: Path) -> None:
    (scored / "metrics/cost.json").write_text("{}")
    done = run("moclip", "metrics", cwd=scored, code=1)
    assert done.stderr == (
        "error: internal error: KeyError: 'multiply_adds_m'\n  run it again with --verbose for the traceback\n"
    )
    done = run("moclip", "metrics", "--verbose", cwd=scored, code=1)
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.splitlines()[-1] == "error: internal error: KeyError: 'multiply_adds_m'"
    done = run("moclip", "use", "nothing", "-v", cwd=scored, code=1)
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: nothing: no such preset")


def test_ctrl_c_ends_with_one_line_and_exit_code_130(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [BIN / "moclip", "doctor"], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )  # fmt: skip
    time.sleep(1.5)  # it loads PyTorch
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1] == "error: interrupted; run the same command again to resume\n"
    assert process.returncode == 130


@pytest.mark.parametrize("more", ["", "--verbose", "2>&1"])
def test_a_closed_pipe_is_silent(more: str, scored: Path) -> None:
    closed = r"import os, sys; end, into = os.pipe(); os.close(end); os.dup2(into, 1); os.execvp('bash', sys.argv[1:])"
    done = run(sys.executable, "-c", closed, "bash", "-c", f"exec moclip metrics {more}", cwd=scored, code=141)
    assert done.stderr == ""
    done = run("bash", "-c", "moclip metrics | head -1", cwd=scored)
    assert done.stdout.startswith("test split")
    assert done.stderr == ""
    assert "fusion head" in run("bash", "-c", "moclip metrics 2>&-", cwd=scored).stdout
    run("bash", "-c", "moclip metrics >&-", cwd=scored)


# -------------------------------------------------------------------------------- what a command does without

LEAN = """
import sys
ABSENT = "pandas pyarrow dvc dvclive zarr tensorstore matplotlib ruamel mvextractor accelerate".split()
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
import pipeline.cli, pipeline.console, pipeline.params, pipeline.stage
sys.argv[0] = "moclip"
pipeline.cli.main()
"""


def test_without_the_pipelines_packages_a_command_says_what_it_lacks(tmp_path: Path) -> None:
    lean = (sys.executable, "-c", LEAN)
    assert "train_fusion" in run(*lean, "--help", cwd=tmp_path).stdout
    assert "--fusion-lr" in run(*lean, "train_fusion", "--help", cwd=tmp_path).stdout
    shutil.copy(ROOT / "params.yaml", tmp_path)
    for arguments in (("index",), ("store", "info")):
        done = run(*lean, *arguments, cwd=tmp_path, code=1)
        assert done.stderr.startswith("error: pandas: this command needs the package, which is not installed\n")
        assert "  pip install 'moclip[pipeline]'" in done.stderr


WINDOWS = (
    "import sys, runpy\nsys.platform, sys.argv = 'win32', {words}\nrunpy.run_module({module!r}, run_name='__main__')"
)
"""Runs a module as if on Windows: Python decides what it has of a system before, and by no other sign."""


@pytest.mark.parametrize(
    ("module", "word"), [("pipeline.cli", "metrics"), ("pipeline.cli", "--help"), ("stages.index", "")]
)
def test_on_windows_every_command_is_refused_in_two_lines(module: str, word: str, tmp_path: Path) -> None:
    code = WINDOWS.format(words=["moclip", word], module=module)
    done = run(sys.executable, "-c", code, cwd=tmp_path, code=1, PYTHONPATH=str(ROOT))
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "error: Windows: moclip runs on Linux and macOS",
        "  run it in WSL, the Windows Subsystem for Linux",
    ]
    assert list(tmp_path.iterdir()) == []


def test_no_code_branches_on_windows() -> None:
    """What would run there alone is no more than the line that refuses it."""
    signs = re.compile(r"""win32|msvcrt|os\.name|hasattr\((os|signal), "(?!sched_getaffinity)|import fcntl\n *except""")
    found = {
        str(path.relative_to(ROOT))
        for folder in ("src", "pipeline", "stages", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        if signs.search(path.read_text(encoding="utf-8"))
    }
    assert found == {"pipeline/__init__.py"}


def test_a_command_reads_params_only_if_it_takes_them(tmp_path: Path) -> None:
    (tmp_path / "tool.py").write_text(
        "from pipeline.params import Params\nfrom pipeline.stage import command\n\n"
        '@command("fusion.lr")\ndef may(params: Params | None) -> None:\n    print(params and params.fusion.lr)\n\n'
        "@command()\ndef never() -> None:\n    print('none')\n\n"
        "import sys\n{'may': may, 'never': never}[sys.argv.pop(1)]()\n"
    )
    tool = (sys.executable, tmp_path / "tool.py")
    assert run(*tool, "never", cwd=tmp_path).stdout == "none\n"
    assert run(*tool, "may", cwd=tmp_path).stdout == "None\n"
    stderr = run(*tool, "may", "--fusion-lr", "1", cwd=tmp_path, code=1).stderr
    assert stderr.startswith("error: params.yaml: not found"), "there is nothing that the option could change"
    shutil.copy(ROOT / "params.yaml", tmp_path)
    assert run(*tool, "may", "--fusion-lr", "0.5", cwd=tmp_path).stdout == "0.5\n"
    (tmp_path / "params.yaml").write_text("fusion: 3\n")
    run(*tool, "may", cwd=tmp_path, code=1)
    assert run(*tool, "never", cwd=tmp_path).stdout == "none\n"
