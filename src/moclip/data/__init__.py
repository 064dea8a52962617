"""Which clip, which frame, which crop."""
