"""Look up known vulnerabilities of the locked packages, if a service can be reached: `python -m tests.audit`."""

from __future__ import annotations

import json
import subprocess
import sys

COMMAND = (
    "pip-audit", "--requirement", "requirements.lock", "--no-deps", "--disable-pip", "--format", "json",
    "--progress-spinner", "off", "--timeout", "10",
)  # fmt: skip


def verdict(report: str) -> tuple[int, str]:
    """Return the exit code and the message for pip-audit's report: 1 if it has a vulnerability."""
    try:
        packages = json.loads(report)["dependencies"]
    except ValueError:
        return 0, "no vulnerability service can be reached: nothing was looked up"
    asked = [package for package in packages if "skip_reason" not in package]
    found = [
        f"{package['name']} {package['version']}: {hole['id']}, fixed in {' or '.join(hole['fix_versions']) or 'none'}"
        for package in asked
        for hole in package["vulns"]
    ]
    summary = f"{len(asked)} of {len(packages)} locked packages looked up, {len(found)} known vulnerabilities"
    return min(1, len(found)), "\n".join([summary, *found])


def main() -> None:
    done = subprocess.run(COMMAND, capture_output=True, text=True)
    code, words = verdict(done.stdout)
    print(f"pip-audit: {words}")
    sys.exit(code)


if __name__ == "__main__":
    main()
