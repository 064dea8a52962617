"""What a training minimises, and what its epochs are chosen by, for clips with one label or with several.

One label: `labels` is (n,) int64, the loss of a clip the cross-entropy. Several: `labels` is (n, classes), 1 where the
clip has the label and else 0. Each class is then a question by itself, and the loss of a clip is the sum of their
binary cross-entropies: like the cross-entropy, the negative log-likelihood of what the clip shows.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from moclip.training.average_precision import mean_average_precision


def clip_losses(
    logits: Tensor, labels: Tensor, class_weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Return the loss of each clip, (n,). `logits` are (n, classes), `class_weights` (classes,), for one label only.

    `label_smoothing` is the share of a label that is spread over all classes, or over both answers of each class.
    """
    if labels.ndim == 1:
        return functional.cross_entropy(
            logits, labels, class_weights, reduction="none", label_smoothing=label_smoothing
        )
    soft = labels.to(logits.dtype) * (1 - label_smoothing) + label_smoothing / 2
    return functional.binary_cross_entropy_with_logits(logits, soft, reduction="none").sum(1)


def summed_loss(
    logits: Tensor,
    labels: Tensor,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    clip_weights: Tensor | None = None,
) -> Tensor:
    """Return the sum of `clip_losses`, each times its weight, (n,)."""
    if clip_weights is not None:
        return (clip_losses(logits, labels, class_weights, label_smoothing) * clip_weights).sum()
    if labels.ndim == 1:
        return functional.cross_entropy(logits, labels, class_weights, reduction="sum", label_smoothing=label_smoothing)
    return clip_losses(logits, labels, label_smoothing=label_smoothing).sum()


def mean_loss(
    logits: Tensor, labels: Tensor, class_weights: Tensor | None = None, clip_weights: Tensor | None = None
) -> Tensor:
    """Return the mean of the clips' losses; with `class_weights` the weighted mean, as `functional.cross_entropy`.

    `clip_weights` (n,) are factors of the losses. They do not change what the sum is divided by.
    """
    if clip_weights is not None:
        total = clip_losses(logits, labels, class_weights) * clip_weights
        return total.mean() if class_weights is None else total.sum() / class_weights[labels].sum()
    if labels.ndim == 1:
        return functional.cross_entropy(logits, labels, class_weights)
    return clip_losses(logits, labels).mean()


def hits(logits: Tensor, labels: Tensor) -> Tensor:
    """Return whether the highest logit of each clip is of its label, or of one of its labels: (n,) bool."""
    best = logits.argmax(1)
    return best == labels if labels.ndim == 1 else labels.gather(1, best[:, None])[:, 0] > 0


def scores(logits: Tensor, labels: Tensor, split: str) -> dict[str, float]:
    """Return `<split>_loss` and `<split>_top1`, the share of `hits`; with several labels also `<split>_map`.

    That is the mean average precision, which epochs are then chosen by.
    """
    found = {
        f"{split}_loss": mean_loss(logits, labels).item(),
        f"{split}_top1": hits(logits, labels).float().mean().item(),
    }
    if labels.ndim == 2:
        found[f"{split}_map"] = mean_average_precision(logits.float().cpu().numpy(), labels.cpu().numpy())
    return found


def chosen_by(row: dict[str, float]) -> str:
    """Return what an epoch was chosen by, in words: "val top-1 0.812"."""
    return f"val mAP {row['val_map']:.3f}" if "val_map" in row else f"val top-1 {row['val_top1']:.3f}"
