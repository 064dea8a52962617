"""What a training reports: its curves, written by DVCLive, and the clips of a step whose loss is not a number."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from moclip.errors import MoclipError, ModelError
from moclip.wording import shorten_list
from pipeline.console.command import while_importing
from pipeline.console.progress import Log, show_progress

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def live_log(folder: Path, label: str, epochs: int, writes: bool = True) -> Iterator[Log]:
    """Yield `log(row)`, to call after each epoch. It writes the TSV files that dvc.yaml's plots name.

    A row holds the epoch, from 0, and its losses and accuracies. With `writes` false, `log` does nothing. The progress
    of `epochs` epochs is shown under `label`.
    """
    if not writes:
        yield lambda row: None
        return
    with while_importing():  # a second or two, because `Live` imports DVC
        from dvclive import Live
        from scmrepo.exceptions import SCMError

        try:
            opened = Live(dir=str(folder), report=None, save_dvc_exp=False, dvcyaml=None)
        except SCMError as problem:  # no commit yet
            fix = "run: git add -A; git commit -m start"
            raise MoclipError(f"DVCLive cannot use this git repository: {problem}", where=folder, fix=fix) from None
    with opened as live, show_progress(label, epochs, "epoch") as advance:

        def log(row: dict[str, float]) -> None:
            live.step = int(row["epoch"]) + 1
            for name, value in row.items():
                if name != "epoch":
                    live.log_metric(name, round(value, 6))
            live.make_summary()
            advance(1)

        yield log


@contextmanager
def loss_errors_name_clips(rows: pd.DataFrame) -> Iterator[None]:
    """Name the clips of the step in the error of a loss that is not a number; `rows` are those trained on."""
    from moclip.training.common import LossError

    try:
        yield
    except LossError as error:
        clips = shorten_list(rows["id"].iloc[list(error.rows)], 8)
        raise ModelError(f"{error.what}, with {clips}", where=error.where, fix=error.fix) from None
