"""Save and load a bundle: all trained models in one folder, written by `moclip export`, read by `moclip.load`.

README.md                   model card, in the hub's format
inference.py                a program that classifies clips with it; earlier versions wrote none
config.json                 classes, prompts, the stream to trust, settings for reading a clip, scores, data, parameters
mv_tsn.safetensors          the motion network
fusion.safetensors          the fusion head
text_features.safetensors   the classes' text features, if the encoder has a text tower
rejection.safetensors       when a clip is of none of the classes; earlier versions wrote none
clip/                       the frozen encoder in its hub's format, unless it is loaded by its hub id
moclip.onnx                 both trained networks for other runtimes, with --onnx
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moclip.errors import ModelError
from moclip.files.atomic import atomic_folder, write_atomically
from moclip.inference.bundle_card import example_program, model_card
from moclip.inference.bundle_files import (
    CARD,
    CLIP,
    CONFIG,
    EXAMPLE,
    FUSION,
    MV_TSN,
    ONNX,
    REJECTION,
    TEXT,
    is_bundle,
    without_machine_paths,
)
from moclip.inference.clip_input import FieldSettings, ViewSettings
from moclip.inference.hub_bundle import bundle_folder
from moclip.inference.predictor import Predictor
from moclip.inference.rejection import load_rejection, save_rejection
from moclip.models.class_texts import ClassTexts
from moclip.models.device import named_device
from moclip.models.encoders.registry import load_encoder
from moclip.models.encoders.source import EncoderSource
from moclip.models.fusion import load_fusion
from moclip.models.mv_tsn import load_mv_tsn
from moclip.models.weights import load_weights, save_weights
from moclip.version import __version__
from moclip.video.clip_files import file_md5

FORMAT, ONE_LABEL = 4, 3
"""The version of the bundle's format; a bundle with a higher number needs a newer moclip.

Only models of clips with several labels need format 4: earlier versions would answer with one class.
"""


def save_bundle(
    predictor: Predictor,
    folder: Path,
    with_clip: bool,
    details: Mapping[str, Any],
    examples: tuple[np.ndarray, np.ndarray] | None = None,
) -> float | None:
    """Write a bundle atomically, replacing an earlier bundle in `folder`.

    Parameters
    ----------
    with_clip : whether the encoder is in the bundle; otherwise it is loaded from its hub later.
    details : goes into config.json and the model card: `name`, `streams` (stream -> title and scores), `verdict`
        (sentences), `cost`, `data`, `params`, perhaps `licence` and `hub` (the id of its repository).
    examples : fields and stills; with them the ONNX graph is written too, and checked on them.

    Returns
    -------
    The result of `export_onnx`; None without `examples`.

    Raises
    ------
    ModelError
        `folder` holds something else, or an encoder in a local folder would be left out.
    """
    if folder.exists() and not is_bundle(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelError("it exists and is not a bundle", where=folder, fix="name a new folder, or an earlier bundle")
    encoder, texts = predictor.encoder, predictor.texts
    if encoder and not with_clip and encoder.source.is_local:
        what = "an encoder in a local folder cannot be left out, because no hub has it"
        raise ModelError(what, where=encoder.source.model, fix="omit --without-clip")
    config = {**_make_config(predictor, with_clip, with_onnx=examples is not None), **details}
    gap = None
    with atomic_folder(folder) as temporary:
        temporary.mkdir()
        predictor.mv_tsn.save(temporary / MV_TSN)
        predictor.fusion.save(temporary / FUSION)
        if texts:
            save_weights(temporary / TEXT, {"features": torch.from_numpy(texts.features)}, {"kind": "text_features"})
        if predictor.rejection:
            save_rejection(temporary / REJECTION, predictor.rejection)
        if encoder and with_clip:
            encoder.save(temporary / CLIP)
        if examples:
            from moclip.inference.onnx_export import export_onnx  # its packages are an extra

            gap = export_onnx(predictor, temporary / ONNX, *examples)
        config["files"] = {path.name: file_md5(path) for path in sorted(temporary.glob("*.safetensors"))}
        write_atomically(temporary / CONFIG, (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode())
        write_atomically(temporary / CARD, model_card(config, encoder.source if encoder else None).encode())
        write_atomically(temporary / EXAMPLE, example_program().encode())
    return gap


def load_bundle(folder: str | Path, device: str | torch.device | None = None, revision: str | None = None) -> Predictor:
    """Load the predictor of a bundle, by default on the GPU if there is one.

    `folder` may be an id of the hub, whose `revision` is a branch, tag or commit. Raises ModelError.
    """
    folder = bundle_folder(folder, revision)
    if not is_bundle(folder):
        raise ModelError("no bundle here", where=folder, fix="write one in the project: moclip export DIR")
    config = read_bundle_config(folder)
    _check_files(folder, config)
    device = named_device(device)
    try:
        mv_tsn, fusion = load_mv_tsn(folder / MV_TSN), load_fusion(folder / FUSION)
        texts = _load_texts(folder, config)
        rejection = load_rejection(folder / REJECTION) if (folder / REJECTION).exists() else None
    except ModelError as problem:
        raise ModelError(problem.what, where=problem.where, fix="export the bundle again") from None
    if tuple(config["classes"]) != mv_tsn.config.classes or len(config["classes"]) != fusion.config.classes:
        raise ModelError(
            "its classes are not those of the models", where=folder / CONFIG, fix="export the bundle again"
        )
    fields, views = config["fields"], config["views"]
    return Predictor(
        mv_tsn.to(device),
        fusion.to(device),
        load_encoder(_encoder_source(folder, config["clip"]), device) if config["clip"] else None,
        tuple(config["classes"]),
        texts,
        FieldSettings(**fields | {"canvas": tuple(fields["canvas"])}),
        ViewSettings(**views),
        trusted=config.get("trusted", "fusion"),  # earlier versions wrote none
        rejection=rejection,
    )


def _check_files(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise ModelError if a file is not the one that the bundle was written with. Earlier versions noted none.

    A missing file is an error only for those who need it.
    """
    for name, digest in config.get("files", {}).items():
        path = folder / name
        if path.exists() and file_md5(path) != digest:
            what = "not the file that this bundle was exported with"
            raise ModelError(what, where=path, fix="export the bundle again, or copy all of it")


