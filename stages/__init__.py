"""One Typer command per DVC stage, one file each: read parameters and inputs, call `moclip`, write the artifact."""

import gc
import importlib.util
import os
import sys

from pipeline import uncompiled

if importlib.util.find_spec("moclip") is None or importlib.util.find_spec("typer") is None:
    # DVC runs `python` from the PATH, which is the system's where no environment is active
    sys.exit(f"error: {sys.executable}: lacks this project's packages\n  run: make setup && source .venv/bin/activate")

# How long OpenMP's threads spin while they wait; read when torch is first imported, hence here. By default, long: on a
# busy machine they then starve each other (the fusion head trained 15 x slower). Not at all costs an idle one a third.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

# Of several processes that train together, one that ends leaves pages of C++ frames in the others' output, beside the
# one message that tells what went wrong.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

uncompiled.install()

if sys.argv[:1] == [
    "-m"
]:  # a stage is being run: looking for garbage among what it imports takes a quarter of that time
    gc.disable()  # until `pipeline.console.loaded`
