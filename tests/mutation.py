"""Mutation testing: changes the core in one place at a time, and counts the changes that make a test fail.

    python -m tests.mutation --seed 0 --count 200

One run of the fast tests under coverage.py finds which tests execute which line, also in the commands and workers they
start. Each mutant is written into a copy of the project; a process forked from this one, which has the libraries
imported and `moclip` not, runs the tests that execute the changed line until one fails. With `--slow`, a mutant that
passes them runs the slow tests of the test files that name its module.
`build/mutation/` keeps the lines, the results and each survivor's log.

Not mutated is what no test should depend on: messages, annotations, decorators, logging, and `UNTESTED` below.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from coverage import Coverage, CoverageData, CoveragePlugin
from coverage.plugin_support import Plugins

from tests.warm import LIBRARIES

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build/mutation"
PACKAGES = ("video", "motion", "store", "data", "models", "training", "inference")
REPORTS = "MOCLIP_MUTATION_REPORTS"
NO_TESTS = 5  # pytest's exit code
UNTESTED = (
    "strict", "fix", "where", "timeout", "daemon", "fused", "stacklevel", "desc", "set_to_none", "verbose",
    "print", "warn", "simplefilter", "filterwarnings", "collect", "close", "shutdown", "advance", "set_num_threads",
)  # fmt: skip
"""Keywords whose values, and functions whose calls, change only messages, speed, or what wrong code does."""

SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
RENAMED = {"min": "max", "max": "min", "any": "all", "all": "any", "argmax": "argmin", "argmin": "argmax",
           "floor": "ceil", "ceil": "floor", "zeros": "ones", "ones": "zeros"}  # fmt: skip
CONVERSIONS = ("int", "str", "float", "list", "tuple", "dict", "set", "iter", "len", "Path", "repr", "cast", "range")


@dataclass(frozen=True)
class Change:
    """A node to replace, and the lines whose tests must notice: none for what runs at import."""

    node: ast.AST
    new: ast.AST
    lines: range | None


@dataclass(frozen=True)
class Mutant:
    path: str  # below ROOT
    number: int  # of the file's changes
    line: int
    change: str
    lines: tuple[int, int] | None

    @property
    def package(self) -> str:
        return Path(self.path).parts[2]


# ------------------------------------------------------------------------------------------------------ the changes


def changes(node: ast.AST, lines: range | None = None, inside: bool = False) -> Iterator[Change]:
    """Every change below a node; `lines` are those of the statement it belongs to."""
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom) or _is_message(node):
        return
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    if isinstance(node, ast.stmt) and inside:
        body = getattr(node, "body", None)
        lines = range(node.lineno, body[0].lineno if body else (node.end_lineno or node.lineno) + 1)
    if inside or isinstance(node, ast.Constant):
        yield from (Change(node, new, lines) for new in replacements(node))
    function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list") or (name == "value" and _is_text(value)):
            continue
        for child in value if isinstance(value, list) else [value]:
            if function and name == "args":  # defaults: whatever runs the body may use them
                lines = range(node.lineno, (node.end_lineno or 0) + 1)  # type: ignore[attr-defined]
            if isinstance(child, ast.AST):
                yield from changes(child, lines, inside or (function and name == "body"))


def replacements(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(ops=[op, *_]) if type(op) in SWAPS:
            yield _with(node, ops=[SWAPS[type(op)](), *node.ops[1:]])
        case ast.BinOp(op=op) if type(op) in SWAPS and not (_is_text(node.left) or _is_text(node.right)):
            yield _with(node, op=SWAPS[type(op)]())
        case ast.AugAssign(op=op) if type(op) in SWAPS:
            yield _with(node, op=SWAPS[type(op)]())
        case ast.BoolOp(op=op):
            yield _with(node, op=SWAPS[type(op)]())
            yield from (_with(node, values=[*node.values[:at], *node.values[at + 1 :]]) for at in range(2))
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield node.operand
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield from (ast.Constant(value + 1), ast.Constant(value - 1))
        case ast.Constant(value=float(value)):
            yield ast.Constant(value * 2 + (value == 0))
        case ast.If() | ast.IfExp():
            yield from (_with(node, test=ast.Constant(value)) for value in (True, False))
        case ast.Slice():
            yield from (_with(node, **{end: None}) for end in ("lower", "upper") if getattr(node, end) is not None)
        case ast.Expr(value=ast.Call()):
            yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()
        case ast.Break() | ast.Continue():
            yield ast.Continue() if isinstance(node, ast.Break) else ast.Break()
        case ast.FunctionDef(body=[_, _, *_] as body) if not _is_text(getattr(body[-2], "value", None)):
            yield _with(node, body=[*body[:-1], ast.Return()])
        case ast.Call(func=ast.Name(id=name) as func, args=args, keywords=keywords):
            if name in RENAMED:
                yield _with(node, func=ast.Name(RENAMED[name]))
            elif len(args) == 1 and not keywords and name.islower() and name not in CONVERSIONS:
                yield args[0]
        case ast.Call(func=ast.Attribute(attr=name) as func) if name in RENAMED:
            yield _with(node, func=_with(func, attr=RENAMED[name]))


def _with(node: ast.AST, **fields: Any) -> ast.AST:
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def _is_text(node: object) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _is_message(node: ast.AST) -> bool:
    if isinstance(node, ast.keyword):
        return node.arg in UNTESTED
    call = node.value if isinstance(node, ast.Expr) else node
    name = ast.unparse(call.func).split(".")[-1] if isinstance(call, ast.Call) else ""
    return name in UNTESTED or name.endswith("Error")


class Replace(ast.NodeTransformer):
    def __init__(self, change: Change) -> None:
        self.change = change

    def visit(self, node: ast.AST) -> ast.AST:
        return self.change.new if node is self.change.node else self.generic_visit(node)


def mutants_of(path: Path) -> list[Mutant]:
    found = []
    for number, change in enumerate(changes(ast.parse(path.read_text()))):
        told = [" ".join(ast.unparse(node).split())[:90] for node in (change.node, change.new)]
        if isinstance(change.node, ast.FunctionDef):
            told = [ast.unparse(change.node.body[-1])[:90], "return"]
        if isinstance(change.node, ast.If):
            told = [f"if {ast.unparse(node.test)[:90]}" for node in (change.node, change.new)]  # type: ignore[attr-defined]
        lines = (change.lines.start, change.lines.stop) if change.lines else None
        line = getattr(change.node, "lineno", None) or (lines or (0,))[0]
        found.append(Mutant(str(path.relative_to(ROOT)), number, line, " -> ".join(told), lines))
    return found


def drawn(seed: int, count: int) -> list[Mutant]:
    """So many mutants of each package as its share of the lines asks for."""
    files = {name: sorted((ROOT / "src/moclip" / name).glob("*.py")) for name in PACKAGES}
    lines = {name: sum(len(path.read_text().splitlines()) for path in files[name]) for name in PACKAGES}
    rng, left = random.Random(seed), sum(lines.values())
    chosen: list[Mutant] = []
    for name in PACKAGES:
        share = round((count - len(chosen)) * lines[name] / left)
        chosen += rng.sample([mutant for path in files[name] for mutant in mutants_of(path)], share)
        left -= lines[name]
    rng.shuffle(chosen)  # a run that is stopped has seen a fair part
    return chosen


# -------------------------------------------------------------------------------------------- which test runs a line


class TestContext(CoveragePlugin):
    """Names the test that runs: pytest keeps it in the environment, which commands and workers inherit.

    The main thread alone decides: coverage.py has one context for all threads, and it ends with the first that ends.
    """

    def dynamic_context(self, frame: object) -> str | None:
        main = threading.get_ident() == threading.main_thread().ident
        return os.environ.get("PYTEST_CURRENT_TEST") if main else None


def coverage_init(registry: Plugins, options: Any) -> None:
    registry.add_dynamic_context(TestContext())


def pytest_runtest_logreport(report: Any) -> None:
    """Note each test's outcome and time; `measure` gives this module to pytest as a plugin."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        with Path(os.environ[REPORTS]).open("a") as file:
            file.write(json.dumps([report.nodeid, report.outcome, report.duration]) + "\n")


