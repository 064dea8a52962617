"""The report page: what it says, and that it works in a browser, at a desk and on a phone, without a server."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from moclip.evaluation.report import choose_gallery, class_table, confusion
from moclip.evaluation.report_pictures import MAX_FRAMES, WIDTH, fade_motion
from moclip.training.epochs import BestEpoch
from pipeline.report_curves import chosen_epoch, trainings
from pipeline.report_matrix import MOST_LISTED, cell_clips, clip_links
from tests.conftest import run, set_keys

BROWSER, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


CLIPS = 4  # report.clips


@pytest.fixture(scope="module")
def html(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = shutil.copytree(finished, tmp_path_factory.mktemp("report") / "project", symlinks=True)
    run("moclip", "report", "--report-clips", str(CLIPS), cwd=project)
    return project / "data/report/index.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    if BROWSER is None or DRIVER is None:
        pytest.skip("no chromium and chromedriver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for option in OPTIONS:
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser: webdriver.Chrome, html: Path) -> webdriver.Chrome:
    """The page as it opens, at a desk."""
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    browser.set_window_size(1200, 900)
    browser.get(html.as_uri())
    return browser


def shown(browser: webdriver.Chrome, selector: str) -> list[Any]:
    return [one for one in browser.find_elements(By.CSS_SELECTOR, selector) if one.is_displayed()]


# ------------------------------------------------------------------------------------------------ in a browser


def test_it_opens_without_an_error_or_anything_from_outside(opened: webdriver.Chrome, html: Path) -> None:
    assert opened.get_log("browser") == []
    loaded = opened.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert all(name.startswith("data:") for name in loaded)
    assert not re.search(r"(?<!<a )(src|href)\s*=\s*[\"'](?!data:)", html.read_text())
    assert "url(" not in html.read_text()


def test_a_click_on_a_header_sorts_the_classes(opened: webdriver.Chrome) -> None:
    def column(number: int) -> list[str]:
        return [row.find_elements(By.TAG_NAME, "td")[number].text for row in shown(opened, "#classes tbody tr")]

    heads = opened.find_elements(By.CSS_SELECTOR, "#classes th button")
    fusion = next(head for head in heads if head.text == "fusion")
    fusion.click()
    shares = [float(text.rstrip(" %")) for text in column(5)]
    assert shares == sorted(shares, reverse=True)
    fusion.click()
    assert [float(text.rstrip(" %")) for text in column(5)] == sorted(shares)
    assert fusion.find_element(By.XPATH, "..").get_attribute("aria-sort") == "ascending"
    heads[0].click()
    assert column(0) == sorted(column(0))
    heads[0].click()
    assert column(0) == sorted(column(0), reverse=True)


def test_the_filter_leaves_the_classes_that_are_called_so(opened: webdriver.Chrome) -> None:
    field = opened.find_element(By.ID, "filter")
    field.send_keys("falling")
    names = [row.get_attribute("data-class") for row in shown(opened, "#classes tbody tr")]
    assert names
    assert all("Falling" in name for name in names)
    assert opened.find_element(By.ID, "matched").text == f"{len(names)} of 4"
    field.clear()
    field.send_keys("x")
    assert not shown(opened, "#classes tbody tr")


def test_the_gallery_shows_what_is_asked_for_in_the_order_asked_for(opened: webdriver.Chrome, finished: Path) -> None:
    predictions = pd.read_parquet(finished / "data/predictions.parquet")
    wrong = {str(row.id) for row in predictions.itertuples() if row.fusion.argmax() != row.label}  # type: ignore[union-attr]
    everything = shown(opened, ".clip")
    assert len(everything) >= 8
    gains = [float(clip.get_attribute("data-gain")) for clip in everything]
    assert gains == sorted(gains, reverse=True)
    Select(opened.find_element(By.ID, "kind")).select_by_visible_text("worst errors")
    errors = shown(opened, ".clip")
    named = {clip.find_element(By.TAG_NAME, "img").get_attribute("alt").removeprefix("a frame of ") for clip in errors}
    assert named <= wrong
    assert len(named) == min(len(wrong), CLIPS)
    assert opened.find_element(By.ID, "shown").text == f"{len(errors)} of {len(everything)} clips"
    Select(opened.find_element(By.ID, "kind")).select_by_visible_text("all")
    name = everything[0].get_attribute("data-class")
    Select(opened.find_element(By.ID, "class")).select_by_visible_text(name)
    assert {clip.get_attribute("data-class") for clip in shown(opened, ".clip")} == {name}
    Select(opened.find_element(By.ID, "class")).select_by_visible_text("all")
    Select(opened.find_element(By.ID, "order")).select_by_visible_text("class")
    names = [clip.get_attribute("data-class") for clip in shown(opened, ".clip")]
    assert names == sorted(names)


def test_all_pictures_load_and_the_motion_moves(opened: webdriver.Chrome, html: Path) -> None:
    opened.execute_script("document.querySelectorAll('img').forEach(image => image.loading = 'eager')")
    sizes = opened.execute_script("return [...document.images].map(i => [i.complete, i.naturalWidth, i.alt])")
    assert len(sizes) > 10
    assert all(complete and width > 20 and alt for complete, width, alt in sizes)
    moving = re.findall(r"data:image/webp;base64,([^\"]+)", html.read_text())
    assert moving
    for text in moving:
        picture = Image.open(io.BytesIO(base64.b64decode(text)))
        assert 10 <= picture.n_frames <= MAX_FRAMES  # type: ignore[attr-defined]
        assert picture.width == WIDTH
        middle = np.asarray(_frame(picture, picture.n_frames // 2).convert("RGB")).astype(int)  # type: ignore[attr-defined]
        assert (np.ptp(middle, axis=2) > 60).any(), "something is coloured, so it moves"


def _frame(picture: Image.Image, number: int) -> Image.Image:
    picture.seek(number)
    return picture


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone(opened: webdriver.Chrome, finished: Path, dark: bool) -> None:
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    opened.refresh()
    assert opened.execute_script("return [innerWidth, document.documentElement.scrollWidth]") == [390, 390]
    wide = (
        "return [...document.querySelectorAll('#headline, #classes, .clip')].map(e => e.getBoundingClientRect().right)"
    )
    assert max(opened.execute_script(wide)) <= 390, "what matters is seen without scrolling sideways"
    assert len(shown(opened, "#headline td .interval")) == len(shown(opened, "#headline tbody tr")) == 7
    sources = json.loads((finished / "metrics/verdict.json").read_text())["test"]["sources"]
    caption = opened.find_element(By.CSS_SELECTOR, "#headline caption")
    assert (caption.text, caption.is_displayed()) == (f"12 test clips of {sources} sources", True)
    clips = [row.find_elements(By.TAG_NAME, "td")[1].text for row in shown(opened, "#classes tbody tr")]
    assert clips == ["3"] * 4
    opened.execute_script(
        "for (const e of document.querySelectorAll('p, li, td, h2, h3, caption, option')) e.append('X'.repeat(300))"
    )
    assert opened.execute_script("return document.documentElement.scrollWidth") == 390, "long names wrap or scroll"
    ink, paper = opened.execute_script("const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]")
    brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ink, paper)]
    assert brightness[0] > brightness[1] + 300 if dark else brightness[1] > brightness[0] + 300


def test_the_answer_comes_first_in_a_box_whose_text_says_what_its_colour_says(opened: webdriver.Chrome) -> None:
    box = opened.find_element(By.ID, "verdict")
    assert opened.find_element(By.CSS_SELECTOR, "h1 + *") == box
    marks = {"beats": "✓ ", "cannot-tell": "? Cannot tell", "does-not-beat": "✗ "}
    (kind,) = set(str(box.get_attribute("class")).split()) - {"verdict"}
    assert box.text.startswith(marks[kind].split()[0])
    assert kind.replace("-", " ") in box.text.lower()
    colours = set()
    for name in marks:
        opened.execute_script("arguments[0].className = 'verdict ' + arguments[1]", box, name)
        colours.add(box.value_of_css_property("border-left-color"))
    assert len(colours) == 3


@pytest.mark.parametrize("key", [None, Keys.ENTER, Keys.SPACE])
def test_a_cell_of_the_matrix_opens_its_clips(opened: webdriver.Chrome, finished: Path, key: str | None) -> None:
    predictions = pd.read_parquet(finished / "data/predictions.parquet")
    said = np.stack(predictions["fusion"].to_list()).argmax(axis=1)
    names = predictions.drop_duplicates("label").set_index("label")["class"]
    pictured = {clip.get_attribute("data-id") for clip in shown(opened, "#gallery .clip")}
    cells = opened.find_elements(By.CSS_SELECTOR, ".matrix g[data-cell]")
    pairs = set(zip(predictions["label"], said, strict=True))
    assert len(cells) == len(pairs)
    dialog, found = opened.find_element(By.ID, "cell"), set()
    for cell in cells:
        if key:
            opened.execute_script("arguments[0].focus()", cell)
            opened.switch_to.active_element.send_keys(key)
        else:
            cell.find_element(By.CLASS_NAME, "count").click()
        title = dialog.find_element(By.TAG_NAME, "h2").text
        listed = {item.text for item in dialog.find_elements(By.CSS_SELECTOR, "li")}
        (label, other) = next(
            (a, b)
            for a, b in pairs
            if title.startswith(f"{names[a]} predicted as {names.get(b, b)}: {len(listed)} clip")
        )
        assert listed == set(predictions["id"][(predictions["label"] == label) & (said == other)])
        shown_cards = {card.get_attribute("data-id") for card in shown(opened, "#cell .clip")}
        assert shown_cards == listed & pictured
        found.add((label, other))
        dialog.find_element(By.CSS_SELECTOR, "header button").click()
        assert not dialog.is_displayed()
    assert found == pairs


def test_clips_that_a_browser_plays_are_links_to_their_files(opened: webdriver.Chrome, finished: Path) -> None:
    index = pd.read_parquet(finished / "data/index.parquet").set_index("id")
    played = set(index.index[(index["codec"] == "h264") & index["path"].str.endswith(".mp4")])
    assert played
    links = opened.find_elements(By.CSS_SELECTOR, "#gallery a")
    shown_ids = {clip.get_attribute("data-id") for clip in shown(opened, "#gallery .clip")}
    assert {link.text for link in links} == shown_ids & played
    for link in links:
        assert link.get_dom_attribute("href") == f"../demo/videos/{link.text}"
        assert (finished / "data/report" / link.get_dom_attribute("href")).is_file()


# ------------------------------------------------------------------------------------------------ what it says


def test_it_shows_what_advise_finds_in_the_index(html: Path, finished: Path) -> None:
    found = json.loads(run("moclip", "advise", "--json", cwd=finished).stdout)["findings"]
    section = html.read_text().partition("<h2>What the data suffers from")[2].partition("<h2>")[0]
    of_index = [one for one in found if one["about"] not in ("camera", "look-alikes", "CLIP")]
    assert section.count("<li>") == len(of_index) > 0
    text = unescape(section)
    assert all(one["found"] in text and f"What to do: {one['advice']}" in text for one in of_index)


def test_its_curves_mark_the_epoch_that_was_kept(html: Path, finished: Path) -> None:
    section = html.read_text().partition("<h2>Training")[2].partition("<h2>")[0]
    for folder, title in (("train_mv", "MV-TSN"), ("train_fusion", "Fusion head")):
        plots = finished / "metrics" / folder / "plots/metrics"
        curves = {
            name: pd.read_csv(plots / f"{name}.tsv", sep="\t")[name].tolist() for name in ("val_top1", "val_loss")
        }
        best = min(range(len(curves["val_loss"])), key=lambda n: (-curves["val_top1"][n], curves["val_loss"][n]))
        top1, epochs = 100 * curves["val_top1"][best], len(curves["val_loss"])
        text = f"Epoch {best + 1} of {epochs} was chosen, with top-1 {top1:.1f} %"
        assert text in section.partition(f"<h3>{title}")[2]


def test_the_chosen_epoch_is_the_one_that_the_training_keeps() -> None:
    generator = np.random.default_rng(0)
    for names in (("val_top1", "val_loss"), ("val_map", "val_top1", "val_loss")):
        for _ in range(50):
            curves = {name: generator.integers(0, 4, 8) / 4 for name in names}  # with equal ones
            kept = BestEpoch(torch.nn.Linear(1, 1))
            for epoch in range(8):
                kept.offer({name: float(curve[epoch]) for name, curve in curves.items()} | {"epoch": epoch})
            assert chosen_epoch(curves) == kept.row["epoch"] + 1


def test_a_refit_and_folds_are_said(html: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished)
    once, again, folds = (trainings(False, given)[0]["text"] for given in (None, 1, 5))
    assert "validation clips." in once
    assert "then" not in once
    assert "validation clips. The final network was then trained for" in again
    assert "means over 5 folds. The final network was then trained for" in folds


def test_a_cell_lists_the_pictured_clips_first_and_not_too_many() -> None:
    labels = np.array([0] * 60 + [1])
    confused = confusion(np.eye(2)[labels], labels, ["a", "b"])
    ids = [f"clip{number}" for number in range(61)]
    found = cell_clips(confused, ids, {"clip0": "x.mp4"}, {59, 60})
    assert found["names"] == ["a", "b"]
    assert found["cells"]["0,0"]["count"] == 60
    assert found["cells"]["0,0"]["clips"][:2] == [["clip59", ""], ["clip0", "x.mp4"]]
    assert len(found["cells"]["0,0"]["clips"]) == MOST_LISTED
    assert found["cells"]["1,1"] == {"count": 1, "clips": [["clip60", ""]]}


@pytest.mark.parametrize(
    ("clip", "root", "link"),
    [
        ({}, "clips", "../../clips/a%20b.mp4"),
        ({}, "../clips", "../../../clips/a%20b.mp4"),
        ({}, "/far/clips", "file:///far/clips/a%20b.mp4"),
        ({"first": 30, "frames": 15}, "clips", "../../clips/a%20b.mp4#t=1.000,1.500"),
        ({"first": 30, "frames": 15, "fps": 0.0}, "clips", "../../clips/a%20b.mp4"),
        ({"path": "c.webm", "codec": "vp9"}, "clips", "../../clips/c.webm"),
        ({"codec": "mpeg4"}, "clips", None),
        ({"path": "a.avi"}, "clips", None),
        ({}, "s3://bucket/clips", None),
    ],
)
def test_links_are_of_files_that_browsers_play(clip: dict[str, Any], root: str, link: str | None) -> None:
    whole = {"id": "a", "path": "a b.mp4", "codec": "h264", "fps": 30.0, "first": 0, "frames": 60, "video_frames": 60}
    assert clip_links(pd.DataFrame([whole | clip]), root) == ({} if link is None else {"a": link})


def test_its_figures_are_the_metrics(html: Path, finished: Path) -> None:
    text = html.read_text()
    for name in ("zero_shot", "mv_tsn", "fusion"):
        top1 = json.loads((finished / f"metrics/{name}.json").read_text())["top1"]
        assert f"{100 * top1:.1f} %" in text
    headline = text[text.index('id="headline"') : text.index("</table>")]
    assert "paper" not in headline, "its figures are of UCF-101"
    assert headline.count("<tr") == 8


def test_without_gallery_and_with_a_clip_gone(project: Path) -> None:
    set_keys(project / "params.yaml", {"report.clips": 0})
    printed = run("python", "-m", "stages.report", cwd=project).stdout.splitlines()
    assert f"open in a browser: {project / 'data/report/index.html'}" in printed
    predict, advise, experiment = printed[-3:]
    assert predict.startswith("next: moclip predict data/demo/videos/")
    assert (project / predict.split()[-1]).exists()
    assert advise.startswith("      moclip advise ")
    assert experiment.startswith("      dvc exp run -S ")
    text = (project / "data/report/index.html").read_text()
    assert "<article" not in text
    assert 'id="classes"' in text
    name = pd.read_parquet(project / "data/predictions.parquet")["id"][0]
    (project / "data/demo/videos" / name).unlink()
    run("python", "-m", "stages.report", "--report-clips", "100", cwd=project)
    text = (project / "data/report/index.html").read_text()
    assert text.count("<article") == 12
    assert text.count("no such file") == 1


def test_confusions_count_actual_and_predicted_classes() -> None:
    labels = np.array([0, 0, 0, 1, 1, 3])
    predicted = np.array([0, 1, 1, 1, 2, 3])
    found = confusion(np.eye(5)[predicted], labels, ["a", "b", "c", "d", "e"])
    assert found.names == ["a", "b", "c", "d"], "c is predicted, e neither occurs nor is"
    assert found.counts.tolist() == [[1, 2, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
    assert found.worst == [("a", "b", 2, 3), ("b", "c", 1, 2)]
    assert found.clips == {(0, 0): [0], (0, 1): [1, 2], (1, 1): [3], (1, 2): [4], (3, 3): [5]}


def test_class_table_shows_what_each_input_adds() -> None:
    labels = np.array([0, 0, 2, 2])
    streams = {
        "still": np.eye(3)[[0, 1, 0, 0]],
        "mv_tsn": np.eye(3)[[0, 0, 2, 0]],
        "fusion": np.eye(3)[[0, 0, 2, 2]],
    }
    first, second = class_table(streams, labels, ["a", "b", "c"])
    assert (first["name"], first["clips"], first["motion"], first["still"]) == ("a", 2, 0.5, 0.0)
    assert (second["name"], second["motion"], second["still"]) == ("c", 1.0, 0.5)


def test_vectors_fade_until_a_longer_one_replaces_them() -> None:
    fields = np.zeros((4, 2, 1, 2))
    fields[0, :, 0, 0] = 3, -4
    fields[2, :, 0, 0] = 0, 3.9
    fields[3, :, 0, 1] = 1, 0
    faded = fade_motion(fields)
    np.testing.assert_allclose(faded[:, :, 0, 0], np.array([[3, -4], [2.4, -3.2], [0, 3.9], [0, 3.12]]))
    np.testing.assert_allclose(faded[:, :, 0, 1], np.array([[0, 0], [0, 0], [0, 0], [1, 0]]))
    assert fields[1].sum() == 0, "the fields given stay as they are"


@pytest.mark.slow
def test_gallery_clips_are_chosen_by_gain_error_and_at_random() -> None:
    labels = np.zeros(5, int)
    fused = np.array([0.9, 0.8, 0.4, 0.1, 0.95])
    shares = {
        "fusion": np.stack([fused, 1 - fused], axis=1),
        "zero_shot": np.full((5, 2), 0.5),
        "mv_tsn": np.tile([[0.9, 0.1]], (5, 1)),
    }
    shares["mv_tsn"][1] = 0.3, 0.7
    chosen = {choice.row: choice for choice in choose_gallery(shares, labels, 1, seed=0)}
    assert "gain" in chosen[1].kinds
    assert chosen[1].gain == pytest.approx(0.3)
    assert "error" in chosen[3].kinds
    assert chosen[3].error == pytest.approx(0.8)
    every = {choice.row: choice.kinds for choice in choose_gallery(shares, labels, 5, seed=0)}
    assert every[3] == ["error", "random"], "a clip may be of several kinds"
    kinds = [kind for choice in chosen.values() for kind in choice.kinds]
    assert sorted(kinds) == ["error", "gain", "random"]
    two = np.array([1, 0, 0, 0, 1])
    ranked = [choice.row for choice in choose_gallery(shares, two, 2, seed=0) if "error" in choice.kinds]
    assert sorted(ranked) == [3, 4], "the worst of either class, though class 1 has the two worst"
    assert choose_gallery(shares, labels, 3, seed=4) == choose_gallery(shares, labels, 3, seed=4)
    assert not any("error" in c.kinds for c in choose_gallery(shares, labels * 0 + (fused < 0.5), 5, seed=0))
