"""What a run is on disk and in the cloud: layout, records, checkpoints, packed tables. Knows nothing of training."""