def measure(project: Path, jobs: int) -> None:
    """Run the fast tests once; leaves `lines.json` (path -> line -> tests) and `seconds.json` (test -> seconds)."""
    data, settings, reports = WORK / "coverage", WORK / "coveragerc", WORK / "reports"
    reports.unlink(missing_ok=True)
    for old in WORK.glob("coverage.*"):
        old.unlink()
    settings.write_text(
        f"[run]\ndata_file = {data}\nparallel = true\nsource = {project / 'src/moclip'}\ncore = ctrace\n"
        "patch = subprocess, fork, _exit\nsigterm = true\nplugins = tests.mutation\n"
    )
    command = ("-m", "coverage", "run", f"--rcfile={settings}", "-m", "pytest", "-q", "-m", "not slow", "-n", str(jobs))
    environment = surroundings(project) | {REPORTS: str(reports)}
    subprocess.run([sys.executable, *command, "-p", "tests.mutation"], cwd=project, env=environment, check=False)
    Coverage(config_file=str(settings)).combine()
    seconds: dict[str, float] = defaultdict(float)
    bad = set()
    for node, outcome, duration in map(json.loads, reports.read_text().splitlines()):
        seconds[node] += duration
        if outcome != "passed":
            bad.add(node)
    seconds = {node: took for node, took in seconds.items() if node not in bad}
    print(f"left out, as they failed or were skipped: {len(bad)} tests", *sorted(bad), sep="\n  ")
    found = CoverageData(str(data))
    found.read()
    tests = {context: _tests_of(context, seconds) for context in found.measured_contexts()}
    table: dict[str, dict[int, list[str]]] = {}
    for name in found.measured_files():
        by_line = table[str(Path(name).relative_to(project))] = {}
        for line, contexts in found.contexts_by_lineno(name).items():
            by_line[line] = sorted(set().union(*(tests[context] for context in contexts)))
    (WORK / "lines.json").write_text(json.dumps(table))
    (WORK / "seconds.json").write_text(json.dumps(seconds))


