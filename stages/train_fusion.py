"""Stage `train_fusion`: train the fusion head on cached features -> data/models/fusion.safetensors and its curves.

Also trains the same head on the still alone -> data/models/still.safetensors, writes the logits of the validation clips
-> data/validation.parquet, and chooses by them the stream to trust.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moclip.wording import counted
from pipeline import paths
from pipeline.console.command import while_importing
from pipeline.console.output import STREAM_LABELS, print_note
from pipeline.encoder_source import PICTURE_KEYS
from pipeline.params import Params
from pipeline.stage import stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from moclip.models.fusion import Fusion
    from pipeline.inputs import Inputs


@stage(
    "seed",
    "dataset.balance",
    "dataset.shots",
    "dataset.base_to_new",
    "fit.folds",
    "fit.refit",
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
    """Train the fusion head on the cached features, and the same head on the still alone.

    Chooses the best epoch on the validation split, and fits on it the weights of score_sum and a temperature for each
    stream, which makes its logits calibrated probabilities. Writes data/models/fusion.safetensors, still.safetensors,
    every stream's logits of the validation clips to data/validation.parquet, and curves to metrics/train_fusion. The
    head keeps which stream to trust: the simplest of zero-shot CLIP, MV-TSN and fusion whose top-1 on the validation
    split is within one standard error of the best one's. With several labels a clip it is the mean average precision
    in place of top-1, and each stream also gets a threshold for each class. With fit.folds the validation clips are
    those of all folds.
    """
    with while_importing():
        from moclip.evaluation.calibration import fit_temperatures
        from moclip.evaluation.metrics import EQUAL_WEIGHTS, score_sum
        from moclip.evaluation.multi_label_verdict import choose_stream_by_map
        from moclip.evaluation.sum_weights import choose_sum_weights
        from moclip.evaluation.verdict import choose_stream
        from moclip.models.flops import fusion_cost
        from moclip.training.objective import chosen_by
        from moclip.video.clip_files import file_md5
        from pipeline.baselines import load_motion_probe
        from pipeline.head_fit import fit_heads
        from pipeline.inputs import Inputs
        from pipeline.io import rounded
        from pipeline.logits import clip_sources, sum_record, validation_record, write_logits
        from pipeline.multi_label import calibrate_head

    inputs = Inputs(params)
    fitted = fit_heads(inputs, load_motion_probe(inputs))
    rows, logits, head = fitted.rows, fitted.logits, fitted.heads.fusion
    labels, weights = inputs.targets(rows), EQUAL_WEIGHTS
    if "score_sum" in logits:
        weights = choose_sum_weights(logits["zero_shot"], logits["mv_tsn"], labels)
        logits["score_sum"] = score_sum(logits["zero_shot"], logits["mv_tsn"], weights)
    if inputs.multi_label:
        calibrate_head(head, logits, labels)
        choice = rounded(choose_stream_by_map(logits, labels, clip_sources(rows), params.seed))
    else:
        head.calibrate(
            fit_temperatures({name: values for name, values in logits.items() if name != "majority"}, labels)
        )
        choice = rounded(choose_stream(logits, labels, clip_sources(rows)))
    record = _head_record(params, inputs)
    still, cost = fitted.heads.still, fusion_cost(head)
    head.save(paths.FUSION, record | {"cost": cost, "trusted": choice} | sum_record(inputs, weights))
    still.save(paths.STILL, record | {"cost": fusion_cost(still), "fusion": file_md5(paths.FUSION)})
    write_logits(paths.VALIDATION, rows, logits, validation_record(inputs))
    clips = inputs.fused_rows(*inputs.clips.final_splits)
    settings = "" if fitted.top1 is None else f"; {_settings_text(head)}: val top-1 {fitted.top1:.3f}"
    print_note(
        f"train_fusion: {cost['parameters']:,} parameters, {counted(len(clips), 'clip')}; "
        f"best epoch {fitted.best['epoch'] + 1:.0f}, {chosen_by(fitted.best)}{settings}; "
        f"stream to trust: {STREAM_LABELS[choice['stream']]}"
    )
    _print_temperatures(head.config.temperatures, logits, labels)


def _print_temperatures(
    temperatures: Mapping[str, float], logits: Mapping[str, np.ndarray], labels: np.ndarray
) -> None:
    print_note(
        "train_fusion: temperatures, which make probabilities of the logits: "
        + ", ".join(f"{STREAM_LABELS[name]} {value:.3g}" for name, value in temperatures.items())
    )
    if labels.ndim == 2:
        return
    if perfect := [name for name, values in logits.items() if (values.argmax(axis=1) == labels).all()]:
        print_note(
            f"train_fusion: all {len(labels):,} validation clips are correct by "
            f"{', '.join(STREAM_LABELS[name] for name in perfect)}: "
            "only their number limits that temperature"
        )


def _settings_text(model: Fusion) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in model.settings.items())


def _head_record(params: Params, inputs: Inputs) -> dict[str, Any]:
    """Return what the head records: its training data, parameters, and the models whose features it was trained on."""
    seed = ("seed",) if params.clip.choice == "random" else ()
    artifacts = inputs.artifacts
    pictures = artifacts.clip_image
    clip = pictures.attributes.get("clip") if pictures else None
    record = artifacts.model_record(*PICTURE_KEYS, *seed)
    return record | {"mv_tsn": artifacts.mv_embed.attributes["model"], "clip": clip}


if __name__ == "__main__":
    train_fusion()
