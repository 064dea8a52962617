"""The fusion heads, one per file. `registry` lists them; `base` has what they share."""
