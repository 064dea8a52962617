"""A warm process that runs the tests' commands: hundreds of them would each import PyTorch, timm and DVC anew.

`conftest.py` starts one server for the whole session (also for all workers of pytest-xdist) and puts a folder first on
PATH in which `python`, `moclip` and `dvc` are shims, so commands that DVC or a shell starts go this way too. A shim
hands its arguments, environment, folder, limits and standard streams to the server, which forks a child that runs the
command as a fresh process would: as `__main__`, with its own `sys.path[0]`, signal handlers and random numbers. The
shim passes signals on, ends as the command ended, and takes the command with it if it is killed.

Imported ahead are the libraries and `moclip`; `pipeline` and `stages` are imported by each command, from where a fresh
process would find them (the folder of the project, for `python -m stages.X`).

A fresh Python runs what a fork could not do alike: interpreter options (`python -X ...`), a script from stdin, and any
environment in which a variable of `READ_AT_START` is not the session's. Tests of the start itself, of imports, and of
process groups ask for it with `run(..., fresh=True)`. What differs in a warm command: its parent is the server, it has
a process group of its own and no controlling terminal, and warnings given while the libraries are imported are absent.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import resource
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Any, NoReturn

COMMANDS = ("python", "moclip", "dvc")
READ_AT_START = (
    "COLORTERM", "CUDA_", "FORCE_COLOR", "GITHUB_ACTIONS", "GOMP_", "HF_", "HOME", "KMP_", "LANG", "LC_", "LD_",
    "MALLOC_", "MKL_", "MPL", "OMP_", "OPENBLAS_", "PY_COLORS", "PYTHON", "RAY_", "TERMINAL_WIDTH", "TORCH",
    "TQDM_", "TRANSFORMERS_", "XDG_",
)  # fmt: skip
"""How names of variables start that the interpreter or a library reads once, when it is loaded."""

LIBRARIES = (
    "accelerate", "av", "dulwich.porcelain", "dvc.api", "dvc.cli.parser", "dvc.commands.experiments.run",
    "dvc.data_cloud", "dvc.repo.experiments.queue.celery", "dvc.repo.index", "dvc.repo.plots", "dvc.repo.reproduce",
    "dvc.utils.hydra", "dvc.utils.strictyaml", "dvclive", "filelock", "jinja2", "matplotlib.pyplot",
    "multiprocessing.forkserver", "networkx", "numpy", "pandas", "pyarrow.dataset", "pyarrow.pandas_compat",
    "pyarrow.parquet", "pydantic.main", "pydantic.type_adapter", "pygit2", "rich.console", "rich.progress",
    "ruamel.yaml", "safetensors.torch", "tensorstore", "timm", "torch", "torch.utils.flop_counter", "torchvision",
    "tqdm", "transformers.models.clip.image_processing_clip", "transformers.models.clip.modeling_clip",
    "transformers.models.clip.tokenization_clip", "typer", "yaml", "zarr",
)  # fmt: skip

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
LIMITS = (resource.RLIMIT_FSIZE, resource.RLIMIT_AS, resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)
STATUS = struct.Struct("!i")
LENGTH = struct.Struct("!I")
NEEDS_FRESH = 1000  # in place of an exit status


# ------------------------------------------------------------------------------------------------------- the shim


def write_shims(folder: Path, address: Path) -> None:
    """Write the scripts that stand for `COMMANDS`; they start without site-packages, in 20 ms."""
    folder.mkdir(parents=True)
    python = Path(sys.executable)
    for name in COMMANDS:
        script = () if name == "python" else (str(python.parent / name),)
        (folder / name).write_text(
            f"#!{python} -IS\n"
            "import sys\n"
            f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            "import warm\n"
            f"warm.hand_over({str(address)!r}, {str(python)!r}, [*{script!r}, *sys.argv[1:]])\n"
        )
        (folder / name).chmod(0o755)


def hand_over(address: str, python: str, arguments: list[str]) -> NoReturn:
    """Let the server run `python ARGUMENTS` and end as it ends; run it here where the server cannot."""
    if arguments and (arguments[0] in ("-m", "-c") or not arguments[0].startswith("-")):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.connect(address)
            status = _ask(connection, arguments)
            if status < 0:
                signal.signal(-status, signal.SIG_DFL)
                os.kill(os.getpid(), -status)
            if status != NEEDS_FRESH:
                os._exit(status)
    os.execv(python, [python, *arguments])


def _ask(connection: socket.socket, arguments: list[str]) -> int:
    """Send the command, then signals as they come; its exit status, or minus the signal that ended it."""
    ignored = [number for number in FORWARDED if signal.getsignal(number) == signal.SIG_IGN]
    umask = os.umask(0)
    os.umask(umask)
    request = json.dumps(
        {
            "arguments": arguments,
            "folder": os.getcwd(),
            "environment": dict(os.environ),
            "umask": umask,
            "ignored": ignored,
            "limits": [resource.getrlimit(which) for which in LIMITS],
        }
    ).encode()
    for number in FORWARDED:
        if number not in ignored:
            signal.signal(number, lambda got, _frame: connection.sendall(bytes([got])))
    socket.send_fds(connection, [LENGTH.pack(len(request))], [0, 1, 2])
    connection.sendall(request)
    answer = connection.recv(STATUS.size, socket.MSG_WAITALL)
    if len(answer) < STATUS.size:
        sys.exit("the warm server ended while it ran this command")
    status: int = STATUS.unpack(answer)[0]
    return status


# ----------------------------------------------------------------------------------------------------- the server


def serve(listener: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Fork a child for each request; returns in the child, with the request and its standard streams.

    The server ends when its stdin does, which pytest holds.
    """
    import selectors

    started_with = _read_at_start(os.environ)
    woken, waker = os.pipe2(os.O_NONBLOCK)
    signal.set_wakeup_fd(waker)  # the end of a child wakes the loop
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, socket.socket] = {}
    asking: dict[socket.socket, int] = {}
    selector = selectors.DefaultSelector()
    for source in (0, woken, listener):
        selector.register(source, selectors.EVENT_READ)
    imported = False

    while True:
        for key, _ in selector.select():
            source = key.fileobj
            if source == 0:
                for pid in running:
                    _kill(pid)
                sys.exit()
            if source == woken:
                os.read(woken, 4096)
                continue
            if source is not listener:
                connection: Any = source
                pid = asking[connection]
                sent = b""
                with contextlib.suppress(ConnectionError):
                    sent = connection.recv(64)
                for number in sent:
                    os.kill(pid, number)
                if not sent:  # the shim was killed
                    selector.unregister(connection)
                    _kill(pid)
                continue
            connection = listener.accept()[0]
            request, streams = _received(connection)
            if _read_at_start(request["environment"]) != started_with:
                connection.sendall(STATUS.pack(NEEDS_FRESH))
                connection.close()
            else:
                if not imported:
                    _import_ahead()
                    imported = True
                pid = os.fork()
                if not pid:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    for other in (listener, connection, *asking):
                        other.close()
                    selector.close()
                    os.close(woken)
                    os.close(waker)
                    return request, streams
                running[pid], asking[connection] = connection, pid
                selector.register(connection, selectors.EVENT_READ)
            for stream in streams:
                os.close(stream)
        while running:
            pid, wait_status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            connection = running.pop(pid)
            del asking[connection]
            with contextlib.suppress(KeyError):  # the shim was killed
                selector.unregister(connection)
            with contextlib.suppress(OSError):
                connection.sendall(STATUS.pack(os.waitstatus_to_exitcode(wait_status)))
            connection.close()


