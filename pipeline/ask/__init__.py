"""What the commands share that ask the feature store: `similar`, `duplicates`, `suspects` and `label-next`."""
