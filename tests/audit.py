"""Look the locked packages up among known holes, where a service can be reached: `python -m tests.audit`."""

from __future__ import annotations

import json
import subprocess
import sys

COMMAND = (
    "pip-audit", "--requirement", "requirements.lock", "--no-deps", "--disable-pip", "--format", "json",
    "--progress-spinner", "off", "--timeout", "10",
)  # fmt: skip


def verdict(report: str) -> tuple[int, str]:
    """The exit code and the words for what pip-audit wrote: 1 for a known hole, 0 where nobody could be asked."""
    try:
        packages = json.loads(report)["dependencies"]
    except ValueError:
        return 0, "no service that knows of holes can be reached: nothing is looked up"
    asked = [package for package in packages if "skip_reason" not in package]
    holes = [
        f"{package['name']} {package['version']}: {hole['id']}, mended in {' or '.join(hole['fix_versions']) or 'none'}"
        for package in asked
        for hole in package["vulns"]
    ]
    known = f"{len(asked)} of {len(packages)} locked packages looked up, {len(holes)} known holes"
    return min(1, len(holes)), "\n".join([known, *holes])


def main() -> None:
    done = subprocess.run(COMMAND, capture_output=True, text=True)
    code, words = verdict(done.stdout)
    print(f"pip-audit: {words}")
    sys.exit(code)


if __name__ == "__main__":
    main()
