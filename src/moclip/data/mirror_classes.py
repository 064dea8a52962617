"""Classes that are each other's mirror image by their names, such as TurnLeft and TurnRight.

A mirrored clip of one looks like the other.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|\d+")
_ANTICLOCKWISE = re.compile(r"\b(?:(?:counter|anti|contra) ?clock ?wise|ccw|acw)\b")
_CLOCKWISE = re.compile(r"\b(?:clock ?wise|cw)\b")
_MIRRORED = {"left": "right", "l": "r", "ltr": "rtl", "lr": "rl", "clockwise": "anticlockwise"}
_MIRRORED |= {mirrored: word for word, mirrored in _MIRRORED.items()}
_ENDS = re.compile(r"\b(left|right)|(left|right)\b")  # within a word: leftwards, turnleft


def mirror_pairs(classes: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of classes that differ only in left and right, in the order of `classes`.

    Names are split at case changes, digits, and all that is neither letter nor digit; case is ignored. In a pair, one
    name becomes the other if left and right change places, as do l and r, ltr and rtl, clockwise and anticlockwise (or
    counterclockwise, cw, ccw). Names without such a word are tried with left or right at an end of a word, as in
    "turnleft". A class is in one pair at most.
    """
    named: dict[str, str] = {}
    for name in classes:
        named.setdefault(_words(name), name)
    pairs: dict[str, str] = {}
    for words, name in named.items():
        mirrored = named.get(_mirror(words), name)
        if mirrored != name and mirrored not in pairs:
            pairs[name] = mirrored
    return list(pairs.items())


def unpaired_sides(classes: Sequence[str]) -> list[str]:
    """Return the classes with the word left, right, clockwise or anticlockwise that are in no pair."""
    paired = {name for pair in mirror_pairs(classes) for name in pair}
    sides = {"left", "right", "clockwise", "anticlockwise"}
    return [name for name in classes if name not in paired and sides.intersection(_words(name).split())]


def _words(name: str) -> str:
    """Return the words of a name in lower case with a space between; senses of rotation have one spelling."""
    words = " ".join(_WORD.findall(name)).lower()
    return _CLOCKWISE.sub("clockwise", _ANTICLOCKWISE.sub("anticlockwise", words))


def _mirror(words: str) -> str:
    mirrored = " ".join(_MIRRORED.get(word, word) for word in words.split())
    return mirrored if mirrored != words else _ENDS.sub(lambda found: _MIRRORED[found[0]], words)
