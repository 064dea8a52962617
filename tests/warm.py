"""A warm process that runs the tests' commands: hundreds of them would each import PyTorch, timm and DVC anew.

`conftest.py` starts one server for the whole session (also for all workers of pytest-xdist) and puts a folder first on
PATH in which `python`, `moclip`, `dvc` and `torchrun` are shims, so commands that DVC or a shell starts go this way
too. A shim hands its arguments, environment, folder, limits and inherited files to the server, which forks a child that
runs the command as a fresh process would: as `__main__`, with its own `sys.path[0]`, signal handlers and random
numbers. The shim passes signals on, ends as the command ended, and takes the command with it if it is killed.

What a command starts is warm, too, also the server process that `multiprocessing` forks worker processes from; so is
that of pytest itself.

Imported ahead are the libraries and `moclip`; `pipeline` and `stages` are imported by each command, from where a fresh
process would find them (the folder of the project, for `python -m stages.X`).

A fresh Python runs what a fork could not do alike: interpreter options but -u and -B, a script from stdin, closed
standard streams, a PYTHONPATH with another `moclip`, and any environment in which a variable of `READ_AT_START` is not
the session's. Tests of the start itself, of imports, of memory and of process groups ask for it with `run_fresh`. What
differs in a warm command: its parent is the server, it has a process group of its own and no controlling terminal,
`sys.executable` is the shim, `moclip` is imported from here, and warnings given while the libraries are imported are
absent.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import importlib
import itertools
import json
import os
import resource
import selectors
import signal
import socket
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

if TYPE_CHECKING:
    import subprocess

COMMANDS = ("python", "moclip", "dvc", "torchrun")
READ_AT_START = (
    "CUDA_", "GOMP_", "HF_", "HOME", "KMP_", "LANG", "LC_", "LD_", "MALLOC_", "MKL_", "MPL", "OMP_", "OPENBLAS_",
    "PYTHON", "TORCH", "TQDM_", "TRANSFORMERS_", "XDG_",
)  # fmt: skip
"""How names of variables start that the interpreter or a library reads once, when it is loaded."""

SET_ANEW = ("MPLBACKEND", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONUNBUFFERED")  # by `run`
READ_LATER = ("HF_TOKEN", "PYTHONBREAKPOINT", "TORCHELASTIC_", "TORCHINDUCTOR_CACHE_DIR", "TORCH_NCCL_")
MESSAGES = ("HF_HUB_DISABLE_PROGRESS_BARS", "TRANSFORMERS_VERBOSITY")  # `pipeline` sets them for itself

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
EXTRAS = ("s3fs",)  # also imported, where they are installed

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
LIMITS = (resource.RLIMIT_FSIZE, resource.RLIMIT_AS, resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)
STATUS = struct.Struct("!i")
LENGTH = struct.Struct("!I")
NEEDS_FRESH = 1000  # in place of an exit status
MOST_FILES = 64  # that a command can be started with
GARBAGE = 50_000  # new objects between collections, in place of 700: a twentieth of the tests' time was collections
HUGE_PAGE = 2**21
MADV_COLLAPSE = 25
ABOVE_ALL = 200  # numbers that no command is started with


# ------------------------------------------------------------------------------------------------------- the shim


def write_shims(folder: Path, address: Path) -> None:
    """Write the scripts that replace `COMMANDS`. They start without site-packages, in 20 ms."""
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
    if _is_warm(arguments):
        status = _ask(address, arguments)
        if status < 0:
            with contextlib.suppress(OSError):  # SIGKILL has no handler
                signal.signal(-status, signal.SIG_DFL)
            os.kill(os.getpid(), -status)
        if status != NEEDS_FRESH:
            os._exit(status)
    os.execv(python, [python, *arguments])


def run_command(
    words: list[str], folder: Path, environment: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str] | None:
    """Do what `subprocess.run` does with a command of `COMMANDS`, without a shim, which takes 30 ms; None if it cannot.

    Output is collected in files, so a process that the command leaves running is not waited for.
    """
    import subprocess
    import tempfile

    address = Path(environment["PATH"].partition(os.pathsep)[0]).parent / "socket"
    if words[0] not in COMMANDS or not address.exists():
        return None
    arguments = words[1:] if words[0] == "python" else [str(Path(sys.prefix, "bin", words[0])), *words[1:]]
    if not _is_warm(arguments):
        return None
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        request = Request.here(arguments)._replace(
            folder=str(folder.absolute()),
            environment=dict(environment),
            numbers=[0, 1, 2],
            files=[0, stdout.fileno(), stderr.fileno()],
        )
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            connection.connect(str(address))
            request.send(connection)
            status = STATUS.unpack(_read(connection, STATUS.size))[0]
        if status == NEEDS_FRESH:
            return None
        stdout.seek(0)
        stderr.seek(0)
        return subprocess.CompletedProcess(words, status, stdout.read(), stderr.read())


def _is_warm(arguments: list[str]) -> bool:
    """Whether the server can run `python ARGUMENTS`: a module, a program or a script."""
    words = arguments[len(_options(arguments)) :]
    return bool(words) and (words[0] in ("-m", "-c") or not words[0].startswith("-"))


def _options(arguments: list[str]) -> list[str]:
    """Return the options that `run` heeds. torchrun gives -u to its processes, and `multiprocessing` passes -B on."""
    return list(itertools.takewhile(("-B", "-u").__contains__, arguments))


def _ask(address: str, arguments: list[str]) -> int:
    """Send the command, then signals as they come; its exit status, or minus the signal that ended it."""
    try:
        for stream in (0, 1, 2):
            os.fstat(stream)
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address)
    except OSError:  # a stream is closed, or the session is over
        return NEEDS_FRESH
    request = Request.here(arguments)
    for number in FORWARDED:
        if number not in request.ignored:
            signal.signal(number, lambda got, _frame: connection.sendall(bytes([got])))
    request.send(connection)
    answer = _read(connection, STATUS.size)
    if len(answer) < STATUS.size:
        sys.exit("the warm server ended while it ran this command")
    status: int = STATUS.unpack(answer)[0]
    return status


# --------------------------------------------------------------------------------------------------- the request


class Request(NamedTuple):
    """A command as its shim was started."""

    arguments: list[str]  # of `python`
    folder: str
    environment: dict[str, str]
    umask: int
    ignored: list[int]  # signals
    limits: list[tuple[int, int]]  # of LIMITS, soft and hard
    numbers: list[int]  # of the files it was started with: stdin, stdout, stderr and others that were passed on
    files: list[int]  # the same files, by their numbers in this process

    @classmethod
    def here(cls, arguments: list[str]) -> Request:
        umask = os.umask(0)
        os.umask(umask)
        numbers = [number for path in Path("/dev/fd").iterdir() if _is_inherited(number := int(path.name))]
        return cls(
            arguments,
            str(Path.cwd()),
            dict(os.environ),
            umask,
            [number for number in FORWARDED if signal.getsignal(number) == signal.SIG_IGN],
            [resource.getrlimit(which) for which in LIMITS],
            numbers,
            numbers,
        )

    def send(self, connection: socket.socket) -> None:
        content = json.dumps(self._asdict()).encode()
        socket.send_fds(connection, [LENGTH.pack(len(content))], self.files)
        connection.sendall(content)

    @classmethod
    def received(cls, connection: socket.socket) -> Request:
        head, files, _, _ = socket.recv_fds(connection, LENGTH.size, MOST_FILES)
        return cls(**json.loads(_read(connection, LENGTH.unpack(head)[0])) | {"files": files})

    def open_files(self) -> None:
        """Give the files the numbers that they had in the shim."""
        moved = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, ABOVE_ALL) for file in self.files]
        self.close()
        for number, file in zip(self.numbers, moved, strict=True):
            os.dup2(file, number)
            os.close(file)

    def close(self) -> None:
        for file in self.files:
            os.close(file)


def _is_inherited(number: int) -> bool:
    """Whether a file was open when this process started: Python opens its own as not inheritable."""
    try:
        return os.get_inheritable(number)
    except OSError:  # it listed the folder of open files
        return False


def _read(connection: socket.socket, length: int) -> bytes:
    """Read this many bytes, or fewer if the other side closes. A signal may interrupt one `recv`."""
    content = b""
    while len(content) < length and (part := connection.recv(length - len(content))):
        content += part
    return content


# ----------------------------------------------------------------------------------------------------- the server


class Server:
    """Forks a child for each request, passes signals to it, and sends its exit status to the script."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.started_with = _read_at_start(os.environ)
        self.imported = False
        self.children: dict[socket.socket, int] = {}  # process by the shim's connection
        self.selector = selectors.DefaultSelector()
        self.woken, self.waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for source, act in ((0, self._stop), (self.woken, self._reap), (listener, self._accept)):
            self.selector.register(source, selectors.EVENT_READ, act)

    def serve(self) -> Request:
        """Serve until stdin ends, which pytest holds; returns in each child, with what it is to run."""
        signal.set_wakeup_fd(self.waker)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # the end of a child wakes the loop
        while True:
            for key, _ in self.selector.select():
                if request := key.data(key.fileobj):
                    return request

    def _accept(self, _listener: object) -> Request | None:
        connection = self.listener.accept()[0]
        request = Request.received(connection)
        if _read_at_start(request.environment) != self.started_with or _has_own_library(request):
            connection.sendall(STATUS.pack(NEEDS_FRESH))
            connection.close()
            request.close()
            return None
        if not self.imported:
            _import_ahead()
            self.imported = True
        pid = os.fork()
        if not pid:
            os.setpgid(0, 0)
            connection.close()
            self._forget()
            return request
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.setpgid(pid, pid)  # here and in the child: neither goes on before it is done
        self.children[connection] = pid
        self.selector.register(connection, selectors.EVENT_READ, self._pass_on)
        request.close()
        return None

    def _pass_on(self, connection: socket.socket) -> None:
        if connection not in self.children:  # it ended meanwhile
            return
        numbers = b""
        with contextlib.suppress(ConnectionError):
            numbers = connection.recv(64)
        for number in numbers:
            os.kill(self.children[connection], number)
        if not numbers:  # the shim was killed
            self.selector.unregister(connection)
            os.killpg(self.children[connection], signal.SIGKILL)

    def _reap(self, _woken: object) -> None:
        os.read(self.woken, 4096)
        for connection, child in list(self.children.items()):
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                with contextlib.suppress(OSError, KeyError):  # the shim was killed
                    connection.sendall(STATUS.pack(os.waitstatus_to_exitcode(status)))
                    self.selector.unregister(connection)
                connection.close()
                del self.children[connection]

    def _stop(self, _stdin: object) -> NoReturn:
        for connection, pid in self.children.items():
            os.killpg(pid, signal.SIGKILL)
            with contextlib.suppress(OSError):
                connection.sendall(STATUS.pack(-signal.SIGKILL))
        sys.exit()

    def _forget(self) -> None:
        """Close the server's files in a child."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for connection in (self.listener, *self.children):
            connection.close()
        self.selector.close()
        os.close(self.woken)
        os.close(self.waker)


def _read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(READ_AT_START) and not name.startswith((*SET_ANEW, *READ_LATER, *MESSAGES))
    }


def _python_path(environment: Mapping[str, str], folder: str) -> list[str]:
    """Return the folders that PYTHONPATH names, in order."""
    named = environment.get("PYTHONPATH", "").split(os.pathsep)
    return list(dict.fromkeys(str(Path(folder, path)) for path in named if path))


def _has_own_library(request: Request) -> bool:
    """Whether PYTHONPATH leads to another `moclip` than the one that is imported ahead."""
    ours = Path(__file__).parent.parent / "src/moclip"
    found = (Path(path, "moclip") for path in _python_path(request.environment, request.folder))
    first = next((path for path in found if path.is_dir()), ours)
    return first != ours and _code(first) != _code(ours)


def _code(package: Path) -> dict[str, bytes]:
    return {str(path.relative_to(package)): path.read_bytes() for path in package.rglob("*.py")}


def _import_ahead() -> None:
    """Import what most commands import. Nothing here may start a thread or draw a random number."""
    import importlib.util
    import pkgutil

    before = dict(os.environ)
    import pipeline  # first, because it says how PyTorch and the C library are to allocate

    for name in (*LIBRARIES, *filter(importlib.util.find_spec, EXTRAS)):
        importlib.import_module(name)
    import moclip

    for module in pkgutil.walk_packages(moclip.__path__, "moclip."):
        importlib.import_module(module.name)
    for module in pkgutil.walk_packages(pipeline.__path__, "pipeline."):
        importlib.import_module(module.name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "pipeline"]:
        del sys.modules[name]  # each command imports its own; what they import of libraries stays
    os.environ.clear()
    os.environ.update(before)
    _forget_exits()
    gc.collect()
    gc.freeze()  # collections in children leave these pages shared
    _use_huge_pages()


def _use_huge_pages() -> None:
    """Put this process's memory into huge pages, of which a fork copies fewer: it takes 13 ms in place of 42."""
    import ctypes

    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int)
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, access, _offset, _device, file, *_name = line.split()
        if access == "rw-p" and file == "0":
            start, end = (int(address, 16) for address in addresses.split("-"))
            for page in range(-(-start // HUGE_PAGE) * HUGE_PAGE, end - HUGE_PAGE + 1, HUGE_PAGE):
                madvise(page, HUGE_PAGE, MADV_COLLAPSE)  # without effect where the kernel does not offer it


def _forget_exits() -> None:
    """Let no command do at its end what PyTorch registered while it was imported. It would take 40 ms each time.

    That is to deregister operators and to log times of compilation.
    """
    import weakref

    import torch._dynamo.utils

    atexit.unregister(torch._dynamo.utils.dump_compile_times)
    for finalizer in [found for found in gc.get_objects() if type(found) is weakref.finalize]:
        finalizer.atexit = False


# ------------------------------------------------------------------------------------------------------ the child


def run(request: Request) -> None:
    """Run the command in this forked process as a fresh Python would."""
    import multiprocessing
    import runpy
    import tempfile
    import time
    from types import ModuleType

    import matplotlib
    import numpy as np

    gc.set_threshold(GARBAGE)
    for handled in FORWARDED:
        signal.signal(handled, signal.SIG_IGN if handled in request.ignored else signal.SIG_DFL)
    if signal.SIGINT not in request.ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    request.open_files()
    options = _options(request.arguments)
    kind, *rest = request.arguments[len(options) :]
    sys.dont_write_bytecode = "-B" in options or bool(request.environment.get("PYTHONDONTWRITEBYTECODE"))
    unbuffered = "-u" in options or bool(request.environment.get("PYTHONUNBUFFERED"))
    sys.stdout.reconfigure(line_buffering=os.isatty(1), write_through=unbuffered)  # type: ignore[union-attr]
    sys.stderr.reconfigure(line_buffering=not unbuffered, write_through=unbuffered)  # type: ignore[union-attr]
    os.umask(request.umask)
    sys.executable = str(Path.cwd() / "bin/python")  # the shim: what the command starts is warm, too
    multiprocessing.set_executable(sys.executable)
    os.chdir(request.folder)
    before = _python_path(os.environ, str(Path.cwd()))
    sys.path[1:] = [*_python_path(request.environment, request.folder), *(p for p in sys.path[1:] if p not in before)]
    for which, limit in zip(LIMITS, request.limits, strict=True):
        resource.setrlimit(which, limit)
    os.environ.clear()
    os.environ.update(request.environment)
    time.tzset()
    tempfile.tempdir = None
    matplotlib.rcParams["backend"] = os.environ.get("MPLBACKEND") or matplotlib.rcParamsOrig["backend"]
    np.random.seed()  # the global generator, as an import seeds it
    importlib.invalidate_caches()

    if kind == "-m":
        sys.path[0] = request.folder
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
    """Exit without the interpreter's clean-up, which would copy most of the process's memory."""
    if status:
        for stream in (sys.stdout, sys.stderr):
            if not stream.closed:
                stream.flush()
        os._exit(status[0])


if __name__ == "__main__":
    ended_with: list[int] = []
    atexit.register(end, ended_with)  # the first to register is the last to be called
    try:
        run(Server(socket.socket(fileno=int(sys.argv[1]))).serve())
        ended_with.append(0)
    except SystemExit as ending:
        if ending.code is None or isinstance(ending.code, int):
            ended_with.append(ending.code or 0)
        raise
