"""Read compressed video: packets, motion vectors, pictures. Transcode it."""
