"""Frozen encoders of pictures and texts, one family per file; `registry.load_encoder` loads the one that is named."""
