"""How any stage runs: typed parameters, artifact paths, seeding, progress, writing, presets, the command line."""
