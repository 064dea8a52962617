"""docs/performance.md and its pictures, wholly from benchmarks/results.json and the text here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, ROOT
from benchmarks.peers.growth import last_slope, without_start
from moclip.files.atomic import write_atomically

PAGE = ROOT / "docs/performance.md"
PICTURES = ROOT / "docs/performance"
COLOURS = ("#2563c9", "#d98324", "#3f9d6b", "#a3568f", "#8a94a6")
WHOLE = ("ours", "ours (tensorstore)")
"""Contenders that do all that ours does, and not a part of it."""
Row = Mapping[str, Any]
Part = Mapping[str, Any]

INTRO = """# Performance

`make bench` measures everything on this page in one run on one machine and writes the page: each of our parts beside
the other ways there are to do the same. It installs the peers into an environment of their own (`build/bench`); none
is a dependency of the product. `python -m benchmarks.peers extraction --quick` tries one part.

The contenders of a comparison take turns, round after round, so that what disturbs the machine hits all of them, until
the rounds' ratios hold still (their quartiles within 5 % of the median) or the part's time is over. **The figure is the
ratio within one run**: *times* is the median of the rounds' ratios, with its quartiles in brackets. Above 1 ours is
better, and below 1 it is worse: the last column says *slower* or *more* where even the upper quartile is below 1. Rates
and seconds are medians of the rounds; they are this machine's, and noisy.
"""

TITLES = {
    "extraction": "1. Extraction",
    "store": "2. The store",
    "inputs": "3. Input of the model",
    "training": "4. Training, and an experiment on the head",
    "inference": "5. Inference",
    "growth": "6. Growth and starting up",
}

ABOUT = {
    "extraction": """Ours is everything from file to store: MD5, decode, field, compress, write, table. The others stop
at the vectors, and ffmpeg does not even hand them over: it is the floor. First all run inside one process, where ours
and *PyAV none* decode on one core and the others on all; then on two processes (*2 workers*), which ours starts anew
each time and the others keep: there all have the same cores. mvextractor loses vectors on H.264
with B-frames ([motion vectors](motion-vectors.md)): there its speed is that of a wrong answer.""",
    "store": """Every layout is read by tensorstore without a cache, in batches of 240 random fields (what a training
step of 80 clips asks for) and as whole clips of 100 frames.""",
    "inputs": """A video is ready when the augmented pictures of three random frames lie in the device's memory. RGB
decoders hand over other data than motion: they stand here for what a pipeline on pictures would pay.""",
    "training": """One epoch of MV-TSN through `train_mv_tsn`, and through a plain loop as the reference code has it;
then the experiment this project is made for.""",
    "inference": """A clip's file to its label, one clip at a time, models in memory. The three do not give the same
answers: what they cost is all that is compared.""",
    "growth": """Commands as a user runs them, each in a process of its own. An exponent of 1 is linear growth; this one
is that of the last step, to the largest size. *Start taken off* is that of what grows alone: a constant plus a power
of the number of clips, fitted over all sizes; in brackets are the quartiles of the same fit to other draws of the
turns. The sizes take turns too.""",
}

AFTER = {
    "inputs": """The first table says whether training is bound by its input: the time of making a video's input ready
over the time of the network's step on it. Above 1 the network waits.""",
}

