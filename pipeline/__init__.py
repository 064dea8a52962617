"""How commands and stages run: parameters, artifact paths, inputs, progress, presets, the command line.

Every command imports this package first, so Windows is refused here.
"""

import ctypes
import os
import sys

if sys.platform == "win32":
    sys.exit("error: Windows: moclip runs on Linux and macOS\n  run it in WSL, the Windows Subsystem for Linux")

# How long OpenMP's threads spin while they wait. torch reads this when it is imported, so it must be set before. With
# the default, threads on a busy machine starve each other (the fusion head trained 15 x slower). Without any spinning,
# training on an idle machine takes a third longer.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

# When one of several training processes ends, PyTorch prints pages of C++ frames in the others. They would bury the
# message that says what went wrong.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

# PyTorch asks the C library for the memory of each tensor anew in each step. By default, glibc returns large blocks to
# the kernel, which then clears them again page by page: a sixth of the processor time of a training. So freed memory is
# kept, in blocks of up to 32 MiB, which is glibc's limit, unless glibc's own variables say otherwise.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
if hasattr(_libc := ctypes.CDLL(None), "mallopt"):
    if "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        _libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
    if "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        _libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
