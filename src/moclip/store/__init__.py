"""Arrays at rest: motion fields in shards, features, and parts of unfinished runs."""