TRIED = """## What was tried, and what it gave

* **Backend of the extraction.** mvextractor was the fast path at first. It hands its vectors over as 32-bit integers
  and decodes with threads that cannot be turned off; PyAV's records, taken as they are and cut into columns once for
  many frames, are 1.2 to 1.7 times as quick end to end, and exact on every codec. `auto` is PyAV alone since then.
* **From vectors to fields.** numpy's averaging scatter (`np.add.at`) costs 7 to 16 times as much as assigning each
  block to the cells it covers, over many frames at once, zero vectors left out. Averaging onto the canvas as products
  with a matrix of overlaps is as quick on one thread and ten times as slow on two: threads of two processes wait for
  each other. Blocks that stand still (three quarters of those of a 1080p clip in MPEG-4, nine tenths of UCF-101's
  AVI) are left out while they are still FFmpeg's records; with B-frames, also zeros to the past, but where another
  block of the macroblock has a vector to the future. The axis on which whole cells make one of the canvas is summed
  first, and where no macroblock is divided and the picture is large, each is one cell in place of four. A field of a
  1080p picture takes 0.12 to 0.16 ms in place of 0.37 (MPEG-4), 0.25 in place of 0.82 (H.264 with B), the same bytes.
* **From records to vectors.** The records of a window's frames go straight into one piece of memory, the same for all
  windows, in place of a copy each that are then joined: 0.2 ms less of the 3.3 that a 1080p frame takes to decode in
  MPEG-4, 0.7 of 5 in H.264 with B. Choosing each frame's moving blocks by itself costs small pictures more than it
  saves. Windows of 64 frames in place of 32 take a tenth less time at 320x240, those of 16 a tenth more. Rounding
  fields in place, or in pieces that fit a core's own cache, saves less than a hundredth of a small picture's time.
* **Workers** have the compressor's libraries from their start, by the process that they are forked from: 0.1 s each.
* **Decoding small.** FFmpeg's `lowres=3` makes pictures of an eighth of the size: the same vectors from intact MPEG-4
  at 1.5 to 2 times the frames a second at 720p and 1080p, no more of them at 320x240. But it conceals nothing in a
  damaged frame, whose blocks then keep what an earlier frame left in memory. So it is not used, and those two sizes
  stay behind the floor.
* **Compression.** zstd with Blosc's bit shuffle in front, at level 2, was the first choice. Plain zstd at level 1 takes
  21 to 38 % fewer bytes (a field of UCF-101's AVI 74 in place of 103, of real H.264 314 in place of 397, of the demo
  99 in place of 159), a quarter to a third less time to compress and a quarter less to read, so it is the default
  now. Level 5 saves 4 to 7 % more and takes twice as long; level 3 saves nothing on most clips.
* **Chunks** of 4 frames in place of 16: random reads 1.6 times as quick, 6 to 12 % more bytes. Chunks of 2 in place of
  4 (by hand): random reads 1.1 times as quick and 32 of each clip no quicker, 5 % more bytes of real H.264 and 22 %
  more of UCF-101's AVI, a third more time to compress. So 4 it stays.
* **Reading.** One request a batch, in place of one a field, is the difference between a few thousand and tens of
  thousands of fields a second in tensorstore; the next batch is read while the network works on this one. Other
  numbers of threads for files and copies and files mapped into memory change nothing. Reading chunks by themselves
  in Python (`os.pread`, Arrow's zstd) takes a third less of the processor's time for a field, on one thread; a second
  thread waits for the first, so that it gives no more fields a second.
* **Pictures.** Crop, scale and flip as two batched products with interpolation weights, for the whole batch at once:
  half the time of `grid_sample`, twice that of a plain `interpolate`, which cannot crop each clip by itself.
* **Inference and embedding on a CPU.** MV-TSN sees eight pictures of 224 px at a time (as many pixels of other sizes):
  what a layer hands to the next stays in the processor's cache. 32 segments take 0.34 to 0.47 s in place of 0.68 to
  0.82, and differ in the last bit, if at all. Batch norms folded into the convolutions before them take a fifth of that
  once more, a third where neighbours use up the memory's bandwidth (a clip to its label 1.35 to 1.40 times as quick, in
  one run, by hand); activations within oneDNN's convolutions would take 7 % of the rest, by an operator that PyTorch
  keeps to itself. bfloat16 would take 0.25 s and give other answers; `torch.jit`'s fusion of layers is slower (0.56 s).
* **The head on the CPU.** A step takes 4 to 9 ms, half of it products of 64 x 1792 with 1792 x 512 and their gradients,
  in bfloat16 where the processor multiplies it; AdamW takes a fifth. An experiment of 13,400 such steps took 58 s on
  a processor with bfloat16; one with AVX2 alone needs 23 to 63 s, as its neighbours let it, for the products by
  themselves, and 57 to 138 s for the experiment: they run at what it gives products of any size.
  Stills are pooled once, not in each step (0.3 ms). OpenBLAS and oneDNN multiply no faster here, one flat tensor of
  all weights saves AdamW nothing, and random bits in place of uniform numbers would save dropout 0.2 ms. One thread
  in place of two takes as long. Threads that spin ten times as long while they wait for each other
  (`GOMP_SPINCOUNT=20000`) train a third faster on an idle machine, and three times as slowly beside one other busy
  process, so they do not.
* **Starting up.** No command imports PyTorch's compiler (`torch._dynamo`) unless it compiles (`tsn.compile`), though
  torchvision, timm and transformers take names from it when they are imported, and PyTorch's optimisers when they are
  made: with little to do, and timed by hand, `train_mv` takes 4.5 s in place of 6.8, `embed_mv` 4.3 in place of 7.3,
  `evaluate` 4.2 in place of 5.4. `make bench PART=growth` measures the imports by themselves; transformers brings
  much of the rest of PyTorch, so that CLIP's stages gain least.
  The schema of the parameters is made once, not for each option (0.4 s a command). The
  command line takes the options of the called stage only, from its source, and imports no PyTorch for help. Stages
  look for no garbage among what they import, nor once more when they end: `evaluate` takes 3.2 s of processor time in
  place of 5.1, `clip_image` 4.7 in place of 7.2. DVC reads its YAML with libyaml (`ruamel.yaml.clib`): a small
  `dvc exp run -S fusion.lr=...` takes 11.1 s in place of 12.9, `dvc status` 0.88 in place of 1.13 (by
  hand, on a project of the tests).
"""


