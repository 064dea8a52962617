"""Stage `clip_text`: class phrases and prompt templates -> data/features/clip_text.zarr, a row per class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from moclip.wording import counted
from pipeline import paths
from pipeline.console.command import while_importing
from pipeline.console.output import print_note
from pipeline.encoder_source import ENCODER_KEYS, TEXT_KEYS, encoder_source, unused_reason
from pipeline.io import write_unused
from pipeline.params import NO_FILE, Params
from pipeline.stage import stage


@stage("store", "dataset.phrases", "clip.prompts", *ENCODER_KEYS)
def clip_text(params: Params) -> None:
    """Encode the class prompts with the text tower of clip.model.

    A class's feature is the mean over every template with every phrase, of unit length. Writes
    data/features/clip_text.zarr. If `store` is a URL, the features go there and clip_text.zarr is a link.
    If clip.model is false, or encodes no texts, clip_text.zarr holds only unused.txt.
    """
    with while_importing():
        from moclip.data.selection import class_names
        from moclip.models.class_texts import read_phrases, read_prompts, text_features
        from moclip.models.device import pick_device
        from moclip.models.encoders.registry import has_text, load_encoder
        from moclip.models.hub_files import files_digest
        from moclip.store.features import write_features
        from moclip.video.clip_files import file_md5
        from pipeline.index_file import read_index
        from pipeline.provenance import made_with

    classes = class_names(read_index(params))
    source = encoder_source(params)
    if source is None or not has_text(source):
        write_unused(paths.CLIP_TEXT, unused_reason(params))
        print_note(f"clip_text: nothing to do, {unused_reason(params)}")
        return
    templates = read_prompts(Path(params.clip.prompts))
    phrases_file = params.dataset.phrases
    phrases = read_phrases(None if phrases_file == NO_FILE else Path(phrases_file), classes)
    encoder: Any = load_encoder(source, pick_device())
    features = text_features(encoder, classes, phrases, templates)
    write_features(
        paths.CLIP_TEXT,
        classes,
        {"features": (features, ("feature",))},
        {
            "made_with": made_with(params, *TEXT_KEYS),
            "files": {path: file_md5(Path(path)) for path in (params.clip.prompts, phrases_file) if path != NO_FILE},
            "clip": files_digest(source),
            "model": params.clip.model,
            "logit_scale": encoder.scale,
            "logit_bias": encoder.bias,
            "prompts": templates,
            "phrases": phrases,
        },
        params.store or None,
    )
    print_note(
        f"clip_text: {counted(len(classes), 'class', 'classes')}, {counted(len(templates), 'prompt')} each, "
        f"{features.shape[1]:,} features, by {source.model}"
    )


if __name__ == "__main__":
    clip_text()
