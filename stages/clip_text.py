"""Stage `clip_text`: class phrases and prompt templates -> data/features/clip_text.zarr, a row per class."""

from __future__ import annotations

from pathlib import Path

from moclip import dataset
from moclip.clip import Clip, read_phrases, read_prompts, text_features
from moclip.device import pick_device
from moclip.features import write_features
from pipeline import console, paths
from pipeline.io import read_parquet
from pipeline.made import made_with
from pipeline.params import NO_FILE, Params
from pipeline.stage import stage


@stage("store", "dataset.phrases", "clip.model", "clip.prompts")
def clip_text(params: Params) -> None:
    """Encode the class prompts with CLIP's text tower.

    Every template with every phrase of a class, averaged, of unit length. Writes data/features/clip_text.zarr;
    with a URL in `store` it goes there, and clip_text.zarr is a link to it.
    """
    classes = dataset.class_names(read_parquet(paths.INDEX, "index"))
    templates = read_prompts(Path(params.clip.prompts))
    own = params.dataset.phrases
    phrases = read_phrases(None if own == NO_FILE else Path(own), classes)
    clip = Clip(params.clip.model, pick_device())
    features = text_features(clip, classes, phrases, templates)
    write_features(
        paths.CLIP_TEXT,
        classes,
        {"features": (features, ("feature",))},
        {
            "made_with": made_with(params, "clip.model", "clip.prompts", "dataset.phrases"),
            "model": params.clip.model,
            "logit_scale": clip.logit_scale,
            "prompts": templates,
            "phrases": phrases,
        },
        params.store or None,
    )
    console.note(
        f"clip_text: {len(classes)} classes x {len(templates)} prompts, {clip.width} features, from {params.clip.model}"
    )


if __name__ == "__main__":
    clip_text()
