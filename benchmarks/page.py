"""Render docs/performance.md from benchmarks/results.json and the texts in benchmarks/texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.common import ROOT

PAGE = ROOT / "docs/performance.md"
WHOLE = ("ours", "ours (tensorstore)")
"""Names under "ours" that the tables do not repeat in each row."""
Row = Mapping[str, Any]
Part = Mapping[str, Any]

TITLES = {
    "extract": "1. Extraction",
    "read": "2. Reading the store",
    "train": "3. Training MV-TSN",
    "head": "4. An experiment on the head",
    "predict": "5. Prediction",
    "growth": "6. Growth",
}


# -------------------------------------------------------------------------------------------------------- page


def render(results: Mapping[str, Any]) -> str:
    """Return the page's text."""
    parts = {name: results["parts"][name] for name in TITLES if name in results["parts"]}
    texts = [_text("intro"), about(results), targets(parts), losses(parts)]
    for name, part in parts.items():
        texts += [f"## {TITLES[name]}", _text(name)]
        texts += tables(name, part)
    texts += [_text("tried"), set_up(parts)]
    return "\n\n".join(text for text in texts if text) + "\n"


def _text(name: str) -> str:
    return (ROOT / f"benchmarks/texts/{name}.md").read_text(encoding="utf-8").strip()


def about(results: Mapping[str, Any]) -> str:
    """Describe the machine and the versions, and name the parts that were measured in later runs."""
    machine, parts = results["machine"], results["parts"]
    minutes = round(sum(part["seconds"] for part in parts.values()) / 60)
    processors = {part.get("processor", "unknown") for part in parts.values()}
    libraries = sorted({**machine["libraries"], **results["peers"]}.items())
    later = [TITLES[name] for name, part in parts.items() if part.get("measured_separately")]
    texts = [
        f"The machine: {', '.join(sorted(processors))}, {machine['cores']} cores, {machine['memory_gib']:g} GiB, "
        f"{machine['gpu'] or 'no GPU'}, {machine['system']}, Python {machine['python']}, PyAV's FFmpeg "
        f"{machine['ffmpeg of av']}; {minutes} minutes.",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in libraries) + ".",
        f"**Measured again in later runs**: {', '.join(later)}." if later else "",
        "**A quick run: its figures mean nothing.**" if results["quick"] else "",
    ]
    return " ".join(text for text in texts if text)


def targets(parts: Mapping[str, Part]) -> str:
    rows = [(TITLES[name], row) for name, part in parts.items() for row in part["rows"] if row["target"]]
    missed = [(title, row) for title, row in rows if not row["met"]]
    text = f"{len(rows) - len(missed)} of {len(rows)} targets are met."
    if not missed:
        return text
    table = [("part", "what", "compared with", "target", "found")]
    table += [(title, row["name"], row["peer"] or "", row["target"], found(row)) for title, row in missed]
    return text + " Missed:\n\n" + markdown(table)


def losses(parts: Mapping[str, Part]) -> str:
    """Return the table of all comparisons in which ours is worse."""
    lost: dict[tuple[str, str], list[str]] = {}
    for name, part in parts.items():
        for row in part["rows"]:
            if is_loss(row):
                lost.setdefault((TITLES[name], row["name"]), []).append(f"{row['peer']} {times(row['ratio'])}")
    head = "## Where MoCLIP-Lite is slower or larger\n\n"
    if not lost:
        return head + "Nowhere in this run."
    return head + markdown([("part", "what", "ratio to"), *((*what, "; ".join(whom)) for what, whom in lost.items())])


def tables(name: str, part: Part) -> list[str]:
    """Return the texts of a part: its facts, a table of ratios with a line per subject, and single figures."""
    texts = FACTS[name](part) if name in FACTS else []
    pairs: dict[tuple[str, str, str], list[Row]] = {}
    for row in part["rows"]:
        if row["peer"]:
            pairs.setdefault((row["name"], row["unit"], row["who"]), []).append(row)
    if pairs:
        peers = list(dict.fromkeys(row["peer"] for rows in pairs.values() for row in rows))
        table: list[Sequence[str]] = [("ratio to", "ours", *peers)]
        for (what, unit, who), rows in pairs.items():
            cells = {row["peer"]: found(row) for row in rows}
            ours = f"{number(rows[0]['ours'])} {unit}" + ("" if who in WHOLE else f" ({who})")
            table.append((what, ours, *(cells.get(peer, "") for peer in peers)))
        texts.append(markdown(table))
    if single := [figure(row) for row in part["rows"] if not row["peer"]]:
        texts.append(f"Figures: {'; '.join(single)}.")
    return texts


