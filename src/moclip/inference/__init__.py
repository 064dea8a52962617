"""Run the trained models: on many clips in parts, or on one clip from its file."""
