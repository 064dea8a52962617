"""MoCLIP-Lite: action recognition from motion vectors and a frozen CLIP (arXiv 2509.17084).

The library: arrays and paths in, arrays out. It knows nothing of params.yaml, DVC or the stages.
"""

__version__ = "0.1.0"
