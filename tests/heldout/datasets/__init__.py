"""Tests of heldout.datasets."""
