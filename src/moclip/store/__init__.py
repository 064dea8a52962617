"""Stored arrays: motion fields in shards, features, and the finished parts of unfinished runs."""
