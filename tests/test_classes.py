"""The shipped phrases of UCF-101 and HMDB-51, and the prompt templates they go into."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from moclip.models.class_texts import read_phrases, read_prompts
from tests.conftest import ROOT

FOLDER = ROOT / "data" / "classes"
SETS = ["ucf101", "hmdb51"]


def load(name: str) -> dict[str, list[str]]:
    def unique(pairs: list[tuple[str, list[str]]]) -> dict[str, list[str]]:
        assert len({key for key, _ in pairs}) == len(pairs), "a class twice"
        return dict(pairs)

    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"), object_pairs_hook=unique)


@pytest.mark.parametrize(
    ("name", "count", "first", "last", "tricky"),
    [
        (
            "ucf101",
            101,
            "ApplyEyeMakeup",
            "YoYo",
            "BlowDryHair BodyWeightSquats BreastStroke Haircut HammerThrow HandstandPushups JumpRope Nunchucks PullUps "
            "PushUps Shotput SkateBoarding Skijet SkyDiving TaiChi ThrowDiscus VolleyballSpiking WallPushups",
        ),
        ("hmdb51", 51, "brush_hair", "wave", "fall_floor flic_flac pullup pushup situp swing_baseball sword_exercise"),
    ],
)
def test_names_are_those_of_the_data_set(name: str, count: int, first: str, last: str, tricky: str) -> None:
    classes = list(load(name))
    assert len(classes) == count
    assert classes == sorted(classes, key=str.lower)
    assert (classes[0], classes[-1]) == (first, last)
    assert set(tricky.split()) <= set(classes)


def test_ucf101_is_in_label_order() -> None:
    classes = list(load("ucf101"))
    places = {"HammerThrow": 36, "HandstandPushups": 37, "JumpRope": 48, "Punch": 71, "Swing": 89, "YoYo": 101}
    assert {name: classes.index(name) + 1 for name in places} == places


@pytest.mark.parametrize("name", SETS)
def test_each_class_has_eight_to_twelve_short_plain_phrases_of_its_own(name: str) -> None:
    phrases = load(name)
    assert read_phrases(FOLDER / f"{name}.json", list(phrases)) == phrases
    assert [key for key, of_class in phrases.items() if not 8 <= len(of_class) <= 12] == []
    texts = Counter(text for of_class in phrases.values() for text in of_class)
    assert [text for text, times in texts.items() if times > 1] == []
    assert [text for text in texts if text != " ".join(text.lower().split()) or text.endswith(".")] == []
    assert [text for text in texts if set(text) & set("{}") or not text.isascii()] == []
    assert [text for text in texts if len(text.split()) > 14 or len(text) > 80] == [], "CLIP cuts off long texts"


@pytest.mark.parametrize("name", SETS)
def test_the_first_phrase_is_the_plain_name(name: str) -> None:
    for of_class in load(name).values():
        assert len(of_class[0].split()) <= 7


@pytest.mark.parametrize("name", SETS)
def test_phrases_do_not_say_what_is_absent(name: str) -> None:
    """CLIP hardly reads negations: "no barbell" looks like a barbell to it."""
    absent = {"not", "no", "without", "never", "nothing"}
    assert [text for of_class in load(name).values() for text in of_class if absent & set(text.split())] == []


def test_templates_are_distinct() -> None:
    templates = read_prompts(ROOT / "data" / "prompts.json")  # which wants {} once in each
    assert len(set(templates)) == len(templates) >= 12
