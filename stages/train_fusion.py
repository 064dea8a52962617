"""Stage `train_fusion`: train the fusion head on cached features -> data/models/fusion.safetensors and its curves.

Also writes the logits of the validation clips, data/validation.parquet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline import paths
from pipeline.console.command import while_importing
from pipeline.console.output import print_note
from pipeline.params import Params
from pipeline.stage import stage
from pipeline.training_recipe import recipe_from

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from moclip.data.fusion_data import FusionData
    from moclip.models.fusion import Fusion
    from pipeline.inputs import Inputs


@stage(
    "seed",
    "dataset.shots",
    "dataset.base_to_new",
    "fusion.head",
    "fusion.pooling",
    "fusion.blend",
    "fusion.cache_tune",
    "fusion.hidden",
    "fusion.dropout",
    "fusion.lr",
    "fusion.weight_decay",
    "fusion.epochs",
    "fusion.batch",
    "fusion.precision",
)
def train_fusion(params: Params) -> None:
    """Train the fusion head on the cached features.

    Chooses the best epoch on the validation split, and fits on it a temperature for each stream, which makes its logits
    calibrated probabilities. Writes data/models/fusion.safetensors, every stream's
    logits of the validation clips to data/validation.parquet, and curves to metrics/train_fusion.
    """
    with while_importing():
        from moclip.evaluation.calibration import fit_temperatures
        from moclip.evaluation.metrics import score_sum
        from moclip.evaluation.sum_weights import choose_sum_weights
        from moclip.models.device import pick_device
        from moclip.training.fusion import FusionRecipe, train_fusion_head
        from moclip.training.validation_choice import choose_settings
        from pipeline.inputs import Inputs
        from pipeline.logits import compute_logits, sum_record, validation_record, write_logits
        from pipeline.seeding import seed_everything
        from pipeline.training_log import live_log, loss_errors_name_clips

    seed_everything(params.seed)
    inputs = Inputs(params)
    train, val = inputs.fusion_data("train"), inputs.fusion_data("val")
    device, model = pick_device(), _new_head(params, inputs, train)
    recipe = recipe_from(FusionRecipe, params.fusion, seed=params.seed)
    naming_clips = loss_errors_name_clips(inputs.fused_rows("train"))
    epochs = recipe.epochs if model.trains else 1
    if not model.trains:
        choose_settings(model, train, val, device)
    with naming_clips, live_log(paths.TRAIN_FUSION_LOG, "train_fusion", epochs) as log:
        best = train_fusion_head(model, train, val, recipe, device, log)
    chosen_top1 = choose_settings(model, train, val, device)
    rows = inputs.fused_rows("val")
    logits, labels = compute_logits(inputs, model.cpu(), list(rows["id"])), rows["label"].to_numpy()
    weights = choose_sum_weights(logits["zero_shot"], logits["mv_tsn"], labels)
    logits["score_sum"] = score_sum(logits["zero_shot"], logits["mv_tsn"], weights)
    model.calibrate(fit_temperatures(logits, labels))
    model.save(paths.FUSION, _head_record(params, inputs) | sum_record(inputs, weights))
    write_logits(paths.VALIDATION, rows, logits, validation_record(inputs))
    parameters = sum(weight.numel() for weight in model.parameters())
    chosen = "" if chosen_top1 is None else f"; {_settings_text(model)}: val top-1 {chosen_top1:.4f}"
    print_note(
        f"train_fusion: {parameters:,} parameters, {len(train.labels)} clips; "
        f"best epoch {best['epoch'] + 1}, val top-1 {best['val_top1']:.4f}{chosen}"
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


def _settings_text(model: Fusion) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in model.settings.items())


def _head_record(params: Params, inputs: Inputs) -> dict[str, Any]:
    """Return what the head records: its training data, parameters, and the models whose features it was trained on."""
    seed = ("seed",) if params.clip.choice == "random" else ()
    keys = ("clip.model", "clip.revision", "clip.frames", "clip.choice", *seed)
    artifacts = inputs.artifacts
    models = {"mv_tsn": artifacts.mv_embed.attributes["model"], "clip": artifacts.clip_image.attributes.get("clip")}
    return artifacts.model_record(*keys) | models


def _new_head(params: Params, inputs: Inputs, train: FusionData) -> Fusion:
    import torch

    from moclip.models.fusion import FusionConfig, HeadInputs, build_head

    fusion = params.fusion
    config = FusionConfig(
        motion=train.motion.shape[-1],
        picture=train.stills.shape[-1],
        hidden=fusion.hidden,
        classes=len(inputs.clips.classes),
        dropout=fusion.dropout,
        pooling=fusion.pooling,
        frames=train.stills.shape[1],
    )
    text, temperature = inputs.text_features()
    blend = params.dataset.shots is not False if fusion.blend == "few_shot" else fusion.blend
    options = fusion.model_dump() | {"blend": blend}
    return build_head(fusion.head, config, HeadInputs(torch.from_numpy(text), temperature, train, options))


if __name__ == "__main__":
    train_fusion()
