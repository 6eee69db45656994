"""Memorization, subset influence and consistency from the run table, with their errors, files and formats."""
