"""The errors that a user meets. Each says what is wrong, where, and what to do.

The command line prints them as one short message with exit code 1. Library callers catch `MoclipError`.
"""

from __future__ import annotations

from pathlib import Path


class MoclipError(Exception):
    """A problem that the user can solve: `what` is wrong, `where` (a file, a key), and the `fix` to try."""

    def __init__(self, what: str, *, where: str | Path | None = None, fix: str | None = None) -> None:
        self.what = what
        self.where = None if where is None else str(where)
        self.fix = fix
        super().__init__(self._text())

    def _text(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n  {self.fix}" if self.fix else text

    def __reduce__(self) -> tuple[object, ...]:  # pickle would drop the keyword-only arguments
        return _rebuild, (type(self), self.what, self.where, self.fix)


def _rebuild(cls: type[MoclipError], what: str, where: str | None, fix: str | None) -> MoclipError:
    return cls(what, where=where, fix=fix)


class DatasetError(MoclipError):
    """The folder of videos or its split lists cannot be used as a data set."""


class VideoError(MoclipError):
    """One video cannot be used. `what` is the reason stored in the video's row; the run goes on."""


def as_video_error(problem: Exception, clip: str | Path) -> VideoError:
    """Turn whatever failed on a clip into a VideoError, so that it costs no other clip.

    Raises `problem` itself where it is a MoclipError that does not concern the clip, such as a full disk.
    """
    if isinstance(problem, VideoError):
        return problem
    if isinstance(problem, MoclipError):
        raise problem
    reason = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
    fix = "run it again with more memory, or with fewer workers" if isinstance(problem, MemoryError) else ""
    return VideoError(f"{type(problem).__name__}: {reason}", where=clip, fix=fix)


class StoreError(MoclipError):
    """A store is missing or damaged, or lacks what was requested."""


class ModelError(MoclipError):
    """A model or its weights cannot be loaded, or do not fit the features."""


def missing_model(path: Path, stage: str) -> ModelError:
    """Return the error for weights that do not exist yet and that `stage` trains."""
    return ModelError("no such model", where=path, fix=f"run: moclip {stage}")
