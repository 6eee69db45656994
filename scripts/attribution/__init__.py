"""What the attribution programs are made of: where a model and its examples come from, and what becomes of scores.

Here the estimators, which know neither zoos nor files, meet both. Nothing in this package defines flags.
"""
