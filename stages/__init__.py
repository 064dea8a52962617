"""One Typer command per DVC stage, one file each: read parameters and inputs, call `moclip`, write the artifact."""

import importlib.util
import sys

if importlib.util.find_spec("moclip") is None or importlib.util.find_spec("typer") is None:
    # DVC runs `python` from the PATH, which is the system's where no environment is active
    sys.exit(f"error: {sys.executable}: lacks this project's packages\n  run: make setup && source .venv/bin/activate")