# -------------------------------------------------------------------------------------------------------- page


def write(results: Mapping[str, Any]) -> None:
    """Write the page and its pictures."""
    PICTURES.mkdir(exist_ok=True)
    for name, draw in PLOTS.items():
        if name in results["parts"]:
            draw(results["parts"][name], PICTURES / f"{name}.svg")
    write_atomically(PAGE, render(results).encode())


def render(results: Mapping[str, Any]) -> str:
    """The page's text."""
    parts = results["parts"]
    sections = [INTRO.strip(), on_what(results), targets(parts), losses(parts)]
    for name, title in TITLES.items():
        if name in parts:
            sections += section(name, title, parts[name])
    sections += [TRIED.strip(), elsewhere(), set_up(parts), left_out(parts)]
    return "\n\n".join(text for text in sections if text) + "\n"


def on_what(results: Mapping[str, Any]) -> str:
    about = results["machine"]
    libraries = {**about["libraries"], **results["peers"]}
    seconds = sum(part["seconds"] for part in results["parts"].values())
    graphics = about["gpu"] or "no GPU"
    return (
        f"The machine: {about['cores']} cores, {about['memory_gib']:g} GiB, {graphics}, "
        f"{about['system']}, Python {about['python']}, PyAV's FFmpeg {about['ffmpeg of av']}; "
        f"{round(seconds / 60)} minutes. "
        + "Versions: "
        + ", ".join(f"{name} {version}" for name, version in sorted(libraries.items()))
        + "."
        + processors(results["parts"])
        + apart(results["parts"])
        + ("\n\n**A quick run: its figures mean nothing.**" if results["quick"] else "")
    )


def processors(parts: Mapping[str, Part]) -> str:
    """Which processor did what, where a part was measured by itself later."""
    by: dict[str, list[str]] = {}
    for name, title in TITLES.items():
        if name in parts:
            by.setdefault(parts[name].get("processor", "one that was not noted"), []).append(title)
    if len(by) == 1:
        return f" The processor: {next(iter(by))}."
    return " **Not all in one run**: " + "; ".join(f"{', '.join(some)} on {whose}" for whose, some in by.items()) + "."


def apart(parts: Mapping[str, Part]) -> str:
    """Which parts were measured after the whole run, by themselves."""
    later = [title for name, title in TITLES.items() if name in parts and parts[name].get("apart")]
    return f" **Measured again later, without the others**: {', '.join(later)}." if later else ""


