"""Turn motion vectors into motion fields in the store."""
