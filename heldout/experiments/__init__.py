"""What the runs of an experiment share, and how everything about one run follows from its name."""