def targets(parts: Mapping[str, Part]) -> str:
    rows = [(TITLES[name], row) for name in TITLES if name in parts for row in parts[name]["rows"] if row["target"]]
    met = sum(row["met"] for _, row in rows)
    lines = [f"## Targets\n\n{met} of {len(rows)} are met."]
    missed = [(title, row) for title, row in rows if not row["met"]]
    if missed:
        table = [("part", "what", "beside", "target", "found")]
        table += [(title, row["name"], row["beside"] or "", row["target"], found(row)) for title, row in missed]
        lines.append("Missed:\n\n" + markdown(table))
    return "\n\n".join(lines)


def losses(parts: Mapping[str, Part]) -> str:
    lost: dict[str, list[str]] = {}
    for name in TITLES:
        for row in parts[name]["rows"] if name in parts else ():
            if row["quartiles"] and row["quartiles"][1] < 1:
                lost.setdefault(f"{TITLES[name]}: {row['name']}", []).append(f"{row['beside']} {found(row)}")
    head = "## Where ours is the worse one\n\n"
    if not lost:
        return head + "Nowhere in this run."
    return head + "Times, beside\n\n" + "\n".join(f"* {what}: {'; '.join(whom)}" for what, whom in lost.items())


def section(name: str, title: str, part: Part) -> list[str]:
    texts = [f"## {title}", ABOUT[name]]
    if name in PLOTS:
        texts.append(f"![{title}](performance/{name}.svg)")
    texts += EXTRA.get(name, nothing)(part)
    texts.append(markdown(table_of(part["rows"])))
    if name in AFTER:
        texts.append(AFTER[name])
    return texts


def table_of(rows: Iterable[Row]) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = [("what", "unit", "ours", "beside", "theirs", "times (quartiles)", "rounds", "")]
    for row in rows:
        who = f" *{row['who']}*" if row["who"] not in WHOLE and row["beside"] else ""
        theirs = number(row["theirs"])
        lines.append(
            (
                row["name"], row["unit"], alone(row) + who, row["beside"] or "", theirs,
                found(row) if row["beside"] else "", str(row["rounds"]), verdict(row),
            )
        )  # fmt: skip
    return lines


def found(row: Row) -> str:
    if row["ratio"] is None:
        return f"{alone(row)} {row['unit']}".strip()
    return f"{times(row['ratio'])} {between(row['quartiles'])}".strip()


def alone(row: Row) -> str:
    """Ours, with the quartiles of what it could have been where they are known."""
    return f"{number(row['ours'])} {between(row.get('spread'))}".strip()


def verdict(row: Row) -> str:
    """How ours does, and whether a target is met."""
    words = []
    if row["quartiles"]:
        less, more = ("less", "**more**") if row["unit"] in ("B", "MiB", "G") else ("faster", "**slower**")
        low, high = row["quartiles"]
        words.append(more if high < 1 else less if low > 1 else "even")
    if row["target"]:
        words.append(f"target {row['target']}" + ("" if row["met"] else ": **missed**"))
    return ", ".join(words)


# ------------------------------------------------------------------------------------------------------- extras


def nothing(part: Part) -> list[str]:
    return []


def extraction_extra(part: Part) -> list[str]:
    shares = part["facts"].get("shares", {})
    steps = list(next(iter(shares.values()), {}))
    table = [("share of our time, one process", *steps)]
    table += [(name, *(percent(one[step]) for step in steps)) for name, one in shares.items()]
    return [markdown(table), f"Clips: {part['facts']['contents']}."]


def store_extra(part: Part) -> list[str]:
    facts = part["facts"]
    table = [("codec, frames a chunk", "B a field", "compressed", "random fields/s", "beside the chosen one",
              "fields/s, whole clips", "fields/s written")]  # fmt: skip
    for name, one in facts["layouts"].items():
        shown = f"{times(one['ratio'])} {between([one['low'], one['high']])}"
        mark = "**" if name == facts["chosen"] else ""
        table.append(
            (
                f"{mark}{name}{mark}", number(one["bytes"]), f"{times(facts['field_bytes'] / one['bytes'])} x",
                number(one["random"]), shown, number(one["clips"]), number(one["write"]),
            )
        )  # fmt: skip
    text = (
        f"{facts['fields']:,} fields of {facts['contents']}, {facts['field_bytes']:,} B each; {facts['layout rounds']} "
        "rounds. *Beside the chosen one*: above 1, the chosen one (bold) reads so many times as quickly."
    )
    return [text, markdown(table), reasons(facts)]