def _make_config(predictor: Predictor, with_clip: bool, with_onnx: bool) -> dict[str, Any]:
    """Return what config.json says of the models; `save_bundle` adds the details."""
    encoder, texts = predictor.encoder, predictor.texts
    return {
        "format": FORMAT if predictor.fusion.config.multi_label else ONE_LABEL,
        "moclip": __version__,
        "classes": predictor.classes,
        "texts": {"prompts": texts.prompts, "scale": texts.scale, "bias": texts.bias} if texts else None,
        "trusted": predictor.trusted,
        **({"multi_label": True} if predictor.fusion.config.multi_label else {}),
        "fields": asdict(predictor.fields),
        "views": asdict(predictor.views),
        "clip": {**_recorded_source(encoder.source, with_clip), "included": with_clip} if encoder else None,
        "onnx": ONNX if with_onnx else None,
    }


def _recorded_source(source: EncoderSource, included: bool) -> dict[str, Any]:
    """Return where the encoder came from. It is loaded from there again only if it is not in the bundle."""
    return dict(without_machine_paths(asdict(source))) if included else asdict(source)


def _load_texts(folder: Path, config: Mapping[str, Any]) -> ClassTexts | None:
    if "logit_scale" in config:  # formats 1 and 2
        made = {"scale": config["logit_scale"], "bias": 0.0, "prompts": config["prompts"]}
    else:
        made = config["texts"]
    if made is None:
        return None
    features = load_weights(folder / TEXT, "clip_text")[0]["features"].numpy()
    return ClassTexts(features, float(made["scale"]), float(made["bias"]), tuple(made["prompts"]))


def _encoder_source(folder: Path, recorded: Mapping[str, Any]) -> EncoderSource:
    """Return where a bundle's encoder is loaded from. Formats 1 and 2 record its name and revision only."""
    values = {"model": recorded["name"]} if "name" in recorded else {}
    values |= {name: recorded[name] for name in EncoderSource.__annotations__ if name in recorded}
    values["others"] = tuple(EncoderSource(**other) for other in values.get("others", ()))
    source = EncoderSource(**values)
    if not recorded["included"]:
        return source
    parts = source.each
    folders = [folder / CLIP / str(number) for number in range(len(parts))] if source.others else [folder / CLIP]
    one, *others = (
        replace(part, model=str(place), weights=None, revision=None) for part, place in zip(parts, folders, strict=True)
    )
    return replace(one, others=tuple(others))


def read_bundle_config(folder: Path) -> dict[str, Any]:
    """Read a bundle's config.json. Raises ModelError."""
    path = folder / CONFIG
    try:
        config = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as problem:
        raise ModelError(f"not valid JSON: {problem}", where=path, fix="export the bundle again") from None
    if config.get("format", 0) > FORMAT:
        what = f"written by moclip {config.get('moclip')}, but this is moclip {__version__}"
        raise ModelError(what, where=path, fix="update moclip")
    needed = ("classes", "fields", "views", "clip", "prompts" if "logit_scale" in config else "texts")
    if lacking := [name for name in needed if name not in config]:
        raise ModelError(f"it lacks {', '.join(lacking)}", where=path, fix="export the bundle again")
    return config
