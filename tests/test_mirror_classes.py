"""Which classes are each other's mirror image by their names."""

from __future__ import annotations

import json

import pytest

from moclip.data.mirror_classes import mirror_pairs, unpaired_sides
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("TurnLeft", "TurnRight"),
        ("swipe left", "swipe right"),
        ("Swipe_Left", "swipe-RIGHT"),
        ("LEFTTurn", "RIGHTTurn"),
        ("turnleft", "turnright"),
        ("leaning leftwards", "leaning rightwards"),
        ("left_to_right", "right_to_left"),
        ("push the left box to the right", "push the right box to the left"),
        ("bright left", "bright right"),
        ("wave_l", "wave_r"),
        ("PushL2R", "PushR2L"),
        ("pushLTR", "pushRTL"),
        ("turn left 2", "turn right 2"),
        ("turn_cw", "turn_ccw"),
        ("TurnCW", "TurnCCW"),
        ("rotate clockwise", "rotate anticlockwise"),
        ("RotateClockwise", "RotateCounterClockwise"),
        ("rotate clock-wise", "rotate anti-clock-wise"),
        ("tourner_à_left", "tourner_à_right"),
    ],
)
def test_classes_that_differ_in_left_and_right_are_a_pair(one: str, other: str) -> None:
    assert mirror_pairs(["a", one, "b", other]) == [(one, other)]
    assert mirror_pairs([other, one]) == [(other, one)]
    assert unpaired_sides([one, other]) == []


@pytest.mark.parametrize(
    "classes",
    [
        ["TurnLeft", "SwipeRight"],
        ["TurnLeft1", "TurnRight2"],
        ["TurnLeft", "turn_left"],
        ["left arm to the right", "right arm to the right"],
        ["leftover", "overright", "lake", "rake"],
        ["TurnUp", "TurnDown"],
        ["wise clock", "clock"],
        [],
    ],
)
def test_other_classes_are_no_pair(classes: list[str]) -> None:
    assert mirror_pairs(classes) == []


@pytest.mark.parametrize("name", ["ucf101", "hmdb51"])
def test_no_class_of_the_public_data_sets_has_a_side(name: str) -> None:
    classes = list(json.loads((ROOT / "data" / "classes" / f"{name}.json").read_text(encoding="utf-8")))
    assert mirror_pairs(classes) == unpaired_sides(classes) == []


def test_a_class_is_in_one_pair_at_most() -> None:
    assert mirror_pairs(["turn left", "TurnRight", "turn_right", "up", "TurnLeft"]) == [("turn left", "TurnRight")]


def test_a_side_without_its_mirror_image_is_told() -> None:
    classes = ["TurnLeft", "turn right", "SwipeRight", "roll_ccw", "brightLight", "plan R", "nod"]
    assert unpaired_sides(classes) == ["SwipeRight", "roll_ccw"]
