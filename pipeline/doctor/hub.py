"""Whether the model hub answers, and where its cache is."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass
from pipeline.doctor.codecs import WITHOUT
from pipeline.doctor.finding import PROBLEM, WARNING, Finding
from pipeline.doctor.machine import check_disk, size
from pipeline.doctor.versions import first_line

HUB_SECONDS = 3.0
"""How long the hub has to answer."""


def check_hub() -> list[Finding]:
    """Whether the model hub answers (or is switched off), where its cache is and how much that holds."""
    try:
        from huggingface_hub import constants
    except ImportError:
        return [Finding("huggingface_hub", "not installed", PROBLEM, "pip install transformers")]
    return [_endpoint(constants.ENDPOINT, constants.HF_HUB_OFFLINE), *_cache(Path(constants.HF_HUB_CACHE))]


def _endpoint(url: str, offline: bool) -> Finding:
    if offline:
        return Finding("hub", f"{url}: not asked, the environment says offline", WARNING, WITHOUT)
    said: list[str] = []
    # a name that does not resolve may keep a request for longer than its own time limit
    asking = threading.Thread(target=lambda: said.append(_asked(url)), daemon=True)
    asking.start()
    asking.join(HUB_SECONDS)
    answer = said[0] if said else f"no answer in {HUB_SECONDS:.0f} s"
    return Finding("hub", url) if not answer else Finding("hub", f"{url}: {answer}", WARNING, WITHOUT)


def _asked(url: str) -> str:
    """Empty where the hub answered, else why it did not."""
    from huggingface_hub.utils import get_session

    try:
        status = get_session().head(url, timeout=HUB_SECONDS).status_code
    except Exception as problem:  # of whichever HTTP library this version has
        return first_line(problem)
    return "" if status < 400 or status in (404, 405) else f"status {status}"  # a mirror may have no page at its root


def _cache(folder: Path) -> list[Finding]:
    held = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    space = check_disk("hub cache", folder, WARNING)
    return [replace(space, found=f"{space.found}, holds {size(held)}")]
