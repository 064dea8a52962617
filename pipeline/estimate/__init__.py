"""What `moclip estimate` measures, and how hours and bytes of a whole run follow from it."""
