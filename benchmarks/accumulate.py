"""What `mv.accumulate: grid` loses against `pixel`, CoViAR's definition, and what either costs, on real clips.

    python benchmarks/accumulate.py CLIP_OR_FOLDER...

Both trace the same vectors back to the I-frame. The grid moves whole cells, from the cell where the centre's content
was, and keeps fractions of a px; pixels move one by one, in whole px as CoViAR has it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from moclip.motion.accumulate import ACCUMULATE
from moclip.motion.windows import motion_fields
from moclip.video.clip_files import find_clips
from moclip.video.vectors import vector_windows

CANVAS, CELL, CLIP = (240, 320), 8, 20.0


def compare(path: Path) -> dict[str, np.ndarray | float]:
    """Fields of one clip by all three manners, px of the canvas, saturated as stored, and the seconds each took."""
    start = time.perf_counter()
    windows = list(vector_windows(path, "pyav"))
    out: dict[str, np.ndarray | float] = {"seconds decode": time.perf_counter() - start}
    for manner in ACCUMULATE:
        start = time.perf_counter()
        fields = np.concatenate([made for made, _ in motion_fields(windows, CANVAS, CELL, manner)])
        out[f"seconds {manner}"] = time.perf_counter() - start
        out[str(manner)] = np.clip(fields, -CLIP, CLIP)
    return out


def main() -> None:
    """Print the loss over all cells of all P- and B-frames, and the times as multiples of decoding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", type=Path)
    clips = find_clips(parser.parse_args().clips)
    found = [compare(path) for path in clips]
    grid, pixel, alone = (
        np.concatenate([np.moveaxis(np.asarray(one[manner]), 1, 0).reshape(2, -1) for one in found], axis=1)
        for manner in ("grid", "pixel", "False")
    )
    gap, length = np.hypot(*(grid - pixel)), np.hypot(*pixel)
    moves = length > 1
    print(f"{len(clips)} clips, {grid.shape[1]} cells; {moves.mean():.3f} of them more than 1 px by the pixel trace")
    print(f"mean displacement since the I-frame: pixel {length.mean():.3f} px, grid {np.hypot(*grid).mean():.3f} px,")
    print(f"  since the last frame {np.hypot(*alone).mean():.3f} px")
    print(f"grid against pixel: mean gap {gap.mean():.3f} px, {gap[moves].mean():.3f} px where more than 1 px")
    print(f"  median {np.median(gap[moves]):.3f}, 90 % below {np.percentile(gap[moves], 90):.3f} px there")
    print(f"  correlation of the numbers {np.corrcoef(grid.reshape(-1), pixel.reshape(-1))[0, 1]:.3f}")
    decode = sum(float(one["seconds decode"]) for one in found)
    for manner in ACCUMULATE:
        print(f"time of {manner}: {sum(float(one[f'seconds {manner}']) for one in found) / decode:.2f} x decoding")


if __name__ == "__main__":
    main()
