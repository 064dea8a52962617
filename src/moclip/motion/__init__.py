"""From motion vectors to motion fields in the store."""
