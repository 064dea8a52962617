"""Texts of numbers, times and lists, the same in every message."""

from __future__ import annotations

from collections.abc import Iterable


def counted(number: int, noun: str, nouns: str | None = None) -> str:
    """Return a number with its noun: "1 clip", "1,234 clips". `nouns` is the plural, with an s if it is left out."""
    return f"{number:,} {noun if number == 1 else nouns or f'{noun}s'}"


def join_and(names: Iterable[str]) -> str:
    """Return "a", "a and b" or "a, b and c"."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def shorten_list(names: Iterable[str], most: int = 3) -> str:
    """Return the first of many names: "a, b, c and 7 more"."""
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more


def time_text(seconds: float | None) -> str:
    """Return a time to two digits, in the unit that suits it: "45 s", "12 min", "3.5 h". None is "unknown"."""
    if seconds is None:
        return "unknown"
    for size, unit in ((48 * 3600, "days"), (90 * 60, "h"), (90, "min")):
        if seconds >= size:
            value = seconds / {"days": 86400, "h": 3600, "min": 60}[unit]
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{seconds:.0f} s"
