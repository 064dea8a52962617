"""Trained models at work: many clips in parts, or one clip from its file."""
