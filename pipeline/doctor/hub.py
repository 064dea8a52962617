"""Check whether the model hub answers, and where its cache is."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

from pipeline.doctor.finding import PROBLEM, WARNING, Finding
from pipeline.doctor.machine import check_disk, size_text
from pipeline.doctor.versions import first_line

HUB_SECONDS = 3.0
"""How long to wait for the hub's answer."""

WITHOUT_HUB = "models in its cache still work, and those in a folder that clip.model or tsn.pretrained names"


def check_hub() -> list[Finding]:
    """Check whether the model hub answers or is switched off, where its cache is, and how much it holds."""
    try:
        from huggingface_hub import constants
    except ImportError:
        return [Finding("huggingface_hub", "not installed", PROBLEM, "pip install transformers")]
    return [_check_endpoint(constants.ENDPOINT, constants.HF_HUB_OFFLINE), *_check_cache(Path(constants.HF_HUB_CACHE))]


def _check_endpoint(url: str, offline: bool) -> Finding:
    if offline:
        return Finding("hub", f"{url}: not tried, the environment says offline", WARNING, WITHOUT_HUB)
    failures: list[str] = []
    # a name that does not resolve may block a request for longer than its own time limit
    request = threading.Thread(target=lambda: failures.append(_request_failure(url)), daemon=True)
    request.start()
    request.join(HUB_SECONDS)
    failure = failures[0] if failures else f"no answer in {HUB_SECONDS:.0f} s"
    return Finding("hub", url) if not failure else Finding("hub", f"{url}: {failure}", WARNING, WITHOUT_HUB)


def _request_failure(url: str) -> str:
    """Return why the hub did not answer, "" if it did."""
    from huggingface_hub.utils import get_session

    try:
        status = get_session().head(url, timeout=HUB_SECONDS).status_code
    except Exception as problem:  # the type depends on the HTTP library of this version
        return first_line(problem)
    return "" if status < 400 or status in (404, 405) else f"status {status}"  # a mirror may have no page at its root


def _check_cache(folder: Path) -> list[Finding]:
    stored = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    disk = check_disk("hub cache", folder, WARNING)
    return [replace(disk, found=f"{disk.found}, holds {size_text(stored)}")]
