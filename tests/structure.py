"""Print the structure of the code: `python -m tests.structure` (or `make structure`).

Lines and imports of each package, and the ten longest functions. tests/test_structure.py holds the packages to their
order.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import grimp

ORDER = (
    "errors", "version", "wording", "files", "workers", "video", "store", "motion", "data", "models", "training",
    "drawing", "evaluation", "inference",
)  # fmt: skip
"""The packages of `moclip` from the lowest to the highest: each may import those before it, never one after it."""
PRODUCT = ("moclip", "pipeline", "stages")
ROOTS = {"moclip": Path("src/moclip"), "pipeline": Path("pipeline"), "stages": Path("stages")}


def import_graph() -> grimp.ImportGraph:
    """Which module of the product imports which; imports within functions count, and those for type checkers."""
    return grimp.build_graph(*PRODUCT, cache_dir=None)


def package_of(module: str) -> str:
    """`moclip.video.probe` -> `moclip.video`; `pipeline.paths` -> `pipeline`."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "moclip" else parts[0]


def package_imports(graph: grimp.ImportGraph) -> Counter[tuple[str, str]]:
    """How often modules of one package import modules of another: (importing, imported) -> imports."""
    return Counter(
        (package_of(module), package_of(imported))
        for module in graph.modules
        for imported in graph.find_modules_directly_imported_by(module)
        if package_of(module) != package_of(imported)
    )


def lines_per_package() -> dict[str, tuple[int, int]]:
    """Files and lines of each package."""
    found: dict[str, tuple[int, int]] = {}
    for name, root in ROOTS.items():
        for path in sorted(root.rglob("*.py")):
            package = package_of(".".join([name, *path.relative_to(root).with_suffix("").parts]))
            files, lines = found.get(package, (0, 0))
            found[package] = files + 1, lines + len(path.read_text(encoding="utf-8").splitlines())
    return found


def longest_functions(count: int = 10) -> list[tuple[int, str]]:
    """Lines and name of the longest functions."""
    found = [
        ((node.end_lineno or 0) - node.lineno + 1, f"{path}: {node.name}")
        for root in ROOTS.values()
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    ]
    return sorted(found, reverse=True)[:count]


def main() -> None:
    """Print all of it."""
    imports = package_imports(import_graph())
    print("package              files  lines  imports")
    for package, (files, lines) in lines_per_package().items():
        used = sorted(imported for importing, imported in imports if importing == package)
        print(f"{package:20} {files:5} {lines:6}  {', '.join(name.removeprefix('moclip.') for name in used)}")
    print("\nlongest functions")
    for lines, name in longest_functions():
        print(f"{lines:4}  {name}")


if __name__ == "__main__":
    main()
