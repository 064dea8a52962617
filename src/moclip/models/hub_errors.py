"""What the hub refuses, in one line each: of encoders and of bundles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus

from moclip.errors import ModelError

LOG_IN = "run `hf auth login`, or set HF_TOKEN"


@dataclass(frozen=True)
class HubRequest:
    """What a user named: `model` and `revision` say what to correct, `unreachable` what to do without the hub."""

    model: str
    revision: str
    unreachable: str


def hub_refusal(problem: Exception, request: HubRequest) -> tuple[str, str] | None:
    """Return the reason in one line, and what to do; None if the problem is not one of the hub."""
    from huggingface_hub import constants, errors

    offline = "it is not in the hub's cache, and HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE"
    silent = "it is not in the hub's cache, and the hub does not answer", request.unreachable
    partial = "its download was interrupted, and the hub cannot be reached", "run it again when the hub can be reached"
    unknown = "the hub has no such model, or it is private", f"correct {request.model}, or set HF_TOKEN"
    causes = [problem, problem.__cause__, problem.__context__]
    if isinstance(problem, errors.HfHubHTTPError):
        causes = [problem]  # the library may have tried something else before it raised this
    for kind, answer in (
        (errors.GatedRepoError, ("its makers ask for your consent first", "accept its terms on the hub, set HF_TOKEN")),
        (errors.RevisionNotFoundError, ("the hub has no such revision", f"correct {request.revision}")),
        (errors.RepositoryNotFoundError, unknown),
        (errors.OfflineModeIsEnabled, offline),
        (getattr(errors, "IncompleteSnapshotError", ()), partial),  # earlier versions of the library have no such class
        (errors.LocalEntryNotFoundError, offline if constants.HF_HUB_OFFLINE else silent),
    ):
        if any(isinstance(cause, kind) for cause in causes):
            return answer
    return next(filter(None, map(_http_refusal, causes)), None)


def _http_refusal(problem: BaseException | None) -> tuple[str, str] | None:
    """Return the same for an answer of the hub that the library has no class for, and for a broken connection."""
    from huggingface_hub import errors

    if not isinstance(problem, errors.HTTPError) or isinstance(problem, errors.BadRequestError):
        return None  # a bad request has its reason in the text
    if not isinstance(problem, errors.HfHubHTTPError):
        return "the connection to the hub broke off, or there is none", "run it again when the hub can be reached"
    status = problem.response.status_code
    message = (problem.server_message or str(problem)).strip().splitlines()[0]
    known: dict[int, tuple[str, str]] = {
        HTTPStatus.UNAUTHORIZED: ("the hub does not accept the token", f"make a new one, then {LOG_IN}"),
        HTTPStatus.FORBIDDEN: (
            "the token has no right to this",
            "use a token with write access, or a repository of your own",
        ),
        HTTPStatus.CONFLICT: ("somebody else changed it meanwhile", "run it again"),
        HTTPStatus.PRECONDITION_FAILED: ("somebody else changed it meanwhile", "run it again"),
    }
    return known.get(status, (f"the hub answers {status}: {message}", "run it again later"))


@contextmanager
def report_refusals(where: str, request: HubRequest) -> Iterator[None]:
    """Raise ModelError for whatever the hub refuses in the block."""
    try:
        yield
    except ModelError:
        raise
    except Exception as problem:  # the library raises errors of many kinds
        refusal = hub_refusal(problem, request)
        if refusal is None:
            if isinstance(problem, OSError | ValueError | RuntimeError):
                text = " ".join(str(problem).split()) or type(problem).__name__
                raise ModelError(text, where=where, fix="correct what it names, then run it again") from None
            raise
        raise ModelError(refusal[0], where=where, fix=refusal[1]) from None