def reasons(facts: Mapping[str, Any]) -> str:
    """Why the chosen layout is the chosen one, or which ones are better than it, from the figures."""
    layouts = facts["layouts"]
    chosen = layouts[facts["chosen"]]
    codec, chunk = facts["chosen"].rsplit(", ", 1)

    def beside(name: str) -> str:
        one = layouts[name]
        read = one["random"] / chosen["random"]
        return f"{times(read)} times the random reads at {times(one['bytes'] / chosen['bytes'])} times the bytes"

    better = [
        name for name, one in layouts.items()
        if one["high"] < 1 and one["bytes"] < chosen["bytes"] and one["clips"] >= 0.95 * chosen["clips"]
    ]  # fmt: skip
    texts = [
        f"**The chosen one** is {codec} with {chunk} frames a chunk. Training reads single fields from random places, "
        "so what counts is how much must be decoded for one; but every chunk has a checksum and 16 bytes of index of "
        "its own, and neighbouring fields help each other to compress: single frames take more room, and whole clips "
        "of them are slower to read."
    ]
    others = {
        "Its chunks of 16 frames": f"{codec}, 16",
        "Its single frames": f"{codec}, 1",
        "No compression": f"none, {chunk}",
        "LZ4": f"blosc-lz4 bitshuffle, {chunk}",
    }
    texts += [
        f"{what}: {beside(name)}." for what, name in others.items() if name in layouts and name != facts["chosen"]
    ]
    if better:
        texts.append(
            "**Better than it on every count** (bytes, random reads, whole clips) here: "
            + "; ".join(f"{name} ({beside(name)})" for name in better)
            + "."
        )
    else:
        texts.append("No other layout is smaller and reads quicker.")
    return " ".join(texts)


def inputs_extra(part: Part) -> list[str]:
    bound = part["facts"]["input's share of a training step"]
    names = list(dict.fromkeys(name for one in bound.values() for name in one))
    table = [("input's time over the training step's", *bound)]
    table += [(name, *(number(one[name]) if name in one else "" for one in bound.values())) for name in names]
    return [markdown(table)]


def training_extra(part: Part) -> list[str]:
    stages = part["facts"].get("stages of the experiment", {})
    spent = ", ".join(f"{name} {number(seconds)} s" for name, seconds in stages.items())
    return [f"The stages within the experiment on the head: {spent}; the rest is DVC and starting up."] if spent else []


def inference_extra(part: Part) -> list[str]:
    facts = part["facts"]
    texts = [f"{facts['clips']['clips']} clips of {facts['clips']['frames']:.0f} frames on average."]
    if "shares" in facts:
        parts = ", ".join(f"{name} {percent(share)}" for name, share in facts["shares"].items())
        texts.append(f"Ours, by part: {parts}.")
    if "cost" in facts:
        table = [("", "parameters, million", "multiply-adds a clip, G")]
        table += [
            (name, number(one["parameters"] / 1e6), number(one["multiply_adds"] / 1e9))
            for name, one in facts["cost"].items()
        ]
        texts.append(markdown(table))
    return texts


def growth_extra(part: Part) -> list[str]:
    growth = part["facts"]["growth"]
    sizes = next(iter(growth.values()))["clips"]
    head = ("exponent of time", "start taken off", "exponent of memory")
    table = [("command", *(f"{size:,} clips" for size in sizes), *head)]
    for name, one in growth.items():
        cells = [f"{number(s)} s, {number(m)} MiB" for s, m in zip(one["seconds"], one["MiB"], strict=True)]
        exponents = (
            last_slope(sizes, one["seconds"]), without_start(sizes, one["seconds"]), last_slope(sizes, one["MiB"]),
        )  # fmt: skip
        table.append((name, *cells, *(f"{value:.2f}" for value in exponents)))
    return [markdown(table)]


