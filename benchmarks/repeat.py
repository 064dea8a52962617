"""Read clips several times with each backend and count how many different answers come.

    python benchmarks/repeat.py CLIP_OR_FOLDER... [--times 5]

A backend that is exact gives one answer a clip. Shows why mvextractor is never used for H.264 with B-frames;
`docs/motion-vectors.md` tells the story.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from moclip.errors import VideoError
from moclip.video.clip_files import find_clips
from moclip.video.probe import probe
from moclip.video.vectors import BACKENDS, has_mvextractor, read_vectors


def answer(path: Path, backend: str) -> tuple[str, int]:
    """Digest of all vectors of a clip, and how many there are."""
    vectors = read_vectors(path, backend)
    digest = hashlib.sha256(vectors.blocks.tobytes() + vectors.frame.tobytes() + vectors.frame_types.tobytes())
    return digest.hexdigest(), len(vectors.blocks)


def main() -> None:
    """Print a line a clip, then how many clips had more than one answer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--times", type=int, default=5)
    given = parser.parse_args()
    clips = find_clips(given.clips)
    backends = [name for name in BACKENDS if name != "mvextractor" or has_mvextractor()]
    unsteady = dict.fromkeys(backends, 0)
    for path in clips:
        try:
            about = probe(path)
        except VideoError as problem:
            print(f"{path.name}: {problem.what}")
            continue
        told = []
        for backend in backends:
            answers = {answer(path, backend) for _ in range(given.times)}
            unsteady[backend] += len(answers) > 1
            counts = sorted({count for _, count in answers})
            told.append(f"{backend} {len(answers)} answers ({counts[0]} to {counts[-1]} vectors)")
        print(f"{path.name} ({about.codec}{', B-frames' if about.has_b else ''}): {'; '.join(told)}")
    for backend, count in unsteady.items():
        print(f"{backend}: more than one answer in {given.times} for {count} of {len(clips)} clips")


if __name__ == "__main__":
    main()
