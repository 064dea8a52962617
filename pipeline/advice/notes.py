"""What the index alone tells of a data set: all of it for `moclip advise`, the first lines for the stage `index`."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from pipeline.advice.classes import class_findings
from pipeline.advice.finding import Finding
from pipeline.advice.splits import split_findings
from pipeline.advice.videos import video_findings

MOST_NOTES = 4


def index_findings(index: pd.DataFrame, has_lists: bool) -> list[Finding]:
    """Return the findings that follow from an index, whatever the parameters of later stages are."""
    return [*split_findings(index, has_lists), *class_findings(index, has_lists), *video_findings(index)]


def index_notes(index: pd.DataFrame, has_lists: bool) -> Iterator[str]:
    """Yield the first few of these findings, a line each, and how to see what to do."""
    findings = index_findings(index, has_lists)
    yield from (f"{finding.about}: {finding.found}" for finding in findings[:MOST_NOTES])
    if findings:
        more = f" and {len(findings) - MOST_NOTES} more" if len(findings) > MOST_NOTES else ""
        yield f"what to do about these{more}: moclip advise"
