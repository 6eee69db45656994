"""Data sets in their stored order, where position is the original index that all scores refer to."""
