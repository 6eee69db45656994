"""What stored runs predict: models rebuilt from checkpoints, judged again, and held against their records."""