def _tests_of(context: str, seconds: dict[str, float]) -> set[str]:
    """The tests of a context; what one test's set-up runs is often shared by all of its file."""
    node, _, phase = context.rpartition(" ")
    file = node.split("::")[0] + "::"
    return {test for test in seconds if test == node or (phase == "(setup)" and test.startswith(file))}


def surroundings(project: Path) -> dict[str, str]:
    return dict(os.environ) | {"PYTHONPATH": f"{project / 'src'}:{project}", "OMP_NUM_THREADS": "1"}


def copy_project(target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    listed = subprocess.run(
        ("git", "ls-files", "-co", "--exclude-standard"), cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name, follow_symlinks=False)
    return target


# -------------------------------------------------------------------------------------------------- running mutants


def write_mutant(mutant: Mutant, project: Path, turn: int) -> None:
    """A time of its own for each version of a file: Python compares it to know whether compiled code is stale."""
    path = ROOT / mutant.path
    tree = ast.parse(path.read_text())
    change = list(changes(tree))[mutant.number]
    target = project / mutant.path
    target.write_text(ast.unparse(ast.fix_missing_locations(Replace(change).visit(tree))))
    os.utime(target, (2 * turn, 2 * turn))


def run_tests(tests: Sequence[str], project: Path) -> NoReturn:
    """In a forked process: run the tests on the copy, and end with pytest's exit code."""
    os.setsid()
    log = os.open(project / "log", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.environ.update(surroundings(project))
    os.chdir(project)
    sys.path[:] = [str(project / "src"), str(project), *(part for part in sys.path if part not in ("", str(ROOT)))]
    for name in [name for name in sys.modules if name.split(".")[0] == "tests"]:
        del sys.modules[name]
    import pytest

    code = 2
    try:
        code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--tb=line", *tests]))
    finally:
        sys.stdout.flush()
        os._exit(code)


Selection = tuple[list[str], float]
"""Arguments of pytest, and after how many seconds it has hung."""


def fast_tests(most: float) -> Callable[[Mutant], Selection]:
    """Select the fast tests that run a mutant's lines, the quickest first, up to `most` seconds."""
    lines, seconds = (json.loads((WORK / name).read_text()) for name in ("lines.json", "seconds.json"))

    def select(mutant: Mutant) -> Selection:
        tests = quickest(tests_for(mutant, lines.get(mutant.path, {})), seconds, most)
        return tests, 300 + 10 * sum(seconds[test] for test in tests)

    return select


def slow_tests(mutant: Mutant) -> Selection:
    """Select the slow tests of the test files that name a mutant's module."""
    module = ".".join(Path(mutant.path).with_suffix("").parts[1:])
    files = [str(path.relative_to(ROOT)) for path in (ROOT / "tests").glob("test_*.py") if module in path.read_text()]
    return (["-m", "slow", *files] if files else []), 900


def run_all(mutants: Sequence[Mutant], jobs: int, select: Callable[[Mutant], Selection]) -> dict[Mutant, str]:
    """How each mutant ended: "failed", "hung", "passed" (survived) or "not run" (survived: no test gets there)."""
    ended: dict[Mutant, str] = {}
    waiting, running = list(enumerate(mutants, 1)), dict[int, tuple[Mutant, Path, float]]()
    free = [copy_project(WORK / f"copy{slot}") for slot in range(jobs)]
    while waiting or running:
        while waiting and free:
            turn, mutant = waiting.pop(0)
            tests, limit = select(mutant)
            if not tests:
                ended[mutant] = "not run"
                continue
            project = free.pop()
            write_mutant(mutant, project, turn)
            pid = os.fork()
            if not pid:
                run_tests(tests, project)
            running[pid] = mutant, project, time.monotonic() + limit
        for pid, (mutant, project, until) in list(running.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if not done and time.monotonic() > until:
                os.killpg(pid, signal.SIGKILL)
                done, status = os.waitpid(pid, 0)
            if done:
                code = os.waitstatus_to_exitcode(status)
                ended[mutant] = "passed" if code in (0, NO_TESTS) else "hung" if code == -signal.SIGKILL else "failed"
                del running[pid]
                shutil.copy2(project / "log", WORK / f"{Path(mutant.path).stem}-{mutant.number}.log")
                shutil.copy2(ROOT / mutant.path, project / mutant.path)
                free.append(project)
                print(f"{len(ended)} {ended[mutant]}: {mutant.path}:{mutant.line}: {mutant.change}", flush=True)
        time.sleep(0.05)
    return ended


def tests_for(mutant: Mutant, by_line: dict[str, list[str]]) -> set[str]:
    wanted = range(*mutant.lines) if mutant.lines else map(int, by_line)
    return {test for line in wanted for test in by_line.get(str(line), ())}


def quickest(tests: set[str], seconds: dict[str, float], most: float) -> list[str]:
    """The quickest of the tests, up to so many seconds; a single one may take longer."""
    ordered = sorted(tests, key=lambda test: (seconds[test], test))
    sums = itertools.accumulate(seconds[test] for test in ordered)
    return ordered[:1] + [
        test for test, total in zip(ordered[1:], itertools.islice(sums, 1, None), strict=True) if total <= most
    ]


def print_table(ended: dict[Mutant, str]) -> None:
    caught = {mutant for mutant, how in ended.items() if how in ("failed", "hung")}
    print(f"\n{'package':12}{'mutants':>8}{'caught':>8}")
    for name in (*PACKAGES, "all"):
        some = [mutant for mutant in ended if name in (mutant.package, "all")]
        share = sum(mutant in caught for mutant in some)
        print(f"{name:12}{len(some):8}{share:8}{share / max(1, len(some)):8.1%}")
    print("\nsurvivors")
    for mutant, how in ended.items():
        if mutant not in caught:
            print(f"{mutant.path}:{mutant.line}: {mutant.change}" + " (no test runs it)" * (how == "not run"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--most", type=float, default=60, help="seconds of tests for a mutant, the quickest first")
    parser.add_argument("--reuse", action="store_true", help="take the lines that the last run found")
    parser.add_argument("--slow", action="store_true", help="run slow tests on what the fast ones do not catch")
    parser.add_argument("--file", default="", help="only mutants of files whose path has this in it")
    given = parser.parse_args()
    mutants = [mutant for mutant in drawn(given.seed, given.count) if given.file in mutant.path]
    WORK.mkdir(parents=True, exist_ok=True)
    if not given.reuse:
        measure(copy_project(WORK / "copy0"), given.jobs)
    for name in ("pytest", "hypothesis", "xdist", *LIBRARIES):
        importlib.import_module(name)
    ended = run_all(mutants, given.jobs, fast_tests(given.most))
    print_table(ended)
    if given.slow:
        survivors = [mutant for mutant, how in ended.items() if how in ("passed", "not run")]
        print(f"\nthe slow tests on {len(survivors)} survivors", flush=True)
        print_table(ended | run_all(survivors, given.jobs, slow_tests))


if __name__ == "__main__":
    main()
