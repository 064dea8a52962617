"""`moclip predict`: predict the action in clips, with the trained models or an exported bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from moclip.errors import MoclipError, ModelError, VideoError, missing_model
from pipeline import params as parameters
from pipeline import paths
from pipeline.console.command import while_importing
from pipeline.console.output import print_clip_errors, print_damage, print_note
from pipeline.console.progress import show_hub_progress, show_progress
from pipeline.demo_clip import demo_clip_warning
from pipeline.encoder_source import ENCODER_KEYS, encoder_source
from pipeline.io import rounded
from pipeline.options import Workers, cpu_count
from pipeline.params import Params
from pipeline.predict_answers import (
    REJECT_COLUMNS,
    background_name,
    csv_text,
    print_table,
    rejected,
    top_classes,
)
from pipeline.stage import command

if TYPE_CHECKING:
    from moclip.inference.predictor import Predictor

BundleOption = Annotated[
    str | None,
    typer.Option(
        "--bundle",
        metavar="DIR|ID",
        help="What `moclip export` wrote: a folder, or OWNER/NAME of the hub (@REVISION).  "
        "[default: the models of dvc repro]",
    ),
]

RuntimeOption = Annotated[
    Literal["torch", "onnxruntime"],
    typer.Option(help="What runs the networks: onnxruntime takes half the time on a CPU, and ten seconds to start."),
]

PREDICT_KEYS = (
    "seed",
    "index.transcode",
    "mv.canvas",
    "mv.cell",
    "mv.clip",
    "mv.accumulate",
    "mv.per",
    "dataset.shots",
    "dataset.base_to_new",
    *ENCODER_KEYS,
    "clip.frames",
    "clip.choice",
    "evaluate.protocol",
    "evaluate.crop",
)
"""The keys that decide how a clip is read for the models, for a command to declare."""


@command(*PREDICT_KEYS)
def predict(
    params: Params | None,
    clips: Annotated[
        list[Path], typer.Argument(help="Clips, folders of clips, or patterns in quotes.", show_default=False)
    ],
    top: Annotated[int, typer.Option("--top", "-k", min=1, help="How many classes of each stream to show.")] = 3,
    labels: Annotated[
        str | None, typer.Option(help='Choose from these labels, without training: "a, b, c".', show_default=False)
    ] = None,
    from_bundle: BundleOption = None,
    reject: Annotated[
        bool, typer.Option("--reject", help='Answer "unknown" for clips that none of the classes fits.')
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV: a row per clip and rank.")] = False,
    runtime: RuntimeOption = "torch",
    workers: Workers = cpu_count(),
) -> None:
    """Predict the action in clips, with the models that `dvc repro` trained.

    Shows the most probable classes of fusion, of motion alone and, if clip.model encodes texts, of zero-shot CLIP.
    First comes the stream to trust, which was chosen on the validation clips. With --reject, this stream answers
    "unknown" below a threshold that most validation clips reach (evaluate.reject_coverage). If the clips of the
    training had several labels, the predicted classes are marked, and listed even below the first --top. A clip that
    cannot be read is reported, and the others are predicted. The exit code is 1 if no clip could be read.
    """
    with while_importing():
        from moclip.video.clip_files import find_clips

    if as_json and as_csv:
        raise MoclipError("--json and --csv exclude each other")
    if reject and labels is not None:
        raise MoclipError("--reject and --labels exclude each other: no clip of these labels was validated")
    files = find_clips(clips)
    predictor = chosen_predictor(params, from_bundle, reject, runtime)
    if reject and predictor.rejection is None:
        raise no_rejection_error(predictor, from_bundle)
    if labels is not None:
        predictor = predictor.with_labels([label.strip() for label in labels.split(",") if label.strip()])
    results: list[dict[str, Any]] = []
    with show_progress("predict", len(files)) as advance:
        # worker processes protect clips from a crash on another one; a single clip is faster without
        answers = predictor.predict(files) if len(files) == 1 else predictor.predict_in_processes(files, workers)
        for path, answer in zip(files, answers, strict=True):
            results.append({"clip": str(path)} | top_classes(answer, top) | (rejected(answer) if reject else {}))
            advance(1)
    if as_json:
        print(json.dumps(rounded(results), indent=2))  # ASCII, which every terminal can show
    elif as_csv:
        print(csv_text(results, REJECT_COLUMNS if reject else ()), end="")
    else:
        print_table(results, background_name(predictor))
        if params and not from_bundle:
            warning = demo_clip_warning(params.clip.model, params.clip.models, params.dataset.root)
            if warning:
                print_note(warning)
    for result in results:
        if "damage" in result:
            print_damage(result["clip"], result["damage"])
    failed = [result for result in results if "error" in result]
    print_clip_errors((result["clip"], result["error"], result["fix"]) for result in failed)
    if len(failed) == len(results):
        raise VideoError("no clip could be read", fix="see the reasons above")


def chosen_predictor(
    params: Params | None, bundle: str | None, reject: bool = False, runtime: str = "torch"
) -> Predictor:
    """Load a bundle if one is named, else the models that `dvc repro` trained. Raises MoclipError.

    `bundle` is a folder, or an id of the hub, perhaps with a revision: "me/gym@v1".
    """
    if bundle:
        show_hub_progress()
        with while_importing():
            from moclip.inference.bundle import load_bundle
        return load_bundle(bundle).with_runtime(runtime)
    if params is None:
        raise parameters.missing_file_error(paths.PARAMS, "or name a bundle: --bundle DIR")
    return load_predictor(params, reject).with_runtime(runtime)


def no_rejection_error(predictor: Predictor, bundle: str | None) -> ModelError:
    """Return the error for models that do not say when a clip is unknown."""
    if predictor.fusion.config.multi_label:
        what = "the clips of the training have several labels: one of which no label reaches its threshold has none"
        return ModelError(what, where=bundle or paths.FUSION, fix="omit --reject")
    what = "it does not say when a clip is unknown: an earlier version exported it"
    return ModelError(what, where=bundle, fix="export it again, or omit --reject")


def load_predictor(params: Params, reject: bool = False) -> Predictor:
    """Load the models that `dvc repro` trained. Raises MoclipError if they are missing or do not belong together.

    With `reject`, also what `evaluate` chose: when a clip is unknown.

    Missing models are reported before PyTorch and transformers are imported, which takes seconds.
    """
    for path, maker in ((paths.MV_TSN, "train_mv"), (paths.FUSION, "train_fusion")):
        if not path.exists():
            raise missing_model(path, maker)
    with while_importing():
        from moclip.inference.clip_input import FieldSettings, ViewSettings
        from moclip.inference.predictor import Predictor
        from moclip.models.device import pick_device
        from moclip.models.encoders.registry import load_encoder
        from moclip.models.fusion import load_fusion
        from moclip.models.mv_tsn import load_mv_tsn
        from pipeline.consistency import check_consistent  # imports zarr and pandas, which bundles do not need
        from pipeline.rejection_file import read_rejection
        from pipeline.verdict import trusted_stream

    inputs = check_consistent(params)
    device = pick_device()
    mv_tsn, mv, source = load_mv_tsn(paths.MV_TSN), params.mv, encoder_source(params)
    fields = FieldSettings(bool(params.index.transcode), mv.canvas, mv.cell, mv.clip, mv.accumulate, mv.per)
    segments, crops = params.evaluate.views
    return Predictor(
        mv_tsn.to(device),
        load_fusion(paths.FUSION).to(device),
        load_encoder(source, device) if source else None,
        tuple(mv_tsn.config.classes),
        inputs.text_features(),
        fields,
        ViewSettings(
            segments,
            crops,
            params.evaluate.crop,
            params.clip.frames if source else 0,
            params.clip.choice,
            params.seed,
            mv_tsn.config.stack,
        ),
        trusted=trusted_stream(),
        rejection=read_rejection(inputs) if reject else None,
    )


if __name__ == "__main__":
    predict()
