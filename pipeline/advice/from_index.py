"""What the index alone tells of a data set: for `moclip advise`, the stage `index` and the report."""

from __future__ import annotations

import pandas as pd

from moclip.data.selection import class_names
from pipeline.advice.classes import class_findings, mirror_findings
from pipeline.advice.finding import Finding
from pipeline.advice.splits import split_findings
from pipeline.advice.videos import length_findings, unusable_findings, video_findings
from pipeline.params import Params


def index_findings(index: pd.DataFrame, has_lists: bool) -> list[Finding]:
    """Return the findings that follow from an index, whatever the parameters of later stages are."""
    return [*split_findings(index, has_lists), *class_findings(index, has_lists), *video_findings(index)]


def all_index_findings(index: pd.DataFrame, has_lists: bool, params: Params) -> list[Finding]:
    """Return these findings, those that depend on parameters of later stages, and those on clips without use."""
    return [
        *index_findings(index, has_lists),
        *mirror_findings(class_names(index), params),
        *length_findings(index, params),
        *unusable_findings(index),
    ]
