"""The few errors that a user meets: each says what is wrong, where, and what to do.

The command line prints them as one short message with exit code 1; a library caller catches `MoclipError`.
"""

from __future__ import annotations

from pathlib import Path


class MoclipError(Exception):
    """Something the user can mend: `what` is wrong, `where` (a file, a key), and the `fix` to try."""

    def __init__(self, what: str, *, where: str | Path | None = None, fix: str | None = None) -> None:
        self.what = what
        self.where = None if where is None else str(where)
        self.fix = fix
        super().__init__(self._text())

    def _text(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n  {self.fix}" if self.fix else text

    def __reduce__(self) -> tuple[object, ...]:  # keyword-only arguments survive the trip between processes
        return _rebuild, (type(self), self.what, self.where, self.fix)


def _rebuild(cls: type[MoclipError], what: str, where: str | None, fix: str | None) -> MoclipError:
    return cls(what, where=where, fix=fix)


class DatasetError(MoclipError):
    """The folder of videos or its split lists cannot be used as a data set."""


class VideoError(MoclipError):
    """One video cannot be used; `what` is the reason that goes into its row. Never stops a run."""


def clip_problem(problem: Exception, clip: str | Path) -> VideoError:
    """A clip's reason, from whatever went wrong with it: it costs no other clip.

    Raises the problem itself where it is none of the clip's: no room to write, say.
    """
    if isinstance(problem, VideoError):
        return problem
    if isinstance(problem, MoclipError):
        raise problem
    reason = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
    return VideoError(f"{type(problem).__name__}: {reason}", where=clip)


class StoreError(MoclipError):
    """A feature store is missing, damaged, or does not hold what is asked of it."""


class ModelError(MoclipError):
    """A model or its weights cannot be loaded, or do not fit the features at hand."""


def no_model(path: Path, stage: str) -> ModelError:
    """For weights that are not there; `stage` makes them."""
    return ModelError("no such model", where=path, fix=f"run: python -m stages.{stage}")