def _read_at_start(environment: Any) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(READ_AT_START)}


def _received(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    head, streams, _, _ = socket.recv_fds(connection, LENGTH.size, 3)
    length = LENGTH.unpack(head)[0]
    return json.loads(connection.recv(length, socket.MSG_WAITALL)), list(streams)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _import_ahead() -> None:
    """Import what most commands import. Nothing here may start a thread or draw a random number."""
    import pkgutil

    for name in LIBRARIES:
        importlib.import_module(name)
    import moclip

    for module in pkgutil.walk_packages(moclip.__path__, "moclip."):
        importlib.import_module(module.name)
    gc.collect()
    gc.freeze()  # collections in children leave these pages shared


# ------------------------------------------------------------------------------------------------------ the child


def run(request: dict[str, Any], streams: list[int]) -> None:
    """Run the command in this forked process as a fresh Python would."""
    import runpy
    import tempfile
    import time
    from types import ModuleType

    import numpy as np

    os.setpgid(0, 0)
    for number in FORWARDED:
        signal.signal(number, signal.SIG_IGN if number in request["ignored"] else signal.SIG_DFL)
    if signal.SIGINT not in request["ignored"]:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]
    os.umask(request["umask"])
    os.chdir(request["folder"])
    for which, limit in zip(LIMITS, request["limits"], strict=True):
        resource.setrlimit(which, limit)
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    tempfile.tempdir = None
    np.random.seed()  # noqa: NPY002  the global generator, as an import seeds it
    importlib.invalidate_caches()

    kind, *rest = request["arguments"]
    if kind == "-m":
        sys.path[0] = request["folder"]
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        return
    sys.modules["__main__"] = module = ModuleType("__main__")
    if kind == "-c":
        sys.path[0] = ""
        sys.argv = ["-c", *rest[1:]]
        code = compile(rest[0], "<string>", "exec", dont_inherit=True)
    else:
        script = Path(kind).absolute()
        sys.path[0] = str(script.resolve().parent)
        sys.argv = [kind, *rest]
        module.__file__ = str(script)
        code = compile(script.read_bytes(), script, "exec", dont_inherit=True)
    exec(code, vars(module))


def end(status: list[int]) -> None:
    """End the process without taking the interpreter apart, which would copy most of its memory."""
    if status:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status[0])


if __name__ == "__main__":
    ended_with: list[int] = []
    atexit.register(end, ended_with)  # the first to register is the last to be called
    try:
        run(*serve(socket.socket(fileno=int(sys.argv[1]))))
        ended_with.append(0)
    except SystemExit as ending:
        if ending.code is None or isinstance(ending.code, int):
            ended_with.append(ending.code or 0)
        raise
