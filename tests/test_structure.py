"""The order of the packages: each imports only those below it, and nothing goes in circles."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter

import pytest
from grimp import ImportGraph

from tests.conftest import ROOT
from tests.structure import ORDER, import_graph


@pytest.fixture(scope="module")
def graph() -> ImportGraph:
    return import_graph()


def imports(graph: ImportGraph) -> list[tuple[str, str]]:
    return [(one, other) for one in sorted(graph.modules) for other in graph.find_modules_directly_imported_by(one)]


def test_each_package_of_the_library_imports_only_those_below_it(graph: ImportGraph) -> None:
    height = {f"moclip.{name}": place for place, name in enumerate(ORDER)}
    packages = {".".join(module.split(".")[:2]) for module in graph.modules if module.startswith("moclip.")}
    assert packages == set(height), "name every package in tests/structure.py, ORDER"
    upward = [
        f"{one} imports {other}"
        for one, other in imports(graph)
        if one.startswith("moclip.")
        and other.startswith("moclip.")
        and (here := ".".join(one.split(".")[:2])) != (there := ".".join(other.split(".")[:2]))
        and height[here] <= height[there]
    ]
    assert upward == []


def test_contributing_lists_the_packages_in_their_order() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = re.search(r"\| `src/moclip/` \|.*?\n\n", page, re.DOTALL)
    assert table
    assert re.findall(r"^\| `(\w+)(?:/|\.py)`", table[0], re.M) == [name for name in ORDER if name != "version"]


def test_the_library_never_imports_the_pipeline(graph: ImportGraph) -> None:
    assert [pair for pair in imports(graph) if pair[0].startswith("moclip") and not pair[1].startswith("moclip")] == []


def test_the_pipeline_imports_no_stage(graph: ImportGraph) -> None:
    assert {one for one, other in imports(graph) if one.startswith("pipeline") and other.startswith("stages")} == set()


def test_no_imports_go_in_circles(graph: ImportGraph) -> None:
    uses = {one: graph.find_modules_directly_imported_by(one) for one in graph.modules}
    order = list(TopologicalSorter(uses).static_order())  # raises CycleError, which names the circle
    assert len(order) == len(graph.modules)
