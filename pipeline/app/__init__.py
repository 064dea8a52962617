"""`moclip app`: a local web page to try trained models with."""
