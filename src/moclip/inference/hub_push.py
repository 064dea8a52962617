"""Upload a bundle to a repository of the model hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from moclip.errors import ModelError
from moclip.inference.bundle_files import CONFIG, MV_TSN, of_bundle
from moclip.inference.hub_bundle import HubId
from moclip.models.hub_errors import LOG_IN, HubRequest, report_refusals
from moclip.version import __version__

if TYPE_CHECKING:
    from huggingface_hub.hf_api import CommitOperationAdd, CommitOperationDelete

UPLOAD = HubRequest("the id", "the branch", "run it again when the hub can be reached")


def check_push(target: HubId) -> None:
    """Raise ModelError where a push is sure to fail: without a token that the hub accepts, or without the hub."""
    from huggingface_hub import HfApi, constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise ModelError("HF_HUB_OFFLINE is set", where=str(target), fix="unset it to push to the hub")
    if not get_token():
        raise ModelError("no token of the hub", where=str(target), fix=f"make one with write access, then {LOG_IN}")
    with report_refusals(f"{target}: cannot push", UPLOAD):
        HfApi().whoami()


def push_bundle(folder: Path, target: HubId, private: bool = False) -> str:
    """Upload a bundle as one commit, which replaces an earlier bundle there. Return the commit's hash.

    Makes the repository and the branch if there are none. Files there that no bundle has stay.

    Raises
    ------
    ModelError
        The hub refuses it or does not answer; the repository holds another model; or it is public, but `private`.
    """
    from huggingface_hub import HfApi

    api = HfApi(library_name="moclip", library_version=__version__)
    with report_refusals(f"{target}: cannot push", UPLOAD):
        api.create_repo(target.name, private=private or None, exist_ok=True)
        if private and not api.model_info(target.name).private:
            what = "this repository exists already, and everybody can read it"
            raise ModelError(what, where=str(target), fix="make it private on the hub, or omit --private")
        if target.revision:
            api.create_branch(target.name, branch=target.revision, exist_ok=True)
        present = api.model_info(target.name, revision=target.revision)
        names = {file.rfilename for file in present.siblings or ()}
        if CONFIG in names and MV_TSN not in names:
            what = "this repository holds another model"
            raise ModelError(what, where=str(target), fix="name a new one, or one that `moclip export --push` wrote")
        done = api.create_commit(
            target.name,
            _operations(folder, names),
            commit_message=f"moclip {__version__}: {folder.name}",
            revision=target.revision,
            parent_commit=present.sha,
        )
    return str(done.oid)


def _operations(folder: Path, present: set[str]) -> list[CommitOperationAdd | CommitOperationDelete]:
    """Return what the commit does: add the files of the bundle, and delete those that only an earlier bundle has.

    One commit, not `upload_folder`, which makes several: nobody may load half of each.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    gone = sorted(name for name in present if of_bundle(name) and name not in files)
    return [
        *(CommitOperationDelete(name) for name in gone),
        *(CommitOperationAdd(name, path) for name, path in files.items()),
    ]
