"""Compressed video: a file's packets, motion vectors and pictures."""
