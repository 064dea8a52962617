"""The stages of the DAG, one file each: read parameters and inputs, call `moclip`, write an artifact."""

import importlib.util
import sys

if importlib.util.find_spec("moclip") is None or importlib.util.find_spec("typer") is None:
    # DVC runs `python` from the PATH: the system's, if no environment is active
    sys.exit(f"error: {sys.executable}: lacks this project's packages\n  run: make setup && source .venv/bin/activate")
