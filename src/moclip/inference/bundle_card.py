"""The model card of a bundle, in the hub's format, and its example program."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCardData

from moclip.models.encoders.source import OPEN_CLIP, EncoderSource
from moclip.models.hub_files import timm_repository

TAGS = ("action-recognition", "motion-vectors", "compressed-video", "clip")


def model_card(config: Mapping[str, Any], encoder: EncoderSource | None) -> str:
    """Return the model card (the hub's documentation, "Model Cards"): results as metadata, then in words.

    `config` is what config.json holds, `encoder` what the encoder was loaded from.
    """
    results = _results(config)
    metadata = ModelCardData(
        model_name=config["name"],
        library_name="moclip",
        license=config.get("licence"),
        pipeline_tag="video-classification",
        tags=list(TAGS),
        metrics=sorted({result.metric_type for result in results}),
        base_model=_base_model(encoder),
        eval_results=results,
    )
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    template = environment.from_string(_template("model_card.md"))
    values = {"multi_label": False, "licence": None, "hub": None, **config}
    return template.render(metadata=metadata.to_yaml(), **values)


def example_program() -> str:
    """Return the program that classifies clips with the bundle beside it."""
    return _template("inference.py.txt")


def _template(name: str) -> str:
    return resources.files("moclip").joinpath(f"templates/{name}").read_text(encoding="utf-8")


def _results(config: Mapping[str, Any]) -> list[EvalResult]:
    """Return the scores of the streams on the test clips. The hub has no data set of this name, so it is no id."""
    data = config["data"]
    return [
        EvalResult(
            task_type="video-classification",
            dataset_type=data["name"].replace("/", "-"),
            dataset_name=data["name"],
            dataset_split="test",
            metric_type="mean_average_precision" if "map" in stream else "accuracy",
            metric_name=f"{'mAP' if 'map' in stream else 'top-1'}, {stream['title']}",
            metric_value=stream.get("map", stream["top1"]),
        )
        for stream in config["streams"].values()
    ]


def _base_model(encoder: EncoderSource | None) -> str | list[str] | None:
    """Return the hub's ids of the encoders: one, several, or None if the hub has none of them."""
    if encoder is None:
        return None
    ids = [hub_id for source in encoder.each if (hub_id := _hub_id(source))]
    return ids[0] if len(ids) == 1 else ids or None


def _hub_id(source: EncoderSource) -> str | None:
    if source.is_local:
        return None
    return timm_repository(source.timm_name) if source.timm_name else source.model.removeprefix(OPEN_CLIP)
