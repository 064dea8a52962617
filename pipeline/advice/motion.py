"""Findings on what was read from the clips: motion of the camera, and test clips that look like train clips."""

from __future__ import annotations

import numpy as np

from moclip.data.balance import spaced_rows
from moclip.data.camera_motion import moving_shares
from moclip.data.clip_batches import SampledFields, SplitClips
from moclip.data.look_alikes import most_similar
from moclip.data.selection import usable_clips
from moclip.errors import MoclipError
from moclip.motion.quantise import LEVELS
from moclip.wording import shorten_list
from pipeline.advice.finding import Finding, has_key
from pipeline.advice.splits import is_copied_across_splits
from pipeline.demo_clip import is_demo_clip
from pipeline.inputs import Inputs
from pipeline.params import Params, describe

MOST_CLIPS, FRAMES = 500, 8
"""Clips, spread over the index, and frames of each that are read."""
MOVING = {False: 0.5, "grid": 2.0, "pixel": 2.0}
"""Px by which the median vector of a picture that moves as a whole is long, by mv.accumulate."""
OFTEN, MANY = 0.5, 0.25
"""A clip moves as a whole if this share of its frames does. From this share of such clips on, it is a finding."""
ALIKE, TYPICAL = 0.98, 0.9
"""Cosine of the features of clips that show the same scene, and of any two clips where CLIP tells nothing apart."""


def camera_findings(inputs: Inputs, params: Params) -> list[Finding]:
    """Return a finding if the whole picture moves in many clips. Raises MoclipError without current motion fields."""
    rows = inputs.motion_rows()
    rows = rows.iloc[spaced_rows(len(rows), MOST_CLIPS)]
    clips = SplitClips.of(rows)
    pixels = MOVING[params.mv.accumulate]
    fields = SampledFields.of(inputs.artifacts.field_reader(), rows)
    moves = moving_shares(fields, clips, FRAMES, pixels * LEVELS / params.mv.clip) >= OFTEN
    if moves.mean() < MANY:
        return []
    what = f"the whole picture moves for half of the time or more: {moves.sum()} of {len(rows)} clips"
    advice = "use clips whose camera is fixed, or moves alike in all classes; look at one: moclip draw CLIP"
    if has_key("tsn.stabilise"):
        advice = f"set tsn.stabilise, which removes motion of the camera; {advice}"
    names = shorten_list(rows.loc[moves, "id"])
    return [Finding("camera", f"{what}: {names}", advice, {"clips": int(moves.sum()), "of": len(rows)})]


def look_alike_findings(inputs: Inputs, params: Params) -> list[Finding]:
    """Return a finding if test clips look like clips of train or val. Raises MoclipError without current features.

    Also raises MoclipError where CLIP does not tell clips apart, so that nothing follows from its features.
    """
    pictures = inputs.artifacts.clip_image
    if pictures is None:
        raise MoclipError("clip.model is false", fix="set clip.model to an encoder")
    if is_demo_clip(params.clip.model):
        raise MoclipError("the demo's CLIP does not tell scenes apart", fix="set clip.model to another CLIP")
    usable = usable_clips(inputs.clips.index)
    usable = usable[usable["id"].isin(pictures.ids) & ~is_copied_across_splits(usable)]
    test, others = (
        usable.loc[usable["split"].isin(splits), "id"].to_list() for splits in (("test",), ("train", "val"))
    )
    test_features, other_features = inputs.mean_still_features(test), inputs.mean_still_features(others)
    typical = float(np.median(test_features @ other_features.mean(axis=0)))
    if typical > TYPICAL:
        what = f"to this CLIP all clips look alike, with a mean cosine of {typical:.2f}"
        raise MoclipError(what, fix="set clip.model to another CLIP")
    nearest, cosines = most_similar(test_features, other_features)
    order = np.argsort(-cosines, kind="stable")
    pairs = [(test[row], others[nearest[row]]) for row in order[cosines[order] >= ALIKE]]
    if not pairs:
        return []
    texts = shorten_list(f"{one} and {other}" for one, other in pairs)
    what = f"{len(pairs)} of {len(test)} test clips look like a clip of train or val: {texts}"
    advice = "look at these pairs; name clips of one scene as one source (gNN in the name), or in the same list"
    if "lookalike" in describe("dataset.group")[1]:
        advice = "look at these pairs; if they show the same scenes, set dataset.group: lookalike"
    elif len(pairs) > len(test) / 2:
        advice = "accuracy holds for the scenes of the train clips only; to measure others, keep whole scenes for test"
    figures = {"pairs": pairs, "least_cosine": ALIKE}
    return [Finding("look-alikes", what, advice, figures)]