def figure(row: Row) -> str:
    """Describe a row that compares with nothing."""
    missed = "**missed** " if row["met"] is False else ""
    aim = f" ({missed}target {row['target']})" if row["target"] else ""
    return f"{row['name']} = {number(row['ours'])} {row['unit']}".strip() + aim


def is_loss(row: Row) -> bool:
    """Return whether the upper quartile of a ratio is below 1, by more than rounding."""
    return bool(row["quartiles"]) and row["quartiles"][1] < 0.995


def found(row: Row) -> str:
    """Return a row's ratio with its quartiles, bold if ours is worse, or its figure if it has no ratio."""
    if row["ratio"] is None:
        return f"{number(row['ours'])} {row['unit']}".strip()
    mark = "**" if is_loss(row) else ""
    return f"{mark}{times(row['ratio'])}{mark} {between(row['quartiles'])}".strip()


# ------------------------------------------------------------------------------------------------- facts of a part


def extract_facts(part: Part) -> list[str]:
    shares = list(part["facts"]["shares"].values())
    ranges = []
    for step in shares[0]:
        least, most = min(one[step] for one in shares), max(one[step] for one in shares)
        ranges.append(f"{step} {percent(least)}" + (f" to {percent(most)}" if least < most else ""))
    text = f"Clips: {part['facts']['contents']}. Of our time in one process, the steps take over all these clips"
    return [f"{text}: {'; '.join(ranges)}."]


def read_facts(part: Part) -> list[str]:
    facts = part["facts"]
    return [f"{facts['fields']:,} fields of {facts['contents']}, {facts['field_bytes']:,} B each."]


def train_facts(part: Part) -> list[str]:
    bound = part["facts"]["input's share of a training step"]
    texts = [f"{title}: " + ", ".join(f"{name} {number(one[name])}" for name in one) for title, one in bound.items()]
    return [f"Time of the input over that of the training step (above 1, the network waits): {'; '.join(texts)}."]


def head_facts(part: Part) -> list[str]:
    spent = ", ".join(f"{name} {number(seconds)} s" for name, seconds in part["facts"]["stages"].items())
    return [f"Its stages take {spent}; the rest is DVC and start-up."] if spent else []


def predict_facts(part: Part) -> list[str]:
    facts = part["facts"]
    shares = ", ".join(f"{name} {percent(share)}" for name, share in facts["shares"].items())
    texts = [
        f"{facts['clips']['clips']} clips of {facts['clips']['frames']:.0f} frames on average. Of our time, {shares}."
    ]
    if "cost" in facts:
        costs = [
            f"{name} {number(one['parameters'] / 1e6)} million, {number(one['multiply_adds'] / 1e9)} G"
            for name, one in facts["cost"].items()
        ]
        texts.append(f"Parameters, and multiply-adds per clip: {'; '.join(costs)}.")
    return texts


def growth_facts(part: Part) -> list[str]:
    growth = part["facts"]["growth"]
    sizes = next(iter(growth.values()))["clips"]
    table = [("command", *(f"{size:,} clips" for size in sizes))]
    for name, one in growth.items():
        cells = [f"{number(s)} s, {number(m)} MiB" for s, m in zip(one["seconds"], one["MiB"], strict=True)]
        table.append((name, *cells))
    return [markdown(table)]


FACTS: dict[str, Callable[[Part], list[str]]] = {
    "extract": extract_facts,
    "read": read_facts,
    "train": train_facts,
    "head": head_facts,
    "predict": predict_facts,
    "growth": growth_facts,
}


def set_up(parts: Mapping[str, Part]) -> str:
    table = [("part", "contender", "set up as")]
    table += [(TITLES[name], who, how) for name, part in parts.items() for who, how in part["setup"].items()]
    missing = [f"{one['name']}: {one['reason']}" for part in parts.values() for one in part["left_out"]]
    left_out = "\n".join(f"* {text}" for text in missing) or "nothing, every peer ran."
    return "\n\n".join(("## How each was set up", markdown(table), f"Left out: {left_out}"))


# ------------------------------------------------------------------------------------------------------ numbers


def markdown(table: Iterable[Sequence[str]]) -> str:
    head, *rows = table
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def number(value: float) -> str:
    """Format a number with three digits, but large numbers as whole ones: 0.993, 17.3, 1,730."""
    short = float(f"{value:.3g}")
    return f"{short:,.0f}" if abs(short) >= 100 else f"{short:g}"


def times(ratio: float) -> str:
    return f"{ratio:.2f}" if 0.1 <= ratio < 10 else number(ratio)


def between(pair: Sequence[float]) -> str:
    """Return the quartiles of a ratio, in brackets."""
    return "" if pair[0] == pair[1] else f"({times(pair[0])}–{times(pair[1])})"


def percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.095 else f"{100 * share:.1f} %"
