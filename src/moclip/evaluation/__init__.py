"""Metrics, plots and what the report page shows."""
