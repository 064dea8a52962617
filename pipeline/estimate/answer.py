"""Say how long a run takes: a table, a line, JSON."""

from __future__ import annotations

from typing import Any

from moclip.wording import time_text
from pipeline.console.output import print_note, print_result
from pipeline.estimate.run import Estimate, StageEstimate

BUSY = 1.3
"""Above it the machine is said to be busy."""

DOMINATES = 0.4
"""Share of the time from which a stage is named."""

SHORT = 60.0
"""Seconds: of a shorter run nothing is worth changing."""


def bytes_text(size: float | None) -> str:
    """Return bytes to two digits: "3.3 MB", "120 GB"."""
    if size is None:
        return ""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            value = size / scale
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{size:.0f} B"


def total_line(found: Estimate) -> str:
    """Return the total in one line."""
    if not found.running:
        return "dvc repro has nothing to do: all stages are up to date"
    low, high = found.range
    text = f"dvc repro takes about {time_text(found.seconds)} ({time_text(low)} to {time_text(high)})"
    text += f" and {bytes_text(found.bytes)}"
    if found.memory:
        text += f"; most memory: {bytes_text(found.memory)}"
    return text


def print_estimate(found: Estimate) -> None:
    """Print the table and what follows from it."""
    rows = [
        (
            stage.name,
            stage.what if len(stage.what) <= WIDEST else f"{stage.what[: WIDEST - 3]}...",
            time_text(stage.seconds) if stage.runs else "0 s",
            bytes_text(stage.bytes) if stage.bytes else "",
            bytes_text(stage.memory) if stage.runs else "",
        )
        for stage in found.stages
    ]
    print_result("what dvc repro takes", ("stage", "what it does", "time", "disk", "memory"), rows)
    print(total_line(found))
    for line in remarks(found):
        print(line)


WIDEST = 36
"""Most characters of what a stage does, so that the table has at most 80."""


def remarks(found: Estimate) -> list[str]:
    """Return what else is to be said, a line each."""
    lines = []
    if found.running and found.slowdown > BUSY:
        busy = time_text(found.seconds * found.slowdown)
        lines.append(f"  that is without other work here; as busy as this machine is now, it takes about {busy}")
    if found.bytes:
        lines.append(
            f"  DVC's cache keeps a copy of the files: {bytes_text(found.bytes)} more, if the disk cannot share them"
        )
    lines += [f"  {note}" for note in found.notes]
    if found.timed:
        lines.append(f"  timed: {', '.join(found.timed)}")
    if advice := _advice(found):
        lines.append(f"  {advice}")
    return lines


def _advice(found: Estimate) -> str:
    """Return which stage takes most of the time, and which key would shorten it; "" if none stands out."""
    if found.seconds < SHORT:
        return ""
    longest = max(found.running, key=lambda stage: stage.seconds or 0.0)
    share = (longest.seconds or 0.0) / found.seconds
    if share < DOMINATES:
        return ""
    key = f"; {longest.key} shortens it most" if longest.key else ""
    return f"{longest.name} takes {100 * share:.0f} % of the time{key}"


def as_json(found: Estimate) -> dict[str, Any]:
    """Return the estimate for programs. Times are in seconds, sizes in bytes."""
    low, high = found.range
    return {
        "seconds": found.seconds,
        "seconds_low": low,
        "seconds_high": high,
        "bytes": found.bytes,
        "memory": found.memory,
        "slowdown": found.slowdown,
        "timed": found.timed,
        "notes": found.notes,
        "stages": [_stage(stage) for stage in found.stages],
    }


def _stage(stage: StageEstimate) -> dict[str, Any]:
    return {
        "stage": stage.name,
        "what": stage.what,
        "runs": stage.runs,
        "seconds": stage.seconds,
        "seconds_low": stage.low,
        "seconds_high": stage.high,
        "bytes": stage.bytes,
        "memory": stage.memory,
    }


def note_total(found: Estimate) -> None:
    """Print the total in one line, as a note."""
    print_note(total_line(found))
