"""Stage `code`: the digest of each stage's code -> data/code.json.

It has no options and is no command of `moclip`, so that it starts in a tenth of a second.
"""

from __future__ import annotations

from pipeline.code_digests import write_code_digests
from pipeline.console.command import run_guarded

if __name__ == "__main__":
    run_guarded(write_code_digests)
