"""`make docs`: the site builds, its links lead somewhere, and it asks no other host for anything."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.conftest import ROOT, run

LOADED = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src"}
"""Elements that a browser fetches without a click, and their attribute."""
CODE = ("pre", "code", "script", "style")


class Page(HTMLParser):
    """A built page: what it loads, where it links to, its anchors, and its text without code."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.anchors = {""}
        self.text = ""
        self._code = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._code += tag in CODE
        self.anchors.add(given.get("id") or "")
        if given.get(LOADED.get(tag, "")):
            self.loaded.append(str(given[LOADED[tag]]))
        if tag == "a" and given.get("href"):
            self.links.append(str(given["href"]))

    def handle_endtag(self, tag: str) -> None:
        self._code -= tag in CODE

    def handle_data(self, data: str) -> None:
        if not self._code:
            self.text += data


def build(source: Path, target: Path, code: int = 0) -> str:
    done = run("python", "-m", "mkdocs", "build", "--strict", "--site-dir", target, cwd=source, code=code)
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Page]:
    folder = tmp_path_factory.mktemp("site")
    build(ROOT, folder)
    return {path: Page(path) for path in folder.rglob("*.html") if path.name != "404.html"}


def test_a_page_for_each_page_of_the_repository(pages: dict[Path, Page]) -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    assert len(pages) == len(documents) > 25
    site = next(path for path in pages if path.name == "index.html").parent
    assert "MoCLIP-Lite recognises the action in a short video clip." in pages[site / "index.html"].text
    search = (site / "search/search_index.json").read_text(encoding="utf-8")
    assert "docs/your-clips.html#spans-of-longer-videos" in search


def test_nothing_is_loaded_from_another_host(pages: dict[Path, Page]) -> None:
    for page in pages.values():
        assert page.loaded
        for target in page.loaded:
            assert not urlsplit(target).netloc, f"{page.path}: {target}"
            assert (page.path.parent / urlsplit(target).path).exists(), f"{page.path}: {target}"


def test_links_inside_the_site_lead_somewhere(pages: dict[Path, Page]) -> None:
    for page in pages.values():
        for link in page.links:
            url = urlsplit(link)
            if url.scheme or url.netloc:
                continue
            target = (page.path.parent / unquote(url.path)).resolve() if url.path else page.path
            if target.is_dir():
                target /= "index.html"
            assert target.exists(), f"{page.path}: {link}"
            if target in pages:
                assert unquote(url.fragment) in pages[target].anchors, f"{page.path}: {link}"


def test_the_markdown_means_the_same_as_on_github(pages: dict[Path, Page]) -> None:
    """Lists and tables that need a blank line before them, or another indentation, would be left as text."""
    for page in pages.values():
        left = re.search(r"^\s*(\* |\| |- |#+ |```).*$|\]\(|\*\*", page.text, re.MULTILINE)
        assert left is None, f"{page.path}: {left}"


def test_a_link_that_leads_nowhere_stops_the_build(tmp_path: Path) -> None:
    for name in ("mkdocs.yml", *(path.name for path in ROOT.glob("*.md")), "LICENSE", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("docs", "examples", "benchmarks/results"):
        shutil.copytree(ROOT / name, tmp_path / name)
    page = tmp_path / "docs/projects.md"
    text = page.read_text()
    build(tmp_path, tmp_path / "site")
    for link in ("none.md", "your-clips.md#none", "../src/moclip/errors.py", "/docs/predict.md"):
        page.write_text(f"{text}\n[link]({link})\n")
        printed = build(tmp_path, tmp_path / "site", code=1)
        assert link in printed
        assert "Aborted with 1 warnings" in printed


def test_readme_lists_the_pages_in_the_order_of_the_site() -> None:
    listed = re.findall(r"^\| \[([^\]]+)\]\((docs/[a-z0-9-]+\.md)\)", (ROOT / "README.md").read_text(), re.MULTILINE)
    navigation = re.findall(r"^      - ([^:]+): (docs/\S+)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert listed == navigation
    assert {path for _, path in listed} == {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
