"""Compute metrics, draw plots, and prepare what the report page shows."""
