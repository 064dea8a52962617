"""Bundles in a repository of the model hub: what their ids look like, and how they are downloaded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from moclip.errors import ModelError
from moclip.inference.bundle_files import READ, REQUIRED
from moclip.models.hub_errors import HubRequest, report_refusals
from moclip.version import __version__

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)

DOWNLOAD = HubRequest("the id", "the revision", "run it again when the hub can be reached, or name a local folder")


@dataclass(frozen=True)
class HubId:
    """A repository of the hub, and a branch, tag or commit of it: None is the main branch."""

    name: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}" if self.revision else self.name

    @classmethod
    def parse(cls, text: str) -> HubId | None:
        """Return the parts of "OWNER/NAME" or "OWNER/NAME@REVISION"; None for anything else."""
        name, _, revision = text.partition("@")
        bad = not _NAME.fullmatch(name) or name.endswith((".git", ".", "-")) or "--" in name or ".." in name
        return None if bad or text.endswith("@") else cls(name, revision or None)


def bundle_folder(place: str | Path, revision: str | None = None) -> Path:
    """Return the folder of a bundle: `place` itself, or the hub's cache if it is an id of the hub.

    A local folder of that name comes first. `revision` is a branch, tag or commit of the hub. Raises ModelError.
    """
    folder = Path(place)
    if folder.exists():
        if revision:
            what = "a local folder has no revisions"
            raise ModelError(what, where=folder, fix="omit the revision, or rename the folder to load from the hub")
        return folder
    found = HubId.parse(str(place))
    if found is None:
        if revision or "@" in str(place):
            raise ModelError("not an id of the hub", where=place, fix="name it OWNER/NAME, such as me/gym")
        return folder
    if revision and found.revision:
        raise ModelError("it names a revision twice", where=str(found), fix="omit one")
    return _download(HubId(found.name, revision or found.revision))


def _download(source: HubId) -> Path:
    """Return the folder in the hub's cache, after downloading what is missing there. Raises ModelError."""
    from huggingface_hub import snapshot_download  # not needed for a folder

    with report_refusals(f"{source}: no such folder, and loading it from the hub failed", DOWNLOAD):
        folder = Path(
            snapshot_download(
                source.name,
                revision=source.revision,
                allow_patterns=list(READ),
                library_name="moclip",
                library_version=__version__,
            )
        )
    missing = [name for name in REQUIRED if not (folder / name).is_file()]
    if missing:
        what = f"this repository of the hub holds no bundle of moclip: it has no {', '.join(missing)}"
        raise ModelError(what, where=str(source), fix="name one that `moclip export --push` wrote")
    return folder
