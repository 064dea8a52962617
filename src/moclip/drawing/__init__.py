"""Draw motion vectors as pictures and animations."""
