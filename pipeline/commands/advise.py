"""`moclip advise`: tell what the data set suffers from, and what to do about it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moclip.errors import MoclipError
from pipeline import paths
from pipeline.console.command import while_importing
from pipeline.console.output import print_lines, wrapped
from pipeline.demo_clip import find_demo_clip
from pipeline.io import read_json, rounded
from pipeline.params import Params
from pipeline.stage import command

if TYPE_CHECKING:
    from pipeline.advice.finding import Finding


@dataclass(frozen=True)
class NotChecked:
    """What could not be checked, and why."""

    about: str
    reason: str


@command("tsn.segments", "tsn.flip", "evaluate.protocol", "clip.model")
def advise(
    params: Params,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Tell what the data set suffers from, and which key of params.yaml to set or what else to do.

    Reads data/index.parquet: classes, splits, sources, copies, lengths, frame rates, codecs, picture sizes. Motion of
    the camera needs the motion fields (extract_mv), and test clips that look like train clips need CLIP's features
    (clip_image); without them, it says so.
    """
    findings, not_checked = _check_all(params)
    if as_json:
        content: dict[str, list[Any]] = {"findings": findings, "not_checked": not_checked}
        print(json.dumps(rounded({name: [asdict(one) for one in ones] for name, ones in content.items()}), indent=2))
        return
    lines = [line for one in findings for line in (f"{one.about}: {one.found}", f"  {one.advice}")]
    lines += [f"not checked: {one.about}: {one.reason}" for one in not_checked]
    lines = [wrapped(line, indent="  ") for line in (lines if findings else ["nothing found", *lines])]
    print_lines("\n".join(lines), sys.stdout)


def _check_all(params: Params) -> tuple[list[Finding], list[NotChecked]]:
    with while_importing():
        from pipeline.advice.finding import Finding
        from pipeline.advice.from_index import all_index_findings
        from pipeline.advice.motion import camera_findings, look_alike_findings
        from pipeline.index_file import SEEDED
        from pipeline.inputs import Inputs

    inputs = Inputs(params)
    index = inputs.clips.index
    has_lists = not read_json(paths.INDEX_COUNTS, "index")["split_source"].startswith(SEEDED)
    findings = all_index_findings(index, has_lists, params)
    not_checked = []
    for about, check in {
        "motion of the camera": lambda: camera_findings(inputs, params),
        "test clips that look like train clips": lambda: look_alike_findings(inputs, params),
    }.items():
        try:
            findings += check()
        except MoclipError as problem:
            not_checked.append(NotChecked(about, "; ".join(filter(None, (problem.what, problem.fix)))))
    if found := find_demo_clip(params.clip.model, params.clip.models, params.dataset.root):
        findings.append(Finding("CLIP", *found))
    return findings, not_checked


if __name__ == "__main__":
    advise()
