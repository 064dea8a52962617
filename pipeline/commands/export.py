"""`moclip export`: write the trained models to one folder that works without DVC."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline import paths
from pipeline.commands.predict import PREDICT_KEYS, load_predictor
from pipeline.console.command import while_importing
from pipeline.console.label_scores import stream_titles
from pipeline.console.output import STREAM_LABELS, print_note
from pipeline.io import read_json
from pipeline.params import Params
from pipeline.stage import command

if TYPE_CHECKING:
    import numpy as np

    from moclip.inference.predictor import Predictor
    from pipeline.inputs import Inputs

CHECKED_CLIPS = 16
"""Test clips that the ONNX graph is checked on."""


@command("dataset.root", *PREDICT_KEYS)
def export(
    params: Params,
    folder: Annotated[Path, typer.Argument(help="Folder to write. An earlier bundle there is replaced.")],
    onnx: Annotated[bool, typer.Option("--onnx", help="Also write MV-TSN and the head as an ONNX graph.")] = False,
    without_clip: Annotated[
        bool, typer.Option("--without-clip", help="Record the encoder's hub id instead of copying it.")
    ] = False,
) -> None:
    """Write the trained models to one folder that works without DVC.

    Use it with `moclip predict --bundle DIR` or `moclip.load(DIR)`. It holds weights, classes, text features, the
    settings for reading clips, and a model card with the scores of the last run. The ONNX graph is run on test clips
    and must give the same logits.
    """
    with while_importing():
        from moclip.inference.bundle import save_bundle
        from pipeline.consistency import check_consistent, check_scores

    predictor, inputs = load_predictor(params, reject=True), check_consistent(params)
    check_scores(inputs)
    examples = _example_batch(predictor, inputs) if onnx else None
    details = _card_content(params, folder, inputs)
    difference = save_bundle(predictor, folder, not without_clip, details, examples)
    if examples and difference is not None:
        print_note(f"export: the ONNX graph gives the same logits of {len(examples[0])} clips within {difference:.1e}")
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print_note(f"export: {folder}, {size / 1e6:.1f} MB; try: moclip predict --bundle {folder} CLIP")


def _card_content(params: Params, folder: Path, inputs: Inputs) -> dict[str, Any]:
    """Return what config.json and the model card say about scores and data."""
    from moclip.data.selection import tally, usable_clips
    from moclip.evaluation.verdict import unbalanced_sentence, verdict_sentences

    scores = {name: read_json(path, "evaluate") for name, path in paths.STREAM_JSON.items()}
    fusion, verdict = scores["fusion"], read_json(paths.VERDICT_JSON, "evaluate")
    return {
        "name": folder.resolve().name,
        "streams": {
            name: {"title": stream_titles(STREAM_LABELS, fusion)[name]} | score
            for name, score in scores.items()
            if score
        },
        "verdict": [*unbalanced_sentence(scores["majority"]), *verdict_sentences(verdict, STREAM_LABELS)],
        "cost": read_json(paths.COST_JSON, "evaluate"),
        "data": {
            "name": "/".join(Path(params.dataset.root).resolve().parts[-2:]),
            "fingerprint": inputs.clips.fingerprint(),
            "splits": tally(usable_clips(inputs.clips.index)["split"]),
            "test": {
                "clips": fusion["n"],
                "left_out": sum(fusion["skipped"].values()),
                "fingerprint": fusion["fingerprint"],
            },
        },
        "params": params.model_dump(mode="json"),
    }


def _example_batch(predictor: Predictor, inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """Return fields (B, S, C, rows, columns) and still features (B, K, P) of some test clips, from the stores."""
    import numpy as np

    rows = inputs.fused_rows("test")
    chosen = set(rows["id"].iloc[np.linspace(0, len(rows) - 1, min(CHECKED_CLIPS, len(rows))).astype(int)])
    motion = inputs.motion_rows("test")
    picked = motion["id"].isin(chosen).to_numpy()
    segments = predictor.views.segments
    fields = inputs.sampled_fields(predictor.views.stack).read_async(inputs.motion_clips("test")[picked], segments)()
    stills = inputs.still_features(list(motion["id"][picked]))
    return fields.reshape(-1, segments, *fields.shape[1:]), np.ascontiguousarray(stills, np.float32)


if __name__ == "__main__":
    export()
