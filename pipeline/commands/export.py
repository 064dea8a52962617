"""`moclip export`: write the trained models to one folder that works without DVC, or to the model hub."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moclip.errors import MoclipError
from pipeline import paths
from pipeline.commands.predict import PREDICT_KEYS, load_predictor
from pipeline.console.command import while_importing
from pipeline.console.label_scores import stream_titles
from pipeline.console.output import STREAM_LABELS, print_note
from pipeline.console.progress import show_hub_progress
from pipeline.io import read_json
from pipeline.params import Params
from pipeline.stage import command

if TYPE_CHECKING:
    import numpy as np

    from moclip.inference.hub_bundle import HubId
    from moclip.inference.predictor import Predictor
    from pipeline.inputs import Inputs

CHECKED_CLIPS = 16
"""Test clips that the ONNX graph is checked on."""


@command("dataset.root", *PREDICT_KEYS)
def export(
    params: Params,
    folder: Annotated[
        Path | None,
        typer.Argument(help="Folder to write. An earlier bundle there is replaced.", show_default=False),
    ] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Also write MV-TSN and the head as an ONNX graph.")] = False,
    without_clip: Annotated[
        bool, typer.Option("--without-clip", help="Record the encoder's hub id instead of copying it.")
    ] = False,
    licence: Annotated[
        str | None,
        typer.Option(
            "--licence", "--license", help="Licence of the models, such as mit, cc-by-4.0 or other.", show_default=False
        ),
    ] = None,
    push: Annotated[
        str | None,
        typer.Option(help="Upload it to this repository of the hub: OWNER/NAME or OWNER/NAME@BRANCH.", metavar="ID"),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="With --push: only you can read a new repository.")
    ] = False,
) -> None:
    """Write the trained models to one folder that works without DVC, or upload it to the model hub.

    Use it with `moclip predict --bundle DIR` or `moclip.load(DIR)`. It holds weights, classes, text features, the
    settings for reading clips, and a model card with the scores of the last run. The ONNX graph is run on test clips
    and must give the same logits. With --push, DIR may be omitted; the upload is one commit, and replaces an earlier
    bundle there. It needs a token with write access: HF_TOKEN, or `hf auth login`.
    """
    if folder is None and push is None:
        raise MoclipError("name a folder, or a repository of the hub with --push", where="moclip export")
    if private and push is None:
        raise MoclipError(
            "--private is for a repository of the hub", where="moclip export", fix="add --push OWNER/NAME"
        )
    target = _push_target(push) if push else None
    chosen = _checked_licence(licence or (_asked_licence() if target else None))
    with _folder_to_write(folder, target) as place:
        details = {"licence": chosen, "hub": target.name if target else None}
        _write(params, place, onnx, not without_clip, {name: value for name, value in details.items() if value})
        size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file()) / 1e6
        if folder is not None:
            print_note(f"export: {folder}, {size:.1f} MB; try: moclip predict --bundle {folder} CLIP")
        if target:
            _push(place, target, private, size)


def _asked_licence() -> str:
    """Ask for the licence on a terminal. Raises MoclipError elsewhere, or without an answer."""
    answer = ""
    if sys.stdin.isatty() and sys.stderr.isatty():
        print("Licence of the models (mit, apache-2.0, cc-by-4.0, cc-by-nc-4.0, other, ...): ", end="", file=sys.stderr)
        sys.stderr.flush()
        answer = sys.stdin.readline().strip()
    if not answer:
        fix = "add --licence mit, or another one that the hub knows: cc-by-4.0, apache-2.0, other"
        raise MoclipError("a model on the hub needs a licence", where="moclip export --push", fix=fix)
    return answer


def _checked_licence(licence: str | None) -> str | None:
    """Return it as the hub writes licences. The hub itself knows which there are."""
    if licence and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", licence):
        fix = "name one that the hub knows: mit, apache-2.0, cc-by-4.0, other"
        raise MoclipError(f"{licence!r} is no name of a licence", where="--licence", fix=fix)
    return licence.lower() if licence else None


def _push_target(push: str) -> HubId:
    """Return the repository to upload to. Raises MoclipError where that is sure to fail."""
    show_hub_progress()
    with while_importing():
        from moclip.inference.hub_bundle import HubId
        from moclip.inference.hub_push import check_push

    target = HubId.parse(push)
    if target is None:
        raise MoclipError("not an id of the hub", where=f"--push {push}", fix="name it OWNER/NAME, such as me/gym")
    check_push(target)
    return target


@contextmanager
def _folder_to_write(folder: Path | None, target: HubId | None) -> Iterator[Path]:
    """Yield the folder of the bundle: a temporary one, named like the repository, if none is named."""
    if folder is not None:
        yield folder
    elif target:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary, target.name.partition("/")[2])


def _write(params: Params, folder: Path, onnx: bool, with_clip: bool, published: dict[str, str]) -> None:
    """Write the bundle; `published` is what the card says of licence and repository."""
    with while_importing():
        from moclip.inference.bundle import save_bundle
        from pipeline.consistency import check_consistent, check_scores

    predictor, inputs = load_predictor(params, reject=True), check_consistent(params)
    check_scores(inputs)
    examples = _example_batch(predictor, inputs) if onnx else None
    details = _card_content(params, folder, inputs) | published
    difference = save_bundle(predictor, folder, with_clip, details, examples)
    if examples and difference is not None:
        print_note(f"export: the ONNX graph gives the same logits of {len(examples[0])} clips within {difference:.1e}")


def _push(folder: Path, target: HubId, private: bool, size: float) -> None:
    from moclip.inference.hub_push import push_bundle

    print_note(f"export: uploading {size:.1f} MB to {target}")
    commit = push_bundle(folder, target, private)
    revision = f", revision={target.revision!r}" if target.revision else ""
    print_note(
        f"export: pushed to {target}, commit {commit}\n"
        f"  in Python: moclip.load({target.name!r}{revision})\n"
        f"  try: moclip predict --bundle {target} CLIP"
    )


def _card_content(params: Params, folder: Path, inputs: Inputs) -> dict[str, Any]:
    """Return what config.json and the model card say about scores and data."""
    from moclip.data.selection import tally, usable_clips
    from moclip.evaluation.verdict import unbalanced_sentence, verdict_sentences
    from moclip.inference.bundle_files import without_machine_paths

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
        "params": without_machine_paths(params.model_dump(mode="json")),
    }


def _example_batch(predictor: Predictor, inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """Return fields (B, S, C, rows, columns) and still features (B, K, P) of some test clips, from the stores."""
    import numpy as np

    from moclip.data.balance import spaced_rows

    rows = inputs.fused_rows("test")
    chosen = set(rows["id"].iloc[spaced_rows(len(rows), CHECKED_CLIPS)])
    motion = inputs.motion_rows("test")
    picked = motion["id"].isin(chosen).to_numpy()
    segments = predictor.views.segments
    fields = inputs.sampled_fields(predictor.views.stack).read_async(inputs.motion_clips("test")[picked], segments)()
    stills = inputs.still_features(list(motion["id"][picked]))
    return fields.reshape(-1, segments, *fields.shape[1:]), np.ascontiguousarray(stills, np.float32)


if __name__ == "__main__":
    export()
