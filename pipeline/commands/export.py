"""`moclip export`: the trained models in one folder that works without DVC. Not a stage of the DAG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline import paths
from pipeline.commands.predict import PREDICT_KEYS, load_predictor
from pipeline.console.command import while_importing
from pipeline.console.output import STREAM_LABELS, print_note
from pipeline.io import read_json
from pipeline.params import Params
from pipeline.stage import stage

if TYPE_CHECKING:
    import numpy as np

    from moclip.inference.predictor import Predictor
    from pipeline.inputs import Inputs

CHECKED_CLIPS = 16


@stage("dataset.root", *PREDICT_KEYS)
def export(
    params: Params,
    folder: Annotated[Path, typer.Argument(help="Folder to write; an earlier bundle there makes way.")],
    onnx: Annotated[bool, typer.Option("--onnx", help="MV-TSN and the head also as an ONNX graph.")] = False,
    without_clip: Annotated[
        bool, typer.Option("--without-clip", help="Name CLIP by its hub id instead of copying it.")
    ] = False,
) -> None:
    """Put the trained models into one folder that works without DVC.

    For `moclip predict --bundle DIR` and `moclip.load(DIR)`: weights, classes, text features, how a clip is looked at,
    and a model card with the scores of the last run. The ONNX graph is run on test clips and must give the same logits.
    """
    with while_importing():
        from moclip.inference.bundle import save_bundle
        from pipeline.consistency import check_consistent, check_scores

    predictor, inputs = load_predictor(params), check_consistent(params)
    check_scores(inputs)
    examples = _examples(predictor, inputs) if onnx else None
    about, revision = _about(params, folder, inputs), params.clip.revision or None
    gap = save_bundle(predictor, folder, params.clip.model, not without_clip, about, examples, revision)
    if examples and gap is not None:
        print_note(f"export: onnxruntime gives the networks' logits of {len(examples[0])} clips within {gap:.1e}")
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print_note(f"export: {folder}, {size / 1e6:.1f} MB; try: moclip predict --bundle {folder} CLIP")


def _about(params: Params, folder: Path, inputs: Inputs) -> dict[str, Any]:
    """What config.json and the card say of scores and data."""
    from moclip.data.selection import tally, usable_clips

    scores = {name: read_json(path, "evaluate") for name, path in paths.STREAM_JSON.items()}
    fusion = scores["fusion"]
    return {
        "name": folder.resolve().name,
        "streams": {name: {"title": STREAM_LABELS[name]} | one for name, one in scores.items() if one},
        "cost": read_json(paths.COST_JSON, "evaluate"),
        "data": {
            "name": "/".join(Path(params.dataset.root).resolve().parts[-2:]),
            "fingerprint": inputs.fingerprint(),
            "splits": tally(usable_clips(inputs.index)["split"]),
            "test": {
                "clips": fusion["n"],
                "left_out": sum(fusion["skipped"].values()),
                "fingerprint": fusion["fingerprint"],
            },
        },
        "params": params.model_dump(mode="json"),
    }


def _examples(predictor: Predictor, inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """Fields (B, S, 2, rows, columns) and stills (B, K, P) of some test clips, from the stores."""
    import numpy as np

    rows = inputs.fused_rows("test")
    chosen = set(rows["id"].iloc[np.linspace(0, len(rows) - 1, min(CHECKED_CLIPS, len(rows))).astype(int)])
    moving = inputs.motion_rows("test")
    picked = moving["id"].isin(chosen).to_numpy()
    segments = predictor.views.segments
    fields = inputs.fields().read_async(inputs.motion_clips("test")[picked], segments)()
    stills = inputs.stills(list(moving["id"][picked]))
    return fields.reshape(-1, segments, *fields.shape[1:]), np.ascontiguousarray(stills, np.float32)


if __name__ == "__main__":
    export()
