"""Worker processes on this machine, and workers on a Ray cluster."""
