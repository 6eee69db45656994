"""What a run is on disk and in the cloud: layout, records, checkpoints, packed tables, integrity. Knows nothing of training."""
