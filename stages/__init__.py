"""One Typer command per DVC stage, one file each: read parameters and inputs, call `moclip`, write the artifact."""

import importlib.util
import os
import sys

if importlib.util.find_spec("moclip") is None or importlib.util.find_spec("pandas") is None:
    # DVC runs `python` from the PATH, which is the system's where no environment is active
    sys.exit(f"error: {sys.executable} lacks this project's packages; run: make setup && source .venv/bin/activate")

# Threads that wait by spinning starve each other on a busy machine: the fusion head then trains 15 x slower.
# Read when torch is first imported, hence here.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
