"""The path of each artifact, relative to the project's root. A test compares them with dvc.yaml."""

from __future__ import annotations

from pathlib import Path

PARAMS = Path("params.yaml")
UCF101_CLASSES = Path("data/classes/ucf101.json")
CODE = Path("data/code.json")

TRANSCODED = Path("data/transcoded")
INDEX = Path("data/index.parquet")
MV_STORE = Path("data/features/mv.zarr")
MV_TABLE = Path("data/features/mv.parquet")
CLIP_IMAGE = Path("data/features/clip_image.zarr")
CLIP_TABLE = Path("data/features/clip_image.parquet")
CLIP_TEXT = Path("data/features/clip_text.zarr")
MV_EMBED = Path("data/features/mv_embed.zarr")
MV_TSN = Path("data/models/mv_tsn.safetensors")
MV_FOLDS = Path("data/models/folds")
FUSION = Path("data/models/fusion.safetensors")
REJECTION = Path("data/models/rejection.safetensors")
STILL = Path("data/models/still.safetensors")
MOTION_PROBE = Path("data/models/motion_probe.safetensors")
IMAGE_BASELINE = Path("data/baselines/image")
IMAGE_MODEL = IMAGE_BASELINE / "model.safetensors"
IMAGE_LOGITS = Path("data/baselines/image_logits")
VALIDATION = Path("data/validation.parquet")
PREDICTIONS = Path("data/predictions.parquet")
REPORT = Path("data/report/index.html")

METRICS = Path("metrics")
STREAM_JSON = {
    name: METRICS / f"{name}.json"
    for name in ("majority", "zero_shot", "still", "mv_image", "motion_probe", "mv_tsn", "score_sum", "fusion")
}
VERDICT_JSON = METRICS / "verdict.json"
REJECT_JSON = METRICS / "reject.json"
SUMMARY_JSON = METRICS / "summary.json"
COST_JSON = METRICS / "cost.json"
TIMING_JSON = METRICS / "timing.json"
TRANSCODE_COUNTS = METRICS / "counts" / "transcode.json"
INDEX_COUNTS = METRICS / "counts" / "index.json"
EXTRACT_COUNTS = METRICS / "counts" / "extract_mv.json"
TRAIN_MV_LOG = METRICS / "train_mv"
TRAIN_FUSION_LOG = METRICS / "train_fusion"
PLOTS = METRICS / "plots"

ENCODED = Path("data/encoded")
"""Features of each encoder by itself, from the last run of `clip_image`, so that another one can be added."""

WORK = Path("data/work")
"""Checkpoints and locks of running stages. Removed when the stage ends."""


def fold_model(number: int) -> Path:
    """Return the path of the MV-TSN that was trained without the clips of a fold, from 1."""
    return MV_FOLDS / f"mv_tsn_{number}.safetensors"


def image_fold_model(number: int) -> Path:
    """Return the path of the image baseline that was trained without the clips of a fold, from 1."""
    return IMAGE_BASELINE / f"fold_{number}.safetensors"


def encoded_folder(store: str | bool) -> str:
    """Return the path or URL of the folder for what each encoder made of the clips. It is kept for the next run."""
    return f"{store}/encoded" if store else str(ENCODED.absolute())


def parts_folder(stage: str, store: str | bool) -> str:
    """Return the path or URL of the folder for the finished parts of a stage's run."""
    return f"{store}/work/{stage}" if store else str((WORK / stage).absolute())
