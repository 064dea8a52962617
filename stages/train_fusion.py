"""Stage `train_fusion`: train the fusion head on cached features -> data/models/fusion.safetensors and its curves.

Also trains the same head on the still alone -> data/models/still.safetensors, writes the logits of the validation clips
-> data/validation.parquet, and chooses by them the stream to trust.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipeline import paths
from pipeline.console.command import while_importing
from pipeline.console.output import STREAM_LABELS, print_note
from pipeline.console.progress import show_progress
from pipeline.params import Params
from pipeline.stage import stage
from pipeline.training_recipe import recipe_from

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from moclip.models.fusion import Fusion, FusionConfig
    from pipeline.inputs import Inputs


@stage(
    "seed",
    "dataset.shots",
    "dataset.base_to_new",
    "fusion.head",
    "fusion.pooling",
    "fusion.hidden",
    "fusion.dropout",
    "fusion.lr",
    "fusion.weight_decay",
    "fusion.epochs",
    "fusion.batch",
    "fusion.precision",
)
def train_fusion(params: Params) -> None:
    """Train the fusion head on the cached features, and the same head on the still alone.

    Chooses the best epoch on the validation split, and fits on it a temperature for each stream, which makes its logits
    calibrated probabilities. Writes data/models/fusion.safetensors, still.safetensors, every stream's logits of the
    validation clips to data/validation.parquet, and curves to metrics/train_fusion. The head keeps which stream to
    trust: the simplest of zero-shot CLIP, MV-TSN and fusion whose top-1 on the validation split is within one standard
    error of the best one's.
    """
    with while_importing():
        from moclip.evaluation.calibration import fit_temperatures
        from moclip.evaluation.verdict import choose_stream
        from moclip.models.device import pick_device
        from moclip.models.fusion import FusionConfig
        from moclip.training.fusion import FusionRecipe, train_fusion_head
        from moclip.video.clip_files import file_md5
        from pipeline.baselines import Heads, load_motion_probe, without_motion
        from pipeline.inputs import Inputs
        from pipeline.io import rounded
        from pipeline.logits import clip_sources, compute_logits, validation_record, write_logits
        from pipeline.seeding import seed_everything
        from pipeline.training_log import live_log, loss_errors_name_clips

    seed_everything(params.seed)
    inputs = Inputs(params)
    motion_probe = load_motion_probe(inputs)
    train, val = inputs.fusion_data("train"), inputs.fusion_data("val")
    fusion = params.fusion
    config = FusionConfig(
        motion=train.motion.shape[-1],
        picture=train.stills.shape[-1],
        hidden=fusion.hidden,
        classes=len(inputs.clips.classes),
        dropout=fusion.dropout,
        pooling=fusion.pooling,
    )
    model = _build_head(fusion.head, config, inputs)
    recipe = recipe_from(FusionRecipe, fusion, seed=params.seed)
    with loss_errors_name_clips(inputs.fused_rows("train")):
        with live_log(paths.TRAIN_FUSION_LOG, "train_fusion", fusion.epochs) as log:
            best = train_fusion_head(model, train, val, recipe, pick_device(), log)
        seed_everything(params.seed)
        still = _build_head(fusion.head, replace(config, motion=1), inputs)
        stills, val_stills = without_motion(train), without_motion(val)
        with show_progress("train_fusion, still alone", fusion.epochs, "epoch") as advance:
            train_fusion_head(still, stills, val_stills, recipe, pick_device(), lambda row: advance(1))
    rows = inputs.fused_rows("val")
    logits = compute_logits(inputs, Heads(model.cpu(), still.cpu(), motion_probe), list(rows["id"]))
    labels = rows["label"].to_numpy()
    model.calibrate(fit_temperatures({name: values for name, values in logits.items() if name != "majority"}, labels))
    choice = rounded(choose_stream(logits, labels, clip_sources(rows)))
    record = _head_record(params, inputs)
    model.save(paths.FUSION, record | {"trusted": choice})
    still.save(paths.STILL, record | {"fusion": file_md5(paths.FUSION)})
    write_logits(paths.VALIDATION, rows, logits, validation_record(inputs))
    parameters = sum(weight.numel() for weight in model.parameters())
    print_note(
        f"train_fusion: {parameters:,} parameters, {len(train.labels)} clips; "
        f"best epoch {best['epoch'] + 1}, val top-1 {best['val_top1']:.4f}; "
        f"stream to trust: {STREAM_LABELS[choice['stream']]}"
    )
    _print_temperatures(model.config.temperatures, logits, labels)


def _print_temperatures(
    temperatures: Mapping[str, float], logits: Mapping[str, np.ndarray], labels: np.ndarray
) -> None:
    print_note(
        "train_fusion: temperatures: " + ", ".join(f"{name} {value:.3g}" for name, value in temperatures.items())
    )
    if perfect := [name for name, values in logits.items() if (values.argmax(axis=1) == labels).all()]:
        print_note(
            f"train_fusion: all {len(labels)} validation clips are correct by {', '.join(perfect)}: "
            "only their number limits that temperature"
        )


def _head_record(params: Params, inputs: Inputs) -> dict[str, Any]:
    """Return what the head records: its training data, parameters, and the models whose features it was trained on."""
    seed = ("seed",) if params.clip.choice == "random" else ()
    keys = ("clip.model", "clip.revision", "clip.frames", "clip.choice", *seed)
    artifacts = inputs.artifacts
    models = {"mv_tsn": artifacts.mv_embed.attributes["model"], "clip": artifacts.clip_image.attributes.get("clip")}
    return artifacts.model_record(*keys) | models


def _build_head(name: str, config: FusionConfig, inputs: Inputs) -> Fusion:
    import torch

    from moclip.models.fusion import ConcatFusion, TextFusion

    if name == "concat":
        return ConcatFusion(config)
    text, temperature = inputs.text_features()
    return TextFusion(config, torch.from_numpy(text), temperature)


if __name__ == "__main__":
    train_fusion()
