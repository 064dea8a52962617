"""The clips whose stored features are nearest to those of a clip."""

from __future__ import annotations

import numpy as np

from moclip.store.neighbours import nearest
from pipeline.ask.answer import Row
from pipeline.ask.features import Compared


def nearest_rows(compared: Compared, queries: list[np.ndarray], own: int, count: int) -> list[Row]:
    """Return a row per similar clip, the most similar first; `own` is the row of the clip itself, -1 for a file."""
    numbers = np.arange(len(compared.clips))
    best, cosines = nearest(list(compared.parts.values()), queries, count, (np.array([own]), numbers))
    rows = []
    for rank, (row, cosine) in enumerate(zip(best[0].tolist(), cosines[0].tolist(), strict=True), start=1):
        if row >= 0:
            clip = compared.clips.iloc[row]
            alone = zip(compared.parts, queries, compared.query(row), strict=True)
            rows.append(
                {"rank": rank, "clip": clip["id"]}
                | {name: clip[name] for name in ("class", "split", "group")}
                | {"cosine": cosine}
                | {kind: float(query[0] @ other[0]) for kind, query, other in alone}
            )
    return rows
