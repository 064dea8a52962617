"""Training MV-TSN and the fusion head."""