EXTRA: dict[str, Callable[[Part], list[str]]] = {
    "extraction": extraction_extra,
    "store": store_extra,
    "inputs": inputs_extra,
    "training": training_extra,
    "inference": inference_extra,
    "growth": growth_extra,
}


def set_up(parts: Mapping[str, Part]) -> str:
    lines = ["## How each was set up"]
    for name, title in TITLES.items():
        if name in parts:
            lines.append(f"**{title}**")
            lines.append("\n".join(f"* {who}: {how}" for who, how in sorted(parts[name]["setup"].items())))
    return "\n\n".join(lines)


def left_out(parts: Mapping[str, Part]) -> str:
    lines = [
        f"* {TITLES[name]}: {one['name']}: {one['reason']}" for name, part in parts.items() for one in part["left_out"]
    ]
    return "## Left out\n\n" + ("\n".join(lines) if lines else "Nothing: every peer ran.")


def elsewhere() -> str:
    """What the other benchmarks found, from their own files."""
    table = [("what", "command", "figure")]
    for file, name, what in (
        ("extract", "peak memory, 10 min of 1080p with B-frames", "peak memory of extraction, 10 min of 1080p"),
        ("extract", "real H.264 with B: 2 workers / 1, start-up included", "a second worker on real clips, times"),
        ("read", "13,320 clips: files in the store", "a store of UCF-101's size: files"),
        ("read", "13,320 clips: dvc status, nothing changed", "its `dvc status`"),
        ("read", "13,320 clips: opening and a first batch", "opening it, and a first batch"),
        ("head", "dvc exp run -S fusion.lr=1e-4, 100 epochs", "an experiment on the head"),
        ("predict", "fight_surv (H.264), last models: clip to class / bare work", "a clip to its class, demo's models"),
    ):
        path = RESULTS / f"{file}.json"
        if not path.exists():
            continue
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        for row in rows:
            if row["name"] == name:
                figure = number(row["ratio"]) if "times" in what else f"{number(row['ours'])} {row['unit']}"
                table.append((what, f"`make bench-{file}`", figure))
    table += [
        ("the demo on a bare machine, once the packages are there", "`make demo`", "1 min 55 s"),
        ("150 real surveillance clips, end to end", "`moclip use folder`, `dvc repro`", "1 min 31 s"),
    ]
    return "## Measured by other commands\n\n" + markdown(table)


# ------------------------------------------------------------------------------------------------------ numbers


def markdown(table: Sequence[Sequence[str]]) -> str:
    head, *rows = ("| " + " | ".join(cells) + " |" for cells in table)
    return "\n".join([head, "|" + "---|" * len(table[0]), *rows])


def number(value: float | None) -> str:
    """Three digits, but large numbers whole: 0.993, 17.3, 1,730."""
    if value is None:
        return ""
    short = float(f"{value:.3g}")
    return f"{short:,.0f}" if abs(short) >= 100 else f"{short:g}"


def times(value: float) -> str:
    return f"{value:.2f}" if 0.1 <= value < 10 else number(value)


def between(pair: Sequence[float] | None) -> str:
    if pair is None or pair[0] == pair[1]:
        return ""
    return f"({times(pair[0])}–{times(pair[1])})"


def percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.095 else f"{100 * share:.1f} %"


# ----------------------------------------------------------------------------------------------------- pictures


def figure(size: tuple[float, float]) -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "moclip", "font.size": 9}
    return pyplot.subplots(figsize=size, layout="constrained")


def save(drawn: Any, path: Path) -> None:
    from matplotlib import pyplot

    metadata = {"Date": None} if path.suffix == ".svg" else None
    drawn.savefig(path, metadata=metadata, dpi=90)
    pyplot.close(drawn)


