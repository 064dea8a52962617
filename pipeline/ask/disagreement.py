"""What speaks against the label of each clip: its nearest clips of other sources, and networks that did not see it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from moclip.evaluation.label_suspicion import neighbour_disagreement
from moclip.evaluation.metrics import class_probabilities
from moclip.models.weights import read_config
from moclip.store.features import Features
from moclip.store.neighbours import FeatureRows, nearest
from pipeline import paths
from pipeline.ask.features import Compared
from pipeline.inputs import Inputs
from pipeline.io import read_parquet
from pipeline.logits import clip_sources, read_validation
from pipeline.provenance import check_digest
from pipeline.verdict import trusted_stream

NEIGHBOURS = 10
QUERIES = 1024


@dataclass(frozen=True)
class Evidence:
    """What speaks against labels, in the order of the compared clips.

    labels : of the nearest clips of other sources, (n, NEIGHBOURS), -1 where there are fewer.
    disagreement : of `labels`, (n,) in [0, 1], NaN where it says nothing.
    held_out : (n,), whether the networks whose features are compared did not see the clip.
    """

    labels: np.ndarray
    disagreement: np.ndarray
    held_out: np.ndarray


def neighbour_evidence(inputs: Inputs, compared: Compared) -> Evidence:
    """Compare each clip with clips of other sources, by features of a network that did not see it, if there is one.

    That is the network of the fold that holds the clip out, whose features of the other clips are the mean of their
    augmented views; and the final network for test clips. The other clips are compared by features of a network that
    was trained with their label. Pictures are always compared by the frozen encoder.
    """
    clips = compared.clips
    sources, labels = pd.factorize(clip_sources(clips))[0], clips["label"].to_numpy()
    found = np.full((len(clips), NEIGHBOURS), -1, np.int64)
    disagreement = np.full(len(clips), np.nan)
    held_out = (clips["split"] == "test").to_numpy(copy=True)

    def ask(
        queries: np.ndarray, of_queries: list[FeatureRows], others: np.ndarray, of_others: list[FeatureRows]
    ) -> None:
        """Fill in the rows `queries` of the clips, compared with the rows `others`; features are in the same order."""
        of_label = np.bincount(labels[others], minlength=labels.max() + 1)
        of_source = np.bincount(sources[others], minlength=sources.max() + 1)  # a source is of one class
        for start in range(0, len(queries), QUERIES):
            rows = queries[start : start + QUERIES]
            asked = [part.read(start, start + len(rows)) for part in of_queries]
            best, _ = nearest(of_others, asked, NEIGHBOURS, (sources[rows], sources[others]))
            found[rows] = np.where(best >= 0, labels[others][best], -1)
            same = of_label[labels[rows]] - of_source[sources[rows]]
            disagreement[rows] = neighbour_disagreement(found[rows], labels[rows], same)

    parts = list(compared.parts.values())
    everything = np.arange(len(clips))
    ask(everything, parts, everything, parts)
    if "motion" not in compared.parts:
        held_out[:] = True
        return Evidence(found, disagreement, held_out)
    for own, others, protocol, views in _folds(inputs, compared):
        of_own, of_others = ([part for kind, part in _with_rows(compared, rows)] for rows in (own, others))
        ask(
            own,
            [*of_own, _rows(protocol, clips["id"].iloc[own])],
            others,
            [*of_others, _rows(views, clips["id"].iloc[others])],
        )
        held_out[own] = True
    return Evidence(found, disagreement, held_out)


def _folds(inputs: Inputs, compared: Compared) -> Iterator[tuple[np.ndarray, np.ndarray, Features, Features]]:
    """Yield the rows that a fold holds out, the rows it trains on, and the features of its network for both."""
    for number, fold in enumerate(inputs.clips.folds(), start=1):
        protocol, views = inputs.fold_features(number)
        own, others = (
            compared.clips.index[compared.clips["id"].isin(ids & set(store.ids))].to_numpy()
            for ids, store in ((fold.held_out, protocol), (fold.train, views))
        )
        if len(own) and len(others):
            yield own, others, protocol, views


def _with_rows(compared: Compared, rows: np.ndarray) -> Iterator[tuple[str, FeatureRows]]:
    """Yield the features of some clips that do not depend on a fold: those of the pictures."""
    for kind, part in compared.parts.items():
        if kind != "motion":
            yield kind, FeatureRows(part.array, part.rows[rows], part.where)


def _rows(store: Features, ids: pd.Series) -> FeatureRows:
    return FeatureRows(store.rows("features", list(ids)), where=store.path)


def predicted_probabilities(inputs: Inputs, ids: pd.Series) -> tuple[np.ndarray, str]:
    """Return the probabilities of the trusted stream for clips, (n, classes), and its name.

    They are calibrated, and come from networks that did not see the clip: those of data/validation.parquet, and of
    data/predictions.parquet for test clips, as far as these files exist. Other rows are NaN.

    Raises MoclipError if one of the files is stale.
    """
    probabilities = np.full((len(ids), len(inputs.clips.classes)), np.nan)
    if not paths.FUSION.exists() or not paths.VALIDATION.exists():
        return probabilities, ""
    stream = trusted_stream()
    temperature = float(read_config(paths.FUSION, "train_fusion").get("temperatures", {}).get(stream, 1.0))
    row_of = {name: row for row, name in enumerate(ids)}
    for table in _tables(inputs):
        known = table[table["id"].isin(row_of.keys())]
        if len(known) and stream in known:
            logits = np.stack(known[stream].to_list())
            probabilities[[row_of[name] for name in known["id"]]] = class_probabilities(logits / temperature)
    return probabilities, stream


def _tables(inputs: Inputs) -> Iterator[pd.DataFrame]:
    yield read_validation(inputs)
    if paths.PREDICTIONS.exists():
        table = read_parquet(paths.PREDICTIONS, "evaluate")
        models = inputs.artifacts.models_digest()
        check_digest(models, table.attrs.get("models"), "other models", paths.PREDICTIONS, "evaluate")
        yield table
