"""Stage `clip_text`: class phrases and prompt templates -> data/features/clip_text.zarr, a row per class."""

from __future__ import annotations

from pathlib import Path

from pipeline import paths
from pipeline.console.command import while_importing
from pipeline.console.output import print_note
from pipeline.params import NO_FILE, Params
from pipeline.stage import stage


@stage("store", "dataset.phrases", "clip.model", "clip.revision", "clip.prompts")
def clip_text(params: Params) -> None:
    """Encode the class prompts with CLIP's text tower.

    A class's feature is the mean over every template with every phrase, of unit length. Writes
    data/features/clip_text.zarr. If `store` is a URL, the features go there and clip_text.zarr is a link.
    """
    with while_importing():
        from moclip.data.selection import class_names
        from moclip.models.class_texts import read_phrases, read_prompts, text_features
        from moclip.models.clip_encoder import ClipEncoder
        from moclip.models.device import pick_device
        from moclip.models.hub_files import files_digest
        from moclip.store.features import write_features
        from moclip.video.clip_files import file_md5
        from pipeline.index_file import read_index
        from pipeline.provenance import made_with

    classes = class_names(read_index(params))
    templates = read_prompts(Path(params.clip.prompts))
    phrases_file = params.dataset.phrases
    phrases = read_phrases(None if phrases_file == NO_FILE else Path(phrases_file), classes)
    revision = params.clip.revision or None
    clip = ClipEncoder(params.clip.model, pick_device(), revision)
    features = text_features(clip, classes, phrases, templates)
    write_features(
        paths.CLIP_TEXT,
        classes,
        {"features": (features, ("feature",))},
        {
            "made_with": made_with(params, "clip.model", "clip.revision", "clip.prompts", "dataset.phrases"),
            "files": {path: file_md5(Path(path)) for path in (params.clip.prompts, phrases_file) if path != NO_FILE},
            "clip": files_digest(params.clip.model, revision),
            "model": params.clip.model,
            "logit_scale": clip.logit_scale,
            "prompts": templates,
            "phrases": phrases,
        },
        params.store or None,
    )
    print_note(
        f"clip_text: {len(classes)} classes x {len(templates)} prompts, {clip.width} features, from {params.clip.model}"
    )


if __name__ == "__main__":
    clip_text()
