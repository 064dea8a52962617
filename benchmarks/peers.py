"""Measure all parts, and write benchmarks/results.json and docs/performance.md: `make bench`.

    python -m benchmarks.peers [PART...] [--quick] [--out FILE] [--minutes N]
    python -m benchmarks.peers --page

Parts that you do not name keep their figures in the file. A peer that is not installed is left out, with the reason.
`--page` only renders the page from benchmarks/results.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks import page
from benchmarks.common import ROOT, describe_machine
from benchmarks.comparison import peer_versions, run_part
from moclip.files.atomic import write_atomically

PARTS = tuple(page.TITLES)
RESULTS = ROOT / "benchmarks/results.json"
MINUTES = 25.0


def main() -> None:
    """Measure, write, render."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="few clips, one round: only shows that it runs")
    parser.add_argument("--out", type=Path, help="JSON to write (default: benchmarks/results.json; none with --quick)")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"time for all parts, roughly ({MINUTES:g})")
    parser.add_argument("--page", action="store_true", help="render the page from the results, without measuring")
    given = parser.parse_args()
    if given.page:
        write_page(json.loads(RESULTS.read_text(encoding="utf-8")))
        return
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; the parts are {', '.join(PARTS)}")
    out = given.out or (None if given.quick else RESULTS)
    results = measure(given.parts or PARTS, given.quick, given.minutes / MINUTES, out)
    if out == RESULTS and set(results["parts"]) == set(PARTS):
        write_page(results)


def write_page(results: dict[str, Any]) -> None:
    write_atomically(page.PAGE, page.render(results).encode())


def measure(chosen: tuple[str, ...], quick: bool, share: float, out: Path | None) -> dict[str, Any]:
    """Measure parts, and write the file after each one, so that a part that fails does not cost the others."""
    some = set(chosen) != set(PARTS)
    parts = json.loads(out.read_text(encoding="utf-8"))["parts"] if some and out and out.exists() else {}
    results: dict[str, Any] = {"quick": quick, "machine": describe_machine(), "peers": peer_versions()}
    for name in chosen:
        parts[name] = run_part(name, quick, share) | {"measured_separately": some}
        results["parts"] = {name: parts[name] for name in PARTS if name in parts}
        if out is not None:
            write_atomically(out, (json.dumps(results, indent=1) + "\n").encode())
        print("\n\n".join([f"## {page.TITLES[name]}", *page.tables(name, parts[name])]) + "\n", flush=True)
    return results


if __name__ == "__main__":
    main()
