"""How any stage runs: typed parameters, artifact paths, seeding, progress, writing, presets, the command line.

Every command and stage imports it first, and is refused here on Windows.
"""

import os
import sys

if sys.platform == "win32":
    sys.exit("error: Windows: moclip runs on Linux and macOS\n  run it in WSL, the Windows Subsystem for Linux")

# How long OpenMP's threads spin while they wait; read when torch is first imported, hence here. By default, long: on a
# busy machine they then starve each other (the fusion head trained 15 x slower). Not at all costs an idle one a third.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

# Of several processes that train together, one that ends leaves pages of C++ frames in the others' output, beside the
# one message that tells what went wrong.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
