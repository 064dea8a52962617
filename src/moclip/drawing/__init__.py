"""Motion vectors as pictures and animations."""