def ratios(rows: Sequence[Row], path: Path, label: str) -> None:
    """A bar for each ratio, with its quartiles, grouped by name; a line at 1."""
    names = list(dict.fromkeys(row["name"] for row in rows))
    drawn, axes = figure((8, 1.2 + 0.19 * len(rows) + 0.12 * len(names)))
    whos = list(dict.fromkeys(row["beside"] for row in rows))
    palette = [*COLOURS, "#5b5b5b", "#c9a227", "#7fb3d5"]
    places, ticks, place, shown = [], [], 0.0, set()
    for name in names:
        own = [row for row in rows if row["name"] == name]
        start = place
        for row in own:
            low, high = row["quartiles"]
            colour = palette[whos.index(row["beside"]) % len(palette)]
            label_ = None if row["beside"] in shown else row["beside"]
            shown.add(row["beside"])
            axes.barh(place, row["ratio"], color=colour, height=0.85, label=label_)
            axes.plot([low, high], [place, place], color="black", linewidth=1)
            place += 1
        places.append((start + place - 1) / 2)
        ticks.append(name)
        place += 0.7
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(places, ticks)
    axes.set_ylim(place, -1)
    if max(row["ratio"] for row in rows) > 20:
        axes.set_xscale("log")
    axes.set_xlabel(label)
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, 1.0 + 0.9 / drawn.get_figheight()), ncols=4, frameon=False)
    save(drawn, path)


def beside_peers(label: str) -> Callable[[Part, Path], None]:
    def draw(part: Part, path: Path) -> None:
        rows = [row for row in part["rows"] if row["quartiles"] and row["who"] in WHOLE]
        if rows:
            ratios(rows, path, label)

    return draw


def draw_store(part: Part, path: Path) -> None:
    """Bytes a field against random reads, a line a codec, a point a chunking."""
    layouts = part["facts"]["layouts"]
    drawn, axes = figure((7, 4.2))
    codecs = list(dict.fromkeys(name.rsplit(", ", 1)[0] for name in layouts))
    best = part["facts"]["chosen"].rsplit(", ", 1)
    for colour, codec in zip(COLOURS, codecs, strict=False):
        own = [(name.rsplit(", ", 1)[1], one) for name, one in layouts.items() if name.rsplit(", ", 1)[0] == codec]
        axes.plot([o["bytes"] for _, o in own], [o["random"] for _, o in own], "o-", color=colour, label=codec)
        side, shift = ("right", -6) if codec == best[0] else ("left", 6)  # two of the codecs lie side by side
        for chunk, one in own:
            chosen = [codec, chunk] == best
            axes.annotate(
                f"{'chosen: ' if chosen else ''}{chunk}", (one["bytes"], one["random"]), textcoords="offset points",
                xytext=(shift, 0), ha=side, va="center", fontsize=8, fontweight="bold" if chosen else "normal",
            )  # fmt: skip
    axes.set_xscale("log")
    sizes = [one["bytes"] for one in layouts.values()]
    axes.set_xticks([100, 200, 400, 600, 800, 1_200, 1_600, 2_400])
    axes.set_xlim(0.75 * min(sizes), 1.15 * max(sizes))  # room for what is written beside the points
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.minorticks_off()
    axes.set_ylim(0)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("bytes a field (of 2,400)")
    axes.set_ylabel("random fields/s")
    axes.legend(title="codec; at the points: frames a chunk", frameon=False)
    save(drawn, path)


def draw_growth(part: Part, path: Path) -> None:
    """Seconds over clips."""
    drawn, axes = figure((7, 4.2))
    for number_, (name, one) in enumerate(part["facts"]["growth"].items()):
        colour = (*COLOURS, "#5b5b5b", "#c9a227")[number_]
        axes.plot(one["clips"], one["seconds"], "o-", color=colour, label=name)
    first = next(iter(part["facts"]["growth"].values()))
    ends = [first["clips"][-2], first["clips"][-1]]
    axes.plot(
        ends, [first["seconds"][-2], first["seconds"][-2] * ends[1] / ends[0]], ":", color="black", label="linear"
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("clips")
    axes.set_ylabel("s")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save(drawn, path)


PLOTS: dict[str, Callable[[Part, Path], None]] = {
    "extraction": beside_peers("times as quick as the peer (1: even)"),
    "store": draw_store,
    "inputs": beside_peers("times as many videos a second as the peer"),
    "inference": beside_peers("times as quick, small or light as the peer"),
    "growth": draw_growth,
}
