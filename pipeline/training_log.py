"""Training curves by DVCLive: TSV files that dvc.yaml's plots name, and a line an epoch for the reader."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.console.command import while_importing
from pipeline.console.progress import Log, show_progress


@contextmanager
def live_log(folder: Path, label: str, epochs: int, writes: bool = True) -> Iterator[Log]:
    """Yield `log(row)`; a row holds the epoch (from 0) and its losses and accuracies. It `writes`, or does nothing."""
    if not writes:
        yield lambda row: None
        return
    with while_importing():  # a second or two, DVC's own import within the first call among them
        from dvclive import Live

        log_to = Live(dir=str(folder), report=None, save_dvc_exp=False, dvcyaml=None)
    with log_to as live, show_progress(label, epochs, "epoch") as advance:

        def log(row: dict[str, float]) -> None:
            live.step = int(row["epoch"]) + 1
            for name, value in row.items():
                if name != "epoch":
                    live.log_metric(name, round(value, 6))
            live.make_summary()
            advance(1)

        yield log
