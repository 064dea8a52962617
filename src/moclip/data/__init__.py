"""Choose clips, splits, frames and crops."""
