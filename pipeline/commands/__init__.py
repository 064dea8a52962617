"""Commands of `moclip` that are no stage of the DAG."""
