"""The networks, their weights and their cost."""
