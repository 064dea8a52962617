"""How any stage runs: typed parameters, artifact paths, seeding, progress, writing, presets, the command line.

Every command and stage imports it first, and is refused here on Windows.
"""

import sys

if sys.platform == "win32":
    sys.exit("error: Windows: moclip runs on Linux and macOS\n  run it in WSL, the Windows Subsystem for Linux")
