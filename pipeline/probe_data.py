"""The motion features that linear probes are trained on."""

from __future__ import annotations

import pandas as pd

from moclip.data.clip_weights import weights_of
from moclip.store.features import Features
from moclip.training.linear_probe import LabelledFeatures
from pipeline.clip_tables import Fold
from pipeline.inputs import Inputs


def labelled_features(inputs: Inputs, rows: pd.DataFrame, motion: Features) -> LabelledFeatures:
    """Return the motion features and labels of clips; of augmented views, the mean of each clip's."""
    features = motion.rows("features", list(rows["id"]))
    features = features.mean(axis=1) if features.ndim == 3 else features
    return LabelledFeatures(features, inputs.targets(rows), weights_of(rows))


def labelled_fold(inputs: Inputs, number: int, fold: Fold) -> tuple[LabelledFeatures, LabelledFeatures]:
    """Return the features of a fold, from 1, under the network that did not see the clips held out.

    First of the clips to train on, then of those held out. Without folds the first are of the test protocol, not means
    of augmented views: there is one network, and both come from one store.
    """
    others, held_out = inputs.fold_rows(fold)
    protocol, views = inputs.fold_features(number)
    motion = views if inputs.clips.refits else protocol
    return labelled_features(inputs, others, motion), labelled_features(inputs, held_out, protocol)
