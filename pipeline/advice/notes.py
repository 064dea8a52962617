"""The first lines of what the index tells of a data set, for the stage `index`."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from pipeline.advice.classes import tells_missing_classes
from pipeline.advice.from_index import index_findings
from pipeline.doctor.machine import memory_limit, size_text

MOST_NOTES = 4


def index_notes(index: pd.DataFrame, has_lists: bool) -> Iterator[str]:
    """Yield the first few of these findings, a line each, and how to see what to do.

    Classes without clips in a split are left out: `class_shortages` has a line for each of them.
    """
    yield from _memory_notes(index)
    findings = [one for one in index_findings(index, has_lists) if not tells_missing_classes(one)]
    yield from (f"{finding.about}: {finding.found}" for finding in findings[:MOST_NOTES])
    if findings:
        more = f" and {len(findings) - MOST_NOTES} more" if len(findings) > MOST_NOTES else ""
        yield f"what to do about these{more}: moclip advise"


def _memory_notes(index: pd.DataFrame) -> Iterator[str]:
    """Yield a line if clips are damaged and memory is limited: FFmpeg does not tell one from the other in H.264."""
    limit = memory_limit()
    damaged = (index["damage"] != "") | (index["status"] == "failed")
    if limit is not None and damaged.any():
        yield (
            f"ulimit -v limits memory to {size_text(limit)}, and a clip looks damaged where memory is refused; to "
            "see whether it is, run: ulimit -v unlimited; dvc repro -f index"
        )
