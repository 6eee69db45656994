"""Tests of heldout.models."""
