"""What `moclip doctor` checks: versions, machine, codecs, the model hub, exactness."""
