"""Run every part beside its peers, write the results and render the page: `make bench`.

    python -m benchmarks.peers [PART...] [--quick] [--out FILE] [--minutes N]
    python -m benchmarks.peers render

Parts: extraction, store, inputs, training, inference, growth. All contenders of a comparison take turns within one
run, round after round, until the ratio holds still or the part's time is over; a figure is the median of the rounds'
ratios with its quartiles. A part that is not asked for keeps what the file says of it. `render` writes
docs/performance.md and its pictures from the file. A peer that is missing is left out, with the reason.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, machine, processor, say
from benchmarks.peers import page
from benchmarks.peers.core import Part, versions
from moclip.files.atomic import write_atomically
from pipeline.console.output import print_note, print_table

PARTS = ("extraction", "store", "inputs", "training", "inference", "growth")
OUT = ROOT / "benchmarks/results.json"
MINUTES = 25.0


def main() -> None:
    """Measure, write, render."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="few clips, once each: does it run?")
    parser.add_argument("--out", type=Path, help=f"JSON to write (default: {OUT.relative_to(ROOT)}; none with --quick)")
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help=f"about how long all parts may take ({MINUTES:g})"
    )
    given = parser.parse_args()
    out = given.out or (None if given.quick else OUT)
    if given.parts == ["render"]:
        page.write(json.loads(OUT.read_text(encoding="utf-8")))
        return
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    chosen = [name for name in PARTS if name in (given.parts or PARTS)]
    kept = json.loads(out.read_text(encoding="utf-8")) if out and out.exists() and len(chosen) < len(PARTS) else {}
    parts: dict[str, Any] = kept.get("parts", {})
    for name in chosen:
        parts[name] = measured(name, given.quick, given.minutes / MINUTES) | {"apart": len(chosen) < len(PARTS)}
        results = {
            "quick": given.quick,
            "machine": machine() | {"memory_gib": memory(), "gpu": gpu()},
            "peers": versions(),
            "parts": {name: parts[name] for name in PARTS if name in parts},
        }
        if out is not None:  # what is measured stays, whatever becomes of the next part
            write_atomically(out, (json.dumps(results, indent=1) + "\n").encode())
    for name in chosen:
        show(name, parts[name])
    if out == OUT and set(parts) == set(PARTS):
        page.write(results)


def measured(name: str, quick: bool, share: float) -> dict[str, Any]:
    """One part, in a folder of its own."""
    say(f"--- {name}")
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix=f"bench-{name}-") as folder:
        part = Part(quick, share, Path(folder))
        importlib.import_module(f"benchmarks.peers.{name}").measure(part)
    seconds = round(time.perf_counter() - begun)
    say(f"--- {name}: {seconds} s")
    return {
        "rows": part.rows, "left_out": part.left_out, "setup": part.setup, "facts": part.facts, "seconds": seconds,
        "processor": processor(),
    }  # fmt: skip


def show(name: str, part: dict[str, Any]) -> None:
    print_table(
        name,
        ("", "beside", "unit", "ours", "theirs", "times", "quartiles", "target", "met"),
        [
            (
                row["name"],
                row["beside"] or "",
                row["unit"],
                page.number(row["ours"]),
                page.number(row["theirs"]),
                page.number(row["ratio"]),
                page.between(row["quartiles"]),
                row["target"] or "",
                {True: "yes", False: "NO", None: ""}[row["met"]],
            )
            for row in part["rows"]
        ],
    )
    for one in part["left_out"]:
        print_note(f"left out: {one['name']}: {one['reason']}")


def memory() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def gpu() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


if __name__ == "__main__":
    main()
